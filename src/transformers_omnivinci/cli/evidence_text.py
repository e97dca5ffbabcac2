"""What an answer rests on, in words."""

from collections.abc import Iterator, Sequence

import typer

from ..planning import Evidence, LeftOut, MediumEvidence
from ..planning.evidence import Span

MOST_SPANS = 6
"""More spans of seconds than this are told by the first and the last ones."""


def describe_evidence(evidence: Evidence, names: Sequence[str]) -> list[str]:
    """
    Lines about each medium, and one about the tokens.

    Args:
        evidence ([`Evidence`]): Of a prompt.
        names (`Sequence[str]`): What its media are called, in order.
    """
    lines = []
    for name, medium in zip(names, evidence.media, strict=True):
        lines += [name, *(f"  {line}" for line in _describe_medium(medium))]
    counts = [f"{number:,} {modality}" for modality, number in evidence.tokens.items() if number]
    return [*lines, f"tokens: {', '.join(counts)}"]


def print_evidence(answer, session) -> None:
    """Prints what an [`Answer`] rests on, which a session has given last; its media are called as in its timeline."""
    names = [one.name.strip("'\"") for one in session.timeline()]
    typer.echo("\n".join(describe_evidence(answer.evidence, names)))


def _describe_medium(medium: MediumEvidence) -> Iterator[str]:
    left = medium.left_out
    if medium.modality == "image":
        rows, columns = medium.tiles
        yield "seen: as one tile" if medium.tiles == (1, 1) else f"seen: in {rows} x {columns} tiles"
    if medium.modality == "video":
        yield (
            f"seen: {medium.frames} of {medium.frames + left.frames + left.frames_forgotten} frames, "
            f"{medium.sampled_fps:.3g} of "
            f"{medium.fps:.3g} a second, at {_list_spans(medium.seen)}"
        )
    if medium.modality != "image":
        yield f"heard: {_list_spans(medium.heard)}"
    left_out = list(_list_left_out(left))
    if left_out:
        yield f"left out: {', '.join(left_out)}"
    if left.scaled_from is not None:
        (height, width), (rows, columns) = left.scaled_from, left.scaled_to
        yield f"scaled: {width} x {height} to {columns} x {rows} pixels"


def _list_left_out(left: LeftOut) -> Iterator[str]:
    if left.frames:
        yield f"{left.frames} frames"
    if left.frames_forgotten:
        yield f"{left.frames_forgotten} frames that were forgotten"
    for seconds, what in (
        (left.seconds_before, "before the part that was asked for"),
        (left.seconds_after, "after the part that was asked for"),
        (left.sound_not_asked_for, "of sound that was not asked for"),
        (left.sound_cut, "of sound beyond the longest that is kept"),
        (left.sound_not_placed, "of sound that outlasts the picture"),
        (left.sound_forgotten, "of sound that was forgotten"),
    ):
        if seconds:
            yield f"{seconds:.2f} s {what}"


def _list_spans(spans: Sequence[Span]) -> str:
    words = [f"{start:.2f}-{end:.2f}" for start, end in spans]
    if len(words) > MOST_SPANS:
        words[MOST_SPANS // 2 : -MOST_SPANS // 2] = ["..."]
    return f"{', '.join(words)} s" if words else "nothing"
