"""How many embeddings a medium has, and in which order they and its boundary tokens stand in the prompt."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .sampling import tile_grids
from .temporal_embedding_grouping import TemporalGroup, interleave

Run = tuple[int, int]
"""A token id and how often it stands there in a row."""


@dataclass(frozen=True)
class Layout:
    """
    Everything besides the media that decides what stands where. Boundary tokens are lists of token ids.

    Attributes:
        token_ids (`Mapping[str, int]`): The placeholder of `"image"`, `"video"` and `"audio"`: one for each embedding.
        s2_scales (`Sequence[int]`): Side lengths in pixels of Dynamic S2; the first is the tile's.
        s2_output_scale_index (`int`): The scale whose map size merged maps have.
        patches_per_side (`int`): Projected embeddings along a side of a tile.
        video_pool_sizes (`Sequence[Sequence[int]]`): Pooling by (frames, rows, columns), see [`OmniVinciConfig`].
        sampling_rate (`int`), hop_length (`int`): Samples per second of sound, and between its mel frames.
        max_source_positions (`int`): Half the mel frames of a window of the audio encoder.
        audio_pooling (`str`): Compression of the audio sequence (table 18).
        audio_pad_to_multiple_of, max_audio_duration, fixed_audio_duration (`float`): Seconds, see [`plan_audio`].
        group_duration (`float`): T_G in seconds.
        interleave (`bool`): Whether a video and its sound stand in temporal groups, or all sound before all picture.
        brackets (`Mapping[str, tuple[int, int]]`): The tokens around a whole medium, by modality; none if empty.
        image_start, image_end, video_start, video_end, video_separator, audio_start, audio_end (`Sequence[int]`):
            Boundary tokens.
        group_end (`Sequence[int]`): What closes the picture and the sound of a group, the newline.
    """

    token_ids: Mapping[str, int]
    s2_scales: Sequence[int] = (448, 896, 1344)
    s2_output_scale_index: int = -1
    patches_per_side: int = 16
    video_pool_sizes: Sequence[Sequence[int]] = ((1, 1, 1),)
    sampling_rate: int = 16_000
    hop_length: int = 160
    max_source_positions: int = 1500
    audio_pooling: str = "none"
    audio_pad_to_multiple_of: float = 30.0
    max_audio_duration: float | None = None
    fixed_audio_duration: float | None = None
    group_duration: float = 30.0
    interleave: bool = True
    brackets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    image_start: Sequence[int] = ()
    image_end: Sequence[int] = ()
    video_start: Sequence[int] = ()
    video_end: Sequence[int] = ()
    video_separator: Sequence[int] = ()
    audio_start: Sequence[int] = ()
    audio_end: Sequence[int] = ()
    group_end: Sequence[int] = ()


def count_audio_vectors(num_windows: int, max_source_positions: int, pooling: str) -> int:
    """Embeddings of a clip: half of `max_source_positions` vectors a window, compressed over the whole clip."""
    num_vectors = num_windows * (max_source_positions // 2)
    if pooling == "none":
        return num_vectors
    return math.ceil(num_vectors / 2) if pooling == "conv" else num_vectors // 2


def count_image_embeddings(
    s2_scales: Sequence[int], output_index: int, patches_per_side: int, rows: int, columns: int
) -> int:
    """Embeddings of an image with `rows` x `columns` tiles at the last scale; (1, 1) is an image that is not tiled."""
    grids = tile_grids(s2_scales, rows, columns)
    return math.prod(grids[output_index] if len(grids) > 1 else grids[0]) * patches_per_side**2


def pooled_frames(
    video_pool_sizes: Sequence[Sequence[int]], patches_per_side: int, num_frames: int
) -> list[tuple[int, int]]:
    """For each (frames, rows, columns) of a pooling: how many frames are left of a clip, and embeddings of each."""
    return [
        (math.ceil(num_frames / frames), math.ceil(patches_per_side / rows) * math.ceil(patches_per_side / columns))
        for frames, rows, columns in video_pool_sizes
    ]


def image_sequence(layout: Layout, num_embeddings: int) -> list[Run]:
    """The runs of an image of `num_embeddings` embeddings."""
    return [*_literal(layout.image_start), (layout.token_ids["image"], num_embeddings), *_literal(layout.image_end)]


def audio_sequence(layout: Layout, num_vectors: int) -> list[Run]:
    """The runs of an audio clip of `num_vectors` embeddings."""
    return [*_literal(layout.audio_start), (layout.token_ids["audio"], num_vectors), *_literal(layout.audio_end)]


def video_sequence(layout: Layout, num_frames: int) -> list[Run]:
    """The runs of a video without sound: for each entry of `video_pool_sizes` its pooled frames and a separator."""
    runs = []
    for frames_left, per_frame in pooled_frames(layout.video_pool_sizes, layout.patches_per_side, num_frames):
        frame = [*_literal(layout.video_start), (layout.token_ids["video"], per_frame), *_literal(layout.video_end)]
        runs += frame * frames_left
        runs += _literal(layout.video_separator)
    return runs


def grouped_sequence(
    layout: Layout,
    groups: Sequence[TemporalGroup],
    num_frames: int,
    num_mel_frames: int,
    num_vectors: int,
) -> list[list[Run]]:
    """The runs of each group of a video with sound: picture, newline, sound, newline (equation 3)."""
    video, audio = video_sequence(layout, num_frames), audio_sequence(layout, num_vectors)
    shares = interleave(groups, num_frames, count(video), num_mel_frames, count(audio))
    end = _literal(layout.group_end)
    seen, heard = (_cut(runs, map(len, lengths)) for runs, lengths in zip((video, audio), zip(*shares)))
    return [picture + end + sound + end for picture, sound in zip(seen, heard, strict=True)]


def count(runs: Iterable[Run], token_id: int | None = None) -> int:
    """Positions of `runs`, or those of one token."""
    return sum(length for token, length in runs if token_id is None or token == token_id)


def expand(runs: Iterable[Run]) -> list[int]:
    """The token ids of `runs`, position by position."""
    ids = []
    for token, length in runs:
        ids += [token] * length
    return ids


def _literal(token_ids: Sequence[int]) -> list[Run]:
    return [(token, 1) for token in token_ids]


def _cut(runs: Iterable[Run], lengths: Iterable[int]) -> list[list[Run]]:
    """Parts of so many positions each, one after another."""
    waiting, token, left, parts = iter(runs), 0, 0, []
    for length in lengths:
        part = []
        while length:
            while not left:
                token, left = next(waiting)
            taken = min(left, length)
            part.append((token, taken))
            left, length = left - taken, length - taken
        parts.append(part)
    return parts
