"""
Asks nano what `omnivinci eval --suite synthetic` asks, and what it asks with `--type absent --type chat --type
caption`, in several processes that share the work, and writes the scores.

    python -m benchmarks.nano_exam RUN --folder CLIPS --output scores.json --num-processes 2
"""

import argparse
import json
import time
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from transformers_omnivinci.evaluation.synthetic import ASKED_TYPES, SENSES, answer_rows, score_answers, write_rows
from transformers_omnivinci.synthetic import CLOSED_TYPES

FURTHER = tuple(type for type in ASKED_TYPES if type not in CLOSED_TYPES)
BATCH_SIZE = 50


def ask(arguments: argparse.Namespace, part: int, tasks: list[tuple[str, str, list[dict]]]) -> list[list[str]]:
    """The answers of a process to its part of the rows of each task: senses, folder and rows."""
    import torch

    from transformers_omnivinci import OmniVinciForConditionalGeneration, OmniVinciProcessor

    torch.set_num_threads(1)
    processor = OmniVinciProcessor.from_pretrained(arguments.run)
    model = OmniVinciForConditionalGeneration.from_pretrained(arguments.run, dtype=torch.float32)
    model.to(arguments.device).eval()
    step = arguments.num_processes
    return [
        answer_rows(model, processor, rows[part::step], Path(folder), senses, BATCH_SIZE)
        for senses, folder, rows in tasks
    ]


def main(arguments: argparse.Namespace) -> None:
    """Renders the clips that are not there yet, asks about them, and writes the scores."""
    begin, tasks = time.monotonic(), []
    for name, types, senses in (("closed", CLOSED_TYPES, tuple(SENSES)), ("further", FURTHER, ("both",))):
        folder = Path(arguments.folder) / name
        # Where all clips are there, starting processes takes longer than planning them again.
        num_workers = 1 if (folder / "test.jsonl").exists() else arguments.num_processes
        options = {"clips_per_type": arguments.clips_per_type, "num_workers": num_workers}
        rows = write_rows(folder, types, **options)
        tasks += [(one, str(folder), rows) for one in senses]
    print(f"Clips after {time.monotonic() - begin:.0f} s.", flush=True)
    if arguments.only_clips:
        return
    step, scores = arguments.num_processes, []
    with get_context("spawn").Pool(step) as pool:
        parts = pool.starmap(ask, [(arguments, part, tasks) for part in range(step)], chunksize=1)
    for number, (senses, _, rows) in enumerate(tasks):
        answers: list[str] = [""] * len(rows)
        for part, given in enumerate(parts):
            answers[part::step] = given[number]
        scores += score_answers(rows, answers, senses)
    for score in scores:
        print(json.dumps(asdict(score)), flush=True)
    print(f"Scores after {time.monotonic() - begin:.0f} s.", flush=True)
    Path(arguments.output).write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="The model.")
    parser.add_argument("--folder", required=True, help="Where clips are, or are written.")
    parser.add_argument("--output", default="scores.json")
    parser.add_argument("--only-clips", action="store_true", help="Render the clips, and ask nothing.")
    parser.add_argument("--clips-per-type", type=int, default=200)
    parser.add_argument("--num-processes", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    main(parser.parse_args())
