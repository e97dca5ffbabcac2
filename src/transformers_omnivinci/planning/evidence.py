"""
What an answer rests on: which seconds of its media were seen and heard, as how many tokens, and what was left out.

Everything is read off the [`PromptPlan`] that the inputs were made by, and compared with what there was to see and
hear, [`MediumSource`].
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from .plan import MediumFacts, MediumPlan, PromptPlan
from .sequence import Layout, count

Span = tuple[float, float]
"""Seconds of a medium: from, to."""

# Seconds below which spans adjoin, and sound is not told as left out: clocks of files are rounded to it.
_LEAST = 1e-3


@dataclass(frozen=True)
class MediumSource:
    """
    What there was to see and hear of a medium.

    Attributes:
        facts ([`MediumFacts`]): What its plan was made of.
        duration (`float`, *optional*): Seconds of the whole medium. `None`: as long as what was looked at.
        start (`float`): Second of the medium at which the part begins that was looked at (`video_start`).
        sound (`float`): Seconds of sound in that part, heard or not.
        is_sound_wanted (`bool`): Whether the sound of a video was asked for.
        num_frames (`int`, *optional*), fps (`float`, *optional*):
            Frames in that part, and how many a second, where its facts do not tell.
        size, seen_size (`tuple[int, int]`, *optional*):
            (height, width) in pixels of an image or a frame, and as the image encoder gets it.
    """

    facts: MediumFacts
    duration: float | None = None
    start: float = 0.0
    sound: float = 0.0
    is_sound_wanted: bool = True
    num_frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    seen_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Remembered:
    """
    What is left of a medium of which a session has forgotten something.

    Attributes:
        frames (`frozenset[float]`): Seconds of the plan whose frames are still seen.
        sounds (`frozenset[float]`): Seconds of the plan whose audio vectors are still heard.
        tokens (`dict[str, int]`): Positions by modality, as of [`MediumEvidence`].
    """

    frames: frozenset[float]
    sounds: frozenset[float]
    tokens: dict[str, int]


@dataclass(frozen=True)
class LeftOut:
    """
    What was there and is not in the inputs.

    Attributes:
        frames (`int`): Frames of the part of a video that was looked at which were not sampled.
        sound_not_asked_for (`float`): Seconds of sound in that part that was not loaded, as nothing asked for it.
        sound_cut (`float`): Seconds of sound beyond the most that the processor keeps, `max_audio_duration`.
        sound_not_placed (`float`):
            Seconds of sound that have no place in the temporal groups, which end with the picture.
        frames_forgotten (`int`), sound_forgotten (`float`):
            Frames that were sampled, and seconds of sound, that a session has forgotten since.
        seconds_before, seconds_after (`float`): Seconds of the medium outside the part that was looked at.
        scaled_from, scaled_to (`tuple[int, int]`, *optional*):
            (height, width) in pixels of an image or a frame that was not looked at in its own size.
    """

    frames: int = 0
    sound_not_asked_for: float = 0.0
    sound_cut: float = 0.0
    sound_not_placed: float = 0.0
    frames_forgotten: int = 0
    sound_forgotten: float = 0.0
    seconds_before: float = 0.0
    seconds_after: float = 0.0
    scaled_from: tuple[int, int] | None = None
    scaled_to: tuple[int, int] | None = None


@dataclass(frozen=True)
class MediumEvidence:
    """
    What the model gets of a medium.

    Attributes:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        duration (`float`): Seconds of the whole medium; 0 for an image.
        seen (`tuple[Span, ...]`):
            Seconds at which a frame of the file is shown that was sampled, ascending; spans that adjoin are one.
        heard (`tuple[Span, ...]`): Seconds of sound whose vectors stand in the sequence.
        frames (`int`): Different frames that were sampled, without those that were forgotten.
        fps (`float`), sampled_fps (`float`): Frames a second of the clip, and sampled of the part looked at.
        tiles (`tuple[int, int]`, *optional*): (rows, columns) of the tiles of an image; (1, 1) if it is not tiled.
        tokens (`dict[str, int]`): Positions by modality, `"text"` for boundary tokens.
        left_out ([`LeftOut`]): What is not among the inputs.
    """

    modality: str
    duration: float = 0.0
    seen: tuple[Span, ...] = ()
    heard: tuple[Span, ...] = ()
    frames: int = 0
    fps: float = 0.0
    sampled_fps: float = 0.0
    tiles: tuple[int, int] | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def seconds_seen(self) -> float:
        """Length of all that is seen."""
        return sum(end - start for start, end in self.seen)

    @property
    def seconds_heard(self) -> float:
        """Length of all that is heard."""
        return sum(end - start for start, end in self.heard)


@dataclass(frozen=True)
class Evidence:
    """
    What the answer to a prompt rests on.

    Attributes:
        media (`tuple[MediumEvidence, ...]`): In the order of the prompt.
        tokens (`dict[str, int]`): Tokens of `input_ids` by modality: `"text"`, `"image"`, `"video"` and `"audio"`.
        text_cut (`int`): Tokens of text that were truncated.
    """

    media: tuple[MediumEvidence, ...]
    tokens: dict[str, int]
    text_cut: int = 0

    def to_dict(self) -> dict:
        """As plain dictionaries, lists and numbers, for JSON; seconds and rates to three decimals."""
        return _plain(asdict(self))


def prompt_evidence(
    plan: PromptPlan, sources: Sequence[MediumSource], layout: Layout, num_tokens: int | None = None
) -> Evidence:
    """
    What the answer to a prompt rests on.

    Args:
        plan ([`PromptPlan`]): The plan of the prompt.
        sources (`Sequence[MediumSource]`): Of each of its media.
        layout ([`Layout`]): That of the plan.
        num_tokens (`int`, *optional*): Tokens that are left of the prompt after truncation. `None`: all.
    """
    media = tuple(medium_evidence(medium, source, layout) for medium, source in zip(plan.media, sources, strict=True))
    tokens = {name: sum(medium.tokens[name] for medium in media) for name in layout.token_ids}
    num_tokens = plan.length if num_tokens is None else num_tokens
    return Evidence(media, {"text": num_tokens - sum(tokens.values()), **tokens}, plan.length - num_tokens)


def medium_evidence(
    plan: MediumPlan, source: MediumSource, layout: Layout, remembered: Remembered | None = None
) -> MediumEvidence:
    """
    What the model gets of one medium; arguments as of [`prompt_evidence`], and what is left of it, if not all
    (`remembered`).
    """
    facts, start = source.facts, source.start
    tokens = {name: count(plan.runs, token_id) for name, token_id in layout.token_ids.items()}
    tokens = {"text": plan.length - sum(tokens.values()), **tokens}
    tokens = tokens if remembered is None else remembered.tokens
    is_scaled = source.size is not None and source.size != source.seen_size
    left_out = {"scaled_from": source.size, "scaled_to": source.seen_size} if is_scaled else {}
    if plan.modality == "image":
        return MediumEvidence("image", tiles=tuple(facts.tile_grid), tokens=tokens, left_out=LeftOut(**left_out))

    heard = _heard(plan)
    kept = plan.windows.duration if plan.windows else 0.0
    if plan.windows is None or not source.is_sound_wanted:
        left_out["sound_not_asked_for"] = _beyond(source.sound, 0.0)
    else:
        left_out |= {"sound_cut": _beyond(source.sound, kept), "sound_not_placed": _beyond(kept, heard)}
    spans = [(0.0, heard)] if heard else []
    if remembered is not None:
        spans = list(_still_heard(plan.sound_seconds, remembered.sounds, heard))
        left_out["sound_forgotten"] = _beyond(heard, sum(end - first for first, end in spans))
    spans = tuple((start + first, start + end) for first, end in spans)
    if plan.modality == "audio":
        duration = max(source.sound, kept) if source.duration is None else source.duration
        return MediumEvidence("audio", duration, heard=spans, tokens=tokens, left_out=LeftOut(**left_out))

    looked_at = facts.total_num_frames / facts.fps
    fps = facts.fps if source.fps is None else source.fps
    duration = start + looked_at if source.duration is None else source.duration
    sampled = dict(zip(facts.frame_positions, plan.frame_seconds, strict=True))
    seen = set(sampled.values()) if remembered is None else remembered.frames
    num_frames = sum(seconds in seen for seconds in sampled.values())
    in_all = round(facts.total_num_frames) if source.num_frames is None else source.num_frames
    left_out |= {
        "frames": max(0, in_all - len(sampled)),
        "frames_forgotten": len(sampled) - num_frames,
        "seconds_before": _beyond(start, 0.0),
        "seconds_after": _beyond(duration, start + looked_at),
    }
    return MediumEvidence(
        "video",
        duration,
        tuple((start + first, start + last) for first, last in _shown(plan.frame_seconds, seen, fps, looked_at)),
        spans,
        num_frames,
        fps,
        len(sampled) / looked_at if looked_at else 0.0,
        tokens=tokens,
        left_out=LeftOut(**left_out),
    )


def _shown(seconds: Sequence[float], seen: Collection[float], fps: float, end: float) -> Iterator[Span]:
    """When those sampled frames are shown that are seen: each for 1/fps, or until the next one."""
    times, longest = sorted(set(seconds)), 1 / fps if fps else math.inf
    pairs = zip(times, [*times[1:], max([end, *times[-1:]])])
    return _joined((time, min(time + longest, following)) for time, following in pairs if time in seen)


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Ascending spans, of which those that adjoin are one."""
    current = None
    for first, last in spans:
        if current is not None and first - current[1] < _LEAST:
            current = current[0], last
            continue
        if current is not None:
            yield current
        current = first, last
    if current is not None:
        yield current


def _still_heard(seconds: Sequence[float], sounds: Collection[float], end: float) -> Iterator[Span]:
    """The spans of the audio vectors that are still heard, of which each lasts as long as another."""
    half = seconds[0] if len(seconds) else 0.0
    begun = (second for second in seconds if second in sounds and second - half < end)
    return _joined((second - half, min(second + half, end)) for second in begun)


def _heard(plan: MediumPlan) -> float:
    """Seconds from the start of the sound on whose vectors stand in the sequence, without padding."""
    if plan.windows is None or not plan.sound_seconds:
        return 0.0
    # Vectors are equally long, and their seconds are those of their middles.
    return min(plan.windows.duration, len(plan.sound_seconds) * 2 * plan.sound_seconds[0])


def _beyond(seconds: float, taken: float) -> float:
    """By how much `seconds` exceeds what is taken, but for rounding."""
    return seconds - taken if seconds - taken > _LEAST else 0.0


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value
