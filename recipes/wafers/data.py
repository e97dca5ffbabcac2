"""Writes chats and questions about wafer maps: `python -m recipes.wafers.data OUT`."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from transformers_omnivinci.tasks import task_row, write_rows

from .generated import SPLITS, generate
from .maps import PATTERNS, Wafer, clustered, draw, quadrant, ring
from .published import read_mixedwm38, read_wm811k, split_of

WORDINGS = {
    "pattern": "Which defect is shown?",
    "quadrant": "Where is the defect?",
    "radius": "Which ring is the defect in?",
}
"""The questions: what the defect is, and where, from which engineers go on to tools and steps."""
ASKED = {"quadrant": ("edge-loc", "loc", "scratch"), "radius": ("donut", "loc", "scratch")}
"""Of which patterns it is asked where they lie: those whose name does not tell."""
NOTHING = "none"
"""The answer about a wafer without a pattern."""
NUMBERS = {NOTHING: "0"} | {pattern: str(number) for number, pattern in enumerate(PATTERNS, start=1)}
"""Patterns as figure 12 numbers them: short answers for a model whose tokenizer would have to spell the names."""


def questions(wafer: Wafer) -> Iterator[tuple[str, str, str]]:
    """
    What can be asked about a wafer: `(about, question, answer)`, `about` a key of `WORDINGS`.

    Where a defect lies is known of generated wafers; of others, it is where failing dies are clustered. That is not
    asked where it lies on the border between two answers, nor about several patterns at once.
    """
    yield "pattern", WORDINGS["pattern"], label(wafer)
    if len(wafer.patterns) == 1:
        mask = clustered(wafer.dies) if wafer.defect is None else wafer.defect
        for about, find in (("quadrant", quadrant), ("radius", ring)):
            if wafer.patterns[0] in ASKED[about] and (answer := find(mask)):
                yield about, WORDINGS[about], answer


def write(folder: Path, split: str, wafers: Iterable[Wafer], with_names: bool = False) -> int:
    """
    Writes `media/SPLIT/` and `SPLIT.jsonl`, which `omnivinci train` and `omnivinci eval --suite short-answer` read.
    The dies are kept in `SPLIT.npz` for the baselines. Patterns are answered by their numbers, or `with_names`.

    Returns:
        `int`: how many wafers were written.
    """
    media = folder / "media" / split
    media.mkdir(parents=True, exist_ok=True)
    rows, kept, patterns = [], {}, []
    for number, wafer in enumerate(wafers):
        name = f"{number:06d}"
        draw(wafer.dies).save(media / f"{name}.png")
        item = {"type": "image", "path": f"media/{split}/{name}.png"}
        for about, question, answer in questions(wafer):
            fields = {"about": about, "wafer": name, "pattern": label(wafer)}
            if about == "pattern" and not with_names:
                answer = numbered(answer)
            rows.append(task_row(f"{split}-{name}-{about}", [item], question, answer, fields))
        kept[name] = wafer.dies
        patterns.append(label(wafer))
    write_rows(folder / f"{split}.jsonl", rows)
    np.savez_compressed(folder / f"{split}.npz", patterns=np.array(patterns), **kept)
    return len(kept)


def label(wafer: Wafer) -> str:
    """The answer to which pattern a wafer has: the names of several with commas, or `NOTHING`."""
    return ", ".join(wafer.patterns) or NOTHING


def numbered(names: str) -> str:
    """The names of patterns, with commas, as their numbers."""
    return ", ".join(NUMBERS[name] for name in names.split(", "))


def named(answer: str) -> str:
    """The reverse of [`numbered`]; what is no number stays as it is."""
    names = {number: name for name, number in NUMBERS.items()}
    return ", ".join(names.get(one, one) for one in answer.strip().split(", "))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--train", type=int, default=1600, help="wafers to train on (%(default)s)")
    parser.add_argument("--test", type=int, default=400, help="wafers to ask about (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the generated wafers and of splits (%(default)s)")
    parser.add_argument("--wm811k", type=Path, metavar="LSWMD.pkl", help="real wafers instead of generated ones")
    parser.add_argument("--mixedwm38", type=Path, metavar="FILE.npz", help="real wafers instead of generated ones")
    parser.add_argument("--names", action="store_true", help="answer by names of patterns, not by their numbers")
    given = parser.parse_args(arguments)
    if given.wm811k and given.mixedwm38:
        parser.error("--wm811k and --mixedwm38 are two data sets: name one.")
    try:
        published = read_wm811k(given.wm811k) if given.wm811k else None
        published = read_mixedwm38(given.mixedwm38) if given.mixedwm38 else published
        for split in SPLITS:
            number = given.train if split == "train" else given.test
            if published is None:
                wafers: Iterable[Wafer] = (generate(split, index, given.seed) for index in range(number))
            else:
                wafers = islice((one for one in published if split_of(one, given.seed) == split), number)
            print(f"{write(given.out, split, wafers, given.names)} wafers are in {given.out / split}.jsonl")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
