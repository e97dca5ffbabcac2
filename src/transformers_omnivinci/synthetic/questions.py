"""
Questions about scenes, with their answers.

A question has a type, the ability that it tests, and within the type a form, what it asks for. Each form has several
wordings. A form is asked about a scene only if what it names is unique there.

**Order across modalities.** The simplest question would be "does the circle appear before the click?". But whoever
sees that the circle is early in the clip can guess, without listening, that the click comes later. The forms therefore
ask what comes next or came last: to a model that only sees, every shape with a neighbour on that side is equally
likely.

**Matching.** Each form that names a shape or a sound has a twin for practice that asks about all of them at once:
"Which sound is heard while each shape is shown?", "white star middle tone, cyan circle noise". Each answer directly
follows the name that it belongs to, so that nothing has to be carried over the tokens in between.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from . import candidates
from .candidates import Candidate, Finder, format_seconds
from .config import WorldConfig
from .scenes import COLOURS, FORMS, MOTIONS, SOUNDS, Combination, Scene

MAX_COUNT = 4


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
            How many answers are equally likely given a single modality, the one that leaves fewer: chance is one in
            `num_candidates`. 0 for captions and matching.
        combination (`tuple[str, str, str]`, *optional*):
            The colour, form and sound that a question across modalities relates.
    """

    type: str
    form: str
    text: str
    answer: str
    num_candidates: int
    combination: Combination | None = None


class QuestionForm(NamedTuple):
    """
    A form of question.

    Attributes:
        type (`str`): One of `QUESTION_TYPES`.
        name (`str`): Unique among all forms.
        wordings (`tuple[str, ...]`): With the fields `{colour}`, `{form}` and `{sound}`.
        answers (`Callable`): From the world's config to all possible answers; empty if the answer is free text.
        find (`Callable`): From a scene and the world's config to the [`Candidate`]s of the scene.
    """

    type: str
    name: str
    wordings: tuple[str, ...]
    answers: Callable[[WorldConfig], tuple[str, ...]]
    find: Finder


def ask(
    scene: Scene, form: QuestionForm, answer: str | None, config: WorldConfig, rng: random.Random
) -> Question | None:
    """
    Asks a question of the given form about a scene, in a random wording.

    Args:
        scene ([`Scene`]): The scene.
        form ([`QuestionForm`]): One of `QUESTION_FORMS`, `PICTURE_FORMS` or `SOUND_FORMS`.
        answer (`str`, *optional*): The answer that the question must have. `None`: any of the form's.
        config ([`WorldConfig`]): The world's config.
        rng (`random.Random`): The generator to draw from; only advanced if there is a question.

    Returns:
        [`Question`], or `None` if the scene has no such question.
    """
    answers = form.answers(config)
    found = [
        candidate
        for candidate in form.find(scene, config)
        if candidate.answer == answer or (answer is None and (not answers or candidate.answer in answers))
    ]
    if not found:
        return None
    chosen = rng.choice(found)
    return Question(
        type=form.type,
        form=form.name,
        text=rng.choice(form.wordings).format(**chosen.fields),
        answer=chosen.answer,
        num_candidates=chosen.num_candidates or len(answers),
        combination=chosen.combination,
    )


def split_words(text: str) -> list[str]:
    """Splits a text into words, numbers and punctuation marks: `"At 3.5 seconds."` has four."""
    return re.findall(r"\d+\.\d+|\w+|[^\w\s]", text)


def vocabulary(config: WorldConfig | None = None) -> list[str]:
    """
    Every word that questions and answers of a world can contain.

    Args:
        config ([`WorldConfig`], *optional*): The world's config.

    Returns:
        `list[str]`: sorted, as [`split_words`] splits texts.
    """
    config = config or WorldConfig()
    forms = (*QUESTION_FORMS, *PICTURE_FORMS)
    wordings = [*candidates.CAPTION_WORDINGS, candidates.THE_SHAPE_AT_A_SIDE, *candidates.SIDES]
    wordings += [wording for form in forms for wording in form.wordings]
    texts = [re.sub(r"\{\w+\}", "", wording) for wording in wordings]
    texts += [answer for form in forms for answer in form.answers(config)]
    texts += _times(0.0, config.clip_seconds[1])  # of captions
    return sorted({word for text in texts for word in split_words(text)})


def _times(first: float, last: float) -> tuple[str, ...]:
    return tuple(format_seconds(half / 2) for half in range(round(2 * first), round(2 * last) + 1))


def _onset_times(config: WorldConfig) -> tuple[str, ...]:
    """The seconds at which both shapes and sounds can start."""
    return tuple(f"{time} seconds" for time in _times(0.5, config.clip_seconds[1] - config.slot_seconds[0]))


def _among(*values: str) -> Callable[[WorldConfig], tuple[str, ...]]:
    return lambda config: values


_COLOURS, _FORMS, _SOUNDS = _among(*COLOURS), _among(*FORMS), _among(*SOUNDS)
_COUNTS = _among(*map(str, range(1, MAX_COUNT + 1)))

# How a wording that names one shape or sound asks about all of them; longer names first.
_ALL_OF = {
    "the {colour} {form}": "each shape",
    "the {sound}": "each sound",
    "the {form}": "each shape",
    "{colour}": "each colour",
}


def _matching(form: QuestionForm) -> QuestionForm:
    """The twin of a form that asks about all shapes or sounds of a scene, in an order that tells nothing of time."""

    def find(scene, config):
        pairs = [f"{' '.join(candidate.fields.values())} {candidate.answer}" for candidate in form.find(scene, config)]
        if len(pairs) > 1:
            yield Candidate(", ".join(random.Random(scene.seed).sample(pairs, len(pairs))))

    wordings = form.wordings
    for one, each in _ALL_OF.items():
        wordings = tuple(wording.replace(one, each) for wording in wordings)
    return QuestionForm("matching", f"{form.name}_each", wordings, _among(), find)


_SINGLE_FORMS = (
    QuestionForm(
        "visual",
        "first_colour",
        ("What colour is the first shape?", "Which colour is shown first?"),
        _COLOURS,
        candidates.extreme_shape(0, "colour"),
    ),
    QuestionForm(
        "visual",
        "first_form",
        ("Which shape is shown first?", "What is the first shape?"),
        _FORMS,
        candidates.extreme_shape(0, "form"),
    ),
    QuestionForm(
        "visual",
        "last_colour",
        ("What colour is the last shape?", "Which colour is shown last?"),
        _COLOURS,
        candidates.extreme_shape(-1, "colour"),
    ),
    QuestionForm(
        "visual",
        "last_form",
        ("Which shape is shown last?", "What is the last shape?"),
        _FORMS,
        candidates.extreme_shape(-1, "form"),
    ),
    QuestionForm(
        "visual",
        "colour_of_form",
        ("What colour is the {form}?", "Which colour has the {form}?"),
        _COLOURS,
        candidates.colour_of_form,
    ),
    QuestionForm(
        "visual",
        "form_of_colour",
        ("Which shape is {colour}?", "What is {colour}?"),
        _FORMS,
        candidates.form_of_colour,
    ),
    QuestionForm(
        "visual",
        "motion",
        ("Which way does the {colour} {form} move?", "Where does the {colour} {form} go?"),
        _among(*MOTIONS),
        candidates.motion,
    ),
    QuestionForm(
        "audio",
        "first_sound",
        ("Which sound is heard first?", "What is the first sound?"),
        _SOUNDS,
        candidates.extreme_sound(0),
    ),
    QuestionForm(
        "audio",
        "last_sound",
        ("Which sound is heard last?", "What is the last sound?"),
        _SOUNDS,
        candidates.extreme_sound(-1),
    ),
    QuestionForm(
        "audio",
        "sound_after_sound",
        ("Which sound is next after the {sound}?", "What is heard next after the {sound}?"),
        _SOUNDS,
        candidates.neighbour_sound(1),
    ),
    QuestionForm(
        "audio",
        "sound_before_sound",
        ("Which sound is the last before the {sound}?", "What is heard last before the {sound}?"),
        _SOUNDS,
        candidates.neighbour_sound(-1),
    ),
    QuestionForm(
        "synchrony",
        "colour_during_sound",
        ("What colour is the shape while the {sound} is heard?", "Which colour is shown during the {sound}?"),
        _COLOURS,
        candidates.shape_during_sound("colour"),
    ),
    QuestionForm(
        "synchrony",
        "form_during_sound",
        ("Which shape is shown while the {sound} is heard?", "What is shown during the {sound}?"),
        _FORMS,
        candidates.shape_during_sound("form"),
    ),
    QuestionForm(
        "synchrony",
        "sound_during_shape",
        (
            "Which sound is heard while the {colour} {form} is shown?",
            "What is heard during the time of the {colour} {form}?",
        ),
        _SOUNDS,
        candidates.sound_during_shape,
    ),
    QuestionForm(
        "order",
        "colour_after_sound",
        (
            "What colour is the next shape to appear after the {sound}?",
            "Which colour appears next after the {sound}?",
        ),
        _COLOURS,
        candidates.shape_beside_sound(1, "colour"),
    ),
    QuestionForm(
        "order",
        "colour_before_sound",
        (
            "What colour is the last shape to vanish before the {sound}?",
            "Which colour vanishes last before the {sound}?",
        ),
        _COLOURS,
        candidates.shape_beside_sound(-1, "colour"),
    ),
    QuestionForm(
        "order",
        "form_after_sound",
        ("Which shape is the next to appear after the {sound}?", "Which shape appears next after the {sound}?"),
        _FORMS,
        candidates.shape_beside_sound(1, "form"),
    ),
    QuestionForm(
        "order",
        "form_before_sound",
        ("Which shape is the last to vanish before the {sound}?", "Which shape vanishes last before the {sound}?"),
        _FORMS,
        candidates.shape_beside_sound(-1, "form"),
    ),
    QuestionForm(
        "order",
        "sound_after_shape",
        (
            "Which sound is next after the {colour} {form} vanishes?",
            "What is heard next after the {colour} {form} vanishes?",
        ),
        _SOUNDS,
        candidates.sound_beside_shape(1),
    ),
    QuestionForm(
        "order",
        "sound_before_shape",
        (
            "Which sound is the last before the {colour} {form} appears?",
            "What is heard last before the {colour} {form} appears?",
        ),
        _SOUNDS,
        candidates.sound_beside_shape(-1),
    ),
    QuestionForm(
        "time",
        "sound_start",
        ("At which second does the {sound} start?", "When is the {sound} heard?"),
        _onset_times,
        candidates.sound_start,
    ),
    QuestionForm(
        "time",
        "shape_start",
        ("At which second does the {colour} {form} appear?", "When does the {colour} {form} appear?"),
        _onset_times,
        candidates.shape_start,
    ),
    QuestionForm(
        "counting",
        "count_of_shapes",
        ("How many shapes are shown?", "What is the number of shapes?"),
        _COUNTS,
        candidates.count_of_shapes,
    ),
    QuestionForm(
        "counting",
        "count_of_sounds",
        ("How many sounds are heard?", "What is the number of sounds?"),
        _COUNTS,
        candidates.count_of_sounds,
    ),
    QuestionForm(
        "counting",
        "count_of_one_sound",
        ("How many times is the {sound} heard?", "How often is the {sound} heard?"),
        _COUNTS,
        candidates.count_of_one_sound,
    ),
)
QUESTION_FORMS = (
    *_SINGLE_FORMS,
    *(_matching(form) for form in _SINGLE_FORMS if "{" in form.wordings[0]),
    QuestionForm(
        "caption",
        "caption",
        ("Describe the clip with times.", "What is shown and heard, and when?", "What happens?"),
        _among(),
        candidates.caption,
    ),
)
QUESTION_TYPES = tuple(dict.fromkeys(form.type for form in QUESTION_FORMS))
# Types whose answers come from a closed set, so that they are either right or wrong.
CLOSED_TYPES = tuple(dict.fromkeys(form.type for form in _SINGLE_FORMS))

# What can be asked about a picture of one shape, and about a sound without picture.
PICTURE_FORMS = (
    QuestionForm(
        "visual",
        "colour_of_shape",
        ("What colour is the shape?", "Which colour is shown?"),
        _COLOURS,
        candidates.only_shape(lambda shape: shape.colour),
    ),
    QuestionForm(
        "visual",
        "form_of_shape",
        ("Which shape is shown?", "What is the shape?"),
        _FORMS,
        candidates.only_shape(lambda shape: shape.form),
    ),
    QuestionForm(
        "visual",
        "colour_and_form",
        ("What is shown?", "Which shape of which colour is shown?"),
        _among(*(candidates.THE_SHAPE.format(colour=colour, form=form) for colour, form in product(COLOURS, FORMS))),
        candidates.only_shape(lambda shape: candidates.THE_SHAPE.format(**candidates.name_shape(shape))),
    ),
    *(form for form in QUESTION_FORMS if form.name in ("colour_of_form", "form_of_colour")),
    QuestionForm(
        "caption",
        "caption_of_picture",
        ("What is shown, and where?", "Describe the picture."),
        _among(),
        candidates.caption_of_picture,
    ),
)
_OF_SOUNDS = [form.name for form in QUESTION_FORMS if form.type == "audio"]
_OF_SOUNDS += ["sound_start", "count_of_sounds", "count_of_one_sound"]
SOUND_FORMS = tuple(form for form in QUESTION_FORMS if form.name.removesuffix("_each") in _OF_SOUNDS)
