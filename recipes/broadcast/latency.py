"""
How long an answer about a clip takes, from the file to the text, for several checkpoints in turns:
`python -m recipes.broadcast.latency TEST.jsonl OUT.json --model NAME=DIR --model NAME=DIR`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci.evaluation import Asker, read_questions

from ..results import machine


def measure(questions: Sequence, models: Mapping[str, Path], num_frames: int) -> dict[str, dict]:
    """
    Asks each question of each model, one after another, as a broadcast would: nothing is kept of the clip before.

    Args:
        questions (`Sequence[Question]`): About different clips.
        models (`Mapping[str, Path]`): Folders of checkpoints by name.
        num_frames (`int`): Frames of a clip.

    Returns:
        `dict[str, dict]`: for each model `seconds`, the median, `all_seconds` and `megabytes` of its weights on disk.
    """
    askers, place = {}, "cuda" if torch.cuda.is_available() else "cpu"
    for name, folder in models.items():
        model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).to(place).eval()
        askers[name] = Asker(model, AutoProcessor.from_pretrained(folder), 8, num_frames=num_frames)
    took = {name: [] for name in models}
    for number, question in enumerate([questions[0], *questions]):
        chat = [{"role": "user", "content": question.content}]
        # Whoever comes second finds the file in memory: the models take turns in coming first.
        for name in [*askers][:: 1 if number % 2 else -1]:
            askers[name].kept.clear()
            start = time.perf_counter()
            askers[name]([chat])
            if number:  # the first answer also unpacks weights and warms up
                took[name].append(time.perf_counter() - start)
    return {
        name: {
            "seconds": statistics.median(seconds),
            "all_seconds": seconds,
            "megabytes": sum(path.stat().st_size for path in Path(models[name]).glob("*.safetensors")) / 1e6,
        }
        for name, seconds in took.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m recipes.broadcast.latency", description="Seconds of an answer.")
    parser.add_argument("test", type=Path, metavar="TEST.jsonl")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--frames", type=int, default=128, metavar="N")
    parser.add_argument("--clips", type=int, default=12, metavar="N")
    given = parser.parse_args(arguments)
    try:
        models = dict(one.split("=", 1) for one in given.model if "=" in one)
        if len(models) < len(given.model):
            raise ValueError("`--model NAME=DIR` names a checkpoint and its folder, each name once.")
        found = {question.row["video_path"]: question for question in read_questions(given.test, "multiple-choice")}
        questions = list(found.values())[: given.clips]
        measured = measure(questions, {name: Path(folder) for name, folder in models.items()}, given.frames)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"Error: {error}")
    told = {"frames": given.frames, "clips": len(questions), "machine": machine(), "models": measured}
    given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for name, one in measured.items():
        print(f"{name}: {one['seconds']:.2f} s for a clip, {one['megabytes']:.1f} MB")


if __name__ == "__main__":
    main()
