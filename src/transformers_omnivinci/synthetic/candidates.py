"""
What each form of question can ask about a scene.

A finder takes a scene and the world's config and yields a [`Candidate`] for everything in the scene that its form can
ask about. What a question names must be unique in the scene; otherwise it is not a candidate.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .config import WorldConfig
from .scenes import AudibleSound, Combination, Scene, VisibleShape

SIDES = ("left", "right", "top", "bottom")
# Parts of the frame by which a still shape must be further off-centre towards its side than along the other axis.
_CLEAR_OFFSET = 0.05

THE_SHAPE = "the {colour} {form}"
THE_SHAPE_AT_A_SIDE = "the {colour} {form} at the {side}"
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


Finder = Callable[[Scene, WorldConfig], Iterator[Candidate]]


def format_seconds(seconds: float) -> str:
    """Seconds rounded to the nearest half, as answers and captions give them: `"3.5"`."""
    return f"{round(2 * seconds) / 2:.1f}"


def name_shape(shape: VisibleShape) -> dict[str, str]:
    """The fields of a wording that identify a shape: its colour and form."""
    return {"colour": shape.colour, "form": shape.form}


def _are_distinct(scene: Scene) -> bool:
    return len({sound.kind for sound in scene.sounds}) == len(scene.sounds)


def _single_sounds(scene: Scene) -> list[AudibleSound]:
    """The sounds that are heard only once in the scene."""
    kinds = [sound.kind for sound in scene.sounds]
    return [sound for sound in scene.sounds if kinds.count(sound.kind) == 1]


def _combine(shape: VisibleShape, sound: AudibleSound) -> Combination:
    return shape.colour, shape.form, sound.kind


# ------------------------------------------------------------------------------------------------- one modality alone


def extreme_shape(place: int, attribute: str) -> Finder:
    """Finds the `"colour"` or `"form"` of the first (`place` 0) or last (-1) shape."""

    def find(scene, config):
        if len(scene.shapes) > 1:
            yield Candidate(getattr(scene.shapes[place], attribute))

    return find


def colour_of_form(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the colour of each form."""
    for shape in scene.shapes:
        yield Candidate(shape.colour, {"form": shape.form})


def form_of_colour(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the form that has each colour."""
    for shape in scene.shapes:
        yield Candidate(shape.form, {"colour": shape.colour})


def only_shape(describe: Callable[[VisibleShape], str]) -> Finder:
    """Finds what `describe` returns for the shape of a scene that has exactly one."""

    def find(scene, config):
        if len(scene.shapes) == 1:
            yield Candidate(describe(scene.shapes[0]))

    return find


def motion(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the direction of each shape that is in at least two of `config.num_frames` uniformly sampled frames."""
    spacing = scene.seconds / (config.num_frames - 1)
    for shape in scene.shapes:
        if shape.end - shape.start > 2 * spacing + 1 / config.fps:
            yield Candidate(shape.motion, name_shape(shape))


def extreme_sound(place: int) -> Finder:
    """Finds the first (`place` 0) or last (-1) sound."""

    def find(scene, config):
        if len(scene.sounds) > 1 and _are_distinct(scene):
            yield Candidate(scene.sounds[place].kind)

    return find


def neighbour_sound(step: int) -> Finder:
    """Finds the sound after (`step` 1) or before (-1) each other one."""

    def find(scene, config):
        if len(scene.sounds) > 1 and _are_distinct(scene):
            for sound, other in zip(scene.sounds, scene.sounds[1:]):
                asked, answer = (sound, other)[::step]
                yield Candidate(answer.kind, {"sound": asked.kind})

    return find


def sound_start(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the onset of each sound that is heard once."""
    for sound in _single_sounds(scene):
        yield Candidate(f"{format_seconds(sound.start)} seconds", {"sound": sound.kind})


def shape_start(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the time at which each shape appears."""
    for shape in scene.shapes:
        yield Candidate(f"{format_seconds(shape.start)} seconds", name_shape(shape))


def count_of_shapes(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the number of shapes."""
    yield Candidate(str(len(scene.shapes)))


def count_of_sounds(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the number of sounds."""
    yield Candidate(str(len(scene.sounds)))


def count_of_one_sound(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds how many times each kind of sound is heard."""
    kinds = [sound.kind for sound in scene.sounds]
    for kind in sorted(set(kinds)):
        yield Candidate(str(kinds.count(kind)), {"sound": kind})


# --------------------------------------------------------------------------------------------------- across modalities


def shape_during_sound(attribute: str) -> Finder:
    """Finds the `"colour"` or `"form"` of the shape that is on screen during each sound."""

    def find(scene, config):
        for sound in _single_sounds(scene):
            shape = scene.shape_in(sound.slot)
            if shape is not None and len(scene.shapes) > 1:
                fields, combination = {"sound": sound.kind}, _combine(shape, sound)
                yield Candidate(getattr(shape, attribute), fields, len(scene.shapes), combination)

    return find


def sound_during_shape(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the sound that is heard while each shape is on screen."""
    if len(scene.sounds) > 1 and _are_distinct(scene):
        for shape in scene.shapes:
            sound = scene.sound_in(shape.slot)
            if sound is not None:
                yield Candidate(sound.kind, name_shape(shape), len(scene.sounds), _combine(shape, sound))


def shape_beside_sound(step: int, attribute: str) -> Finder:
    """
    Finds the `"colour"` or `"form"` of the shape in the slot after (`step` 1) or before (-1) that of each sound.

    Only in scenes in which every slot has a shape: otherwise, shapes next to empty slots would be likelier answers.
    """

    def find(scene, config):
        if len(scene.shapes) == len(scene.slots) > 2:
            for sound in _single_sounds(scene):
                shape = scene.shape_in(sound.slot + step)
                if shape is not None:
                    fields, combination = {"sound": sound.kind}, _combine(shape, sound)
                    yield Candidate(getattr(shape, attribute), fields, len(scene.shapes) - 1, combination)

    return find


def sound_beside_shape(step: int) -> Finder:
    """Finds the sound in the slot after or before that of each shape; the mirror image of [`shape_beside_sound`]."""

    def find(scene, config):
        if len(scene.sounds) == len(scene.slots) > 2 and _are_distinct(scene):
            for shape in scene.shapes:
                sound = scene.sound_in(shape.slot + step)
                if sound is not None:
                    yield Candidate(sound.kind, name_shape(shape), len(scene.sounds) - 1, _combine(shape, sound))

    return find


# ------------------------------------------------------------------------------------------------------------ captions


def caption(scene: Scene, config: WorldConfig) -> Iterator[Candidate]:
    """Finds the caption of a scene: all its events in the order of their onsets."""
    moves, stands, is_heard = CAPTION_WORDINGS
    events = [
        (
            shape.start,
            (stands if shape.motion == "nowhere" else moves).format(
                start=format_seconds(shape.start),
                end=format_seconds(shape.end),
                motion=shape.motion,
                **name_shape(shape),
            ),
        )
        for shape in scene.shapes
    ]
    events += [
        (sound.start, is_heard.format(start=format_seconds(sound.start), sound=sound.kind)) for sound in scene.sounds
    ]
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
