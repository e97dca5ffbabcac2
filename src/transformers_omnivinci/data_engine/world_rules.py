"""
Rules by which captions of the synthetic world are corrected by each other, for tests: what a large model would judge
by its sense, these judge by what the makers of the world know. Never is more than one shape on screen, or more than
one sound heard, at a time.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..synthetic import Event, claims_of
from .columns import RejectedStatement
from .world_claims import shift, tell

SAME_SECONDS = 1.0
"""Up to how far apart two captions may put the same event."""
LACKS = {
    "visual": "Its model could not hear, and the caption of the sound does not tell of it.",
    "audio": "Its model could not see, and the caption of the picture does not tell of it.",
}
AT_ONCE = {
    "visual": "Another shape, which is on screen for longer, is told of the same time.",
    "audio": "Another sound is told of the same time.",
}


def correct(clips: Sequence[dict]) -> tuple[str, list[RejectedStatement]]:
    """
    Corrects and merges the captions of clips.

    Args:
        clips (`Sequence[dict]`): Each with `number`, `start` (in seconds), `visual` and `audio`, its captions.

    Returns:
        `tuple[str, list[RejectedStatement]]`: the caption, in seconds on the clock of the `start`s, and what of the
        captions is not in it.
    """
    kept: list[tuple[Event, dict]] = []
    rejected = []
    for clip in clips:
        claims = {sense: claims_of(clip[sense]) for sense in ("visual", "audio")}
        for sense, other in (("visual", "audio"), ("audio", "visual")):
            for event in claims[sense]:
                if event.sense == sense:
                    kept.append((shift(event, clip["start"]), clip))
                elif not any(_is_same(event, told) for told in claims[other]):
                    rejected.append(RejectedStatement(sense, clip["number"], event.sentence, LACKS[sense]))
    kept = _join(sorted(kept, key=lambda pair: (pair[0].sense, pair[0].start)))
    told: list[Event] = []
    for event, clip in sorted(kept, key=lambda pair: pair[0].start - pair[0].end):
        if any(_are_at_once(event, other) for other in told):
            sentence = shift(event, -clip["start"]).sentence
            rejected.append(RejectedStatement(event.sense, clip["number"], sentence, AT_ONCE[event.sense]))
        else:
            told.append(event)
    return tell(told) or "Nothing is seen or heard.", rejected


def _is_same(one: Event, other: Event) -> bool:
    return (one.sense, one.what) == (other.sense, other.what) and abs(one.start - other.start) <= SAME_SECONDS


def _are_at_once(one: Event, other: Event) -> bool:
    if one.sense != other.sense:
        return False
    if one.sense == "audio":
        return abs(one.start - other.start) < 0.5
    return min(one.end, other.end) - max(one.start, other.start) > 0.5


def _join(events: list[tuple[Event, dict]]) -> list[tuple[Event, dict]]:
    """Joins the pieces of a shape that was on screen when a clip ended and the next one began."""
    joined: list[tuple[Event, dict]] = []
    for event, clip in events:
        for place, (other, first) in enumerate(joined):
            is_next = first["number"] + 1 <= clip["number"] and abs(event.start - other.end) <= 0.75
            is_at_border = abs(event.start - clip["start"]) <= 0.5
            if event.sense == "visual" and other.what == event.what and is_next and is_at_border:
                joined[place] = (replace(other, end=event.end), first)
                break
        else:
            joined.append((event, clip))
    return joined
