"""
The memory that the 9B model takes on a GPU, with random weights, beside what `benchmarks.memory` computes.

A clip with sound is answered about, in bfloat16 and in the 4 bits of bitsandbytes. Then again with the memory that
torch may take bound to that of smaller cards, less what is kept for the CUDA context and for kernels:

    python -m benchmarks.memory_gpu
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor, BitsAndBytesConfig

from ._harness import Report, in_fresh_process, to_markdown
from .memory import CARDS, CLIPS, GIB, RECIPES, RESERVE, compute_need
from .serve_gpu import Setting, answer, write_checkpoint

NOTE = (
    "GiB that torch allocated and reserved at most, computed ones beside them. Weights are random, frames and samples "
    "noise. 'fits' is whether the answer came with torch bound to so much less 1 GiB, after the weights were loaded."
)


def measure(recipe: str, folder: str, setting: Setting) -> list[dict]:
    """A row for each clip."""
    processor, config = AutoProcessor.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    model = LOADERS[recipe](folder, config)
    torch.cuda.empty_cache()
    weights, rows = torch.cuda.memory_allocated(), []
    total = torch.cuda.get_device_properties(0).total_memory

    @torch.inference_mode()
    def ask(num_frames: int) -> int:
        return answer(setting, processor, model, num_frames, num_frames, setting.num_tokens)

    for num_frames in setting.frames:
        torch.cuda.reset_peak_memory_stats()
        positions = ask(num_frames)
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        free, _ = torch.cuda.mem_get_info()
        need = compute_need(config, RECIPES[recipe], num_frames, setting.seconds)
        row = {
            "weights": recipe,
            "frames": num_frames,
            "positions": positions,
            "weights (GiB)": weights / GIB,
            "computed weights (GiB)": sum(need.weights.values()) / GIB,
            "peak (GiB)": allocated / GIB,
            "computed peak (GiB)": need.total / GIB,
            "reserved (GiB)": reserved / GIB,
            "used on the card (GiB)": (total - free) / GIB,
        }
        for card in CARDS:
            row[f"fits {card} GB"] = _fits(ask, num_frames, (card * GIB - RESERVE) / total)
            row[f"computed: {card} GB"] = "yes" if need.fits(card) else "no"
        rows.append(row)
        print(row, flush=True)
    return rows


def _fits(ask: Callable[[int], int], num_frames: int, share: float) -> str:
    """Whether the question is answered with that share of the card's memory."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share)
    fits = "no"
    with suppress(torch.OutOfMemoryError):
        ask(num_frames)
        fits = "yes"
    torch.cuda.set_per_process_memory_fraction(1.0)
    return fits


def in_bfloat16(folder: str, config: AutoConfig) -> torch.nn.Module:
    with torch.device("cuda"):
        return AutoModel.from_config(config, dtype=torch.bfloat16).eval()


def in_four_bits(folder: str, config: AutoConfig) -> torch.nn.Module:
    """By bitsandbytes, which quantizes while weights are read: they are written to a disk before."""
    with tempfile.TemporaryDirectory() as written:
        in_bfloat16(folder, config).save_pretrained(written)
        torch.cuda.empty_cache()
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        return AutoModelForMultimodalLM.from_pretrained(
            written, quantization_config=quantization, dtype=torch.bfloat16, device_map="cuda"
        ).eval()


LOADERS = {"bf16": in_bfloat16, "bnb-nf4": in_four_bits}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory_gpu", description=__doc__.strip().split("\n")[0]
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[frames for frames, _ in CLIPS])
    parser.add_argument("--tokens", type=int, default=16, help="of the answer; default: 16")
    parser.add_argument("--recipes", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--tiny", action="store_true", help="nano's sizes: to try the script")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("No GPU was found: python -m benchmarks.memory computes the figures without one.")
    setting = Setting("cuda", "bfloat16", given.tiny, tuple(given.frames), CLIPS[0][1], given.tokens, 1, 0.0)
    report = Report("memory_gpu", vars(given), NOTE)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), given.tiny)
        for recipe in given.recipes:
            rows += in_fresh_process(measure, recipe, folder, setting)
    report.add(f"{setting.seconds:g} s of sound", rows)
    report.save()
    print(to_markdown(rows))


if __name__ == "__main__":
    main()
