"""Where a video is cut, in plain seconds: clips of about twenty seconds, in segments of about two minutes."""

from collections.abc import Sequence

from .columns import Span

EPSILON = 1e-6
SHORTEST = 1e-3
"""Seconds are rounded to this much."""


def cut_evenly(start: float, end: float, seconds: float, shortest: float) -> list[Span]:
    """
    Cuts a stretch into spans of `seconds`, the last of which may be shorter. A remainder that is shorter than
    `shortest` becomes part of the span before it.

    Args:
        start (`float`), end (`float`): The stretch, in seconds.
        seconds (`float`): Of a span.
        shortest (`float`): Of the last span, in seconds; at most `seconds`.

    Returns:
        `list[Span]`: without gaps, from `start` to `end`.
    """
    count = max(1, int((end - start + EPSILON) // seconds))
    if end - start - count * seconds >= max(shortest, SHORTEST):
        count += 1
    edges = [round(start + place * seconds, 3) for place in range(count)] + [end]
    return [Span(*pair) for pair in zip(edges, edges[1:])]


def cut_at_scenes(edges: Sequence[float], seconds: float, shortest: float) -> list[Span]:
    """
    Clips that do not cross the cuts of a film, but for scenes that are shorter than `shortest`, which become part of
    the one before. Scenes longer than `seconds` are cut evenly.

    Args:
        edges (`Sequence[float]`): In ascending order: the start of the film, its cuts, and its end.
        seconds (`float`), shortest (`float`): As in [`cut_evenly`].
    """
    kept = [edges[0]]
    for edge in edges[1:-1]:
        if edge - kept[-1] >= shortest and edges[-1] - edge >= shortest:
            kept.append(round(edge, 3))
    kept.append(edges[-1])
    return [span for pair in zip(kept, kept[1:]) for span in cut_evenly(*pair, seconds, shortest)]


def group(clips: Sequence[Span], seconds: float, slack: float = 0.0) -> list[list[Span]]:
    """
    Groups clips that follow each other into segments.

    Args:
        clips (`Sequence[Span]`): Without gaps.
        seconds (`float`): Of the longest segment; a clip that is longer is one by itself.
        slack (`float`, *optional*, defaults to 0.0): By how much a last clip, with its remainder, may exceed that.

    Returns:
        `list[list[Span]]`: the clips of each segment.
    """
    groups: list[list[Span]] = []
    for clip in clips:
        if groups and clip.end - groups[-1][0].start <= seconds + slack + EPSILON:
            groups[-1].append(clip)
        else:
            groups.append([clip])
    return groups
