"""Multiple-choice questions about readings, with three options each, in the four categories of table 14."""

import random
from collections.abc import Iterable, Iterator

from transformers_omnivinci.synthetic import COLOURS, FORMS
from transformers_omnivinci.tasks import Choice

from .scroll import Reading
from .volume import SIDES

CATEGORIES = {"LH": "long horizon", "AVS": "audio-visual synchrony", "AS": "anti-shortcut", "TR": "temporal reasoning"}
PLACES = ("in the beginning", "in the middle", "in the end")
WAYS = {"from head to feet": "down", "from feet to head": "up", "there and back": "down and up"}

Asked = tuple[str, str, list[str]]
"""A question, its right option and the others."""


def ask_reading(reading: Reading, per_category: int, rng: random.Random, media: list[dict]) -> Iterator[Choice]:
    """
    Questions about a reading, as many of each category, each in another form, in words that nano knows.

    Wrong options are seen or heard in the same reading wherever there are enough, so that whoever misses a sense
    cannot exclude them.
    """
    for category, forms in FORMS_OF.items():
        for form in rng.sample(forms, min(per_category, len(forms))):
            question, answer, others = _ASK[form](reading, rng)
            yield Choice(
                f"{reading.name}-{form}", media, question, answer, others, {"category": category, "form": form}
            )


def _first_colour(reading: Reading, rng: random.Random) -> Asked:
    first, *others = (mark.colour for mark in reading.marks)
    return "Which colour is shown first?", first, others


def _last_word(reading: Reading, rng: random.Random) -> Asked:
    *others, last = (mark.word for mark in reading.marks)
    return "Which word is heard last?", last, others


def _place_of_mark(reading: Reading, rng: random.Random) -> Asked:
    place = rng.randrange(len(PLACES))
    return f"When does the {reading.marks[place].name} appear?", PLACES[place], _without(PLACES, PLACES[place])


def _word_during_mark(reading: Reading, rng: random.Random) -> Asked:
    mark = rng.choice(reading.marks)
    return _while(mark.name), mark.word, _without([one.word for one in reading.marks], mark.word)


def _colour_during_word(reading: Reading, rng: random.Random) -> Asked:
    mark = rng.choice(reading.marks)
    others = _without([one.colour for one in reading.marks], mark.colour)
    return f"Which colour is shown during the {mark.word}?", mark.colour, others


def _side_of_mark(reading: Reading, rng: random.Random) -> Asked:
    """What is said about the side is right one time in three: only the picture tells."""
    mark = rng.choice([mark for mark in reading.marks if mark.word in SIDES] or reading.marks)
    return f"Which side is the {mark.name}?", mark.finding.side, _without(SIDES, mark.finding.side)


def _word_or_none(reading: Reading, rng: random.Random) -> Asked:
    """Asks as if a mark were there, which it is two times in three."""
    words = [mark.word for mark in reading.marks]
    if rng.randrange(3):
        mark = rng.choice(reading.marks)
        other = rng.choice(_without(words, mark.word))
        return _while(mark.name), mark.word, [other, _there_is_no(mark.name)]
    colour = rng.choice([one for one in COLOURS if one not in {mark.colour for mark in reading.marks}])
    form = rng.choice([one for one in FORMS if one not in {mark.form for mark in reading.marks}])
    absent = f"{colour} {form}"
    return _while(absent), _there_is_no(absent), rng.sample(words, 2)


def _next_word(reading: Reading, rng: random.Random) -> Asked:
    """Which word follows a mark: both senses, in their order."""
    place = rng.randrange(2)
    answer = reading.marks[place + 1].word
    others = _without([mark.word for mark in reading.marks], answer)
    return f"Which word is next after the {reading.marks[place].name} vanishes?", answer, others


def _next_colour(reading: Reading, rng: random.Random) -> Asked:
    place = rng.randrange(2)
    answer = reading.marks[place + 1].colour
    others = _without([mark.colour for mark in reading.marks], answer)
    return f"Which colour appears next after the {reading.marks[place].word}?", answer, others


def _direction(reading: Reading, rng: random.Random) -> Asked:
    """How the slices change: nothing in a single frame tells."""
    answer = WAYS[reading.scroll]
    return "Which way does it go?", answer, _without(WAYS.values(), answer)


def _while(name: str) -> str:
    return f"Which word is heard while the {name} is shown?"


def _there_is_no(name: str) -> str:
    return f"There is no {name}."


def _without(values: Iterable[str], answer: str) -> list[str]:
    return [one for one in values if one != answer]


_ASK = {
    "first_colour": _first_colour,
    "last_word": _last_word,
    "place_of_mark": _place_of_mark,
    "word_during_mark": _word_during_mark,
    "colour_during_word": _colour_during_word,
    "side_of_mark": _side_of_mark,
    "word_or_none": _word_or_none,
    "next_word": _next_word,
    "next_colour": _next_colour,
    "direction": _direction,
}
FORMS_OF = {
    "LH": ("first_colour", "last_word", "place_of_mark"),
    "AVS": ("word_during_mark", "colour_during_word"),
    "AS": ("side_of_mark", "word_or_none"),
    "TR": ("next_word", "next_colour", "direction"),
}
"""The forms of questions of each category."""
CEILINGS = {
    "first_colour": (1, 1 / 3),
    "last_word": (1 / 3, 1),
    "place_of_mark": (1, 1 / 3),
    "word_during_mark": (1 / 3, 1 / 3),
    "colour_during_word": (1 / 3, 1 / 3),
    "side_of_mark": (1, 1 / 3),
    "word_or_none": (2 / 3, 1 / 3),
    "next_word": (1 / 3, 1 / 2),
    "next_colour": (1 / 2, 1 / 3),
    "direction": (1, 1 / 3),
}
"""
What a reader without ears and one without eyes could reach at best, of each form. The deaf sees whether a mark is
there at all, and then has two words to guess from. What is next is never the first, which excludes one option for
those who see colours, or hear words.
"""
