"""Events of films of the synthetic world, told as captions and cut to stretches of a film."""

from collections.abc import Iterable
from dataclasses import replace

from ..synthetic import Event


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
