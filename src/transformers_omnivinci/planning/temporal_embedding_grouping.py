"""Temporal Embedding Grouping (TEG): picture and sound of the same seconds together. Section 2.1, equations 2, 3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Groups that a clip may have: beyond, it is the claim of a damaged header.
MAX_GROUPS = 50_000


@dataclass(frozen=True)
class TemporalGroup:
    """
    One group of a clip, G_v and G_a of equation 2.

    Attributes:
        start (`float`), end (`float`): Seconds.
        frames (`range`): Positions among the sampled frames.
        mel_frames (`range`): STFT frames of the sound; empty where there is none.
    """

    start: float
    end: float
    frames: range
    mel_frames: range


def plan_groups(
    frame_positions: Sequence[float],
    fps: float,
    total_num_frames: float,
    group_duration: float,
    audio_duration: float | None,
    mel_frames_per_second: int,
    audio_start: float = 0.0,
) -> list[TemporalGroup]:
    """
    Cuts a clip into groups of `group_duration` seconds.

    Args:
        frame_positions (`Sequence[float]`):
            Where the sampled frames stand in the clip, ascending, in units of 1/fps: the frame's index, or its seconds
            times `fps` where the frame rate varies.
        fps (`float`): Frames per second of the clip.
        total_num_frames (`float`): Length of the clip in units of 1/fps.
        group_duration (`float`): T_G in seconds.
        audio_duration (`float`, *optional*): Seconds of sound before padding. `None`: no sound.
        mel_frames_per_second (`int`): STFT frames per second of sound.
        audio_start (`float`, *optional*, defaults to 0.0): When the sound starts, in seconds of the clip.

    Returns:
        `list[TemporalGroup]`: every sampled frame is in exactly one; their sounds follow each other without a gap.

    Raises:
        ValueError: the clip has more than `MAX_GROUPS` groups, or no length.
    """
    duration = total_num_frames / fps if fps > 0 else math.inf
    if not 0 <= duration <= MAX_GROUPS * group_duration:
        raise ValueError(
            f"A clip of {total_num_frames:g} frames at {fps:g} fps lasts {duration:.6g} s, which is not accepted: at "
            f"most {MAX_GROUPS} groups of {group_duration:g} s are."
        )
    num_groups = max(1, math.ceil(duration / group_duration))
    groups, frame, mel_frame = [], 0, 0
    for index in range(num_groups):
        start, end = index * group_duration, min((index + 1) * group_duration, duration)
        border = min((index + 1) * group_duration * fps, total_num_frames)
        last = index == num_groups - 1
        first_frame, first_mel_frame = frame, mel_frame
        while frame < len(frame_positions) and (last or frame_positions[frame] < border):
            frame += 1
        if audio_duration is not None:
            sound_start, sound_end = max(start, audio_start), min(end, audio_start + audio_duration)
            if sound_start < sound_end:
                mel_frame = max(mel_frame, round((sound_end - audio_start) * mel_frames_per_second))
        groups.append(TemporalGroup(start, end, range(first_frame, frame), range(first_mel_frame, mel_frame)))
    return groups


def interleave(
    groups: Sequence[TemporalGroup],
    num_frames: int,
    num_video_embeddings: int,
    num_mel_frames: int,
    num_audio_embeddings: int,
) -> list[tuple[range, range]]:
    """
    Maps groups to embeddings, in proportion and rounded up (equation 3).

    Args:
        num_frames (`int`): Sampled frames of the clip.
        num_video_embeddings (`int`): Embeddings of its picture, boundary tokens included.
        num_mel_frames (`int`): STFT frames of its padded sound.
        num_audio_embeddings (`int`): Embeddings of its sound, boundary tokens included.

    Returns:
        `list[tuple[range, range]]`: for every group its video and its audio embeddings. Sound past the last group is
        in none of them.
    """
    shares, video_end, audio_end = [], 0, 0
    for group in groups:
        video_start, audio_start = video_end, audio_end
        if group.frames:
            video_end = math.ceil((group.frames[-1] + 1) * (num_video_embeddings / num_frames))
            video_end = min(video_end, num_video_embeddings)
        if group.mel_frames:
            audio_end = math.ceil(group.mel_frames.stop * (num_audio_embeddings / num_mel_frames))
            audio_end = min(audio_end, num_audio_embeddings)
        shares.append((range(video_start, video_end), range(audio_start, audio_end)))
    return shares
