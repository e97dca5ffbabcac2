"""
What each form of question can ask about a scene.

A finder takes a scene, the world's config and what forms of its kind differ in. It yields a [`Candidate`] for
everything in the scene that the form can ask about. What a question names must be unique in the scene; otherwise it is
not a candidate.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from .config import WorldConfig
from .scenes import COLOURS, FORMS, SOUNDS, AudibleSound, Combination, Scene, VisibleShape

SIDES = ("left", "right", "top", "bottom")
# Parts of the frame by which a still shape must be further off-centre towards its side than along the other axis.
_CLEAR_OFFSET = 0.05

THE_SHAPE = "the {colour} {form}"
THE_SHAPE_AT_A_SIDE = "the {colour} {form} at the {side}"
THERE_IS_NO = "There is no {name}."
CAPTION_WORDINGS = (
    "From {start} to {end} seconds, the {colour} {form} moves {motion}.",
    "From {start} to {end} seconds, the {colour} {form} stands still.",
    "At {start} seconds, the {sound} is heard.",
)


class Candidate(NamedTuple):
    """
    One possible question about a scene.

    Attributes:
        answer (`str`): The right answer.
        fields (`dict[str, str]`): Values for the fields of the wording, such as `{"sound": "chord"}`.
        num_candidates (`int`): As in [`Question`]; 0 stands for the number of answers that the form has.
        combination (`tuple[str, str, str]`, *optional*): As in [`Question`].
    """

    answer: str
    fields: dict[str, str] = {}
    num_candidates: int = 0
    combination: Combination | None = None


def format_seconds(seconds: float) -> str:
    """Seconds rounded to the nearest half, as answers and captions give them: `"3.5"`."""
    return f"{round(2 * seconds) / 2:.1f}"


def name_shape(shape: VisibleShape) -> dict[str, str]:
    """The fields of a wording that identify a shape: its colour and form."""
    return {"colour": shape.colour, "form": shape.form}


def _single_sounds(scene: Scene) -> list[AudibleSound]:
    """The sounds that are heard only once in the scene."""
    kinds = [sound.kind for sound in scene.sounds]
    return [sound for sound in scene.sounds if kinds.count(sound.kind) == 1]


def _are_distinct(scene: Scene) -> bool:
    """Whether there are several sounds, none of which is heard twice."""
    return len(_single_sounds(scene)) == len(scene.sounds) > 1


def _are_alike_likely(events: Sequence, scene: Scene, step: int) -> bool:
    """Next to a named event only if every slot has one: otherwise, those next to empty slots would be likelier."""
    return len(events) == len(scene.slots) > 2 if step else len(events) > 1


def extreme_shape(scene: Scene, config: WorldConfig, place: int, attribute: str) -> Iterator[Candidate]:
    """Finds the `"colour"` or `"form"` of the first (`place` 0) or last (-1) shape."""
    if len(scene.shapes) > 1:
        yield Candidate(getattr(scene.shapes[place], attribute))


def attribute_of(scene: Scene, config: WorldConfig, named: str, attribute: str) -> Iterator[Candidate]:
    """Finds the colour of each form, or the form that has each colour."""
    for shape in scene.shapes:
        yield Candidate(getattr(shape, attribute), {named: getattr(shape, named)})


def only_shape(scene: Scene, config: WorldConfig, wording: str) -> Iterator[Candidate]:
    """Finds the shape of a scene that has exactly one, described with the fields `{colour}` and `{form}`."""
    if len(scene.shapes) == 1:
        yield Candidate(wording.format(**name_shape(scene.shapes[0])))


def motion(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the direction of each shape that is in at least two of `config.num_frames` uniformly sampled frames."""
    spacing = scene.seconds / (config.num_frames - 1)
    for shape in scene.shapes:
        if shape.end - shape.start > 2 * spacing + 1 / config.fps:
            yield Candidate(shape.motion, name_shape(shape))


def extreme_sound(scene: Scene, config: WorldConfig, place: int) -> Iterator[Candidate]:
    """Finds the first (`place` 0) or last (-1) sound."""
    if _are_distinct(scene):
        yield Candidate(scene.sounds[place].kind)


def neighbour_sound(scene: Scene, config: WorldConfig, step: int) -> Iterator[Candidate]:
    """Finds the sound after (`step` 1) or before (-1) each other one."""
    if _are_distinct(scene):
        for pair in zip(scene.sounds, scene.sounds[1:]):
            asked, answer = pair[::step]
            yield Candidate(answer.kind, {"sound": asked.kind})


def sound_start(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the onset of each sound that is heard once."""
    for sound in _single_sounds(scene):
        yield Candidate(f"{format_seconds(sound.start)} seconds", {"sound": sound.kind})


def shape_start(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the time at which each shape appears."""
    for shape in scene.shapes:
        yield Candidate(f"{format_seconds(shape.start)} seconds", name_shape(shape))


def count_of(scene: Scene, config: WorldConfig, events: str) -> Iterator[Candidate]:
    """Finds the number of `"shapes"` or `"sounds"`."""
    yield Candidate(str(len(getattr(scene, events))))


def count_of_one_sound(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds how many times each kind of sound is heard."""
    kinds = [sound.kind for sound in scene.sounds]
    for kind in sorted(set(kinds)):
        yield Candidate(str(kinds.count(kind)), {"sound": kind})


def shape_beside_sound(scene: Scene, config: WorldConfig, step: int, attribute: str) -> Iterator[Candidate]:
    """Finds the `"colour"` or `"form"` of the shape during (`step` 0), after (1) or before (-1) each sound."""
    if _are_alike_likely(scene.shapes, scene, step):
        for sound in _single_sounds(scene):
            shape = scene.shape_in(sound.slot + step)
            if shape is not None:
                fields, combination = {"sound": sound.kind}, (shape.colour, shape.form, sound.kind)
                yield Candidate(getattr(shape, attribute), fields, len(scene.shapes) - abs(step), combination)


def sound_beside_shape(scene: Scene, config: WorldConfig, step: int) -> Iterator[Candidate]:
    """Finds the sound during (`step` 0), after (1) or before (-1) each shape."""
    if _are_alike_likely(scene.sounds, scene, step) and _are_distinct(scene):
        for shape in scene.shapes:
            sound = scene.sound_in(shape.slot + step)
            if sound is not None:
                combination = (shape.colour, shape.form, sound.kind)
                yield Candidate(sound.kind, name_shape(shape), len(scene.sounds) - abs(step), combination)


def absent(scene: Scene, config: WorldConfig, named: tuple[str, ...]) -> Iterator[Candidate]:
    """
    Finds what a question can name that is not in the scene. Half of the shapes share their `"colour"` or `"form"`, or
    both, with shapes that are there, so that neither alone gives the answer away.
    """
    if named == ("sound",):
        kinds = {sound.kind for sound in scene.sounds}
        names = [(kind,) for kind in SOUNDS if kind not in kinds]
    else:
        values = {"colour": COLOURS, "form": FORMS}
        there = {tuple(getattr(shape, name) for name in named) for shape in scene.shapes}
        names = [name for name in product(*(values[one] for one in named)) if name not in there]
        known = [{getattr(shape, one) for shape in scene.shapes} for one in named]
        near = [name for name in names if any(value in values for value, values in zip(name, known, strict=True))]
        if near:
            rng = random.Random(scene.seed)
            names = near + rng.sample(sorted({*names} - {*near}), min(len(near), len(names) - len(near)))
    for name in names:
        called = [*name, "shape"] if named == ("colour",) else name
        # Two answers are possible: that it is not there, and any other.
        yield Candidate(THERE_IS_NO.format(name=" ".join(called)), dict(zip(named, name, strict=True)), 2)


def caption(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the caption of a scene: all its events in the order of their onsets."""
    moves, stands, is_heard = CAPTION_WORDINGS
    events = []
    for shape in scene.shapes:
        times = {"start": format_seconds(shape.start), "end": format_seconds(shape.end)}
        wording = stands if shape.motion == "nowhere" else moves
        events.append((shape.start, wording.format(motion=shape.motion, **times, **name_shape(shape))))
    for sound in scene.sounds:
        events.append((sound.start, is_heard.format(start=format_seconds(sound.start), sound=sound.kind)))
    yield Candidate(" ".join(text for _, text in sorted(events)))


def caption_of_picture(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the caption of a single shape. It names the side of the frame where that is unambiguous."""
    if len(scene.shapes) == 1:
        shape = scene.shapes[0]
        right, down = (part - 0.5 for part in shape.origin)
        offsets = dict(zip(SIDES, (-right, right, -down, down)))
        side = max(offsets, key=offsets.get)
        is_clear = abs(abs(right) - abs(down)) >= _CLEAR_OFFSET
        yield Candidate((THE_SHAPE_AT_A_SIDE if is_clear else THE_SHAPE).format(side=side, **name_shape(shape)))
