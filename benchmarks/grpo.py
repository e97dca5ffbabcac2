"""
Steps of GRPO: with the media of a prompt encoded once, once in each pass, and for each completion in each pass.

Run in TRL's environment, `make bench-grpo`. A step samples completions, scores them by the reference and the new
policy, and updates the weights. `--size` makes a model of random weights on the device, in the place of nano:

    python -m benchmarks.grpo --size 1b --device cuda --seconds 30 --output grpo-1b.json
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor, TrainerCallback
from transformers.utils import logging

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration
from transformers_omnivinci.reinforcement.grpo_command import grpo_arguments
from transformers_omnivinci.reinforcement.grpo_trainer import OmniVinciGRPOTrainer
from transformers_omnivinci.reinforcement.held_prompts import HeldPrompt, encode
from transformers_omnivinci.reinforcement.problems import read_problems
from transformers_omnivinci.training.command import ADAPTED_LAYERS
from transformers_omnivinci.training.recipes import Recipe

from ._harness import MB, PeakMemory, Report, parser_on_device, synchronize
from .serve_gpu import write_checkpoint
from .sessions import render

NOTE = (
    "Seconds of a whole step: one prompt about a video with sound, its completions of a fixed length, a reference, "
    "and an update of the language model, which is in float32, with `--dtype bfloat16` under autocast, with gradient "
    "checkpointing, and with what is frozen in bfloat16. Ways take turns in one run, and the first round does not "
    "count. Where media are encoded for each completion, each "
    "completion reads a prompt of its own, too; else it is read once in each pass."
)
EACH, PASS, ONCE = "for each completion, in each pass", "once in each pass", "once"
WAYS = (EACH, PASS, ONCE)
SIZES = {
    "toy": {
        "text_config": {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256},
        "vision_config": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
        "audio_config": {"d_model": 64, "encoder_layers": 1, "encoder_ffn_dim": 128},
        "heads": 4,
    },
    "1b": {
        "text_config": {"hidden_size": 1280, "num_hidden_layers": 28, "intermediate_size": 4864},
        "vision_config": {"num_hidden_layers": 14},
        "audio_config": {"encoder_layers": 16},
        "heads": 20,
    },
    "9b": {},
}
"""
What is different from the 9B model. That of about 1B has half of the layers of SigLIP so400m and of the encoder of
Whisper large, at their full width.
"""


def write_random(folder: Path, size: str) -> Path:
    """A config of a size and a processor with nano's tokenizer."""
    changed = {name: dict(part) for name, part in SIZES[size].items() if name != "heads"}
    if size != "9b":
        heads, vocab_size = SIZES[size]["heads"], OmniVinciConfig.from_pretrained(NANO).text_config.vocab_size
        changed["text_config"] |= {"num_attention_heads": heads, "num_key_value_heads": 4, "vocab_size": vocab_size}
        changed["text_config"]["layer_types"] = ["full_attention"] * changed["text_config"]["num_hidden_layers"]
    if size == "toy":
        changed["vision_config"]["num_attention_heads"] = changed["audio_config"]["encoder_attention_heads"] = 4
    write_checkpoint(folder, **changed)
    return folder


def make_model(arguments: argparse.Namespace, folder: Path) -> OmniVinciForConditionalGeneration:
    """Nano, or random weights; the language model in float32, what is frozen in bfloat16 under mixed precision."""
    if arguments.size is None:
        network = AutoModel.from_pretrained(arguments.model, dtype=torch.float32)
    else:
        config = OmniVinciConfig.from_pretrained(folder)
        torch.manual_seed(0)
        with torch.device(arguments.device):
            network = AutoModel.from_config(config, dtype=getattr(torch, arguments.dtype))
        if not arguments.lora and not any(folder.glob("*.safetensors")):
            network.save_pretrained(folder)  # from where TRL reads the reference
        network.config.name_or_path = str(folder)
    recipe = Recipe("grpo", "section 4.3", ("language_model",))
    recipe.freeze(network)
    if not arguments.lora:
        for module in recipe.trained_modules(network).values():
            module.float()
    return network


class InTurns(TrainerCallback):
    """Times the steps of a trainer, in each of which media are encoded in another way, until a time is over."""

    def __init__(self, ways: Iterable[str], seconds: float | None, device: str):
        self.ways, self.seconds, self.device = tuple(ways), seconds, device
        self.trainer: OmniVinciGRPOTrainer | None = None
        self.steps: dict[str, list[float]] = {way: [] for way in self.ways}
        self.peak = dict.fromkeys(self.ways, 0)

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()

    def on_step_begin(self, args, state, control, **kwargs):
        self.way = self.ways[state.global_step % len(self.ways)]
        self.trainer.share_media, self.trainer.encodes_once = self.way != EACH, self.way == ONCE
        self.memory = PeakMemory(self.device).__enter__()
        synchronize()
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        synchronize()
        self.steps[self.way].append(time.perf_counter() - self.start)
        self.memory.__exit__()
        self.peak[self.way] = max(self.peak[self.way], self.memory.bytes)
        print(f"{self.way}: {self.steps[self.way][-1]:.2f} s", flush=True)
        passed = time.perf_counter() - self.begun
        whole_round = self.way == self.ways[-1]
        enough = self.seconds is not None and passed > self.seconds and len(self.steps[self.way]) > 2
        control.should_training_stop |= whole_round and enough


def make_trainer(network, processor, data: Path, folder: Path, frames: int, arguments) -> OmniVinciGRPOTrainer:
    """A trainer whose steps are timed in turns."""
    mixed = arguments.dtype == "bfloat16"
    words = {
        "max-steps": len(arguments.ways) * (arguments.repeats + 1),
        "per-device-train-batch-size": arguments.completions,
        "num-generations": arguments.completions,
        "gradient-accumulation-steps": 1,
        "max-completion-length": arguments.length,
        "save-strategy": "no",
        "report-to": "none",
        "log-completions": False,
        "generation-kwargs": json.dumps({"min_new_tokens": arguments.length}),
        "logging-strategy": "no",
        "use-cpu": arguments.device == "cpu",
        "gradient-checkpointing": mixed,
        "bf16": mixed,
    }
    options = grpo_arguments(folder, [str(word) for name, value in words.items() for word in (f"--{name}", value)])
    peft_config = None
    if arguments.lora:
        from peft import LoraConfig

        peft_config = LoraConfig(r=16, lora_alpha=32, target_modules=ADAPTED_LAYERS)
    turns = InTurns(arguments.ways, arguments.seconds, arguments.device)
    trainer = OmniVinciGRPOTrainer(
        network,
        read_problems(data),
        options,
        processor,
        media_options={"load_audio_from_video": True, "num_frames": frames},
        peft_config=peft_config,
        callbacks=[turns],
    )
    turns.trainer = trainer
    return trainer


def measure_parts(trainer: OmniVinciGRPOTrainer) -> dict[str, float]:
    """Seconds of what the ways repeat, or do not."""
    problem = next(iter(trainer.problems.values()))
    seconds = {}
    for _ in range(2):  # the first one warms up
        begun = time.perf_counter()
        prompt = HeldPrompt.of(trainer.processing_class, problem.messages, **trainer.media_options)
        read = time.perf_counter()
        with torch.no_grad(), trainer.accelerator.autocast():
            encode(_inner(trainer.model), [prompt])
        synchronize()
        seconds = {"decode": read - begun, "encode": time.perf_counter() - read, "positions": len(prompt.input_ids)}
    return seconds


def _inner(model):
    base = next(part for part in model.modules() if isinstance(part, OmniVinciForConditionalGeneration))
    return base.model


def measure(network, processor, frames: int, seconds: float, folder: Path, arguments) -> tuple[list[dict], str]:
    """A row for each way, and a note."""
    clip = render(folder / f"{seconds:g}.mp4", seconds, 360, 640)
    data = folder / f"{seconds:g}.jsonl"
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": "What happens?"}]
    data.write_text(json.dumps({"messages": [{"role": "user", "content": content}], "answer": "A bar moves."}) + "\n")
    trainer = make_trainer(network, processor, data, folder / f"run-{frames}", frames, arguments)
    turns = next(one for one in trainer.callback_handler.callbacks if isinstance(one, InTurns))
    parts = measure_parts(trainer)
    trainer.train()
    timed = {way: times[1:] for way, times in turns.steps.items()}
    base = timed[ONCE]
    rows = [
        {
            "media are encoded": way,
            "steps": len(times),
            "step (s)": statistics.median(times),
            "against once ×": statistics.median(a / b for a, b in zip(times, base, strict=True)),
            "least ×": min(a / b for a, b in zip(times, base, strict=True)),
            "most ×": max(a / b for a, b in zip(times, base, strict=True)),
            "peak (MB)": turns.peak[way] / MB,
        }
        for way, times in timed.items()
    ]
    note = (
        f"{parts['positions']:,} positions of a prompt. Once for a prompt: decoding {parts['decode']:.2f} s, which is "
        f"part of each step, and encoding {parts['encode']:.3f} s."
    )
    return rows, note


def main() -> None:
    parser = parser_on_device("python -m benchmarks.grpo", __doc__.split("\n\n")[0])
    parser.add_argument("--model", default=str(NANO), help="checkpoint; default: nano")
    parser.add_argument("--size", choices=list(SIZES), help="random weights of this size, in the place of --model")
    parser.add_argument("--lora", action="store_true", help="adapters learn; there is no reference beside the model")
    parser.add_argument("--completions", type=int, default=8, help="completions of a prompt; default: 8")
    parser.add_argument("--length", type=int, default=32, help="tokens of a completion; default: 32")
    parser.add_argument("--clip", action="append", metavar="FRAMES:SECONDS", help="default: 16:7.5 and 64:60")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each way; default: 5")
    parser.add_argument(
        "--seconds", type=float, help="after two rounds that count, stop measuring a clip when this is over"
    )
    parser.add_argument("--without-each", action="store_true", help="leave out encoding for each completion")
    parser.add_argument("--output", type=Path, help="file to write results to as well, after each clip")
    arguments = parser.parse_args()
    arguments.ways = WAYS[1:] if arguments.without_each else WAYS
    logging.set_verbosity_error()
    name = f"grpo-{arguments.size}" if arguments.size else "grpo"
    report = Report(name, vars(arguments), NOTE)
    clips = [tuple(map(float, clip.split(":"))) for clip in arguments.clip or ("16:7.5", "64:60")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = write_random(folder / "model", arguments.size) if arguments.size else arguments.model
        processor = AutoProcessor.from_pretrained(source)
        for frames, seconds in clips:
            network = make_model(arguments, folder / "model")
            note = tell_sizes(network)
            rows, parts = measure(network, processor, int(frames), seconds, folder, arguments)
            title = f"{int(frames)} frames and {seconds:g} s of sound, {arguments.completions} completions"
            report.add(title, rows, f"{parts} {note}")
            del network
            gc.collect()
            if arguments.device == "cuda":
                torch.cuda.empty_cache()
            if arguments.output:
                arguments.output.write_text(json.dumps(report.content, indent=2, ensure_ascii=False) + "\n")
    report.save()


def tell_sizes(network) -> str:
    """Weights of a model and of its parts."""

    def count(part: str) -> str:
        return f"{sum(weight.numel() for name, weight in network.named_parameters() if part in name) / 1e6:,.1f}M"

    parts = ", ".join(f"{part} {count(part)}" for part in ("language_model", "vision_tower", "audio_tower"))
    return f"{count('')} weights: {parts}."


if __name__ == "__main__":
    main()
