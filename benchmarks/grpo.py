"""
Steps of GRPO: with the media of a prompt encoded once, once in each pass, and for each completion in each pass.

Run in TRL's environment, `make bench-grpo`. A step samples completions, scores them by the reference and the new
policy, and updates the weights.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO
from transformers_omnivinci.reinforcement.grpo_command import grpo_arguments
from transformers_omnivinci.reinforcement.grpo_trainer import OmniVinciGRPOTrainer
from transformers_omnivinci.reinforcement.problems import read_problems
from transformers_omnivinci.training.recipes import Recipe

from ._harness import Report
from .sessions import render

NOTE = (
    "Seconds of a whole step: one prompt about a video with sound, its completions of a fixed length, a reference, "
    "and an update of the language model, in float32. The first step of a run does not count. Where media are encoded "
    "for each completion, each completion reads a prompt of its own, too; else it is read once in each pass."
)
EACH, PASS, ONCE = "for each completion, in each pass", "once in each pass", "once"


def make_trainer(way: str, model: str, data: Path, folder: Path, length: int, completions: int, frames: int):
    """A trainer that encodes media in one of the three ways, for two steps."""
    words = {
        "max-steps": 2,
        "per-device-train-batch-size": completions,
        "num-generations": completions,
        "gradient-accumulation-steps": 1,
        "max-completion-length": length,
        "save-strategy": "no",
        "report-to": "none",
        "log-completions": False,
        "generation-kwargs": json.dumps({"min_new_tokens": length}),
        "use-cpu": not torch.cuda.is_available(),
        "gradient-checkpointing": False,
        "bf16": False,
    }
    arguments = grpo_arguments(folder, [str(word) for name, value in words.items() for word in (f"--{name}", value)])
    network = AutoModel.from_pretrained(model, dtype=torch.float32)
    Recipe("grpo", "section 4.3", ("language_model",)).freeze(network)
    trainer = OmniVinciGRPOTrainer(
        network,
        read_problems(data),
        arguments,
        AutoProcessor.from_pretrained(model),
        media_options={"load_audio_from_video": True, "num_frames": frames},
        share_media=way != EACH,
    )
    trainer.encodes_once = trainer.encodes_once and way == ONCE
    return trainer


def measure(arguments: argparse.Namespace, frames: int, seconds: float, folder: Path) -> list[dict]:
    """A row for each way."""
    clip = render(folder / f"{seconds:g}.mp4", seconds, 360, 640)
    data = folder / f"{seconds:g}.jsonl"
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": "What happens?"}]
    data.write_text(json.dumps({"messages": [{"role": "user", "content": content}], "answer": "A bar moves."}) + "\n")
    trainers = {
        way: make_trainer(way, arguments.model, data, folder / way, arguments.length, arguments.completions, frames)
        for way in (EACH, PASS, ONCE)
    }
    steps = {way: [] for way in trainers}
    for _ in range(arguments.repeats):
        for way, trainer in trainers.items():
            trainer.train()
            steps[way].append([entry["step_time"] for entry in trainer.state.log_history if "step_time" in entry][-1])
    return [
        {
            "media are encoded": way,
            "step (s)": statistics.median(times),
            "against once ×": statistics.median(a / b for a, b in zip(times, steps[ONCE], strict=True)),
        }
        for way, times in steps.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default=str(NANO), help="checkpoint; default: nano")
    parser.add_argument("--completions", type=int, default=8, help="completions of a prompt; default: 8")
    parser.add_argument("--length", type=int, default=32, help="tokens of a completion; default: 32")
    parser.add_argument("--clip", action="append", metavar="FRAMES:SECONDS", help="default: 16:7.5 and 64:60")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each way; default: 5")
    arguments = parser.parse_args()
    report = Report("grpo", vars(arguments), NOTE)
    clips = [tuple(map(float, clip.split(":"))) for clip in arguments.clip or ("16:7.5", "64:60")]
    with tempfile.TemporaryDirectory() as folder:
        for frames, seconds in clips:
            rows = measure(arguments, int(frames), seconds, Path(folder))
            report.add(f"{int(frames)} frames and {seconds:g} s of sound, {arguments.completions} completions", rows)
    report.save()


if __name__ == "__main__":
    main()
