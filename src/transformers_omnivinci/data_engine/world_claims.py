"""What captions of the synthetic world claim: its sentences read back as events."""

import re
from collections.abc import Iterable
from dataclasses import replace

from ..synthetic import COLOURS, FORMS, MOTIONS, SOUNDS, Event

_NUMBER = r"(\d+(?:\.\d+)?)"
_SHAPE = re.compile(
    rf"From {_NUMBER} to {_NUMBER} seconds, the ({'|'.join(COLOURS)}) ({'|'.join(FORMS)}) "
    rf"(?:moves ({'|'.join(MOTIONS[:-1])})|(stands still))",
    re.IGNORECASE,
)
_SOUND = re.compile(rf"At {_NUMBER} seconds, the ({'|'.join(SOUNDS)}) is heard", re.IGNORECASE)
SOUND_SECONDS = 1.0
"""How long a sound is taken to be, of which captions tell the start alone."""


def claims_of(text: str) -> list[Event]:
    """The events that a text claims, in the words of the world's captions, in the order of the text."""
    found = []
    for match in _SHAPE.finditer(text):
        start, end, colour, form, motion, _ = match.groups()
        what = f"{colour} {form}".lower()
        found.append((match.start(), Event("visual", what, float(start), float(end), (motion or "nowhere").lower())))
    for match in _SOUND.finditer(text):
        start = float(match[1])
        found.append((match.start(), Event("audio", match[2].lower(), start, start + SOUND_SECONDS)))
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


def tell(events: Iterable[Event]) -> str:
    """The caption of events, in the order of their starts."""
    return " ".join(event.sentence for event in sorted(events, key=lambda event: (event.start, event.sense)))


def shift(event: Event, seconds: float) -> Event:
    """An event that much later."""
    return replace(event, start=round(event.start + seconds, 3), end=round(event.end + seconds, 3))


def cut_to(events: Iterable[Event], start: float, end: float) -> list[Event]:
    """
    What of the events of a film is told of a stretch of it, in seconds from its start: shapes as long as they are on
    screen there, for a quarter of a second at least, and sounds that begin there.
    """
    told = []
    for event in events:
        if event.sense == "audio":
            if start <= event.start < end:
                told.append(shift(event, -start))
            continue
        seen = replace(event, start=max(event.start, start), end=min(event.end, end))
        if seen.end - seen.start >= 0.25:
            told.append(shift(seen, -start))
    return told
