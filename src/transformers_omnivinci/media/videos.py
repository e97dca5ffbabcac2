"""Loads the sampled frames of a video together with its sound."""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from .backends import AUDIO_BACKENDS, VIDEO_BACKENDS, check_backend, decode_decord
from .frames import FrameSink, decode_pyav
from .images import check_transparency, decode_frames
from .pieces import MAX_THREADS, PieceSink
from .samples import SampleFile
from .sounds import Track, check_audio_options, read_audio
from .sources import Media, open_source
from .timeline import OmniVinciVideoMetadata, Timeline, read_timeline

# Seconds of sound that may be missing at its end: packets claim a little more than decoders return.
_MAX_LOST = 0.2


@dataclass
class LoadedVideo:
    """
    A decoded clip.

    Args:
        frames (`torch.Tensor`):
            uint8 RGB of shape (num_frames, 3, height, width), or the results of `transform` and `convert`.
        metadata (`OmniVinciVideoMetadata`): That of the clip; `frames_indices` lists which frames these are.
        waveform (`np.ndarray` or `SampleFile`, *optional*):
            float32 mono samples in [-1, 1] of shape (num_samples,), from the first frame of the clip on. Empty if the
            track has no sound there, or none that can be decoded; `None`: there is no track, or it is not wanted.
    """

    frames: torch.Tensor
    metadata: OmniVinciVideoMetadata
    waveform: np.ndarray | SampleFile | None = None


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
    convert: Callable[[torch.Tensor], torch.Tensor] | None = None,
    piece_size: int = 16,
) -> LoadedVideo:
    """
    Decodes sampled frames of a video and, if asked to, its sound.

    Args:
        source (`str`, `Path`, `bytes`, binary file or `PIL.Image.Image`):
            Path, `http(s)://`, `file://` or `data:` URL, base64, or the content of a file, in any format that FFmpeg
            reads; also still and animated images that Pillow reads, or has opened. The format is found by content.
        sample_indices_fn (`Callable`, *optional*):
            Gets the metadata (frames, fps, duration, upright width and height) and returns the indices of the wanted
            frames in presentation order; they may repeat. `None`: all frames.
        transform (`Callable`, *optional*):
            Applied to each frame, a uint8 tensor (3, height, width) stored channels last, in worker threads. Only its
            results, which must have one shape, are kept in memory.
        video_start (`float`, *optional*), video_end (`float`, *optional*):
            Decode only the part between these seconds. It starts with the frame that is on screen at `video_start`,
            which becomes frame 0 at 0 s, and ends before the frame that is shown from `video_end` on. Its sound is cut
            to the same span. `video_end` may exceed the end of the clip by up to a second.
        load_audio (`bool`, defaults to `False`): Whether to decode the audio track too, see [`load_audio`].
        sampling_rate (`int`, defaults to 16000): Sampling rate of the waveform in Hz.
        max_audio_seconds (`float`, *optional*): Decode at most this many seconds of sound.
        backend (`str`, defaults to `"pyav"`): The decoder of the frames, one of `VIDEO_BACKENDS`.
        audio_backend (`str`, *optional*): The decoder of the sound, one of `AUDIO_BACKENDS`. `None`: `backend`.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.
        num_threads (`int`, *optional*): Threads that decode frames. `None`: one for each core.
        transparency (`str`, defaults to `"white"`): What becomes of transparent pixels of images, see [`load_image`].
        convert (`Callable`, *optional*):
            Given, no more than some pieces of the frames are held at a time, nor is long sound: it gets the frames, or
            what `transform` made of them, as tensors (up to `piece_size`, ...) of frames that follow each other, in
            the calling thread while others are decoded. What it returns, tensors of as many rows, becomes `frames`.
        piece_size (`int`, defaults to 16): Frames of a piece.

    Returns:
        [`LoadedVideo`]. With a warning each, frames that cannot be decoded are left out, sound that cannot be decoded
        becomes silence, and a track without any sound is left out.

    Raises:
        ValueError, TypeError, OSError: an argument is not accepted, or the source cannot be read or decoded.
        ImportError: the package of a backend is missing.
    """
    audio_backend = audio_backend or backend
    check_backend(backend, VIDEO_BACKENDS, "video")
    check_backend(audio_backend, AUDIO_BACKENDS, "audio")
    _check_span(video_start, video_end)
    check_audio_options(sampling_rate, max_audio_seconds)
    check_transparency(transparency)
    if not num_threads:
        num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_threads = num_threads if convert is None else min(num_threads, MAX_THREADS)
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
            start, latest = timeline.origin + timeline.times[first], timeline.origin + timeline.duration
            in_file = convert is not None
            track = Track(sampling_rate, start, seconds, latest, timeline.sound_times, in_file)
        sink_options = (len(frames), transform, timeline.size, num_threads)
        with (
            FrameSink(*sink_options) if convert is None else PieceSink(*sink_options, convert, piece_size) as sink,
            ThreadPoolExecutor(1, "sound") as executor,
        ):
            reading = track and executor.submit(read_audio, media, track, audio_backend, timeline.audio[0])

            def decode() -> None:
                pictures = ()
                if media.is_image:
                    pictures = decode_frames(media, frames + first, timeline.size, transparency)
                elif backend == "decord":
                    pictures = decode_decord(media, frames + first, num_threads)
                else:
                    decode_pyav(media, timeline, frames + first, sink, num_threads)
                for row, picture in enumerate(pictures):
                    sink.put(row, picture)

            try:
                decode() if convert is None else sink.run(decode)
            except BaseException:
                if track is not None:
                    track.is_full = True
                raise
            if reading is not None:
                reading.result()
    if not sink.is_stored.any():
        raise ValueError(f"None of the {len(frames)} frames asked for in {media} can be decoded: it is damaged.")
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
) -> np.ndarray | SampleFile | None:
    """The samples of a track, as many as its packets announce; none, with a warning, if the track has no sound."""
    num_found = 0 if track is None else track.count()
    if not timeline.has_track:
        return None
    if not num_found:
        is_over = timeline.audio is not None and timeline.audio[0] < timeline.audio[1]
        fault = "does not reach into the part that is wanted" if is_over else "cannot be decoded"
        warnings.warn(f"The sound of {media} {fault}: the picture is used without it.", stacklevel=3)
        metadata.audio_duration = None if timeline.audio is None else 0.0
        return np.empty(0, np.float32) if timeline.audio is not None else None
    num_samples = round(min(metadata.audio_duration, math.inf if limit is None else limit) * track.sampling_rate)
    num_lost = num_samples - num_found
    if num_lost > _MAX_LOST * track.sampling_rate:
        seconds = num_lost / track.sampling_rate
        warnings.warn(f"The last {seconds:.1f} s of the sound of {media} cannot be decoded: silence.", stacklevel=3)
        num_found = num_samples
    waveform = track.waveform(num_found)
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
    The metadata that [`load_video`] would return, from the headers of a container and, where these do not settle it,
    from its packets. Arguments and errors are those of [`load_video`]. No frame is decoded, except of animated images.
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
            raise TypeError(f"`{name}` must be a number of seconds, not `{type(value).__name__}`.")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"`{name}={value}` is not accepted: it must be a finite number of seconds, at least 0.")
    if video_end is not None and video_end <= (video_start or 0):
        raise ValueError(f"`video_end={video_end}` is not after `video_start={video_start or 0}`.")


def _sample(sample_indices_fn, metadata: OmniVinciVideoMetadata) -> np.ndarray:
    total = metadata.total_num_frames
    if sample_indices_fn is None:
        return np.arange(total)
    indices = np.asarray(sample_indices_fn(metadata))
    if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
        raise ValueError(f"`sample_indices_fn` returned {indices!r}: a sequence of at least one integer is accepted.")
    if indices.min() < 0 or indices.max() >= total:
        raise ValueError(
            f"`sample_indices_fn` returned frames {indices.min()} to {indices.max()} for a clip of {total} frames: "
            f"0 to {total - 1} are accepted."
        )
    return indices.astype(np.int64)
