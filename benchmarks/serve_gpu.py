"""
One clip with sound at a time, on a GPU: seconds to the first token of the answer, and how fast the others follow.

OmniVinci by `transformers`, OmniVinci by vLLM, and the thinker of Qwen2.5-Omni-7B by the same transformers, each with
random weights in a process of its own. `--tiny` runs it with small models on a CPU, to try the script:

    python -m benchmarks.serve_gpu
    python engines/run.py vllm -- python -m benchmarks.serve_gpu --tiny
"""

import os

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, WhisperFeatureExtractor

from transformers_omnivinci import (
    NANO,
    OmniVinciConfig,
    OmniVinciImageProcessor,
    OmniVinciProcessor,
    OmniVinciVideoProcessor,
)
from transformers_omnivinci.processing.prompts import TOKENS

from ._harness import MB, PeakMemory, Report, in_fresh_process, parser_on_device, synchronize, take_turns, to_markdown

NOTE = (
    "Times include preparing frames and sound, which are in memory at the beginning. Ratios are to OmniVinci by "
    "transformers in the same run. Qwen2.5-Omni takes two frames as one, and so has half as many positions for them. "
    "Memory is that of a GPU and includes the weights; vLLM takes as much as it is allowed to."
)
QUESTION = "What happens?"
RATE = 16_000
PATCH, MERGE, TEMPORAL = 14, 2, 2  # of Qwen's image encoder


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    device: str
    dtype: str
    tiny: bool
    frames: tuple[int, ...]
    seconds: float
    num_tokens: int
    repeats: int
    memory_share: float

    @property
    def side(self) -> int:
        """Pixels of the frames."""
        return 56 if self.tiny else 448

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def clip(self, num_frames: int, seed: int) -> tuple[np.ndarray, dict, np.ndarray]:
        """Frames of noise, (num_frames, side, side, 3), with their metadata, and samples. A seed has its own."""
        rng = np.random.default_rng(seed)
        frames = rng.integers(0, 256, (num_frames, self.side, self.side, 3), dtype=np.uint8)
        metadata = {"fps": num_frames / self.seconds, "total_num_frames": num_frames}
        samples = rng.uniform(-0.3, 0.3, round(self.seconds * RATE)).astype(np.float32)
        return frames, metadata, samples


def write_checkpoint(folder: Path, tiny: bool = False, **changed: dict) -> None:
    """
    OmniVinci without weights: the 9B model, with nano's tokenizer, or nano's sizes.

    Args:
        changed (`dict`): What is different from the 9B model in `text_config`, `vision_config` and `audio_config`.
    """
    if tiny:
        AutoConfig.from_pretrained(NANO).save_pretrained(folder)
        AutoProcessor.from_pretrained(NANO).save_pretrained(folder)
        return
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    ids = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(token) for kind, token in TOKENS.items()}
    whole = OmniVinciConfig()
    text = whole.text_config.to_dict() | {
        "max_position_embeddings": 65_536,  # 128 frames do not fit into 32,768
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    parts = {"text_config": text} | {
        name: getattr(whole, name).to_dict() for name in ("vision_config", "audio_config")
    }
    parts = {name: part | changed.get(name, {}) for name, part in parts.items()}
    config = OmniVinciConfig(**parts, architectures=["OmniVinciForConditionalGeneration"], **ids)
    config.save_pretrained(folder)
    OmniVinciProcessor(
        OmniVinciImageProcessor(),
        OmniVinciVideoProcessor(),
        WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins),
        tokenizer,
        **OmniVinciProcessor.settings_of(config),
    ).save_pretrained(folder)


# ----------------------------------------------------------------------------------------------------- measuring


def measure(setting: Setting, ask: Callable[[int, int, int], int]) -> list[dict]:
    """
    A row for each number of frames.

    Args:
        ask (`Callable`): Answers about a clip, given its number of frames, a seed, and how many tokens to generate.
            Returns the number of positions of the prompt.
    """
    rows, seed = [], iter(range(10**6))  # a new clip each time, so that no cache has it
    for num_frames in setting.frames:
        positions = {}

        def first(num_frames=num_frames, positions=positions):
            positions["prompt"] = ask(num_frames, next(seed), 1)

        def all_of_them(num_frames=num_frames):
            ask(num_frames, next(seed), 1 + setting.num_tokens)

        with PeakMemory(setting.device) as peak:
            timings = take_turns({"first": first, "all": all_of_them}, setting.repeats)
        to_first, to_last = timings.median("first"), timings.median("all")
        row = {
            "frames": num_frames,
            "positions": positions["prompt"],
            "first token (s)": to_first,
            "tokens per s": setting.num_tokens / max(to_last - to_first, 1e-9),
            "peak (MB)": (peak.bytes + _held(setting.device)) / MB,
        }
        print(row, flush=True)  # at once: whoever borrows a GPU may have to give it back before the end
        rows.append(row)
    return rows


def _held(device: str) -> int:
    return torch.cuda.memory_allocated() if torch.device(device).type == "cuda" else 0


# -------------------------------------------------------------------------------------------------------- models


def omnivinci_by_transformers(setting: Setting, folder: str) -> list[dict]:
    """The model of this package."""
    processor = AutoProcessor.from_pretrained(folder)
    with torch.device(setting.device):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder), dtype=setting.torch_dtype).eval()

    @torch.inference_mode()
    def ask(num_frames: int, seed: int, num_tokens: int) -> int:
        length = answer(setting, processor, model, num_frames, seed, num_tokens)
        synchronize()
        return length

    return measure(setting, ask)


def answer(setting: Setting, processor, model, num_frames: int, seed: int, num_tokens: int) -> int:
    """Answers about a clip with so many tokens. Returns the number of positions of the prompt."""
    frames, metadata, samples = setting.clip(num_frames, seed)
    inputs = processor(
        text=_prompt(processor),
        videos=[(frames, metadata)],
        audio=[(samples, RATE)],
        audio_from_video_indices=[0],
        load_audio_from_video=True,
        num_frames=num_frames,
        return_tensors="pt",
    ).to(setting.device, setting.torch_dtype)
    model.generate(**inputs, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False)
    return inputs["input_ids"].shape[1]


def omnivinci_by_vllm(setting: Setting, folder: str) -> list[dict]:
    """The same by vLLM, which has no cache to draw from."""
    from vllm import LLM, SamplingParams

    processor = AutoProcessor.from_pretrained(folder)
    engine = LLM(
        folder,
        load_format="dummy",
        dtype=setting.dtype,
        max_model_len=AutoConfig.from_pretrained(folder).text_config.max_position_embeddings,
        limit_mm_per_prompt={"image": 0, "video": 1, "audio": 1},
        max_num_seqs=1,
        gpu_memory_utilization=setting.memory_share,
        enforce_eager=setting.device == "cpu",
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
    )

    def ask(num_frames: int, seed: int, num_tokens: int) -> int:
        frames, metadata, samples = setting.clip(num_frames, seed)
        request = {
            "prompt": _prompt(processor),
            "multi_modal_data": {"video": [(frames, metadata)], "audio": [(samples, RATE)]},
            "mm_processor_kwargs": {"use_audio_in_video": True, "num_frames": num_frames},
        }
        sampling = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        [output] = engine.generate(request, sampling, use_tqdm=False)
        return len(output.prompt_token_ids)

    return measure(setting, ask)


def _prompt(processor) -> str:
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def qwen_by_transformers(setting: Setting, folder: str) -> list[dict]:
    """The thinker of Qwen2.5-Omni-7B. Its frames and sound stand one after the other."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    config = Qwen2_5OmniThinkerConfig(**qwen_settings(setting.tiny))
    usual = torch.get_default_dtype()
    torch.set_default_dtype(setting.torch_dtype)
    with torch.device(setting.device):
        model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    torch.set_default_dtype(usual)  # in bfloat16 the model would miscount its mel frames
    extractor = WhisperFeatureExtractor(feature_size=128)
    grid = setting.side // PATCH

    @torch.inference_mode()
    def ask(num_frames: int, seed: int, num_tokens: int) -> int:
        frames, _, samples = setting.clip(num_frames, seed)
        pixels = torch.from_numpy(frames).to(setting.device, setting.torch_dtype) / 127.5 - 1
        features = extractor(samples, sampling_rate=RATE, padding="longest", return_tensors="pt")["input_features"]
        mel_frames = features.shape[2]
        count = num_frames // TEMPORAL * (grid // MERGE) ** 2
        vectors = ((mel_frames - 1) // 2 - 1) // 2 + 1
        ids = [100, config.vision_start_token_id, *[config.video_token_id] * count, config.vision_end_token_id]
        ids.append(config.audio_start_token_id)
        ids += [*[config.audio_token_id] * vectors, config.audio_end_token_id, 103, 104]
        model.generate(
            input_ids=torch.tensor([ids], device=setting.device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=setting.device),
            pixel_values_videos=_patches(pixels),
            video_grid_thw=torch.tensor([[num_frames // TEMPORAL, grid, grid]], device=setting.device),
            video_second_per_grid=torch.tensor([setting.seconds * TEMPORAL / num_frames], device=setting.device),
            input_features=features.to(setting.device, setting.torch_dtype),
            feature_attention_mask=torch.ones(1, mel_frames, dtype=torch.long, device=setting.device),
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=0,
            pad_token_id=0,
        )
        synchronize()
        return len(ids)

    return measure(setting, ask)


def _patches(pixels: torch.Tensor) -> torch.Tensor:
    """Frames, (num_frames, side, side, 3), in the order in which Qwen's encoder takes patches, (patches, values)."""
    num_frames, side = pixels.shape[:2]
    blocks = side // PATCH // MERGE
    parts = pixels.reshape(num_frames // TEMPORAL, TEMPORAL, blocks, MERGE, PATCH, blocks, MERGE, PATCH, 3)
    return parts.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).flatten(0, 4).flatten(1)


def qwen_settings(tiny: bool) -> dict:
    """Those of Qwen2.5-Omni-7B, which the defaults of its config classes are not in all places; or small ones."""
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    text = {"rope_parameters": rope, "max_position_embeddings": 65_536}
    vision, audio = {"hidden_size": 1280, "out_hidden_size": 3584}, {"output_dim": 3584}
    if tiny:
        text |= {"rope_parameters": rope | {"mrope_section": [4, 6, 6]}, "hidden_size": 64, "intermediate_size": 128}
        text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
        vision = {"hidden_size": 64, "out_hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "depth": 2}
        vision |= {"fullatt_block_indexes": [1]}
        audio = {"output_dim": 64, "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 2}
        audio |= {"encoder_ffn_dim": 128}
    ends = {"vision_start_token_id": 151_652, "vision_end_token_id": 151_653}
    return {"text_config": text, "vision_config": vision, "audio_config": audio, **ends}


ENGINES = {
    "transformers": omnivinci_by_transformers,
    "vllm": omnivinci_by_vllm,
    "qwen": qwen_by_transformers,
}
TITLES = {
    "transformers": "OmniVinci, transformers",
    "vllm": "OmniVinci, vLLM",
    "qwen": "Qwen2.5-Omni, transformers",
}


def main(arguments: list[str] | None = None) -> list[dict]:
    """Prints and returns the rows of the table."""
    parser = parser_on_device("python -m benchmarks.serve_gpu", __doc__.strip().splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small models, few frames: to try the script on a CPU")
    parser.add_argument("--frames", type=int, nargs="+", help="even numbers; default: 16 64 128, tiny: 2 4")
    parser.add_argument("--seconds", type=float, help="of the clip; default: 30, tiny: 3")
    parser.add_argument("--tokens", type=int, help="after the first; default: 128, tiny: 4")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count; default: 3")
    parser.add_argument("--memory-share", type=float, default=0.85, help="of a GPU, for vLLM; default: 0.85")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    given = parser.parse_args(arguments)
    setting = Setting(
        given.device,
        given.dtype,
        given.tiny,
        tuple(given.frames or ((2, 4) if given.tiny else (16, 64, 128))),
        given.seconds or (3.0 if given.tiny else 30.0),
        given.tokens or (4 if given.tiny else 128),
        given.repeats,
        given.memory_share,
    )
    if any(frames % TEMPORAL for frames in setting.frames):
        parser.error(f"--frames {setting.frames}: even numbers are accepted, as Qwen takes two frames as one.")
    report = Report("serve_gpu", vars(given), NOTE)
    rows, base = [], {}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), setting.tiny)
        for name in given.engines:
            measured = in_fresh_process(ENGINES[name], setting, folder)
            if name == "transformers":
                base = {row["frames"]: row for row in measured}
            for row in measured:
                other = base.get(row["frames"])
                row["first token ×"] = row["first token (s)"] / other["first token (s)"] if other else None
                row["tokens per s ×"] = row["tokens per s"] / other["tokens per s"] if other else None
            measured = [{"model": TITLES[name], **row} for row in measured]
            clip = f"a clip of {setting.seconds:g} s with sound, {setting.num_tokens} tokens after the first"
            report.add(f"{TITLES[name]}: {clip}", measured)
            report.save()
            rows += measured
    print(to_markdown(rows))
    return rows


if __name__ == "__main__":
    main()
