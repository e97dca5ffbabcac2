"""Writes readings and questions about them: `python -m recipes.readings.data OUT`."""

import argparse
import json
import random
import sys
from pathlib import Path

from transformers_omnivinci.inference.speech import AUTO
from transformers_omnivinci.synthetic import write_clip
from transformers_omnivinci.tasks import Choice, choice_rows, write_rows

from .narration import Narrator
from .questions import ask_reading
from .scroll import plan_reading, render_reading

PROMPT = "{question}"
"""
Of the chats, and of `omnivinci eval --prompt`. Options are not shown: nano does not know how to choose among them, and
what it says is marked as the option that it names, or as none. Other models may get `"{question}\n{options}"`.
"""


def write(folder: Path, split: str, number: int, per_category: int, narrator: Narrator, seed: int = 0) -> int:
    """
    Writes `media/SPLIT/` and `SPLIT.jsonl`, which `omnivinci train` and `omnivinci eval --suite multiple-choice` read.

    Returns:
        `int`: how many questions were written.
    """
    (folder / "media" / split).mkdir(parents=True, exist_ok=True)
    choices = []
    for index in range(number):
        reading = plan_reading(split, index, seed)
        path = f"media/{split}/{reading.name}.mp4"
        write_clip(folder / path, render_reading(reading, narrator))
        rng = random.Random(f"questions/{split}/{seed}/{index}")
        choices += ask_reading(reading, per_category, rng, [{"type": "video", "path": path}])
    write_rows(folder / f"{split}.jsonl", rows_of(choices, seed))
    return len(choices)


def rows_of(choices: list[Choice], seed: int) -> list[dict]:
    """Multiple-choice rows whose chats answer by the text of the option: that is how nano answers."""
    rows = choice_rows(choices, seed, PROMPT)
    for row, choice in zip(rows, choices, strict=True):
        row["messages"][-1]["content"][0]["text"] = choice.answer
    return rows


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--train", type=int, default=480, help="readings to train on (%(default)s)")
    parser.add_argument("--test", type=int, default=147, help="readings to ask about (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of readings and questions (%(default)s)")
    parser.add_argument(
        "--voice", action="append", metavar="NAME", help="who speaks, as in docs/speech.md; repeatable (%(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        narrator = Narrator(tuple(given.voice or [AUTO]))
        for split, number, per_category in (("train", given.train, 2), ("test", given.test, 1)):
            count = write(given.out, split, number, per_category, narrator, given.seed)
            print(f"{count} questions about {number} readings are in {given.out / split}.jsonl")
        (given.out / "voices.json").write_text(json.dumps(narrator.names) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
