"""Sampled frames of a video, with its sound."""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from .backends import AUDIO_BACKENDS, AUDIO_READERS, VIDEO_BACKENDS, VIDEO_DECODERS, check_backend, decode_image
from .frames import FrameSink
from .images import check_transparency
from .sounds import check_audio_options
from .sources import Media, open_source
from .timeline import OmniVinciVideoMetadata, Timeline, read_timeline
from .tracks import Track

# Seconds of sound that may be missing at its end: packets tell of a little more than decoders give.
_MAX_LOST = 0.2


@dataclass
class LoadedVideo:
    """
    Args:
        frames (`torch.Tensor`): uint8 RGB of shape (num_frames, 3, height, width), or what `transform` made of it.
        metadata (`OmniVinciVideoMetadata`): Of the clip; `frames_indices` lists which frames these are.
        waveform (`np.ndarray`, *optional*):
            float32 mono samples in [-1, 1]; the first one sounds as the first frame of the clip is shown. Empty if the
            track has no sound there, or none that can be decoded; `None`: there is no track, or it is not wanted.
    """

    frames: torch.Tensor
    metadata: OmniVinciVideoMetadata
    waveform: np.ndarray | None = None


def load_video(
    source,
    *,
    sample_indices_fn: Callable[[OmniVinciVideoMetadata], Sequence[int]] | None = None,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    video_start: float | None = None,
    video_end: float | None = None,
    load_audio: bool = False,
    sampling_rate: int = 16_000,
    max_audio_seconds: float | None = None,
    backend: str = "pyav",
    audio_backend: str | None = None,
    timeout: float = 30.0,
    num_threads: int | None = None,
    transparency: str = "white",
) -> LoadedVideo:
    """
    Decodes sampled frames of a video and, if wanted, its sound.

    Args:
        source (`str`, `Path`, `bytes`, binary file or `PIL.Image.Image`):
            Path, `http(s)://`, `file://` or `data:` URL, base64, or the content of a file: whatever FFmpeg reads, and
            the images, still or animated, that Pillow reads, opened already or not. What it is, its content tells.
        sample_indices_fn (`Callable`, *optional*):
            Gets the metadata (frames, fps, duration, upright width and height) and returns the indices of the frames
            wanted, in presentation order; one may repeat. `None`: all frames.
        transform (`Callable`, *optional*):
            Applied to each frame, a uint8 tensor (3, height, width) stored channels last, in worker threads. The
            frame itself is dropped then, so that only what is returned, of one shape for all, is held in memory.
        video_start (`float`, *optional*), video_end (`float`, *optional*):
            Seconds between which the clip is looked at; nothing else is decoded. The part starts with the frame that
            is on screen at `video_start`, its frame 0 at 0 s, and ends before the one shown from `video_end` on.
            Its sound is cut to the same span. Up to a second after the end of the clip counts as its end.
        load_audio (`bool`, defaults to `False`): Whether to decode the audio track too, see [`load_audio`].
        sampling_rate (`int`, defaults to 16000): Of the waveform, in Hz.
        max_audio_seconds (`float`, *optional*): The most seconds of sound to decode.
        backend (`str`, defaults to `"pyav"`): What decodes the picture, one of `VIDEO_BACKENDS`.
        audio_backend (`str`, *optional*): What decodes the sound, one of `AUDIO_BACKENDS`. `None`: `backend`.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.
        num_threads (`int`, *optional*): Threads that decode the picture. `None`: one for each core.
        transparency (`str`, defaults to `"white"`): Of images, see [`load_image`].

    Returns:
        [`LoadedVideo`]. A frame that cannot be decoded is left out, sound that cannot becomes silence, and a track of
        which nothing can be heard is left out, each with a warning.

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, or cannot be read or decoded.
        ImportError: the package of a backend is missing.
    """
    audio_backend = audio_backend or backend
    check_backend(backend, VIDEO_BACKENDS, "video")
    check_backend(audio_backend, AUDIO_BACKENDS, "audio")
    _check_span(video_start, video_end)
    check_audio_options(sampling_rate, max_audio_seconds)
    check_transparency(transparency)
    num_threads = num_threads or _count_cores()
    with open_source(source, timeout) as media:
        timeline = read_timeline(media)
        first, metadata = timeline.cut(media, video_start, video_end)
        metadata.video_backend = "pillow" if media.is_image else backend
        indices = _sample(sample_indices_fn, metadata)
        frames, rows = np.unique(indices, return_inverse=True)
        track = None
        if load_audio and timeline.audio is not None and metadata.audio_duration:
            seconds = math.inf if video_end is None else metadata.duration
            seconds = seconds if max_audio_seconds is None else min(seconds, max_audio_seconds)
            origin = timeline.origin
            start, latest = origin + timeline.times[first], origin + timeline.duration
            track = Track(sampling_rate, start, seconds, latest, timeline.sound_times)
        decode = partial(decode_image, transparency=transparency) if media.is_image else VIDEO_DECODERS[backend]
        with (
            FrameSink(len(frames), transform, timeline.size, num_threads) as sink,
            ThreadPoolExecutor(1, "sound") as executor,
        ):
            reading = track and executor.submit(AUDIO_READERS[audio_backend], media, track, timeline.audio[0])
            try:
                decode(media, timeline, frames + first, sink, num_threads)
            except BaseException:
                if track is not None:
                    track.is_full = True
                raise
            if reading is not None:
                reading.result()
    if not sink.is_stored.any():
        raise ValueError(f"None of the {len(frames)} frames wanted of {media} can be decoded: the file is damaged.")
    if not sink.is_stored.all():
        num_lost = int(np.count_nonzero(~sink.is_stored))
        warnings.warn(f"{num_lost} of {len(frames)} frames of {media} cannot be decoded: left out.", stacklevel=2)
    is_kept = sink.is_stored[rows]
    indices, rows = indices[is_kept], rows[is_kept]
    timeline.tell(metadata, first, indices)
    metadata.height, metadata.width = sink.size
    waveform = _take_sound(media, timeline, metadata, track, max_audio_seconds) if load_audio else None
    is_ordered = np.array_equal(rows, np.arange(len(sink.frames)))
    return LoadedVideo(sink.frames if is_ordered else sink.frames[torch.from_numpy(rows)], metadata, waveform)


def _take_sound(
    media: Media, timeline: Timeline, metadata: OmniVinciVideoMetadata, track: Track | None, limit: float | None
) -> np.ndarray | None:
    """The samples of a track as long as its packets say; none, with a warning, if there is a track but no sound."""
    waveform = np.empty(0, np.float32) if track is None else track.waveform()
    if not timeline.has_track:
        return None
    if track is None or not len(waveform):
        is_over = timeline.audio is not None and timeline.audio[0] < timeline.audio[1]
        fault = "does not reach into the part that is wanted" if is_over else "cannot be decoded"
        warnings.warn(f"The sound of {media} {fault}: the picture is used without it.", stacklevel=3)
        metadata.audio_duration = None if timeline.audio is None else 0.0
        return waveform if timeline.audio is not None else None
    num_samples = round(min(metadata.audio_duration, math.inf if limit is None else limit) * track.sampling_rate)
    num_lost = num_samples - len(waveform)
    if num_lost > _MAX_LOST * track.sampling_rate:
        seconds = num_lost / track.sampling_rate
        warnings.warn(f"The last {seconds:.1f} s of the sound of {media} cannot be decoded: silence.", stacklevel=3)
        waveform = np.pad(waveform, (0, num_lost))
    if len(waveform) < (limit or math.inf) * track.sampling_rate - 1:
        metadata.audio_duration = len(waveform) / track.sampling_rate
    return waveform


def probe_video(
    source,
    *,
    sample_indices_fn: Callable[[OmniVinciVideoMetadata], Sequence[int]] | None = None,
    video_start: float | None = None,
    video_end: float | None = None,
    timeout: float = 30.0,
) -> OmniVinciVideoMetadata:
    """
    The metadata that [`load_video`] would give, from the headers of a container and, where these leave it open, of
    its packets. Nothing is decoded, except for animated images.

    Args and errors: as of [`load_video`].
    """
    _check_span(video_start, video_end)
    with open_source(source, timeout) as media:
        timeline = read_timeline(media)
        first, metadata = timeline.cut(media, video_start, video_end)
    timeline.tell(metadata, first, _sample(sample_indices_fn, metadata))
    return metadata


def _check_span(video_start: float | None, video_end: float | None) -> None:
    for name, value in (("video_start", video_start), ("video_end", video_end)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"`{name}` is a number of seconds, not `{type(value).__name__}`.")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"`{name}={value}` is not accepted: it is a finite number of seconds from 0 on.")
    if video_end is not None and video_end <= (video_start or 0):
        raise ValueError(f"`video_end={video_end}` is not after `video_start={video_start or 0}`.")


def _sample(sample_indices_fn, metadata: OmniVinciVideoMetadata) -> np.ndarray:
    """Indices of the frames wanted, checked."""
    total = metadata.total_num_frames
    if sample_indices_fn is None:
        return np.arange(total)
    indices = np.asarray(sample_indices_fn(metadata))
    if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
        raise ValueError(f"`sample_indices_fn` returned {indices!r}: a sequence of at least one integer is accepted.")
    if indices.min() < 0 or indices.max() >= total:
        raise ValueError(
            f"`sample_indices_fn` returned frames {indices.min()} to {indices.max()}, of a clip of {total} frames: "
            f"0 to {total - 1} are accepted."
        )
    return indices.astype(np.int64)


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
