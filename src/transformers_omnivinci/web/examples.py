"""Clips of the synthetic world to begin with, with questions about them whose answers are known."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..synthetic import Sample, SyntheticDataset, write_clip

TYPES = ("visual", "audio", "synchrony", "time", "order", "counting")


@dataclass(frozen=True)
class Example:
    """
    A clip with what may be asked about it.

    Attributes:
        title (`str`): What happens in it, such as `"yellow square, blue star, noise"`.
        path (`Path`), picture (`Path`): The clip, and a frame of it.
        questions (`Mapping[str, str]`): Right answers by questions.
    """

    title: str
    path: Path
    picture: Path
    questions: Mapping[str, str]


def make_examples(folder: str | os.PathLike, number: int = 4, seed: int = 0) -> list[Example]:
    """
    Renders clips whose events no other one has.

    Args:
        folder (`str` or `os.PathLike`): Where they are written.
        number (`int`, *optional*, defaults to 4): How many.
        seed (`int`, *optional*, defaults to 0): Of the world.
    """
    dataset, examples = SyntheticDataset("test", 1000, seed, types=TYPES, questions_per_clip=4), []
    for index in range(len(dataset)):
        sample = dataset[index]
        title = title_of(sample)
        if (
            len(sample.questions) < 4
            or not 3 <= title.count(", ") + 1 <= 4
            or title in {one.title for one in examples}
        ):
            continue
        path, clip = Path(folder) / f"example-{len(examples) + 1}.mp4", dataset.render(sample)
        write_clip(path, clip)
        shape = sample.scene.shapes[0]
        frame = clip.frames[round((shape.start + shape.end) / 2 * clip.fps)]
        Image.fromarray(frame).save(path.with_suffix(".png"))
        questions = {one.text: one.answer for one in sample.questions}
        examples.append(Example(title, path, path.with_suffix(".png"), questions))
        if len(examples) == number:
            break
    return examples


def title_of(sample: Sample) -> str:
    """What is seen and heard in a clip, in order."""
    seen = [f"{shape.colour} {shape.form}" for shape in sample.scene.shapes]
    heard: Sequence[str] = list(dict.fromkeys(sound.kind for sound in sample.scene.sounds))
    return ", ".join([*seen, *heard])
