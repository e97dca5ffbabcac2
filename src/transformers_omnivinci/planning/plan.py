"""
The plan of a prompt: which token ids stand where, and the seconds of every embedding.

[`plan_medium`] makes the plan of a medium out of its [`MediumFacts`], told by a header or by the decoded medium.
[`PromptPlan`] puts the plans of media in the place of their placeholders.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .sampling import AudioWindows, plan_audio
from .sequence import (
    Layout,
    Run,
    audio_sequence,
    count,
    count_audio_vectors,
    count_image_embeddings,
    expand,
    grouped_sequence,
    image_sequence,
    video_sequence,
)
from .temporal_embedding_grouping import TemporalGroup, plan_groups


@dataclass(frozen=True)
class MediumFacts:
    """
    What a plan needs to know of a medium.

    Attributes:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        tile_grid (`tuple[int, int]`): (rows, columns) of the tiles of an image's last scale, see [`choose_tile_grid`].
        timestamps (`Sequence[float]`): Seconds of the sampled frames of a video.
        frame_positions (`Sequence[float]`): Where these stand in the clip, in units of 1/fps, see [`plan_groups`].
        fps (`float`): Frames per second of the clip.
        total_num_frames (`float`): Length of the clip in units of 1/fps.
        num_samples (`int`): Samples of sound. 0: the video has none, or it is not heard.
    """

    modality: str
    tile_grid: tuple[int, int] = (1, 1)
    timestamps: Sequence[float] = ()
    frame_positions: Sequence[float] = ()
    fps: float = 0.0
    total_num_frames: float = 0.0
    num_samples: int = 0


@dataclass(frozen=True)
class MediumPlan:
    """
    Where the embeddings of one medium stand, and when they are.

    Attributes:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        parts (`list[list[Run]]`):
            Placeholders and boundary tokens, in order. A video with sound has a part for each temporal group; without
            groups one for its sound and one for its picture. Brackets around the whole medium belong to the first and
            the last part.
        frame_seconds (`Sequence[float]`): Seconds of the sampled frames.
        sound_seconds (`Sequence[float]`): Seconds of the audio vectors that stand in the sequence.
        windows (`AudioWindows`, *optional*): How its sound is cut for the encoder. `None`: it has no sound.
        groups (`list[TemporalGroup]`): Empty without sound, or where picture and sound are not interleaved.
    """

    modality: str
    parts: list[list[Run]]
    frame_seconds: Sequence[float] = ()
    sound_seconds: Sequence[float] = ()
    windows: AudioWindows | None = None
    groups: Sequence[TemporalGroup] = ()

    @property
    def runs(self) -> list[Run]:
        """Those of all parts."""
        return [run for part in self.parts for run in part]

    @property
    def length(self) -> int:
        """Positions in the sequence."""
        return sum(map(count, self.parts))

    @property
    def modalities(self) -> set[str]:
        """Its own modality and, for a video with sound, `"audio"`."""
        return {self.modality} if self.windows is None else {self.modality, "audio"}


@dataclass(frozen=True)
class PromptPlan:
    """
    What stands where in a prompt.

    Attributes:
        text_ids (`Sequence[int]`): Tokens of the prompt, with one placeholder for each medium.
        slots (`Sequence[int]`): Where in `text_ids` the placeholders are, ascending.
        media (`Sequence[MediumPlan]`): What stands at each of them.
    """

    text_ids: Sequence[int]
    slots: Sequence[int]
    media: Sequence[MediumPlan]

    def ids(self) -> list[int]:
        """The token ids of the whole sequence, a placeholder for each embedding."""
        ids, end = [], 0
        for slot, medium in zip(self.slots, self.media, strict=True):
            ids += self.text_ids[end:slot]
            ids += expand(medium.runs)
            end = slot + 1
        return [*ids, *self.text_ids[end:]]

    @property
    def length(self) -> int:
        """Positions in the sequence."""
        return len(self.text_ids) - len(self.slots) + sum(medium.length for medium in self.media)

    def seconds(self, modality: str) -> list[Sequence[float]]:
        """
        Seconds of each medium, in the order of the prompt: for `"video"` of the sampled frames, for `"audio"` of the
        audio vectors, the tracks of videos among them.
        """
        if modality == "audio":
            return [medium.sound_seconds for medium in self.media if medium.windows is not None]
        return [medium.frame_seconds for medium in self.media if medium.modality == "video"]

    @property
    def groups(self) -> list[Sequence[TemporalGroup]]:
        """The temporal groups of each video."""
        return [medium.groups for medium in self.media if medium.modality == "video"]


def plan_medium(facts: MediumFacts, layout: Layout) -> MediumPlan:
    """
    Plans one medium.

    Args:
        facts ([`MediumFacts`]): From its header, or from the decoded medium.
        layout ([`Layout`]): That of the processor.

    Raises:
        ValueError: a sound of its own has no samples, or the clip has no length or too many groups.
    """
    if facts.modality == "image":
        num_embeddings = count_image_embeddings(
            layout.s2_scales, layout.s2_output_scale_index, layout.patches_per_side, *facts.tile_grid
        )
        return MediumPlan("image", [_bracketed(image_sequence(layout, num_embeddings), layout, "image")])
    num_frames = len(facts.timestamps)
    if facts.modality == "video" and not facts.num_samples:
        return MediumPlan("video", [_picture(layout, num_frames)], facts.timestamps)
    windows = plan_audio(
        facts.num_samples,
        layout.sampling_rate,
        layout.hop_length,
        2 * layout.max_source_positions,
        layout.audio_pad_to_multiple_of,
        layout.max_audio_duration,
        layout.fixed_audio_duration,
    )
    num_vectors = count_audio_vectors(windows.num_windows, layout.max_source_positions, layout.audio_pooling)
    sound, groups = _bracketed(audio_sequence(layout, num_vectors), layout, "audio"), []
    if facts.modality == "audio":
        parts = [sound]
    elif not layout.interleave:
        parts = [sound, _picture(layout, num_frames)]
    else:
        groups = plan_groups(
            facts.frame_positions,
            facts.fps,
            facts.total_num_frames,
            layout.group_duration,
            windows.duration,
            layout.sampling_rate // layout.hop_length,
        )
        parts = grouped_sequence(layout, groups, num_frames, windows.num_mel_frames, num_vectors)
        # The brackets of the sound stay where the release wrote its placeholder, in front of the video.
        brackets = _bracketed([], layout, "video")
        parts[0] = [*_bracketed([], layout, "audio"), *brackets[:1], *parts[0]]
        parts[-1] = [*parts[-1], *brackets[1:]]
    step, token = windows.padded_duration / num_vectors if num_vectors else 0.0, layout.token_ids["audio"]
    sound_seconds = [(index + 0.5) * step for index in range(sum(count(part, token) for part in parts))]
    return MediumPlan(facts.modality, parts, facts.timestamps, sound_seconds, windows, groups)


def _picture(layout: Layout, num_frames: int) -> list[Run]:
    return _bracketed(video_sequence(layout, num_frames), layout, "video")


def _bracketed(runs: list[Run], layout: Layout, modality: str) -> list[Run]:
    """Runs of a whole medium between its brackets, if the layout has any."""
    if modality not in layout.brackets:
        return runs
    start, end = layout.brackets[modality]
    return [(start, 1), *runs, (end, 1)]
