"""How many embeddings a medium has, and in which order they and its boundary tokens stand in the prompt."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .temporal_embedding_grouping import TemporalGroup, interleave

Run = tuple[int, int]
"""A token id and how often it stands there in a row."""


@dataclass(frozen=True)
class MediaLayout:
    """
    What decides the order of embeddings. Token ids are plain integers, boundary tokens lists of them.

    Attributes:
        image_token_id, video_token_id, audio_token_id (`int`): Placeholders, one for each embedding of an encoder.
        patches_per_side (`int`): Projected embeddings along a side of a tile.
        video_pool_sizes (`list[list[int]]`): Pooling by (frames, rows, columns), see [`OmniVinciConfig`].
        audio_pooling (`str`): Compression of the audio sequence (table 18).
        image_start, image_end, video_start, video_end, video_separator, audio_start, audio_end (`list[int]`):
            Boundary tokens.
        group_end (`list[int]`): What closes the picture and the sound of a group, the newline.
    """

    image_token_id: int
    video_token_id: int
    audio_token_id: int
    patches_per_side: int
    video_pool_sizes: Sequence[Sequence[int]]
    audio_pooling: str
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


def image_sequence(layout: MediaLayout, num_tiles: int) -> list[Run]:
    """The runs of an image whose merged map has `num_tiles` tiles."""
    num_embeddings = num_tiles * layout.patches_per_side**2
    return [*_literal(layout.image_start), (layout.image_token_id, num_embeddings), *_literal(layout.image_end)]


def audio_sequence(layout: MediaLayout, num_vectors: int) -> list[Run]:
    """The runs of an audio clip of `num_vectors` embeddings."""
    return [*_literal(layout.audio_start), (layout.audio_token_id, num_vectors), *_literal(layout.audio_end)]


def video_sequence(layout: MediaLayout, num_frames: int) -> list[Run]:
    """The runs of a video without sound: for each entry of `video_pool_sizes` its pooled frames and a separator."""
    side, runs = layout.patches_per_side, []
    for frames, rows, columns in layout.video_pool_sizes:
        per_frame = math.ceil(side / rows) * math.ceil(side / columns)
        frame = [*_literal(layout.video_start), (layout.video_token_id, per_frame), *_literal(layout.video_end)]
        runs += frame * math.ceil(num_frames / frames)
        runs += _literal(layout.video_separator)
    return runs


def grouped_sequence(
    layout: MediaLayout,
    groups: Sequence[TemporalGroup],
    num_frames: int,
    num_mel_frames: int,
    num_vectors: int,
) -> list[list[Run]]:
    """The runs of each group of a video with sound: picture, newline, sound, newline (equation 3)."""
    video, audio = video_sequence(layout, num_frames), audio_sequence(layout, num_vectors)
    shares = interleave(groups, num_frames, count(video), num_mel_frames, count(audio))
    end = _literal(layout.group_end)
    return [_slice(video, video_share) + end + _slice(audio, audio_share) + end for video_share, audio_share in shares]


def count(runs: Iterable[Run], token_id: int | None = None) -> int:
    """Positions of `runs`, or those of one token."""
    return sum(length for token, length in runs if token_id is None or token == token_id)


def expand(runs: Iterable[Run]) -> list[int]:
    """The token ids of `runs`, position by position."""
    return [token for token, length in runs for _ in range(length)]


def _literal(token_ids: Sequence[int]) -> list[Run]:
    return [(token, 1) for token in token_ids]


def _slice(runs: Sequence[Run], share: range) -> list[Run]:
    """The part of `runs` at the positions of `share`."""
    part, position = [], 0
    for token, length in runs:
        overlap = min(position + length, share.stop) - max(position, share.start)
        if overlap > 0:
            part.append((token, overlap))
        position += length
    return part
