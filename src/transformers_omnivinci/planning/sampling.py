"""What is taken from a medium: frames of a clip, tiles of an image, windows of a waveform."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

# Frames that may be taken of a clip, and how often each: beyond both, a rate or a count is wrong.
MAX_FRAMES, MAX_REPETITIONS = 10_000, 100


def sample_uniformly(total_num_frames: int, num_frames: int) -> list[int]:
    """
    `num_frames` indices from the first to the last frame, equally spaced and rounded half to even. An index repeats
    where the clip has fewer frames.

    Raises:
        ValueError: a count is not positive, or more than `MAX_FRAMES` are wanted of a clip that has far fewer.
    """
    _require_positive(total_num_frames=total_num_frames, num_frames=num_frames)
    _refuse_repetition(total_num_frames, num_frames)
    if num_frames == 1:
        return [0]
    step = (total_num_frames - 1) / (num_frames - 1)
    return [round(i * step) for i in range(num_frames - 1)] + [total_num_frames - 1]


def sample_at_fps(
    total_num_frames: int,
    video_fps: float,
    fps: float,
    max_frames: int | None = None,
    times: Sequence[float] | None = None,
) -> list[int]:
    """
    The indices nearest to 0, 1/fps, 2/fps, ... seconds; `max_frames` indices uniformly where that gives more.

    Args:
        total_num_frames (`int`): Frames of the clip.
        video_fps (`float`): Its frames per second, the mean where the rate varies.
        fps (`float`): Frames per second to take.
        max_frames (`int`, *optional*): The most frames to take.
        times (`Sequence[float]`, *optional*):
            Seconds of every frame, ascending from 0, where the rate varies. Uniform is then by time, not by index.

    Raises:
        ValueError: a count or a rate is not positive, or more than `MAX_FRAMES` are wanted of a clip that has far
        fewer.
    """
    _require_positive(total_num_frames=total_num_frames, fps=fps, max_frames=1 if max_frames is None else max_frames)
    if not video_fps or not 0 < video_fps < math.inf:
        raise ValueError(f"The video's own rate is {video_fps} fps: sampling by `fps` needs a positive one.")
    num_frames = total_num_frames / video_fps * fps
    num_frames = math.ceil(num_frames) if 1 < num_frames < math.inf else 1 if num_frames <= 1 else math.inf
    is_cut = max_frames is not None and num_frames > max_frames
    if is_cut and times is None:
        return sample_uniformly(total_num_frames, max_frames)
    _refuse_repetition(total_num_frames, max_frames if is_cut else num_frames)
    if times is None:
        return [min(round(i * video_fps / fps), total_num_frames - 1) for i in range(num_frames)]
    if is_cut:
        return [_nearest(times, times[-1] * i / max(max_frames - 1, 1)) for i in range(max_frames)]
    return [_nearest(times, i / fps) for i in range(num_frames)]


def _nearest(times: Sequence[float], second: float) -> int:
    """The frame nearest to a second, of two the earlier."""
    after = bisect.bisect_left(times, second)
    if after == len(times) or (after and second - times[after - 1] <= times[after] - second):
        return after - 1
    return after


def _refuse_repetition(total_num_frames: int, num_frames: float) -> None:
    limit = max(total_num_frames * MAX_REPETITIONS, MAX_FRAMES)
    if num_frames > limit:
        raise ValueError(
            f"{num_frames:.6g} frames of a clip of {total_num_frames} are not accepted: up to {limit} are."
        )


def choose_tile_grid(height: int, width: int, scales: list[int], max_tiles: int) -> tuple[int, int]:
    """
    Dynamic S2: the (rows, columns) of tiles of the last scale. Of all grids with as many tiles as the square of the
    last scale, up to `max_tiles`, the one whose aspect ratio is nearest to the image's; among equally near ones the
    larger, if the image covers more than half of it.

    Args:
        height (`int`), width (`int`): The image, in pixels.
        scales (`list[int]`): Side lengths in pixels; the first is the tile's.
        max_tiles (`int`): The most tiles of the last scale.

    Raises:
        ValueError: the image has no pixels, or `max_tiles` is below what the last scale needs.
    """
    _require_positive(height=height, width=width)
    min_tiles = (scales[-1] // scales[0]) ** 2
    if max_tiles < min_tiles:
        raise ValueError(f"`max_tiles={max_tiles}` is below the {min_tiles} tiles of the largest scale, {scales[-1]}.")
    grids = [
        (rows, columns)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles // columns + 1)
        if rows * columns >= min_tiles
    ]
    best, best_distance = grids[0], math.inf
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        covered = width * height > 0.5 * scales[0] ** 2 * rows * columns
        if distance < best_distance or (distance == best_distance and covered):
            best, best_distance = (rows, columns), distance
    return best


def tile_grids(scales: list[int], rows: int, columns: int) -> list[tuple[int, int]]:
    """
    (rows, columns) of the tiles of an image at each scale: square below the last, `rows` x `columns` at the last. An
    image that is not tiled, (1, 1), is one tile.
    """
    if (rows, columns) == (1, 1):
        return [(1, 1)]
    return [(scale // scales[0],) * 2 for scale in scales[:-1]] + [(rows, columns)]


@dataclass(frozen=True)
class AudioWindows:
    """
    How a waveform is cut for the audio encoder.

    Attributes:
        num_samples (`int`): Samples kept of the waveform.
        padded_samples (`int`): Samples after padding with silence.
        num_mel_frames (`int`): STFT frames of the padded clip.
        num_windows (`int`): Windows of the encoder; the last may be completed in feature space.
        duration (`float`): Seconds kept, before padding.
        padded_duration (`float`): Seconds after padding.
    """

    num_samples: int
    padded_samples: int
    num_mel_frames: int
    num_windows: int
    duration: float
    padded_duration: float


def plan_audio(
    num_samples: int,
    sampling_rate: int,
    hop_length: int,
    window_mel_frames: int,
    pad_to_multiple_of: float = 30.0,
    max_duration: float | None = None,
    fixed_duration: float | None = None,
) -> AudioWindows:
    """
    Cuts a clip to `max_duration` seconds and pads it to a multiple of `pad_to_multiple_of` seconds; or cuts and pads
    it to exactly `fixed_duration` seconds.

    Args:
        num_samples (`int`): Length of the waveform.
        sampling_rate (`int`): Samples per second.
        hop_length (`int`): Samples between mel frames.
        window_mel_frames (`int`): Mel frames of one window of the encoder.

    Raises:
        ValueError: the waveform is empty.
    """
    if num_samples < 1:
        raise ValueError("The audio has no samples: at least one is needed.")
    limit = max_duration if fixed_duration is None else fixed_duration
    kept = num_samples if limit is None else min(num_samples, round(limit * sampling_rate))
    if fixed_duration is None:
        unit = round(pad_to_multiple_of * sampling_rate)
        padded = math.ceil(kept / unit) * unit
    else:
        padded = round(fixed_duration * sampling_rate)
    num_mel_frames = padded // hop_length
    return AudioWindows(
        num_samples=kept,
        padded_samples=padded,
        num_mel_frames=num_mel_frames,
        num_windows=math.ceil(num_mel_frames / window_mel_frames),
        duration=kept / sampling_rate,
        padded_duration=padded / sampling_rate,
    )


def _require_positive(**counts: float):
    for name, count in counts.items():
        if not 0 < count < math.inf:
            raise ValueError(f"`{name}={count}` is not accepted: it must be positive.")
