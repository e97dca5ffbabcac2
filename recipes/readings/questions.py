"""Multiple-choice questions about readings, with three options each, in the four categories of table 14."""

import random
from collections.abc import Iterator

from transformers_omnivinci.synthetic import COLOURS, FORMS
from transformers_omnivinci.tasks import Choice

from .scroll import RELATIONS, SCROLLS, Reading
from .volume import SIDES

CATEGORIES = {"LH": "long horizon", "AVS": "audio-visual synchrony", "AS": "anti-shortcut", "TR": "temporal reasoning"}
PLACES = ("at the beginning", "in the middle", "at the end")
NOTHING = "nothing"

Asked = tuple[str, str, str, list[str]]  # form, question, right option, the others


def ask_reading(reading: Reading, per_category: int, rng: random.Random, media: list[dict]) -> Iterator[Choice]:
    """
    Questions about a reading, as many of each category, each in another form.

    Wrong options are seen or heard in the same reading wherever there are enough, so that whoever misses a sense
    cannot exclude them. Right options are equally frequent within a form.
    """
    for category in CATEGORIES:
        for form in rng.sample(_FORMS[category], min(per_category, len(_FORMS[category]))):
            question, answer, others = form(reading, rng)
            name = form.__name__.strip("_")
            fields = {"category": category, "form": name}
            yield Choice(f"{reading.name}-{name}", media, question, answer, others, fields)


def _others(all_of_them, answer: str) -> list[str]:
    return [one for one in all_of_them if one != answer]


def _first_mark(reading, rng):
    """Needs the whole clip: every mark is shown, but not first."""
    names = [mark.name for mark in reading.marks]
    return "Which mark is shown first?", names[0], names[1:]


def _last_word(reading, rng):
    words = [mark.word for mark in reading.marks]
    return "Which word is said last?", words[-1], words[:-1]


def _place_of_mark(reading, rng):
    place = rng.randrange(len(PLACES))
    return f"When is the {reading.marks[place].name} shown?", PLACES[place], _others(PLACES, PLACES[place])


def _word_during_mark(reading, rng):
    mark = rng.choice(reading.marks)
    others = [one.word for one in reading.marks if one is not mark]
    return f"Which word is said while the {mark.name} is shown?", mark.word, others


def _mark_during_word(reading, rng):
    mark = rng.choice(reading.marks)
    others = [one.name for one in reading.marks if one is not mark]
    return f"Which mark is shown while {mark.word} is said?", mark.name, others


def _side_of_mark(reading, rng):
    """What is said about the side is right one time in three: only the picture tells."""
    said = [mark for mark in reading.marks if mark.word in SIDES]
    mark = rng.choice(said or reading.marks)
    side = mark.finding.side
    return f"On which side is the {mark.name}?", side, _others(SIDES, side)


def _word_or_none(reading, rng):
    """Asks as if a mark were there, which it is two times in three."""
    words = [mark.word for mark in reading.marks]
    place = rng.randrange(3)
    if place < 2:
        mark = rng.choice(reading.marks)
        other = rng.choice(_others(words, mark.word))
        return _while(mark.name), mark.word, [other, _there_is_no(mark.name)]
    colours = _left(COLOURS, [mark.colour for mark in reading.marks])
    forms = _left(FORMS, [mark.form for mark in reading.marks])
    absent = f"{rng.choice(colours)} {rng.choice(forms)}"
    return _while(absent), _there_is_no(absent), rng.sample(words, 2)


def _while(name: str) -> str:
    return f"Which word is said while the {name} is shown?"


def _there_is_no(name: str) -> str:
    return f"there is no {name}"


def _left(values, taken) -> list[str]:
    return [value for value in values if value not in taken]


def _next_mark(reading, rng):
    place = rng.randrange(3)
    names = [mark.name for mark in reading.marks] + [NOTHING]
    others = [name for index, name in enumerate(names) if index not in (place, place + 1)]
    return f"What is shown next after the {names[place]}?", names[place + 1], others[:2]


def _word_and_mark(reading, rng):
    """Whether a word is said before, while or after a mark is shown."""
    relation = rng.choice(RELATIONS)
    gap = {"before": -1, "while": 0, "after": 1}[relation]
    places = [place for place in range(3) if 0 <= place + gap < 3]
    place = rng.choice(places)
    word, name = reading.marks[place + gap].word, reading.marks[place].name
    return f"When is {word} said: before, while or after the {name} is shown?", relation, _others(RELATIONS, relation)


def _direction(reading, rng):
    """How the slices change: nothing in a single frame tells."""
    return "Which way does the scroll go?", reading.scroll, _others(SCROLLS, reading.scroll)


_FORMS = {
    "LH": (_first_mark, _last_word, _place_of_mark),
    "AVS": (_word_during_mark, _mark_during_word),
    "AS": (_side_of_mark, _word_or_none),
    "TR": (_next_mark, _word_and_mark, _direction),
}
FORMS_OF = {category: tuple(form.__name__.strip("_") for form in forms) for category, forms in _FORMS.items()}
"""The names of the forms of each category."""
NEEDED = {
    "first_mark": "picture",
    "last_word": "sound",
    "place_of_mark": "picture",
    "word_during_mark": "both",
    "mark_during_word": "both",
    "side_of_mark": "picture",
    "word_or_none": "both",
    "next_mark": "picture",
    "word_and_mark": "both",
    "direction": "picture",
}
"""What each form cannot be answered without."""
