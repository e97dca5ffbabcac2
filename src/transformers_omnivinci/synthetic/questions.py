"""
Questions about scenes, with their answers.

A question has a type (what one must see, hear or relate to answer it), and within it a form (what is asked for). The
wording of a form varies. What is asked about is unique in its scene, or the question is not put to that scene.

Of an order across the senses, "does the circle appear before the click?" would be the simplest question; but whoever
sees that the circle is early knows, without listening, that the click is later. Asked for is what comes next or came
last, therefore: to one who only sees, all shapes that have a neighbour on that side are equally probable.

**Matching.** Each form that names a shape or a sound has a twin that asks about all of them at once, to practise
with: "Which sound is heard while each shape is shown?" "white star middle tone, cyan circle noise". There, each answer
follows its name, with nothing between them over which it must be carried.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from .config import WorldConfig
from .scenes import COLOURS, FORMS, MOTIONS, SOUNDS, Combination, Scene, VisibleShape

MAX_COUNT = 4
SIDES = ("left", "right", "top", "bottom")
# Of a still shape, in parts of the frame, how much further it is off the centre towards its side than across.
_CLEARLY = 0.05


@dataclass(frozen=True)
class Question:
    """
    A question about a scene.

    Attributes:
        type (`str`): One of `QUESTION_TYPES`.
        form (`str`): The name of one of the type's forms.
        text (`str`): The question.
        answer (`str`): The right answer.
        num_candidates (`int`):
            Answers that are equally probable to one who sees but does not hear, or hears but does not see, whichever
            leaves fewer: chance is one in so many. 0 for captions and matching.
        combination (`tuple[str, str, str]`, *optional*):
            Colour, form and sound that a question across the senses relates.
    """

    type: str
    form: str
    text: str
    answer: str
    num_candidates: int
    combination: Combination | None = None


class _Candidate(NamedTuple):
    """What a form may ask about a scene: values of the wording's fields, and the rest as in [`Question`]."""

    answer: str
    fields: dict[str, str] = {}
    num_candidates: int = 0
    combination: Combination | None = None


class QuestionForm(NamedTuple):
    """
    A form of question.

    Attributes:
        type (`str`): One of `QUESTION_TYPES`.
        name (`str`): Unique.
        wordings (`tuple[str, ...]`): With the fields `{colour}`, `{form}` and `{sound}`.
        answers (`Callable`): All answers, given the world's config; empty where they are free text.
        find (`Callable`): What may be asked about a scene, given the world's config too.
    """

    type: str
    name: str
    wordings: tuple[str, ...]
    answers: Callable[[WorldConfig], tuple[str, ...]]
    find: Callable[[Scene, WorldConfig], Iterator[_Candidate]]


def ask(
    scene: Scene, form: QuestionForm, answer: str | None, config: WorldConfig, rng: random.Random
) -> Question | None:
    """
    A question of a form about a scene, in one of its wordings.

    Args:
        scene ([`Scene`]): What is asked about.
        form ([`QuestionForm`]): One of `QUESTION_FORMS`.
        answer (`str`, *optional*): The answer that the question shall have. `None`: any of the form's.
        config ([`WorldConfig`]): The world's.
        rng (`random.Random`): Is advanced.

    Returns:
        [`Question`], or `None` where the scene has none such.
    """
    answers = form.answers(config)
    candidates = [
        candidate
        for candidate in form.find(scene, config)
        if candidate.answer == answer or (answer is None and (not answers or candidate.answer in answers))
    ]
    if not candidates:
        return None
    chosen = rng.choice(candidates)
    return Question(
        type=form.type,
        form=form.name,
        text=rng.choice(form.wordings).format(**chosen.fields),
        answer=chosen.answer,
        num_candidates=chosen.num_candidates or len(answers),
        combination=chosen.combination,
    )


def split_words(text: str) -> list[str]:
    """Words, numbers and punctuation marks: `"At 3.5 seconds."` has four."""
    return re.findall(r"\d+\.\d+|\w+|[^\w\s]", text)


def vocabulary(config: WorldConfig | None = None) -> list[str]:
    """All that [`split_words`] finds in any question or answer of a world, sorted."""
    config = config or WorldConfig()
    forms = (*QUESTION_FORMS, *PICTURE_FORMS)
    wordings = [*_CAPTION_WORDINGS, _THE_SHAPE_AT_A_SIDE, *SIDES]
    wordings += [wording for form in forms for wording in form.wordings]
    texts = [re.sub(r"\{\w+\}", "", wording) for wording in wordings]
    texts += [answer for form in forms for answer in form.answers(config)]
    texts += _times(0.0, config.clip_seconds[1])  # of captions
    return sorted({word for text in texts for word in split_words(text)})


def format_seconds(seconds: float) -> str:
    """Seconds to the nearest half, as in answers."""
    return f"{round(2 * seconds) / 2:.1f}"


# --------------------------------------------------------------------------------------------------- what may be asked


def _times(first: float, last: float) -> tuple[str, ...]:
    return tuple(format_seconds(half / 2) for half in range(round(2 * first), round(2 * last) + 1))


def _onset_times(config: WorldConfig) -> tuple[str, ...]:
    """Those at which both shapes and sounds can start."""
    return tuple(f"{time} seconds" for time in _times(0.5, config.clip_seconds[1] - config.slot_seconds[0]))


def _among(*values: str) -> Callable[[WorldConfig], tuple[str, ...]]:
    return lambda config: values


_COUNTS = _among(*map(str, range(1, MAX_COUNT + 1)))


def _are_distinct(scene: Scene) -> bool:
    return len({sound.kind for sound in scene.sounds}) == len(scene.sounds)


def _single_sounds(scene: Scene):
    """Sounds of which there is no other in the scene."""
    kinds = [sound.kind for sound in scene.sounds]
    return [sound for sound in scene.sounds if kinds.count(sound.kind) == 1]


def _named(shape) -> dict[str, str]:
    return {"colour": shape.colour, "form": shape.form}


def _extreme_shape(place: int, attribute: str):
    def find(scene, config):
        if len(scene.shapes) > 1:
            yield _Candidate(getattr(scene.shapes[place], attribute))

    return find


def _colour_of_form(scene, config):
    for shape in scene.shapes:
        yield _Candidate(shape.colour, {"form": shape.form})


def _form_of_colour(scene, config):
    for shape in scene.shapes:
        yield _Candidate(shape.form, {"colour": shape.colour})


def _only_shape(describe: Callable[[VisibleShape], str]):
    def find(scene, config):
        if len(scene.shapes) == 1:
            yield _Candidate(describe(scene.shapes[0]))

    return find


def _motion(scene, config):
    spacing = scene.seconds / (config.num_frames - 1)
    for shape in scene.shapes:
        if shape.end - shape.start > 2 * spacing + 1 / config.fps:
            yield _Candidate(shape.motion, _named(shape))


def _extreme_sound(place: int):
    def find(scene, config):
        if len(scene.sounds) > 1 and _are_distinct(scene):
            yield _Candidate(scene.sounds[place].kind)

    return find


def _neighbour_sound(step: int):
    def find(scene, config):
        if len(scene.sounds) > 1 and _are_distinct(scene):
            for sound, other in zip(scene.sounds, scene.sounds[1:]):
                asked, answer = (sound, other)[::step]
                yield _Candidate(answer.kind, {"sound": asked.kind})

    return find


def _shape_during_sound(attribute: str):
    def find(scene, config):
        for sound in _single_sounds(scene):
            shape = scene.shape_in(sound.slot)
            if shape is not None and len(scene.shapes) > 1:
                combination = (shape.colour, shape.form, sound.kind)
                yield _Candidate(getattr(shape, attribute), {"sound": sound.kind}, len(scene.shapes), combination)

    return find


def _sound_during_shape(scene, config):
    if len(scene.sounds) > 1 and _are_distinct(scene):
        for shape in scene.shapes:
            sound = scene.sound_in(shape.slot)
            if sound is not None:
                combination = (shape.colour, shape.form, sound.kind)
                yield _Candidate(sound.kind, _named(shape), len(scene.sounds), combination)


def _shape_beside_sound(step: int, attribute: str):
    """
    The shape of the slot after (`step` 1) or before (-1) that of a sound. Only where all slots have shapes: else those
    beside empty slots would be the likelier answers.
    """

    def find(scene, config):
        if len(scene.shapes) == len(scene.slots) > 2:
            for sound in _single_sounds(scene):
                shape = scene.shape_in(sound.slot + step)
                if shape is not None:
                    combination = (shape.colour, shape.form, sound.kind)
                    yield _Candidate(
                        getattr(shape, attribute), {"sound": sound.kind}, len(scene.shapes) - 1, combination
                    )

    return find


def _sound_beside_shape(step: int):
    """The same with the senses exchanged."""

    def find(scene, config):
        if len(scene.sounds) == len(scene.slots) > 2 and _are_distinct(scene):
            for shape in scene.shapes:
                sound = scene.sound_in(shape.slot + step)
                if sound is not None:
                    combination = (shape.colour, shape.form, sound.kind)
                    yield _Candidate(sound.kind, _named(shape), len(scene.sounds) - 1, combination)

    return find


def _sound_start(scene, config):
    for sound in _single_sounds(scene):
        yield _Candidate(f"{format_seconds(sound.start)} seconds", {"sound": sound.kind})


def _shape_start(scene, config):
    for shape in scene.shapes:
        yield _Candidate(f"{format_seconds(shape.start)} seconds", _named(shape))


def _count_of_shapes(scene, config):
    yield _Candidate(str(len(scene.shapes)))


def _count_of_sounds(scene, config):
    yield _Candidate(str(len(scene.sounds)))


def _count_of_one_sound(scene, config):
    kinds = [sound.kind for sound in scene.sounds]
    for kind in sorted(set(kinds)):
        yield _Candidate(str(kinds.count(kind)), {"sound": kind})


_CAPTION_WORDINGS = (
    "From {start} to {end} seconds, the {colour} {form} moves {motion}.",
    "From {start} to {end} seconds, the {colour} {form} stands still.",
    "At {start} seconds, the {sound} is heard.",
)


def caption(scene: Scene) -> str:
    """All events of a scene in the order of their starts, with seconds to the nearest half."""
    moves, stands, is_heard = _CAPTION_WORDINGS
    events = [
        (
            shape.start,
            (stands if shape.motion == "nowhere" else moves).format(
                start=format_seconds(shape.start),
                end=format_seconds(shape.end),
                motion=shape.motion,
                **_named(shape),
            ),
        )
        for shape in scene.shapes
    ]
    events += [
        (sound.start, is_heard.format(start=format_seconds(sound.start), sound=sound.kind)) for sound in scene.sounds
    ]
    return " ".join(text for _, text in sorted(events))


def _caption(scene, config):
    yield _Candidate(caption(scene))


def _caption_of_picture(scene, config):
    """Where it is not clear which side the shape is off the centre, none is told."""
    if len(scene.shapes) == 1:
        shape = scene.shapes[0]
        right, down = (part - 0.5 for part in shape.origin)
        ways = dict(zip(SIDES, (-right, right, -down, down)))
        side = max(ways, key=ways.get)
        is_clear = abs(abs(right) - abs(down)) >= _CLEARLY
        yield _Candidate((_THE_SHAPE_AT_A_SIDE if is_clear else _THE_SHAPE).format(side=side, **_named(shape)))


# Of all that a wording may name at once; longer names first.
_ALL_OF = {
    "the {colour} {form}": "each shape",
    "the {sound}": "each sound",
    "the {form}": "each shape",
    "{colour}": "each colour",
}


def _matching(form: QuestionForm) -> QuestionForm:
    """The twin of a form that asks about all shapes or sounds of a scene, in an order that is not that of time."""

    def find(scene, config):
        pairs = [f"{' '.join(candidate.fields.values())} {candidate.answer}" for candidate in form.find(scene, config)]
        if len(pairs) > 1:
            yield _Candidate(", ".join(random.Random(scene.seed).sample(pairs, len(pairs))))

    wordings = form.wordings
    for one, each in _ALL_OF.items():
        wordings = tuple(wording.replace(one, each) for wording in wordings)
    return QuestionForm("matching", f"{form.name}_each", wordings, _among(), find)


_THE_SHAPE = "the {colour} {form}"
_THE_SHAPE_AT_A_SIDE = "the {colour} {form} at the {side}"
_colour, _form, _sound = _among(*COLOURS), _among(*FORMS), _among(*SOUNDS)

_SINGLE_FORMS = tuple(
    QuestionForm(type, *rest)
    for type, *rest in (
        (
            "visual",
            "first_colour",
            ("What colour is the first shape?", "Which colour is shown first?"),
            _colour,
            _extreme_shape(0, "colour"),
        ),
        (
            "visual",
            "first_form",
            ("Which shape is shown first?", "What is the first shape?"),
            _form,
            _extreme_shape(0, "form"),
        ),
        (
            "visual",
            "last_colour",
            ("What colour is the last shape?", "Which colour is shown last?"),
            _colour,
            _extreme_shape(-1, "colour"),
        ),
        (
            "visual",
            "last_form",
            ("Which shape is shown last?", "What is the last shape?"),
            _form,
            _extreme_shape(-1, "form"),
        ),
        (
            "visual",
            "colour_of_form",
            ("What colour is the {form}?", "Which colour has the {form}?"),
            _colour,
            _colour_of_form,
        ),
        ("visual", "form_of_colour", ("Which shape is {colour}?", "What is {colour}?"), _form, _form_of_colour),
        (
            "visual",
            "motion",
            ("Which way does the {colour} {form} move?", "Where does the {colour} {form} go?"),
            _among(*MOTIONS),
            _motion,
        ),
        (
            "audio",
            "first_sound",
            ("Which sound is heard first?", "What is the first sound?"),
            _sound,
            _extreme_sound(0),
        ),
        ("audio", "last_sound", ("Which sound is heard last?", "What is the last sound?"), _sound, _extreme_sound(-1)),
        (
            "audio",
            "sound_after_sound",
            ("Which sound is next after the {sound}?", "What is heard next after the {sound}?"),
            _sound,
            _neighbour_sound(1),
        ),
        (
            "audio",
            "sound_before_sound",
            ("Which sound is the last before the {sound}?", "What is heard last before the {sound}?"),
            _sound,
            _neighbour_sound(-1),
        ),
        (
            "synchrony",
            "colour_during_sound",
            ("What colour is the shape while the {sound} is heard?", "Which colour is shown during the {sound}?"),
            _colour,
            _shape_during_sound("colour"),
        ),
        (
            "synchrony",
            "form_during_sound",
            ("Which shape is shown while the {sound} is heard?", "What is shown during the {sound}?"),
            _form,
            _shape_during_sound("form"),
        ),
        (
            "synchrony",
            "sound_during_shape",
            (
                "Which sound is heard while the {colour} {form} is shown?",
                "What is heard during the time of the {colour} {form}?",
            ),
            _sound,
            _sound_during_shape,
        ),
        (
            "order",
            "colour_after_sound",
            (
                "What colour is the next shape to appear after the {sound}?",
                "Which colour appears next after the {sound}?",
            ),
            _colour,
            _shape_beside_sound(1, "colour"),
        ),
        (
            "order",
            "colour_before_sound",
            (
                "What colour is the last shape to vanish before the {sound}?",
                "Which colour vanishes last before the {sound}?",
            ),
            _colour,
            _shape_beside_sound(-1, "colour"),
        ),
        (
            "order",
            "form_after_sound",
            ("Which shape is the next to appear after the {sound}?", "Which shape appears next after the {sound}?"),
            _form,
            _shape_beside_sound(1, "form"),
        ),
        (
            "order",
            "form_before_sound",
            ("Which shape is the last to vanish before the {sound}?", "Which shape vanishes last before the {sound}?"),
            _form,
            _shape_beside_sound(-1, "form"),
        ),
        (
            "order",
            "sound_after_shape",
            (
                "Which sound is next after the {colour} {form} vanishes?",
                "What is heard next after the {colour} {form} vanishes?",
            ),
            _sound,
            _sound_beside_shape(1),
        ),
        (
            "order",
            "sound_before_shape",
            (
                "Which sound is the last before the {colour} {form} appears?",
                "What is heard last before the {colour} {form} appears?",
            ),
            _sound,
            _sound_beside_shape(-1),
        ),
        (
            "time",
            "sound_start",
            ("At which second does the {sound} start?", "When is the {sound} heard?"),
            _onset_times,
            _sound_start,
        ),
        (
            "time",
            "shape_start",
            ("At which second does the {colour} {form} appear?", "When does the {colour} {form} appear?"),
            _onset_times,
            _shape_start,
        ),
        (
            "counting",
            "count_of_shapes",
            ("How many shapes are shown?", "What is the number of shapes?"),
            _COUNTS,
            _count_of_shapes,
        ),
        (
            "counting",
            "count_of_sounds",
            ("How many sounds are heard?", "What is the number of sounds?"),
            _COUNTS,
            _count_of_sounds,
        ),
        (
            "counting",
            "count_of_one_sound",
            ("How many times is the {sound} heard?", "How often is the {sound} heard?"),
            _COUNTS,
            _count_of_one_sound,
        ),
    )
)
QUESTION_FORMS = (
    *_SINGLE_FORMS,
    *(_matching(form) for form in _SINGLE_FORMS if "{" in form.wordings[0]),
    QuestionForm(
        "caption",
        "caption",
        ("Describe the clip with times.", "What is shown and heard, and when?", "What happens?"),
        _among(),
        _caption,
    ),
)
QUESTION_TYPES = tuple(dict.fromkeys(form.type for form in QUESTION_FORMS))
# Those of which each answer is one of few, so that it can be called right or wrong.
CLOSED_TYPES = tuple(dict.fromkeys(form.type for form in _SINGLE_FORMS))

# What a picture of one shape answers, and what a sound answers.
PICTURE_FORMS = (
    QuestionForm(
        "visual",
        "colour_of_shape",
        ("What colour is the shape?", "Which colour is shown?"),
        _colour,
        _only_shape(lambda shape: shape.colour),
    ),
    QuestionForm(
        "visual",
        "form_of_shape",
        ("Which shape is shown?", "What is the shape?"),
        _form,
        _only_shape(lambda shape: shape.form),
    ),
    QuestionForm(
        "visual",
        "colour_and_form",
        ("What is shown?", "Which shape of which colour is shown?"),
        _among(*(_THE_SHAPE.format(colour=colour, form=form) for colour, form in product(COLOURS, FORMS))),
        _only_shape(lambda shape: _THE_SHAPE.format(**_named(shape))),
    ),
    *(form for form in QUESTION_FORMS if form.name in ("colour_of_form", "form_of_colour")),
    QuestionForm(
        "caption",
        "caption_of_picture",
        ("What is shown, and where?", "Describe the picture."),
        _among(),
        _caption_of_picture,
    ),
)
_OF_SOUNDS = [form.name for form in QUESTION_FORMS if form.type == "audio"]
_OF_SOUNDS += ["sound_start", "count_of_sounds", "count_of_one_sound"]
SOUND_FORMS = tuple(form for form in QUESTION_FORMS if form.name.removesuffix("_each") in _OF_SOUNDS)
