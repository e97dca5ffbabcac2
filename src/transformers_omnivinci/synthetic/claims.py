"""What captions of the synthetic world claim: their sentences read back as events, and compared with the truth."""

import re
from collections import Counter
from dataclasses import dataclass, fields
from typing import Self

from .reels import Event
from .scenes import COLOURS, FORMS, MOTIONS, SOUNDS

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


@dataclass
class CaptionCount:
    """
    Claims of captions, counted against the events of true captions.

    Attributes:
        events (`int`): True events.
        claims (`int`): What was told.
        right (`int`):
            Claims that are right in everything a caption tells: colour, form, motion and both seconds of a shape, kind
            and second of a sound.
        invented (`int`):
            Claims of a shape or a sound that is not there at all, or is told more often than it is there.
    """

    events: int = 0
    claims: int = 0
    right: int = 0
    invented: int = 0

    @property
    def precision(self) -> float:
        """The share of claims that are right; 1 without claims."""
        return self.right / self.claims if self.claims else 1.0

    @property
    def recall(self) -> float:
        """The share of events that are told rightly; 1 without events."""
        return self.right / self.events if self.events else 1.0

    @property
    def invention(self) -> float:
        """The share of claims that are invented; 0 without claims."""
        return self.invented / self.claims if self.claims else 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def count_claims(told: str, truth: str) -> CaptionCount:
    """
    Counts what a caption claims against a true one, each event once.

    Args:
        told (`str`): A caption in the words of the world, see [`claims_of`]; other sentences are not read.
        truth (`str`): The right one.
    """
    claims, events = claims_of(told), claims_of(truth)
    right = Counter(claims) & Counter(events)
    there = Counter((event.sense, event.what) for event in claims) & Counter(
        (event.sense, event.what) for event in events
    )
    return CaptionCount(len(events), len(claims), right.total(), len(claims) - there.total())
