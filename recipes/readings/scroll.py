"""Readings: which slices are seen when, which findings are marked, and what is said; planned first, then rendered."""

import random
from dataclasses import dataclass

import numpy as np

from transformers_omnivinci.synthetic import COLOURS, FORMS, Clip, Scene, WorldConfig
from transformers_omnivinci.synthetic.rendering import draw_frames
from transformers_omnivinci.synthetic.scenes import Background, VisibleShape

from .narration import WORDS, Narrator
from .volume import SIDES, Finding, draw_slices

SECONDS = 8.0
NUM_MARKS = 3
SCROLLS = {
    "from head to feet": (0.2, 0.98, 0.98),
    "from feet to head": (0.98, 0.2, 0.2),
    "there and back": (0.2, 0.98, 0.2),
}
"""The depths that a scroll is at in the beginning, in the middle of the way, and at the end."""
CONFIG = WorldConfig(clip_seconds=(SECONDS, SECONDS))


@dataclass(frozen=True)
class Mark:
    """
    A finding that the reader marks, and what is said then.

    Attributes:
        start, end (`float`): For how long the mark is shown, in seconds.
        colour, form (`str`): Of the mark, as in the synthetic world. No two marks of a reading share either.
        finding ([`Finding`]): What is marked; its depth is that of the scroll in the middle of that time.
        word (`str`): One of `WORDS`; no word is said twice in a reading.
        spoken (`float`): When the word begins, in seconds.
    """

    start: float
    end: float
    colour: str
    form: str
    finding: Finding
    word: str
    spoken: float

    @property
    def name(self) -> str:
        """How questions call it."""
        return f"{self.colour} {self.form}"


@dataclass(frozen=True)
class Reading:
    """
    A whole reading.

    Attributes:
        name (`str`): Of its file.
        scroll (`str`): A key of `SCROLLS`.
        marks (`tuple[Mark, ...]`): In their order.
        seed (`int`): Of the volume and of the voice.
    """

    name: str
    scroll: str
    marks: tuple[Mark, ...]
    seed: int


def depth_at(scroll: str, seconds: float | np.ndarray) -> float | np.ndarray:
    """At which depth a scroll is."""
    first, middle, last = SCROLLS[scroll]
    times = (0, SECONDS / 2, SECONDS) if middle != last else (0, SECONDS, SECONDS + 1)
    return np.interp(seconds, times, (first, middle, last))


def plan_reading(split: str, number: int, seed: int = 0) -> Reading:
    """
    A reading; the same arguments give the same one.

    What is said is drawn independently of what is marked. A word that names a side is therefore right about one time
    in three: it must not be trusted.
    """
    rng = random.Random(f"readings/{split}/{seed}/{number}")
    scroll = rng.choice(list(SCROLLS))
    colours, forms, words = (rng.sample(one, NUM_MARKS) for one in (COLOURS, FORMS, WORDS))
    marks, slot = [], SECONDS / NUM_MARKS
    for place, (colour, form, word) in enumerate(zip(colours, forms, words, strict=True)):
        start = round(place * slot + rng.uniform(0.2, 0.6), 2)
        end = round((place + 1) * slot - rng.uniform(0.15, 0.35), 2)
        depth = float(depth_at(scroll, (start + end) / 2))
        finding = Finding(depth, rng.choice(list(SIDES)), rng.uniform(0.4, 0.6))
        marks.append(Mark(start, end, colour, form, finding, word, round(start + rng.uniform(0.15, 0.5), 2)))
    return Reading(f"{split}-{number:05d}", scroll, tuple(marks), rng.randrange(2**31))


def render_reading(reading: Reading, narrator: Narrator) -> Clip:
    """The clip of a reading: grey slices, coloured marks behind the bright findings, and the narration."""
    seconds = np.arange(round(SECONDS * CONFIG.fps)) / CONFIG.fps
    findings = tuple(mark.finding for mark in reading.marks)
    slices = draw_slices(depth_at(reading.scroll, seconds), findings, reading.seed, CONFIG.height)
    black = Background("plain", (0, 0, 0), (0, 0, 0), 0.0, ())
    shapes = [
        VisibleShape(slot, mark.start, mark.end, mark.colour, mark.form, "nowhere", *[_place(mark)] * 2, radius=0.2)
        for slot, mark in enumerate(reading.marks)
    ]
    slots = tuple((mark.start, mark.end) for mark in reading.marks)
    scene = Scene(SECONDS, slots, tuple(shapes), (), black, 0.0, 0.0, reading.seed)
    marks = draw_frames(scene, CONFIG, seconds)
    is_marked = marks.any(axis=3, keepdims=True) & (slices < 200)  # findings stay in front
    sound = np.zeros(round(SECONDS * CONFIG.sampling_rate), np.float32)
    for order, mark in enumerate(reading.marks):
        spoken = narrator.say(mark.word, reading.seed + order, CONFIG.sampling_rate)
        first = round(mark.spoken * CONFIG.sampling_rate)
        last = min(first + len(spoken), len(sound))
        sound[first:last] += spoken[: last - first]
    return Clip(np.where(is_marked, marks, slices), sound.clip(-1, 1), CONFIG.fps, CONFIG.sampling_rate)


def _place(mark: Mark) -> tuple[float, float]:
    return SIDES[mark.finding.side], mark.finding.height
