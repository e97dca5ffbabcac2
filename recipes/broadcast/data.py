"""
Writes clips of points, chats to train on and questions to evaluate: `python -m recipes.broadcast.data OUT`.

    OUT/train.jsonl        chats: four questions and a commentary for each clip
    OUT/test.jsonl         multiple-choice questions about clips whose pairs of shirts are in no training clip
    OUT/commentary.jsonl   the same clips, with the commentary as the answer
    OUT/settings.json      what decides about all of this
    OUT/media/             the clips
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from transformers_omnivinci.synthetic import write_clip
from transformers_omnivinci.tasks import Choice, choice_rows, task_row, write_rows

from .drawing import SAMPLING_RATE, render_rally
from .questions import CATEGORIES, COMMENT, ask, comment_on
from .rally import ENDINGS, SPLITS, Rally, plan_rally
from .voices import SPEEDS, installed_voices, speak_calls, vary


@dataclass(frozen=True)
class Settings:
    """What decides about a data set."""

    train: int
    test: int
    seed: int
    fps: int
    size: tuple[int, int]
    letters: bool
    voices: tuple[str, ...]


def parse(arguments: Sequence[str] | None = None) -> tuple[Path, Settings]:
    """The folder and the settings that a command line names."""
    parser = argparse.ArgumentParser(prog="python -m recipes.broadcast.data", description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--train", type=int, default=1800, metavar="N", help="clips to train on (%(default)s)")
    parser.add_argument("--test", type=int, default=120, metavar="N", help="clips to test on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--fps", type=int, default=12, metavar="F", help="frames per second (%(default)s)")
    parser.add_argument("--size", default="64x64", metavar="WxH", help="pixels of a frame (%(default)s)")
    parser.add_argument(
        "--letters", action="store_true", help="train on options with letters, not on the question alone"
    )
    parser.add_argument(
        "--voice", action="append", metavar="NAME", help="of the umpire, such as espeak-ng or flite:slt; repeatable"
    )
    given = parser.parse_args(arguments)
    size = tuple(int(part) for part in given.size.split("x") if part.isdecimal())
    if len(size) != 2 or any(side % 2 or not side for side in size):
        raise ValueError(f"`--size {given.size}`: two even numbers of pixels such as 640x360 are accepted.")
    for name in ("train", "test", "fps"):
        if getattr(given, name) < 1:
            raise ValueError(f"`--{name} {getattr(given, name)}`: a positive number is accepted.")
    voices = tuple(given.voice or installed_voices())
    return given.out, Settings(given.train, given.test, given.seed, given.fps, size, given.letters, voices)


def write(out: Path, settings: Settings) -> None:
    """
    Writes a data set. Clips that are there already are kept, so that the same command goes on where it stopped.

    Raises:
        ValueError: the folder has a data set with other settings, or a voice is unknown.
        OSError: a voice fails, or the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    described, path = json.loads(json.dumps(asdict(settings))), out / "settings.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != described:
        raise ValueError(f"{path} belongs to other settings: name another folder, or give the same settings.")
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    spoken = speak_calls(settings.voices)
    (out / "media").mkdir(exist_ok=True)
    choices, comments = {"train": [], "test": []}, {"train": [], "test": []}
    for split in SPLITS:
        for index in range(getattr(settings, split)):
            name, rally, rng = point(settings, spoken, split, index)
            if not (out / name).exists():
                calls, noise = calls_of(settings, spoken, split, index), 2 * index + (split == "test")
                write_clip(out / name, render_rally(rally, calls, noise, settings.fps, settings.size))
            asked = ask(rally, name, rng)
            choices[split].append(asked)
            comments[split].append(
                task_row(
                    f"{name}-comment", asked[0].media, COMMENT, comment_on(rally), {"facts": asked[0].fields["facts"]}
                )
            )
    questions = {split: [one for asked in found for one in asked] for split, found in choices.items()}
    train = choice_rows(questions["train"], settings.seed) if settings.letters else map(alone, questions["train"])
    # Chats about a clip stand together, so that training encodes it once for all of them.
    train = [
        row
        for *asked, comment in zip(*[iter(train)] * len(CATEGORIES), comments["train"], strict=True)
        for row in [*asked, comment]
    ]
    write_rows(out / "train.jsonl", train)
    write_rows(out / "test.jsonl", choice_rows(questions["test"], settings.seed))
    write_rows(out / "commentary.jsonl", comments["test"])


def alone(choice: Choice) -> dict:
    """A question without its options, whose answer is the text of the right one."""
    return task_row(choice.name, choice.media, choice.question, choice.answer, choice.fields)


def point(settings: Settings, spoken: Sequence[dict], split: str, index: int) -> tuple[str, Rally, random.Random]:
    """The file of a clip, its point, and the generator that decides the rest. Endings take turns."""
    rng = random.Random(f"broadcast/{split}/{settings.seed}/{index}")
    longest = max(len(one) for calls in spoken for one in calls.values()) / SAMPLING_RATE / SPEEDS[0]
    rally = plan_rally(rng, split, ENDINGS[index % len(ENDINGS)], longest)
    return f"media/{split}-{index:05d}.mp4", rally, random.Random(f"questions/{split}/{settings.seed}/{index}")


def calls_of(settings: Settings, spoken: Sequence[dict], split: str, index: int) -> dict[str, np.ndarray]:
    """The calls of a clip, by one of the voices."""
    rng = random.Random(f"umpire/{split}/{settings.seed}/{index}")
    chosen, speed = rng.choice(spoken), rng.uniform(*SPEEDS)
    return {text: vary(samples, speed) for text, samples in chosen.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    try:
        out, settings = parse(arguments)
        write(out, settings)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print(f"{out} has {settings.train} clips to train on and {settings.test} to test on.")
    print(f"The umpire speaks by {', '.join(settings.voices)}.")


if __name__ == "__main__":
    main()
