"""Questions about events of the synthetic world, written and answered by rules, for tests."""

import random
import re
from collections.abc import Sequence

from ..synthetic import COLOURS, FORMS, SOUNDS, Event

SYNCHRONY = "Which sound is heard while the {} is shown?"
WHERE = "Which way does the {} move?"
AFTER = "Which sound is heard right after the {}?"
SHAPES, HEARD = "How many times does a shape appear?", "How many sounds are heard?"
ANY = "Is any sound heard while the {} is shown?"
FORMS_OF = {
    "perception": WHERE,
    "order": AFTER,
    "synchrony": SYNCHRONY,
    "counting": SHAPES,
    "anti-shortcut": ANY,
}
DIRECTIONS = ("left", "right", "up", "down", "nowhere")


def answer(question: str, events: Sequence[Event]) -> str | None:
    """The answer to a question by events; `None` if they do not tell, or it is none of this module."""
    shapes = [event for event in events if event.sense == "visual"]
    sounds = sorted((event for event in events if event.sense == "audio"), key=lambda event: event.start)
    if question == SHAPES:
        return str(len(shapes)) if shapes else None
    if question == HEARD:
        return str(len(sounds)) if sounds else None
    for form in (SYNCHRONY, WHERE, AFTER, ANY):
        match = re.fullmatch(re.escape(form).replace(r"\{\}", "(.+)"), question)
        if match is None:
            continue
        if form == AFTER:
            places = [place for place, sound in enumerate(sounds) if sound.what == match[1]]
            is_told = len(places) == 1 and places[0] + 1 < len(sounds)
            return sounds[places[0] + 1].what if is_told else None
        named = [shape for shape in shapes if shape.what == match[1]]
        if len(named) != 1:
            return None
        during = [sound.what for sound in sounds if named[0].start <= sound.start < named[0].end]
        if form == WHERE:
            return named[0].motion
        if form == ANY:
            return "yes" if during else "no" if sounds else None
        return during[0] if len(during) == 1 else None
    return None


def write_questions(events: Sequence[Event], categories: Sequence[str], rng: random.Random) -> list[dict]:
    """
    What can be asked about events.

    Returns:
        `list[dict]`: in random order, each with `category`, `question`, `answer`, `reasoning` and `others`, answers
        that are wrong.
    """
    found = []
    shapes = [event for event in events if event.sense == "visual"]
    sounds = sorted((event for event in events if event.sense == "audio"), key=lambda event: event.start)
    for category in categories:
        form = FORMS_OF.get(category)
        if form is None:
            continue  # nothing in this world is the cause of anything
        if category == "counting":
            texts = [SHAPES, HEARD]
        else:
            named = sounds if form == AFTER else shapes
            texts = [form.format(what) for what in sorted({event.what for event in named})]
        for text in texts:
            right = answer(text, events)
            if right is not None:
                told = " ".join(event.sentence for event in sorted((*shapes, *sounds), key=lambda one: one.start))
                found.append(
                    {
                        "category": category,
                        "question": text,
                        "answer": right,
                        "reasoning": f"{told} So the answer is {right}.",
                        "others": [other for other in _kind_of(right) if other != right],
                    }
                )
    rng.shuffle(found)
    return found


def _kind_of(answer: str) -> list[str]:
    """Answers of the same kind."""
    if answer.isdigit():
        return [str(number) for number in range(max(0, int(answer) - 3), int(answer) + 4)]
    for kind in (SOUNDS, DIRECTIONS, ("yes", "no")):
        if answer in kind:
            return list(kind)
    return [f"{colour} {form}" for colour in COLOURS for form in FORMS]
