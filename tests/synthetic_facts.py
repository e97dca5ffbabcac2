"""Finds the events of a synthetic clip in its pixels and samples alone, and answers questions from them."""

import re
from typing import NamedTuple

import numpy as np

from transformers_omnivinci.synthetic import COLOURS, FORMS, SOUNDS
from transformers_omnivinci.synthetic.rendering import PITCHES, RGB


class Seen(NamedTuple):
    start: float
    end: float
    colour: str
    form: str
    motion: str
    place: tuple[float, float] = (0.5, 0.5)  # (x, y) of the centre at the start, in parts of the frame


class Heard(NamedTuple):
    start: float
    end: float
    kind: str


def look(clip) -> list[Seen]:
    """Shapes, each over the frames that show its colour and form."""
    spacing, seen = 1 / clip.fps, []
    for second, frame in zip(np.arange(len(clip.frames)) / clip.fps, clip.frames.astype(np.int32)):
        red, green, blue = frame[..., 0], frame[..., 1], frame[..., 2]
        least = np.minimum(np.minimum(red, green), blue)
        mask = (np.maximum(np.maximum(red, green), blue) - least > 80) | (least > 190)
        if mask.sum() < 60:
            continue
        colour = min(RGB, key=lambda name: np.abs(np.median(frame[mask], axis=0) - RGB[name]).sum())
        y, x = np.nonzero(mask)
        box = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
        form, centre = _form(box), ((x.min() + x.max()) / 2, (y.min() + y.max()) / 2)
        if seen and seen[-1]["colour"] == colour and second - seen[-1]["last"] < 1.5 * spacing:
            seen[-1]["forms"].append(form)
            seen[-1].update(last=second, target=centre)
        else:
            seen.append(dict(start=second, last=second, colour=colour, forms=[form], origin=centre, target=centre))
    return [
        Seen(
            shape["start"],
            shape["last"] + spacing,
            shape["colour"],
            max(set(shape["forms"]), key=shape["forms"].count),
            _motion(np.subtract(shape["target"], shape["origin"])),
            tuple(np.divide(shape["origin"], clip.frames.shape[2:0:-1])),
        )
        for shape in seen
    ]


def listen(clip) -> list[Heard]:
    """Sounds, each a stretch that is louder than what is under all of them."""
    rate, size = clip.sampling_rate, clip.sampling_rate // 100
    blocks = clip.waveform[: len(clip.waveform) // size * size].reshape(-1, size)
    loud = np.flatnonzero(np.sqrt((blocks**2).mean(axis=1)) > 0.035)
    heard = []
    for stretch in np.split(loud, np.flatnonzero(np.diff(loud) > 10) + 1):
        samples = clip.waveform[stretch[0] * size : (stretch[-1] + 1) * size]
        heard.append(Heard(stretch[0] / 100, (stretch[-1] + 1) / 100, _kind(samples, rate)))
    return heard


def answer(question, seen: list[Seen], heard: list[Heard]) -> str | None:
    """The answer to a question that is no caption: `None` where the facts give none, or several."""
    text = question.text
    colour, form, sound = (_name(text, names) for names in (COLOURS, FORMS, SOUNDS))
    shapes = [s for s in seen if colour in (None, s.colour) and form in (None, s.form)]
    sounds = [s for s in heard if sound in (None, s.kind)]
    wanted, _, relation = question.form.partition("_")
    if wanted == "motion":
        found = [shape.motion for shape in shapes]
    elif relation == "and_form":
        found = [f"the {shape.colour} {shape.form}" for shape in shapes]
    elif wanted == "count":
        found = [str(len(shapes if relation == "of_shapes" else sounds))]
    elif relation == "start":
        found = [f"{round(2 * event.start) / 2:.1f} seconds" for event in (sounds if wanted == "sound" else shapes)]
    elif wanted in ("first", "last"):
        event = (heard if relation == "sound" else seen)[0 if wanted == "first" else -1]
        found = [event.kind if relation == "sound" else getattr(event, relation)]
    else:
        relation, _, other = relation.partition("_")
        events = heard if wanted == "sound" else shapes if relation == "of" else seen
        if relation != "of":
            (named,) = sounds if other == "sound" else shapes
            if relation == "during":
                events = [event for event in events if event.start < named.end and named.start < event.end]
            elif relation == "after":
                after = named.end if other == "shape" else named.start
                events = [event for event in events if event.start > after][:1]
            else:
                events = [event for event in events if event.end < named.start][-1:]
        found = [event.kind if wanted == "sound" else getattr(event, wanted) for event in events]
    return found[0] if len(found) == 1 else None


def is_described(picture: Seen, text: str) -> bool:
    """Whether the caption of a picture names its shape, and the side on which it is, if it is clearly on one."""
    name, _, side = text.partition(" at the ")
    right, down = np.subtract(picture.place, 0.5)
    ways = {"left": -right, "right": right, "top": -down, "bottom": down}
    is_right = ways[side] == max(ways.values()) if side else abs(abs(right) - abs(down)) < 0.1
    return name == f"the {picture.colour} {picture.form}" and is_right


def _name(text: str, names) -> str | None:
    match = re.search(rf"\b({'|'.join(names)})\b", text)
    return match and match[0]


def _form(box: np.ndarray) -> str:
    height, width = box.shape
    if not box[height // 2 - 1 : height // 2 + 2, width // 2 - 1 : width // 2 + 2].any():
        return "ring"
    filled = box.mean()
    if filled > 0.65:
        return "square" if filled > 0.92 else "circle"
    if (box == box[::-1]).mean() > 0.88:
        return "cross"
    return "triangle" if filled > 0.47 else "star"


def _motion(way: np.ndarray) -> str:
    x, y = way
    if max(abs(x), abs(y)) < 4:
        return "nowhere"
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _kind(samples: np.ndarray, rate: int) -> str:
    if len(samples) < 0.1 * rate:
        return "click"
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    if np.exp(np.log(spectrum + 1e-12).mean()) > 0.2 * spectrum.mean():
        return "noise"
    third = len(samples) // 3
    low, high = (_pitch(part, rate) for part in (samples[:third], samples[-third:]))
    if max(low, high) > 1.5 * min(low, high):
        return "rising sweep" if low < high else "falling sweep"
    pitch = _pitch(samples, rate)
    return min(PITCHES, key=lambda kind: min(abs(pitch - tone) for tone in PITCHES[kind]))


def _pitch(samples: np.ndarray, rate: int) -> float:
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples)
