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

**Absent.** Each form that names a shape or a sound has another twin that asks about one that is not there, in the same
words: "Where does the green star go?", "There is no green star."
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

from . import candidates
from .candidates import Candidate, format_seconds
from .config import WorldConfig
from .scenes import COLOURS, FORMS, MOTIONS, SOUNDS, Combination, Scene, take_all, take_picture, take_sound

MAX_COUNT = 4


@dataclass(frozen=True)
class Question:
    """
    A question about a scene.

    Attributes:
        type (`str`): One of `QUESTION_TYPES`, or `"absent"`.
        form (`str`): The name of one of the type's forms.
        text (`str`): The question.
        answer (`str`): The right answer.
        num_candidates (`int`):
            How many answers are equally likely given a single modality, the one that leaves fewer: chance is one in
            `num_candidates`. 2 where it asks about what is not there, 0 for captions and matching.
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
        type (`str`): One of `QUESTION_TYPES`, or `"absent"`.
        name (`str`): Unique among all forms.
        wordings (`tuple[str, ...]`): With the fields `{colour}`, `{form}` and `{sound}`.
        answers (`Callable`): From the world's config to all possible answers; empty if the answer is free text.
        find (`Callable`): From a scene and the world's config to the [`Candidate`]s of the scene.
    """

    type: str
    name: str
    wordings: tuple[str, ...]
    answers: Callable[[WorldConfig], tuple[str, ...]]
    find: Callable[[Scene, WorldConfig], Iterator[Candidate]]


def ask(
    scene: Scene, form: QuestionForm, answer: str | None, config: WorldConfig, rng: random.Random
) -> Question | None:
    """
    Asks a question of the given form about a scene, in a random wording.

    Args:
        scene ([`Scene`]): The scene.
        form ([`QuestionForm`]): One of `QUESTION_FORMS`, `ABSENT_FORMS`, `PICTURE_FORMS` or `SOUND_FORMS`.
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
    wordings = [*candidates.CAPTION_WORDINGS, candidates.THERE_IS_NO, candidates.THE_SHAPE_AT_A_SIDE]
    wordings += candidates.SIDES
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


def _absent(form: QuestionForm) -> QuestionForm:
    """The twin of a form that names a shape or a sound which the scene does not have."""
    named = tuple(name for name in ("colour", "form", "sound") if f"{{{name}}}" in form.wordings[0])
    find = partial(candidates.absent, named=named)
    return QuestionForm("absent", f"absent_{form.name}", form.wordings, _among(), find)


_WORDINGS = {
    "first_colour": ("What colour is the first shape?", "Which colour is shown first?"),
    "first_form": ("Which shape is shown first?", "What is the first shape?"),
    "last_colour": ("What colour is the last shape?", "Which colour is shown last?"),
    "last_form": ("Which shape is shown last?", "What is the last shape?"),
    "colour_of_form": ("What colour is the {form}?", "Which colour has the {form}?"),
    "form_of_colour": ("Which shape is {colour}?", "What is {colour}?"),
    "motion": ("Which way does the {colour} {form} move?", "Where does the {colour} {form} go?"),
    "first_sound": ("Which sound is heard first?", "What is the first sound?"),
    "last_sound": ("Which sound is heard last?", "What is the last sound?"),
    "sound_after_sound": ("Which sound is next after the {sound}?", "What is heard next after the {sound}?"),
    "sound_before_sound": ("Which sound is the last before the {sound}?", "What is heard last before the {sound}?"),
    "colour_during_sound": (
        "What colour is the shape while the {sound} is heard?",
        "Which colour is shown during the {sound}?",
    ),
    "form_during_sound": ("Which shape is shown while the {sound} is heard?", "What is shown during the {sound}?"),
    "sound_during_shape": (
        "Which sound is heard while the {colour} {form} is shown?",
        "What is heard during the time of the {colour} {form}?",
    ),
    "colour_after_sound": (
        "What colour is the next shape to appear after the {sound}?",
        "Which colour appears next after the {sound}?",
    ),
    "colour_before_sound": (
        "What colour is the last shape to vanish before the {sound}?",
        "Which colour vanishes last before the {sound}?",
    ),
    "form_after_sound": (
        "Which shape is the next to appear after the {sound}?",
        "Which shape appears next after the {sound}?",
    ),
    "form_before_sound": (
        "Which shape is the last to vanish before the {sound}?",
        "Which shape vanishes last before the {sound}?",
    ),
    "sound_after_shape": (
        "Which sound is next after the {colour} {form} vanishes?",
        "What is heard next after the {colour} {form} vanishes?",
    ),
    "sound_before_shape": (
        "Which sound is the last before the {colour} {form} appears?",
        "What is heard last before the {colour} {form} appears?",
    ),
    "sound_start": ("At which second does the {sound} start?", "When is the {sound} heard?"),
    "shape_start": ("At which second does the {colour} {form} appear?", "When does the {colour} {form} appear?"),
    "count_of_shapes": ("How many shapes are shown?", "What is the number of shapes?"),
    "count_of_sounds": ("How many sounds are heard?", "What is the number of sounds?"),
    "count_of_one_sound": ("How many times is the {sound} heard?", "How often is the {sound} heard?"),
    "caption": ("Describe the clip with times.", "What is shown and heard, and when?", "What happens?"),
    "colour_of_shape": ("What colour is the shape?", "Which colour is shown?"),
    "form_of_shape": ("Which shape is shown?", "What is the shape?"),
    "colour_and_form": ("What is shown?", "Which shape of which colour is shown?"),
    "caption_of_picture": ("What is shown, and where?", "Describe the picture."),
}


def _form(type: str, name: str, answers: Callable, find: Callable, **parameters) -> QuestionForm:
    return QuestionForm(type, name, _WORDINGS[name], answers, partial(find, **parameters))


_SINGLE_FORMS = (
    _form("visual", "first_colour", _COLOURS, candidates.extreme_shape, place=0, attribute="colour"),
    _form("visual", "first_form", _FORMS, candidates.extreme_shape, place=0, attribute="form"),
    _form("visual", "last_colour", _COLOURS, candidates.extreme_shape, place=-1, attribute="colour"),
    _form("visual", "last_form", _FORMS, candidates.extreme_shape, place=-1, attribute="form"),
    _form("visual", "colour_of_form", _COLOURS, candidates.attribute_of, named="form", attribute="colour"),
    _form("visual", "form_of_colour", _FORMS, candidates.attribute_of, named="colour", attribute="form"),
    _form("visual", "motion", _among(*MOTIONS), candidates.motion),
    _form("audio", "first_sound", _SOUNDS, candidates.extreme_sound, place=0),
    _form("audio", "last_sound", _SOUNDS, candidates.extreme_sound, place=-1),
    _form("audio", "sound_after_sound", _SOUNDS, candidates.neighbour_sound, step=1),
    _form("audio", "sound_before_sound", _SOUNDS, candidates.neighbour_sound, step=-1),
    _form("synchrony", "colour_during_sound", _COLOURS, candidates.shape_beside_sound, step=0, attribute="colour"),
    _form("synchrony", "form_during_sound", _FORMS, candidates.shape_beside_sound, step=0, attribute="form"),
    _form("synchrony", "sound_during_shape", _SOUNDS, candidates.sound_beside_shape, step=0),
    _form("order", "colour_after_sound", _COLOURS, candidates.shape_beside_sound, step=1, attribute="colour"),
    _form("order", "colour_before_sound", _COLOURS, candidates.shape_beside_sound, step=-1, attribute="colour"),
    _form("order", "form_after_sound", _FORMS, candidates.shape_beside_sound, step=1, attribute="form"),
    _form("order", "form_before_sound", _FORMS, candidates.shape_beside_sound, step=-1, attribute="form"),
    _form("order", "sound_after_shape", _SOUNDS, candidates.sound_beside_shape, step=1),
    _form("order", "sound_before_shape", _SOUNDS, candidates.sound_beside_shape, step=-1),
    _form("time", "sound_start", _onset_times, candidates.sound_start),
    _form("time", "shape_start", _onset_times, candidates.shape_start),
    _form("counting", "count_of_shapes", _COUNTS, candidates.count_of, events="shapes"),
    _form("counting", "count_of_sounds", _COUNTS, candidates.count_of, events="sounds"),
    _form("counting", "count_of_one_sound", _COUNTS, candidates.count_of_one_sound),
)
QUESTION_FORMS = (
    *_SINGLE_FORMS,
    *(_matching(form) for form in _SINGLE_FORMS if "{" in form.wordings[0]),
    _form("caption", "caption", _among(), candidates.caption),
)
# Only asked if they are asked for.
ABSENT_FORMS = tuple(_absent(form) for form in _SINGLE_FORMS if "{" in form.wordings[0])
QUESTION_TYPES = tuple(dict.fromkeys(form.type for form in QUESTION_FORMS))
# Types whose answers come from a closed set, so that they are either right or wrong.
CLOSED_TYPES = tuple(dict.fromkeys(form.type for form in _SINGLE_FORMS))

# What can be asked about a picture of one shape, and about a sound without picture.
_PAIRS = _among(*(candidates.THE_SHAPE.format(colour=colour, form=form) for colour, form in product(COLOURS, FORMS)))
PICTURE_FORMS = (
    _form("visual", "colour_of_shape", _COLOURS, candidates.only_shape, wording="{colour}"),
    _form("visual", "form_of_shape", _FORMS, candidates.only_shape, wording="{form}"),
    _form("visual", "colour_and_form", _PAIRS, candidates.only_shape, wording=candidates.THE_SHAPE),
    *(form for form in QUESTION_FORMS if form.name in ("colour_of_form", "form_of_colour")),
    _form("caption", "caption_of_picture", _among(), candidates.caption_of_picture),
)
_OF_SOUNDS = [form.name for form in QUESTION_FORMS if form.type == "audio"]
_OF_SOUNDS += ["sound_start", "count_of_sounds", "count_of_one_sound"]
SOUND_FORMS = tuple(form for form in QUESTION_FORMS if form.name.removesuffix("_each") in _OF_SOUNDS)


class Modality(NamedTuple):
    """
    What samples show: video with sound, a single picture, or sound alone. They match the training stages of the paper,
    which learn from single modalities before they learn from both.

    What a sample does not show is not in its scene either. Held-out combinations relate shapes and sounds, so a single
    modality cannot show one: pictures of every split have all pairs of colour and form, and sounds all kinds. They are
    taken from scenes of their own split.

    Attributes:
        forms (`tuple[QuestionForm, ...]`): What can be asked.
        take (`Callable`):
            From a scene, the world's config and a `random.Random` to a scene with only what the modality shows.
    """

    forms: tuple[QuestionForm, ...]
    take: Callable[[Scene, WorldConfig, random.Random], Scene]


MODALITIES = {
    "video": Modality(QUESTION_FORMS + ABSENT_FORMS, take_all),
    "image": Modality(PICTURE_FORMS, take_picture),
    "audio": Modality(SOUND_FORMS, take_sound),
}
