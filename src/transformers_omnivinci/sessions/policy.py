"""What a session keeps of long media, and what it tells of that: plain integers and seconds, without tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..planning import Layout
from .positions import Positions


@dataclass(frozen=True)
class Policy:
    """
    What is kept when a session grows beyond a limit. The system prompt, all text and all images stay. Of the picture
    and sound of videos and clips, first the older seconds are thinned, then the oldest are dropped.

    Seconds count over all media, one after another in the order in which they were watched; the newest is the end of
    the last one. Compare StreamingVLM (arXiv 2510.09608).

    Attributes:
        max_tokens (`int`, *optional*): The most positions that the prompt has before a question. `None`: no limit.
        max_seconds (`float`, *optional*): What is older goes in any case. `None`: no limit.
        recent_seconds (`float`): The newest seconds, which are kept whole where `max_tokens` allows it.
        older_every (`float`): Of what is older, one frame is kept in so many seconds, and no sound.
        share (`float`): To which share of `max_tokens` is cut down once it is exceeded. What is kept must be read
            again then, so that a share near 1 makes that frequent.
    """

    max_tokens: int | None = None
    max_seconds: float | None = None
    recent_seconds: float = 60.0
    older_every: float = 10.0
    share: float = 0.75

    def __post_init__(self):
        for name in ("max_tokens", "max_seconds", "older_every", "recent_seconds", "share"):
            value, least = getattr(self, name), 0 if name == "recent_seconds" else None
            if value is None and name.startswith("max_"):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"`{name}` of a policy is a number, got {type(value).__name__} {value!r:.40}.")
            if not (value > 0 or value == least) or value == math.inf or (name == "share" and value > 1):
                raise ValueError(f"`{name}={value}` of a policy is not accepted: it must be positive and finite.")


@dataclass(frozen=True)
class Track:
    """
    The embeddings of a medium that have seconds.

    Attributes:
        seconds (`np.ndarray` of shape `(num_embeddings,)`): Counted over all media.
        is_sound (`np.ndarray` of shape `(num_embeddings,)`): Whether each one is heard rather than seen.
    """

    seconds: np.ndarray
    is_sound: np.ndarray


def choose(policy: Policy, tracks: Sequence[Track], fixed: int, end: float) -> list[np.ndarray]:
    """
    What is kept of each medium.

    Args:
        policy ([`Policy`]): The rule.
        tracks (`Sequence[Track]`): What is there.
        fixed (`int`): Positions of everything that stays: text, images and boundary tokens.
        end (`float`): The newest second.

    Returns:
        `list[np.ndarray]`: for each track a mask of shape `(num_embeddings,)`.

    Raises:
        ValueError: what stays is beyond the limit by itself.
    """
    lengths = [len(track.seconds) for track in tracks]
    seconds = np.concatenate([np.zeros(0), *(track.seconds for track in tracks)])
    is_sound = np.concatenate([np.zeros(0, bool), *(track.is_sound for track in tracks)])
    kept = np.ones(len(seconds), bool)
    if policy.max_seconds is not None:
        kept &= seconds >= end - policy.max_seconds
    if policy.max_tokens is not None and fixed + kept.sum() > policy.max_tokens:
        if fixed > policy.max_tokens:
            raise ValueError(
                f"Text, images and boundary tokens take {fixed:,} positions by themselves, but `max_tokens` of the "
                f"session's policy is {policy.max_tokens:,}."
            )
        is_old = seconds < end - policy.recent_seconds
        kept &= ~is_old | (~is_sound & _is_first(seconds, kept & is_old & ~is_sound, policy.older_every))
        budget = max(0, math.floor(policy.share * policy.max_tokens) - fixed)
        if kept.sum() > budget:
            newest = np.sort(seconds[kept])[::-1]
            kept &= seconds > newest[budget]
    return np.split(kept, np.cumsum(lengths)[:-1]) if lengths else []


def _is_first(seconds: np.ndarray, among: np.ndarray, every: float) -> np.ndarray:
    """Which embeddings are of the first frame in their span of `every` seconds."""
    chosen, spans = {}, np.floor(seconds / every)
    for span, second in zip(spans[among].tolist(), seconds[among].tolist(), strict=True):
        chosen[span] = min(second, chosen.get(span, math.inf))
    return np.isin(seconds, list(chosen.values()))


def keep_around(positions: Positions, layout: Layout, kept: np.ndarray) -> np.ndarray:
    """
    What is left of a medium's positions, with the boundary tokens of what is left.

    Args:
        positions ([`Positions`]): All of them.
        layout ([`Layout`]): That of the processor.
        kept (`np.ndarray` of shape `(length,)`): Which embeddings are kept; not read at boundary tokens.
    """
    is_embedding = np.isin(positions.ids, list(layout.token_ids.values()))
    kept = kept & is_embedding
    if kept[is_embedding].all():
        return np.ones(len(positions), bool)
    holds = np.isin(positions.parts, positions.parts[kept])
    # A group in which nothing was seen or heard goes with those before it.
    empty = ~np.isin(positions.parts, positions.parts[is_embedding])
    first = positions.parts[kept].min() if kept.any() else np.inf
    is_bracket = np.isin(positions.ids, [token for pair in layout.brackets.values() for token in pair])
    return kept | (~is_embedding & (holds | (empty & (positions.parts > first)) | is_bracket))


@dataclass(frozen=True)
class Watched:
    """
    What a session still has of a medium. Seconds are its own, from its beginning.

    Attributes:
        name (`str`), kind (`str`): What it is called, and `"image"`, `"video"` or `"audio"`.
        start (`float`): Where it begins on the clock of the session, which [`Session.forget`] goes by.
        duration (`float`): Its length; 0 of an image.
        seen (`list[tuple[float, float, float]]`): From the first to the last frame of a span, and frames per second.
        heard (`list[tuple[float, float]]`): From when to when it is heard.
        num_tokens (`int`): Its positions in the prompt.
    """

    name: str
    kind: str
    start: float
    duration: float
    seen: list[tuple[float, float, float]]
    heard: list[tuple[float, float]]
    num_tokens: int


def spans_of(seconds: Sequence[float]) -> list[tuple[float, float, float]]:
    """
    Spans of ascending seconds in which they follow each other at one rate: first, last, how many a second. Frames that
    are sampled at less than twice their distance skip one now and then, which is no other rate.
    """
    spans, seconds = [], [float(second) for second in seconds]
    gaps = [after - before for before, after in zip(seconds, seconds[1:], strict=False)]
    start = 0
    while start < len(seconds):
        stop = start + 1
        ahead = gaps[start : start + 2] or [0.0]
        usual = ahead[-1] if ahead[0] < ahead[-1] <= 2.5 * ahead[0] else ahead[0]
        while stop < len(seconds) and _is_usual(gaps, stop - 1, usual):
            stop += 1
        # The first frame at another rate belongs to the span that it begins.
        if stop < len(seconds) and stop - start > 2 and gaps[stop - 1] < usual:
            stop -= 1
        length = seconds[stop - 1] - seconds[start]
        spans.append((seconds[start], seconds[stop - 1], (stop - 1 - start) / length if length else 0.0))
        start = stop
    return spans


def _is_usual(gaps: list[float], index: int, usual: float) -> bool:
    """Whether a gap is about the usual one, or twice as long and alone."""
    near = [abs(gap - usual) <= 0.5 * usual for gap in gaps[index : index + 2]]
    return near[0] or (gaps[index] <= 2.5 * usual and all(near[1:]))
