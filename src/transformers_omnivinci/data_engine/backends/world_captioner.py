"""
A captioner for tests: it knows what happens in films of the synthetic world, and makes mistakes at stated rates.

As in figure 4, it is deaf where it is shown a picture and blind where it is played a sound: what it says of the other
sense is made up.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...synthetic import COLOURS, FORMS, MOTIONS, SOUNDS, Event, read_events
from ..world_claims import cut_to, tell
from .protocol import Medium, Reply, Request

NOTHING = {"picture": "No shape is seen.", "sound": "No sound is heard.", "both": "Nothing is seen or heard."}
SENSES = {"picture": ("visual",), "sound": ("audio",), "both": ("visual", "audio")}


@dataclass(frozen=True)
class WorldCaptionerOptions:
    """
    How often it is wrong.

    Attributes:
        drop (`float`): Share of the events that it does not tell.
        mistime (`float`): Share of those that it tells of a wrong time, `seconds_off` earlier or later.
        invent (`float`): Made-up events of its own sense, on average in each clip; at most 1.
        imagine (`float`): Made-up events of the sense that it lacks, on average in each clip; at most 1.
        seconds_off (`float`): In seconds.
        delay (`float`): Seconds that it takes for each caption.
    """

    drop: float = 0.0
    mistime: float = 0.0
    invent: float = 0.0
    imagine: float = 0.0
    seconds_off: float = 4.0
    delay: float = 0.0

    def __post_init__(self):
        for name in ("drop", "mistime", "invent", "imagine"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` of a test-captioner is {getattr(self, name)}: 0 to 1 is accepted.")


class WorldCaptioner:
    """A [`Backend`] that answers with captions of the one clip in a request. The same seed gives the same mistakes."""

    model = "test-captioner"

    def __init__(self, options: WorldCaptionerOptions):
        self.options = options

    def check(self) -> None:
        """Always passes."""

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Reply:
        time.sleep(self.options.delay)
        try:
            (medium,) = request.media
            events = read_events(medium.source)
        except (OSError, ValueError) as error:
            return Reply(error=str(error))
        rng = random.Random(request.seed)
        text = tell(self._corrupt(events, medium, rng)) or NOTHING[medium.senses]
        return Reply(text, len(request.text.split()), len(text.split()))

    def _corrupt(self, events: Sequence[Event], medium: Medium, rng: random.Random) -> list[Event]:
        options, seconds, told = self.options, medium.end - medium.start, []
        own = SENSES[medium.senses]
        for event in cut_to(events, medium.start, medium.end):
            if event.sense not in own or rng.random() < options.drop:
                continue
            told.append(_move(event, options.seconds_off, seconds, rng) if rng.random() < options.mistime else event)
        for sense in ("visual", "audio"):
            if rng.random() < (options.invent if sense in own else options.imagine):
                told.append(_invent(sense, seconds, rng))
        return told


def _move(event: Event, seconds_off: float, seconds: float, rng: random.Random) -> Event:
    """The event at another time that is within the clip, if there is one so far away."""
    length = event.end - event.start
    starts = [event.start + sign * seconds_off for sign in (-1, 1)]
    starts = [start for start in starts if 0 <= start <= seconds - min(length, seconds)] or [event.start]
    start = rng.choice(starts)
    return replace(event, start=start, end=start + length)


def _invent(sense: str, seconds: float, rng: random.Random) -> Event:
    start = rng.randint(0, max(0, round(2 * seconds) - 4)) / 2
    if sense == "audio":
        return Event("audio", rng.choice(SOUNDS), start, start + 1)
    return Event("visual", f"{rng.choice(COLOURS)} {rng.choice(FORMS)}", start, start + 2, rng.choice(MOTIONS))
