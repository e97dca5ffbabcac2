"""
How much of what the engine wrote is true, on films of the synthetic world, of which all events are known: in the
captions of each sense, in those that were corrected by each other, and in the answers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..synthetic import CaptionCount, Event, claims_of, read_events
from .columns import AudioCaptions, OmniCaption, Questions, Segment, VisualCaptions
from .segment_ledger import SegmentLedger
from .typed import hints, read
from .world_claims import cut_to
from .world_questions import answer

TOLERANCE = 1.0
"""Up to how many seconds a start may be off, and still count as right."""


@dataclass
class Tally(CaptionCount):
    """
    Claims counted against events, with a tolerance of time.

    Attributes:
        events (`int`): True events that could be told; of a caption of one sense, those of that sense.
        claims (`int`): What was told.
        right (`int`): Claims of which an event is at that time, each event once.
        invented (`int`): Claims of something that does not happen at all, or is told twice.
        wrong_time (`int`): Claims of something that happens, at another time.
        wrong_modality (`int`):
            Claims about a sense that their model lacks; after correction, those of them that are still there and not
            right.
    """

    wrong_time: int = 0
    wrong_modality: int = 0


@dataclass
class Audit:
    """
    What an audit found.

    Attributes:
        captions (`dict[str, Tally]`): Of which captions: `"visual"`, `"audio"`, `"both"` together, before
            they are corrected, and `"corrected"`.
        rejected (`int`), rightly_rejected (`int`): Statements that the correction rejected, and those that are false.
        answers (`int`), right_answers (`int`): Of the questions that were kept; those of which the truth gives another
            answer, or none, are wrong.
    """

    captions: dict[str, Tally] = field(default_factory=dict)
    rejected: int = 0
    rightly_rejected: int = 0
    answers: int = 0
    right_answers: int = 0


def tally(told: Sequence[Event], truth: Sequence[Event], lacks: str | None = None) -> Tally:
    """
    Counts claims against events.

    Args:
        told (`Sequence[Event]`): The claims.
        truth (`Sequence[Event]`): The events, in the same seconds.
        lacks (`str`, *optional*): The sense that the model lacks; its events need not be told.
    """
    own = [event for event in truth if event.sense != lacks]
    found = Tally(events=len(own), claims=len(told))
    free = list(own)
    late = []
    for claim in told:
        if claim.sense == lacks:
            found.wrong_modality += 1
            continue
        same = [event for event in free if _is_alike(claim, event)]
        nearest = min(same, key=lambda event: abs(event.start - claim.start), default=None)
        if nearest is not None and abs(nearest.start - claim.start) <= TOLERANCE:
            free.remove(nearest)
            found.right += 1
        else:
            late.append(claim)
    for claim in late:
        same = [event for event in free if _is_alike(claim, event)]
        if same:
            free.remove(same[0])
            found.wrong_time += 1
        else:
            found.invented += 1
    return found


def audit(rows: Iterable[dict], drop: Sequence[str] = ()) -> Audit:
    """
    Audits finished segments.

    Args:
        rows (`Iterable[dict]`): With the columns of the stages.
        drop (`Sequence[str]`): Marks with which questions do not count.

    Raises:
        OSError: a source is no film of the synthetic world.
    """
    found = Audit({name: Tally() for name in ("visual", "audio", "both")})
    for row in rows:
        segment, events = _columns(row, Segment), read_events(row["source"])
        seen, heard = _columns(row, VisualCaptions).visual_captions, _columns(row, AudioCaptions).audio_captions
        imagined = []
        for clip, visual, audio in zip(segment.clips, seen, heard):
            truth = cut_to(events, clip.start, clip.end)
            for name, text, lacks in (("visual", visual, "audio"), ("audio", audio, "visual")):
                told = claims_of(text)
                counted = tally(told, truth, lacks)
                found.captions[name] += counted
                found.captions["both"] += counted
                shifted = clip.start - segment.start
                imagined += [(claim, shifted) for claim in told if claim.sense == lacks]
        truth = cut_to(events, segment.start, segment.end)
        if "omni_caption" in row:
            _audit_correction(found, segment, _columns(row, OmniCaption), truth, events, imagined)
        for question in _columns(row, Questions).questions if "questions" in row else []:
            if set(question.marks).isdisjoint(drop):
                found.answers += 1
                found.right_answers += answer(question.question, truth) == question.answer
    return found


def audit_folder(folder: str | Path, settings: dict, drop: Sequence[str] = ()) -> Audit:
    """Audits the output of a run with these settings, see [`settings_of`]. Errors are those of [`SegmentLedger`]."""
    with SegmentLedger(folder, settings) as ledger:
        return audit(ledger.rows(), drop)


def _audit_correction(found: Audit, segment, caption: OmniCaption, truth, events, imagined) -> None:
    told = claims_of(caption.omni_caption)
    counted = tally(told, truth)
    for claim in told:
        is_right = any(_is_alike(claim, event) and abs(claim.start - event.start) <= TOLERANCE for event in truth)
        from_elsewhere = any(
            _is_alike(claim, other) and abs(other.start + shift - claim.start) <= TOLERANCE
            for other, shift in imagined
        )
        counted.wrong_modality += from_elsewhere and not is_right
    found.captions["corrected"] = found.captions.get("corrected", Tally()) + counted
    for statement in caption.rejected_statements:
        clip = segment.clips[statement.clip]
        events_of_clip = cut_to(events, clip.start, clip.end)
        for claim in claims_of(statement.statement):
            found.rejected += 1
            found.rightly_rejected += not any(
                _is_alike(claim, event) and abs(claim.start - event.start) <= TOLERANCE for event in events_of_clip
            )


def _is_alike(one: Event, other: Event) -> bool:
    return (one.sense, one.what, one.motion) == (other.sense, other.what, other.motion)


def _columns(row: dict, kind: type):
    return read(kind, {name: row[name] for name in hints(kind)}, f"the segment {row.get('id')}")
