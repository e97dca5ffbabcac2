"""The temporal groups of a clip and their tokens."""

from dataclasses import dataclass

from .plan import MediumPlan
from .sequence import Layout, count


@dataclass(frozen=True)
class TimelineGroup:
    """
    A temporal group of a clip and its share of the sequence. A clip without groups has one for all its sound and one
    for all its frames instead.

    Attributes:
        name (`str`): `"group 1"` and so on, or `"sound"` or `"picture"`.
        start (`float`), end (`float`): Seconds.
        frames (`range`): Indices of its frames among the sampled ones.
        mel_frames (`range`): Indices of its frames of the log-mel spectrogram.
        num_video_tokens (`int`), num_audio_tokens (`int`): Embeddings of its frames and of its sound.
        num_boundary_tokens (`int`): Text tokens around them.
    """

    name: str
    start: float
    end: float
    frames: range
    mel_frames: range
    num_video_tokens: int
    num_audio_tokens: int
    num_boundary_tokens: int

    @property
    def num_tokens(self) -> int:
        """All tokens of the group."""
        return self.num_video_tokens + self.num_audio_tokens + self.num_boundary_tokens


@dataclass(frozen=True)
class Timeline:
    """
    How a clip stands in the sequence.

    Attributes:
        groups (`list[TimelineGroup]`): In the order of the sequence.
        timestamps (`list[float]`): Seconds of the sampled frames.
        has_sound (`bool`): Whether its sound is used.
    """

    groups: list[TimelineGroup]
    timestamps: list[float]
    has_sound: bool

    @property
    def num_tokens(self) -> dict[str, int]:
        """The number of `"video"`, `"audio"` and `"boundary"` tokens of all groups."""
        kinds = ("video", "audio", "boundary")
        return {kind: sum(getattr(group, f"num_{kind}_tokens") for group in self.groups) for kind in kinds}


def timeline_of(plan: MediumPlan, layout: Layout, duration: float) -> Timeline:
    """
    How a video or a sound stands in the sequence.

    Args:
        plan ([`MediumPlan`]): Its plan.
        layout ([`Layout`]): That of the plan.
        duration (`float`): Seconds that it lasts.

    Returns:
        [`Timeline`]: brackets around the whole clip are part of the first and the last group.
    """
    spans = [
        (f"group {index}", group.start, group.end, group.frames, group.mel_frames)
        for index, group in enumerate(plan.groups, 1)
    ]
    if not spans:
        if plan.windows is not None:
            spans.append(("sound", 0.0, duration, range(0), range(plan.windows.num_mel_frames)))
        if plan.modality == "video":
            spans.append(("picture", 0.0, duration, range(len(plan.frame_seconds)), range(0)))
    groups = []
    for span, runs in zip(spans, plan.parts, strict=True):
        video, audio = (count(runs, layout.token_ids[name]) for name in ("video", "audio"))
        groups.append(TimelineGroup(*span, video, audio, count(runs) - video - audio))
    return Timeline(groups, plan.frame_seconds, plan.windows is not None)
