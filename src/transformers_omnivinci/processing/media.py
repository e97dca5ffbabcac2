"""Opens and decodes media: video and its sound, audio, images. No other module of the package reads a media file."""

import base64
import binascii
import importlib
import io
import math
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.ImageSequence
import torch
from av.stream import Discard, Disposition
from av.video.reformatter import VideoReformatter
from huggingface_hub.utils import httpx
from transformers.video_utils import VideoMetadata

VIDEO_BACKENDS = ("pyav", "decord", "torchcodec")
AUDIO_BACKENDS = ("pyav", "decord", "librosa", "torchcodec")
IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

# What `bytes` of an image file begin with, still or animated; anything else given as a video is left to FFmpeg.
_IMAGE_SIGNATURE = re.compile(
    rb"GIF8|\x89PNG|\xff\xd8\xff|BM....\0\0\0\0|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]", re.S
)
# Decoders that can leave out, packet by packet, frames which no other frame refers to.
_DROPS_NONREF = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8"}
# Fewer unwanted frames than this before a key frame are decoded rather than skipped: emptying and filling the decoder
# costs about as much. No codec reorders frames across more than 16, so none is cut off from those it refers to.
_MIN_SKIP = 16
# From this many skipped frames on, seeking beats reading and dropping their packets.
_MIN_SEEK = 100
# What a further decoder has to do at least, in frames, to be worth opening the file again.
_MIN_PART = 60
# Containers with a presentation time for each packet: in others (MPEG-PS), FFmpeg guesses anew after seeking.
_SEEKABLE_FORMATS = {"flv", "matroska", "mp4", "mpegts"}
# Seconds that `video_end` may exceed the end of a clip, for annotations are rounded.
_END_TOLERANCE = 1.0
# How long browsers show a frame of an animated image that does not tell.
_FALLBACK_FRAME_MS = 100


@dataclass
class OmniVinciVideoMetadata(VideoMetadata):
    """
    What is known of a clip, or of the part of it that `video_start` and `video_end` choose.

    Args:
        frame_times (`list[float]`, *optional*):
            Seconds of each sampled frame from the start of the clip, where the frame rate varies. `None`: frame `i`
            is at `i / fps`.
        audio_duration (`float`, *optional*):
            Seconds of the audio track, counted from the first frame. `None`: there is no track.
    """

    frame_times: list[float] | None = None
    audio_duration: float | None = None

    @property
    def timestamps(self) -> list[float]:
        """Seconds of the sampled frames from the start of the clip."""
        return super().timestamps if self.frame_times is None else list(self.frame_times)


@dataclass
class LoadedVideo:
    """
    Args:
        frames (`torch.Tensor`): uint8 RGB of shape (num_frames, 3, height, width), or what `transform` made of it.
        metadata (`OmniVinciVideoMetadata`): Of the clip; `frames_indices` lists which frames these are.
        waveform (`np.ndarray`, *optional*):
            float32 mono samples in [-1, 1]; the first one sounds as the first frame of the clip is shown.
    """

    frames: torch.Tensor
    metadata: OmniVinciVideoMetadata
    waveform: np.ndarray | None = None


# ------------------------------------------------------------------------------------------------------ what is public


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
) -> LoadedVideo:
    """
    Decodes sampled frames of a video and, if wanted, its sound.

    Args:
        source (`str`, `Path`, `bytes` or binary file):
            Path, `http(s)://`, `file://` or base64 `data:` URL, or the content of a file: whatever FFmpeg reads, and
            the images, still or animated, that Pillow reads.
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
        load_audio (`bool`, defaults to `False`): Whether to decode the audio track too.
        sampling_rate (`int`, defaults to 16000): Of the waveform, in Hz.
        max_audio_seconds (`float`, *optional*): The most seconds of sound to decode.
        backend (`str`, defaults to `"pyav"`): What decodes the picture, one of `VIDEO_BACKENDS`.
        audio_backend (`str`, *optional*): What decodes the sound, one of `AUDIO_BACKENDS`. `None`: `backend`.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.
        num_threads (`int`, *optional*): Threads of the decoder. `None`: one for each core.

    Returns:
        [`LoadedVideo`]. A frame that cannot be decoded is left out, with a warning.

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, or cannot be read or decoded.
        ImportError: the package of a backend is missing.
    """
    _check_backend(backend, VIDEO_BACKENDS, "video")
    audio_backend = audio_backend or backend
    _check_backend(audio_backend, AUDIO_BACKENDS, "audio")
    _check_span(video_start, video_end)
    _check_audio_options(sampling_rate, max_audio_seconds)
    with _open_source(source, timeout) as media:
        timeline = _read_timeline(media)
        first, metadata = timeline.cut(media, video_start, video_end)
        metadata.video_backend = "pillow" if media.is_image else backend
        indices = _sample(sample_indices_fn, metadata)
        frames, rows = np.unique(indices, return_inverse=True)
        track = None
        if load_audio and timeline.audio is not None:
            span = metadata.duration if video_end is not None else math.inf
            seconds = min(span, math.inf if max_audio_seconds is None else max_audio_seconds)
            track = _Track(sampling_rate, timeline.origin + timeline.times[first], seconds)
        decode = _decode_image if media.is_image else _VIDEO_DECODERS[backend]
        with (
            _FrameSink(len(frames), transform, timeline.size, num_threads) as sink,
            ThreadPoolExecutor(1, "sound") as executor,
        ):
            reading = track and executor.submit(_AUDIO_READERS[audio_backend], media, track, timeline.audio[0])
            try:
                decode(media, timeline, frames + first, sink, num_threads)
            except BaseException:
                if track is not None:
                    track.full = True
                raise
            if reading is not None:
                reading.result()
    waveform = None if track is None else track.waveform()
    if waveform is not None and (
        max_audio_seconds is None or len(waveform) < round(max_audio_seconds * sampling_rate)
    ):
        metadata.audio_duration = len(waveform) / sampling_rate
    if not sink.is_stored.any():
        raise ValueError(f"None of the {len(frames)} frames wanted of {media} can be decoded: the file is damaged.")
    if not sink.is_stored.all():
        lost = int((~sink.is_stored).sum())
        warnings.warn(f"{lost} of {len(frames)} frames of {media} cannot be decoded and are left out.", stacklevel=2)
    kept = np.flatnonzero(sink.is_stored[rows])
    metadata.frames_indices = indices[kept].tolist()
    if timeline.is_variable:
        times = timeline.times[indices[kept] + first] - timeline.times[first]
        metadata.frame_times = times.tolist()
    metadata.height, metadata.width = sink.size
    is_whole = np.array_equal(rows[kept], np.arange(len(frames)))
    return LoadedVideo(sink.frames if is_whole else sink.frames[torch.from_numpy(rows[kept])], metadata, waveform)


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
    with _open_source(source, timeout) as media:
        timeline = _read_timeline(media)
        first, metadata = timeline.cut(media, video_start, video_end)
    indices = _sample(sample_indices_fn, metadata)
    metadata.frames_indices = indices.tolist()
    if timeline.is_variable:
        metadata.frame_times = (timeline.times[indices + first] - timeline.times[first]).tolist()
    return metadata


def load_audio(
    source,
    *,
    sampling_rate: int = 16_000,
    max_seconds: float | None = None,
    backend: str = "pyav",
    timeout: float = 30.0,
) -> np.ndarray:
    """
    Decodes the sound of an audio or video file, from the start of its track.

    Channels are averaged. FFmpeg's own downmix makes stereo 3 dB louder, which clips, and drops the LFE.

    Args:
        source (`str`, `Path`, `bytes` or binary file): See [`load_video`].
        sampling_rate (`int`, defaults to 16000): Of the result, in Hz.
        max_seconds (`float`, *optional*): The most seconds to decode.
        backend (`str`, defaults to `"pyav"`): What decodes, one of `AUDIO_BACKENDS`.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.

    Returns:
        `np.ndarray` of shape (num_samples,): float32 in [-1, 1].

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, has no sound, or cannot be read or decoded.
        ImportError: the package of the backend is missing.
    """
    _check_backend(backend, AUDIO_BACKENDS, "audio")
    _check_audio_options(sampling_rate, max_seconds)
    with _open_source(source, timeout) as media:
        track = _Track(sampling_rate, None, math.inf if max_seconds is None else max_seconds)
        _AUDIO_READERS[backend](media, track)
        waveform = track.waveform()
        if not len(waveform):
            raise ValueError(f"The audio track of {media} holds no sample that can be decoded.")
        return waveform


def probe_audio(source, *, timeout: float = 30.0) -> float:
    """Seconds of the audio track of a file, from its header or else its packets; nothing is decoded."""
    with _open_source(source, timeout) as media, media.container() as container:
        stream = _find_stream(media, container, "audio")
        start, end = _audio_extent(
            stream, None if _tells_duration(stream) else _scan(container, None, stream).audio_end
        )
        return max(0.0, end - start)


def load_image(source, *, timeout: float = 30.0) -> PIL.Image.Image:
    """
    An image in RGB, turned upright as its EXIF orientation says. Alpha is dropped; 16-bit greys become 8-bit ones.

    Args:
        source (`str`, `Path`, `bytes`, binary file or `PIL.Image.Image`): See [`load_video`].
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, or cannot be read or decoded.
    """
    with _open_image(source, timeout) as image:
        return _to_rgb(image)


def probe_image(source, *, timeout: float = 30.0) -> tuple[int, int]:
    """Height and width of an image once upright, from its header. Arguments and errors: as of [`load_image`]."""
    with _open_image(source, timeout) as image:
        is_turned = image.getexif().get(0x0112, 1) >= 5
        return image.size if is_turned else image.size[::-1]


def load_frames_folder(path: str | Path) -> list[PIL.Image.Image]:
    """
    The images of a folder as frames, in RGB and in the natural order of their names (`frame2` before `frame10`).

    Raises:
        ValueError, OSError: the path is no folder, or none of its files has one of `IMAGE_SUFFIXES`.
    """
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is not a folder: a folder of image files is accepted.")
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    if not files:
        raise ValueError(f"The folder {str(folder)!r} holds no image: {', '.join(IMAGE_SUFFIXES)} files are accepted.")

    def natural_key(file: Path) -> list:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name.lower())]

    return [load_image(file) for file in sorted(files, key=natural_key)]


# ------------------------------------------------------------------------------------------------------------ checking


def _check_backend(name: str, known: Sequence[str], kind: str) -> None:
    if name not in known:
        raise ValueError(f"Unknown {kind} backend {name!r}: {', '.join(map(repr, known))} are accepted.")
    if name != "pyav":
        _import_backend(name)


def _import_backend(name: str) -> ModuleType:
    try:
        module = importlib.import_module({"torchcodec": "torchcodec.decoders"}.get(name, name))
    except (ImportError, OSError, RuntimeError) as error:
        # torchcodec raises RuntimeError where it finds no FFmpeg to link with.
        raise ImportError(
            f"The backend {name!r} needs a package that is missing or cannot be loaded: "
            f'pip install "transformers-omnivinci[{name}]".'
        ) from error
    if name == "decord":
        importlib.import_module("decord.logging").set_level(-8)  # its FFmpeg writes to stderr else
    return module


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


def _check_audio_options(sampling_rate: int, max_seconds: float | None) -> None:
    if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, (int, np.integer)) or sampling_rate < 1:
        raise ValueError(f"`sampling_rate={sampling_rate!r}` is not accepted: it is a positive integer, in Hz.")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"At most {max_seconds!r} seconds of sound is not accepted: a positive number is.")


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


# ------------------------------------------------------------------------------------------------------------- sources


class _Media:
    """The bytes of one source, of which each decoder gets a reader of its own."""

    def __init__(self, name: str, path: str | None = None, file=None):
        self.name, self.path, self.file = name, path, file
        self.lock = threading.Lock()
        with open(path, "rb") if path else self.reader() as reader:
            head = reader.read(32)
        if not head:
            raise ValueError(f"{name} is empty.")
        self.is_image = _IMAGE_SIGNATURE.match(head) is not None

    def __str__(self) -> str:
        return self.name

    def reader(self) -> "str | _Reader":
        """A path, or a file object that shares nothing but the bytes with any other reader."""
        return self.path or _Reader(self.file, self.lock)

    @contextmanager
    def container(self) -> Iterator[av.container.InputContainer]:
        try:
            container = av.open(self.reader(), metadata_errors="replace", buffer_size=1 << 18)
        except (av.FFmpegError, EOFError) as error:
            raise ValueError(
                f"{self} is not a media file that FFmpeg reads, or it is damaged: {error.strerror or error}."
            ) from error
        with container:
            yield container


class _Reader(io.RawIOBase):
    """A view of a binary file with a position of its own, so that several threads can read the file."""

    def __init__(self, file, lock: threading.Lock):
        self.file, self.lock, self.position = file, lock, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        with self.lock:
            self.file.seek(self.position)
            data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            with self.lock:
                offset += self.file.seek(0, io.SEEK_END)
        elif whence == io.SEEK_CUR:
            offset += self.position
        self.position = max(0, offset)
        return self.position


@contextmanager
def _open_source(source, timeout: float) -> Iterator[_Media]:
    """A source as [`_Media`], until it is no longer needed: temporary files vanish, a caller's file stays open."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield _Media(f"The media of {len(source)} bytes", file=io.BytesIO(source))
    elif hasattr(source, "read"):
        name = f"The file object {getattr(source, 'name', type(source).__name__)!r}"
        if not isinstance(source.read(0), bytes):
            raise TypeError(f"{name} is opened as text: a file opened in binary mode is accepted.")
        if not (hasattr(source, "seekable") and source.seekable()):
            with tempfile.SpooledTemporaryFile(max_size=64 << 20) as file:
                while chunk := source.read(1 << 20):
                    file.write(chunk)
                yield _Media(name, file=file)
        else:
            position = source.tell()
            try:
                yield _Media(name, file=source)
            finally:
                source.seek(position)
    elif not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"Media cannot be read from `{type(source).__name__}`: a path, URL, bytes or binary file is accepted."
        )
    elif str(source).startswith(("http://", "https://")):
        with tempfile.SpooledTemporaryFile(max_size=64 << 20) as file:
            _download(str(source), file, timeout)
            yield _Media(str(source), file=file)
    elif str(source).startswith("data:"):
        yield _Media("The `data:` URL", file=io.BytesIO(_decode_data_url(str(source))))
    else:
        path = os.fspath(source)
        scheme = re.match(r"([A-Za-z][\w+.-]+)://", path)
        if scheme and scheme[1].lower() == "file":
            path = url2pathname(urlparse(path).path)
        elif scheme and not os.path.exists(path):
            raise ValueError(f"The URL {path!r} is not read: http, https, file and data URLs are accepted.")
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no file {path!r}.")
        if os.path.isdir(path):
            raise IsADirectoryError(
                f"{path!r} is a folder: a file is accepted, and `load_frames_folder` reads frames."
            )
        if not os.path.isfile(path):
            raise OSError(f"{path!r} is not a regular file, which media are read from.")
        # An absolute path cannot be mistaken for one of FFmpeg's protocols.
        yield _Media(repr(path), path=os.path.abspath(path))


def _download(url: str, file, timeout: float) -> None:
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes(1 << 20):
                file.write(chunk)
    except httpx.HTTPStatusError as error:
        response = error.response
        raise OSError(
            f"{url} cannot be downloaded: status {response.status_code} {response.reason_phrase}."
        ) from error
    except httpx.TimeoutException as error:
        raise TimeoutError(f"{url} cannot be downloaded: no answer for {timeout:g} s.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(f"{url} cannot be downloaded: {error or type(error).__name__}.") from error


def _decode_data_url(url: str) -> bytes:
    header, _, payload = url.partition(",")
    if not header.endswith(";base64"):
        raise ValueError(f"The URL {header[:60]!r} is not accepted: `data:<media type>;base64,<content>` is.")
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise ValueError(f"The content of the URL {header[:60]!r} is not base64: {error}.") from error


# -------------------------------------------------------------------------------------------------------------- timing


@dataclass
class _Timeline:
    """
    When the frames of a video are shown.

    Args:
        times: Seconds of every frame from the first one, float64.
        pts: Presentation times in ticks, sorted, or `None` if the container has none to rely on: frames are counted.
        keys: Those of the key frames.
        origin: Seconds of the first frame on the clock of the container, on which `audio` is the extent of the track.
        size: Height and width in which frames are shown.
    """

    times: np.ndarray
    fps: float
    duration: float
    is_variable: bool
    size: tuple[int, int]
    pts: np.ndarray | None = None
    keys: np.ndarray | None = None
    is_seekable: bool = False
    origin: float = 0.0
    audio: tuple[float, float] | None = None

    def cut(
        self, media: _Media, video_start: float | None, video_end: float | None
    ) -> tuple[int, OmniVinciVideoMetadata]:
        """The first frame of a part, and the metadata of the part."""
        tolerance = 1e-3 / self.fps
        first, stop = 0, len(self.times)
        for name, value, limit in (
            ("video_start", video_start, self.duration - tolerance),
            ("video_end", video_end, self.duration + _END_TOLERANCE),
        ):
            if value is not None and value > limit:
                raise ValueError(f"`{name}={value}` is beyond the end of {media}, which lasts {self.duration:.3f} s.")
        if video_start is not None:
            first = max(0, int(np.searchsorted(self.times, video_start + tolerance, "right")) - 1)
        if video_end is not None:
            stop = max(first + 1, int(np.searchsorted(self.times, video_end - tolerance, "left")))
        start = self.times[first]
        end = self.times[stop] if stop < len(self.times) else self.duration
        audio_duration = None
        if self.audio is not None:
            audio_end = self.audio[1] - self.origin
            audio_duration = max(0.0, float((audio_end if video_end is None else min(audio_end, end)) - start))
        fps = (stop - first) / (end - start) if self.is_variable else self.fps
        return first, OmniVinciVideoMetadata(
            total_num_frames=stop - first,
            fps=float(fps),
            width=self.size[1],
            height=self.size[0],
            duration=float(end - start),
            audio_duration=audio_duration,
        )


def _read_timeline(media: _Media) -> _Timeline:
    if media.is_image:
        size, durations = None, []
        for frame in _image_frames(media):
            size = size or _to_rgb(frame).size[::-1]
            durations.append(frame.info.get("duration") or _FALLBACK_FRAME_MS)
        if not durations:
            raise ValueError(f"{media} is a damaged image: none of its frames can be decoded.")
        seconds = np.cumsum([0, *durations]) / 1000
        return _Timeline(seconds[:-1], len(durations) / seconds[-1], seconds[-1], len(set(durations)) > 1, size)
    with media.container() as container:
        video = _find_stream(media, container, "video")
        audio = _find_stream(media, container, "audio", optional=True)
        size = (video.height, video.width)
        if _is_turned(video):
            size = size[::-1]
        _read_only(container, video)
        packets = _read_sample_table(container, video) or _scan(container, video, audio)
        if not len(packets.pts):
            raise ValueError(f"The video stream of {media} holds no frame.")
        extent = None if audio is None else _audio_extent(audio, packets.audio_end)
        rates = [float(rate) for rate in (video.average_rate, video.guessed_rate, video.base_rate) if rate]
        if packets.keys is None:
            fps = rates[-2:][0] if rates else 25.0
            times = np.arange(len(packets.pts)) / fps
            return _Timeline(times, fps, len(times) / fps, False, size, audio=extent)
        seconds = (packets.pts - packets.pts[0]) * float(video.time_base)
        if len(seconds) > 1:
            rates.append((len(seconds) - 1) / seconds[-1])
        times, is_variable = seconds, True
        duration = seconds[-1] + float(packets.last_duration * video.time_base)
        for fps in rates:
            # Clocks of containers round, and encoders jitter: half a frame is what a constant rate may be off.
            counted = np.arange(len(seconds)) / fps
            if np.abs(seconds - counted).max() <= 0.5 / fps:
                times, is_variable, duration = counted, False, len(seconds) / fps
                break
        else:
            fps = len(seconds) / duration
        return _Timeline(
            times,
            fps,
            duration,
            is_variable,
            size,
            pts=packets.pts,
            keys=packets.keys,
            is_seekable=_is_seekable(container),
            origin=float(packets.pts[0] * video.time_base),
            audio=extent,
        )


class _Packets(NamedTuple):
    """What packets, or a table of them, tell: times in ticks of the video stream, the end of the audio in seconds."""

    pts: np.ndarray
    keys: np.ndarray | None
    last_duration: int = 0
    audio_end: float | None = None


def _read_sample_table(container, video) -> _Packets | None:
    """
    The frames of an mp4 or mov by its sample table, or `None` if this does not settle their times.

    The table tells decoding times. Where these are evenly spaced and every frame is shown, presentation times are so
    too, in another order, from that of the first key frame on. No packets are read but those of key frames, each after
    a seek, as FFmpeg mistakes their times if the demuxer discards what lies between.
    """
    table = [(entry.timestamp, entry.is_keyframe, entry.is_discard) for entry in video.index_entries]
    if "mp4" not in container.format.name or len(table) < 2 or len(table) != video.frames or video.start_time is None:
        return None
    dts, is_key, is_discarded = (np.array(column) for column in zip(*table))
    step = int(dts[1] - dts[0])
    if step <= 0 or (np.diff(dts) != step).any() or is_discarded.any() or not is_key[0] or is_key.mean() > 0.1:
        return None
    keys = []
    for timestamp in dts[is_key].tolist():
        # FFmpeg seeks by presentation times, which for this frame may be that of decoding, or up to 16 frames later.
        for delay in (video.start_time - int(dts[0]), _MIN_SKIP * step):
            container.seek(timestamp + delay, stream=video)
            packet = next(_demux(container, video), None)
            if packet is not None and packet.dts == timestamp and packet.pts is not None:
                keys.append(packet.pts)
                break
    container.seek(-(1 << 40))
    if len(keys) < is_key.sum() or keys[0] != video.start_time:
        return None
    # A key frame may be shown after frames that follow it in the file, but a gap in time would show here.
    positions, remainders = np.divmod(np.array(keys) - keys[0], step)
    delays = positions - np.flatnonzero(is_key)
    if remainders.any() or delays.min() < 0 or delays.max() > _MIN_SKIP:
        return None
    return _Packets(keys[0] + step * np.arange(len(table)), np.array(keys), step)


def _scan(container, video, audio) -> _Packets:
    """Reads all packets of the streams, decoding none."""
    streams = [stream for stream in (video, audio) if stream is not None]
    _read_only(container, *streams)
    pts, keys, last_duration, ends = [], [], 0, []
    for packet in _demux(container, *streams):
        if packet.stream is video:
            if not packet.is_discard:
                pts.append(packet.pts)
                last_duration = packet.duration or last_duration
                if packet.is_keyframe:
                    keys.append(packet.pts)
        elif packet.pts is not None:
            ends.append(packet.pts + (packet.duration or 0))
    audio_end = float(max(ends) * audio.time_base) if ends else None
    # AVI and raw streams have no presentation times, or wrong ones where frames are reordered.
    if None in pts or container.format.name == "avi":
        return _Packets(np.arange(len(pts)), None, 1, audio_end)
    # What comes before the first key frame cannot be decoded.
    pts, keys = np.unique(np.array(pts, np.int64)), np.unique(np.array(keys or pts[:1], np.int64))
    return _Packets(pts[np.searchsorted(pts, keys[:1]).sum() :], keys, last_duration, audio_end)


def _tells_duration(stream) -> bool:
    """Whether the header of the file tells exactly how long an audio stream lasts."""
    names = stream.container.format.name.split(",")
    return bool(stream.duration) and any(name in names for name in ("mp4", "wav", "flac", "aiff", "w64", "caf"))


def _audio_extent(stream, scanned_end: float | None) -> tuple[float, float]:
    """Seconds between which a track sounds, on the clock of its container."""
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is None:
        return start, start if scanned_end is None else scanned_end
    end = start + float(stream.duration * stream.time_base)
    if scanned_end is not None:
        # Headers leave out the padding of encoders, packets do not. But some headers are only guesses.
        end = min(end, scanned_end) if abs(end - scanned_end) < 0.05 else scanned_end
    return start, end


def _find_stream(media: _Media, container, kind: str, optional: bool = False):
    """The default stream of a kind, or else the first; covers of songs are no video."""
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not streams and not optional:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise ValueError(f"{media} has no {kind} stream that FFmpeg decodes; the streams it has: {found}.")
    return max(streams, key=lambda stream: bool(stream.disposition & Disposition.default), default=None)


def _read_only(container, *streams) -> None:
    """Lets the demuxer skip the data of all other streams."""
    for stream in container.streams:
        stream.discard = Discard.default if stream in streams else Discard.all


def _is_seekable(container) -> bool:
    return not _SEEKABLE_FORMATS.isdisjoint(container.format.name.split(","))


def _is_turned(video) -> bool:
    """
    Whether the container asks for a quarter turn.

    PyAV tells the display matrix of decoded frames only. But a muxer copies that of a stream into its header, into the
    box `tkhd`, and to write one takes a tenth of a millisecond.
    """
    header = io.BytesIO()
    with suppress(av.FFmpegError, ValueError):
        with av.open(header, "w", format="mov", container_options={"movflags": "empty_moov"}) as muxer:
            muxer.add_stream_from_template(video)
            muxer.start_encoding()
    box = header.getvalue()
    matrix = box.find(b"tkhd") + 44
    return matrix >= 44 and box[matrix : matrix + 4] == bytes(4)


def _demux(container, *streams) -> Iterator[av.Packet]:
    """The packets of streams up to the end of the file, or to where it can no longer be read."""
    with suppress(av.FFmpegError):
        for packet in container.demux(*streams):
            if packet.size:
                yield packet


# ------------------------------------------------------------------------------------------------------------ decoding


class _Group(NamedTuple):
    """Frames decoded in one run from a key frame (ticks) on; `seek`: the file is not read up to there."""

    key: int | None
    frames: list[int]
    seek: bool


def _plan(timeline: _Timeline, frames: np.ndarray) -> list[_Group]:
    """Groups frames so that nothing is decoded between the last of one group and the key frame of the next."""
    if timeline.keys is None:
        return [_Group(None, frames.tolist(), False)]
    keys = timeline.keys[_key_indices(timeline, frames)]
    groups: list[_Group] = []
    for frame, key, position in zip(frames.tolist(), keys.tolist(), np.searchsorted(timeline.pts, keys).tolist()):
        skipped = position - (groups[-1].frames[-1] if groups else 0)
        if groups and skipped < _MIN_SKIP:
            groups[-1].frames.append(frame)
        else:
            groups.append(_Group(key, [frame], timeline.is_seekable and skipped >= _MIN_SEEK))
    return groups


def _key_indices(timeline: _Timeline, frames: np.ndarray) -> np.ndarray:
    """The number of the key frame that decoding each frame begins with: the last one shown before it."""
    return np.maximum(np.searchsorted(timeline.keys, timeline.pts[frames], "right") - 1, 0)


class _FrameSink:
    """Makes decoded pictures the rows of one tensor, in worker threads while decoders go on."""

    def __init__(self, num_rows: int, transform, size: tuple[int, int], num_threads: int | None):
        self.transform, self.size = transform, size
        self.frames: torch.Tensor | None = None
        self.is_stored = np.zeros(num_rows, dtype=bool)
        self.error: Exception | None = None
        num_workers = min(8, num_threads or os.cpu_count() or 1)
        self.executor = ThreadPoolExecutor(num_workers, "frames")
        self.slots = threading.BoundedSemaphore(2 * num_workers)
        self.lock, self.local = threading.Lock(), threading.local()

    def __enter__(self) -> "_FrameSink":
        return self

    def __exit__(self, exception_type, *_) -> None:
        self.executor.shutdown(cancel_futures=exception_type is not None)
        if exception_type is None and self.error is not None:
            raise self.error

    def put(self, row: int, picture: av.VideoFrame | torch.Tensor) -> None:
        """Hands over a picture; waits if the workers are behind, so that pictures do not pile up."""
        self.slots.acquire()
        if self.error is not None:
            self.slots.release()
            raise self.error
        self.executor.submit(self._work, row, picture)

    def _work(self, row: int, picture) -> None:
        try:
            self._store(row, picture)
        except av.FFmpegError:
            pass  # an unconvertible picture counts as one that cannot be decoded
        except Exception as error:
            self.error = error
        finally:
            self.slots.release()

    def _store(self, row: int, picture) -> None:
        if isinstance(picture, av.VideoFrame):
            picture = self._to_tensor(picture)
        if self.transform is not None:
            picture = torch.as_tensor(self.transform(picture))
        with self.lock:
            if self.frames is None:
                is_channels_last = picture.ndim == 3 and picture.stride(0) == 1
                layout = torch.channels_last if is_channels_last else torch.contiguous_format
                shape = (len(self.is_stored), *picture.shape)
                self.frames = torch.empty(shape, dtype=picture.dtype, device=picture.device, memory_format=layout)
        if picture.shape != self.frames.shape[1:]:
            raise ValueError(
                f"Frames became tensors of shapes {tuple(self.frames.shape[1:])} and {tuple(picture.shape)}: "
                "`transform` must return one shape."
            )
        self.frames[row].copy_(picture)
        self.is_stored[row] = True

    def _to_tensor(self, frame: av.VideoFrame) -> torch.Tensor:
        """Upright RGB (3, height, width) of the size of the clip, whose resolution may change midway."""
        if not hasattr(self.local, "reformatter"):
            self.local.reformatter = VideoReformatter()
        turns = _quarter_turns(frame)
        with self.lock:
            if self.frames is None and turns % 2 and (frame.height, frame.width) == self.size:
                self.size = self.size[::-1]  # the container did not tell of this turn
        height, width = self.size[::-1] if turns % 2 else self.size
        # At an unchanged size this is the conversion that OpenCV and decord use too, to the last bit.
        rgb = self.local.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BICUBIC", threads=1
        )
        plane = rgb.planes[0]
        lines = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        picture = torch.from_numpy(lines[:, : 3 * width].reshape(height, width, 3))
        return (picture.rot90(turns) if turns else picture).permute(2, 0, 1)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Anticlockwise quarter turns that make a frame upright."""
    return round(frame.rotation / 90) % 4


def _decode_pyav(media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads) -> None:
    num_threads = num_threads or os.cpu_count() or 1
    parts = _split(timeline, frames, num_threads)
    rows = dict(zip(frames.tolist() if timeline.keys is None else timeline.pts[frames].tolist(), range(len(frames))))
    with ThreadPoolExecutor(len(parts), "video") as executor:
        for part in [
            executor.submit(
                _decode_groups, media, timeline, _plan(timeline, part), rows, sink, num_threads // len(parts)
            )
            for part in parts
        ]:
            part.result()
    if rows and timeline.keys is not None:
        # Some streams need more than a key frame to begin with (gradual refresh), or mark frames wrongly.
        _decode_groups(media, timeline, [_Group(None, [], False)], rows, sink, num_threads)


def _split(timeline: _Timeline, frames: np.ndarray, num_parts: int) -> list[np.ndarray]:
    """
    Splits frames where a key frame comes between them, so that several decoders have about as much to do.

    A decoder of its own for each part keeps all cores busy; the threads of one decoder mostly wait for each other.
    """
    if not timeline.is_seekable:
        return [frames]
    key_frames = np.searchsorted(timeline.pts, timeline.keys[_key_indices(timeline, frames)])
    previous = np.concatenate([[-1], frames[:-1]])
    decoded = np.cumsum(frames - np.maximum(key_frames - 1, previous))
    starts = np.flatnonzero(np.diff(key_frames, prepend=-1))[1:]
    num_parts = min(num_parts, len(starts) + 1, int(decoded[-1]) // _MIN_PART + 1)
    shares = decoded[-1] * np.arange(1, num_parts) / num_parts
    cuts = starts[np.abs(decoded[starts - 1] - shares[:, None]).argmin(axis=1)] if num_parts > 1 else []
    return np.split(frames, np.unique(cuts).astype(int))


def _decode_groups(media, timeline, plan: list[_Group], rows: dict[int, int], sink, num_threads: int) -> None:
    """
    Feeds a decoder the packets that the frames of a plan need, and puts these into their rows.

    Args:
        rows: By presentation time in ticks, or by number where `timeline` has none; what is decoded is taken out.
    """
    with media.container() as container:
        video = _find_stream(media, container, "video")
        _read_only(container, video)
        codec = video.codec_context
        codec.thread_type, codec.thread_count = "AUTO", num_threads
        drops_nonref = codec.name in _DROPS_NONREF and plan[0].key is not None
        count = 0

        def decode(packet: av.Packet | None) -> None:
            nonlocal count
            with suppress(av.FFmpegError):
                for frame in codec.decode(packet):
                    row = rows.pop(count if timeline.keys is None else frame.pts, None)
                    count += 1
                    if row is not None:
                        sink.put(row, frame)

        packets = _demux(container, video)
        for key, frames, seek in plan:
            if seek:
                packets = _demux_from(container, video, key)
            # The packet of a frame comes after those of all frames that it refers to.
            missing = None if key is None else set(timeline.pts[frames].tolist())
            is_fed = key is None
            for packet in packets:
                is_fed = is_fed or packet.is_keyframe and packet.pts == key
                if not is_fed:
                    continue
                if drops_nonref:
                    codec.skip_frame = "DEFAULT" if packet.pts in rows else "NONREF"
                decode(packet)
                if missing is not None:
                    missing.discard(packet.pts)
                if not rows or missing is not None and not missing:
                    break
            decode(None)
            codec.flush_buffers()


def _demux_from(container, video, key: int) -> Iterator[av.Packet]:
    """The packets of a stream from the key frame at `key`, in ticks, or an earlier one."""
    second = round(1 / video.time_base)
    for back in (0, 1, 10, 100, 1 << 20):
        with suppress(av.FFmpegError):
            container.seek(key - back * second, stream=video)
            packets = _demux(container, video)
            # Seeking follows decoding times, or lands anywhere where a container has no index: it may be too late.
            for packet in packets:
                if packet.is_keyframe and packet.pts is not None:
                    if packet.pts <= key:
                        yield packet
                        yield from packets
                        return
                    break


def _decode_decord(media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads) -> None:
    decord = _import_backend("decord")
    try:
        reader = decord.VideoReader(media.reader(), ctx=decord.cpu(0), num_threads=num_threads or 0)
        for row, number in enumerate(frames.tolist()):
            if number < len(reader):
                picture = reader[number]
                picture = picture.asnumpy() if hasattr(picture, "asnumpy") else picture
                sink.put(row, torch.as_tensor(picture).permute(2, 0, 1))
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode {media}: {str(error).splitlines()[0]}") from error


def _decode_torchcodec(media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads) -> None:
    torchcodec = _import_backend("torchcodec")
    try:
        reader = torchcodec.VideoDecoder(media.reader(), dimension_order="NHWC", num_ffmpeg_threads=num_threads or 0)
        for row, number in enumerate(frames.tolist()):
            if number < len(reader):
                sink.put(row, reader[number].permute(2, 0, 1))
    except RuntimeError as error:
        raise ValueError(f"torchcodec cannot decode {media}: {str(error).splitlines()[0]}") from error


def _decode_image(media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads) -> None:
    """The frames of a still or animated image."""
    rows = {frame: row for row, frame in enumerate(frames.tolist())}
    for number, frame in enumerate(_image_frames(media)):
        if number in rows:
            sink.put(rows[number], torch.from_numpy(np.array(_to_rgb(frame))).permute(2, 0, 1))


_VIDEO_DECODERS = {"pyav": _decode_pyav, "decord": _decode_decord, "torchcodec": _decode_torchcodec}


# --------------------------------------------------------------------------------------------------------------- sound


class _Track:
    """
    The samples of an audio track, mono and resampled, with silence where the track has none.

    Args:
        sampling_rate: Of the result, in Hz.
        start: Where on the clock of the container the result starts, in seconds; `None`: where the track does.
        seconds: The most seconds of the result.
    """

    def __init__(self, sampling_rate: int, start: float | None, seconds: float):
        self.sampling_rate, self.start = sampling_rate, start
        self.max_samples = math.inf if math.isinf(seconds) else max(1, round(seconds * sampling_rate))
        self.chunks: list[np.ndarray] = []
        self.num_samples = 0  # negative: this many samples come before `start` yet
        self.full = False
        self.resampler, self.format = None, None
        self.clock, self.packet_end = 0.0, None

    def push(self, packet: av.Packet) -> None:
        """Decodes a packet. One that cannot be decoded becomes silence, by the times of those that follow."""
        with suppress(av.FFmpegError):
            for frame in [] if self.full else packet.stream.decode(packet):
                self._add(frame)
            if packet.pts is not None and packet.duration:
                self.packet_end = float((packet.pts + packet.duration) * packet.time_base)

    def _add(self, frame: av.AudioFrame) -> None:
        time = self.clock if frame.pts is None else float(frame.pts * frame.time_base)
        if self.start is None:
            self.start = time
        format = (frame.format.name, frame.layout.name, frame.sample_rate)
        is_late = 0.1 < time - self.clock < 600  # longer gaps are errors of the clock
        if self.resampler is None or format != self.format or is_late:
            is_first = self.resampler is None
            self._flush()
            self.resampler, self.format = av.AudioResampler(format="fltp", rate=self.sampling_rate), format
            if is_first or is_late:
                self.clock = time
                self._pad(round((time - self.start) * self.sampling_rate))
        self.clock += frame.samples / frame.sample_rate
        for resampled in self.resampler.resample(frame):
            self._append(resampled.to_ndarray().mean(axis=0))

    def _flush(self) -> None:
        if self.resampler is not None:
            for resampled in self.resampler.resample(None):
                self._append(resampled.to_ndarray().mean(axis=0))

    def _pad(self, position: int) -> None:
        """Silence up to a sample of the result; a negative one skips what comes before `start`."""
        if position > self.num_samples:
            self._append(np.zeros(int(min(position, self.max_samples)) - self.num_samples, dtype=np.float32))
        elif not self.chunks:
            self.num_samples = position

    def place(self, samples: np.ndarray, track_start: float) -> None:
        """Takes over the whole track, which starts at `track_start` on the clock of the container."""
        self._pad(0 if self.start is None else round((track_start - self.start) * self.sampling_rate))
        self._append(samples)

    def _append(self, samples: np.ndarray) -> None:
        skipped = min(max(-self.num_samples, 0), len(samples))
        self.num_samples += len(samples)
        if self.num_samples > 0:
            self.chunks.append(samples[skipped:])
        self.full = self.full or self.num_samples >= self.max_samples

    def finish(self, stream=None) -> None:
        """Takes out what decoder and resampler hold back."""
        with suppress(av.FFmpegError):
            for frame in [] if self.full or stream is None else stream.decode(None):
                self._add(frame)
        self._flush()
        self.resampler = None

    def waveform(self) -> np.ndarray:
        """float32 samples in [-1, 1]."""
        waveform = np.concatenate([np.zeros(0, dtype=np.float32), *self.chunks])
        self.chunks = []
        if self.packet_end is not None and not self.full:
            # Decoders give the last frame in full, though containers tell that its rest is padding.
            end = max(0, round((self.packet_end - self.start) * self.sampling_rate))
            waveform = waveform[: end if len(waveform) - end < 0.1 * self.sampling_rate else None]
        if len(waveform) > self.max_samples:
            waveform = waveform[: self.max_samples].copy()
        return np.clip(waveform, -1.0, 1.0, out=waveform)


def _read_audio_pyav(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    with media.container() as container:
        stream = _find_stream(media, container, "audio")
        _read_only(container, stream)
        packets = _demux(container, stream)
        # Decoders need some sound before the first sample that is to be right.
        if track.start is not None and track.start - 1 > track_start and _is_seekable(container):
            packets = _demux_from(container, stream, math.floor((track.start - 1) / stream.time_base))
        for packet in packets:
            if track.full:
                break
            track.push(packet)
        track.finish(stream)


def _read_audio_decord(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    decord = _import_backend("decord")
    with media.container() as container:
        channels = _find_stream(media, container, "audio").channels
    try:
        # Without `mono`, decord 0.6 reads the samples of interleaved channels as those of one after the other.
        reader = decord.AudioReader(media.reader(), ctx=decord.cpu(0), sample_rate=track.sampling_rate, mono=True)
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode the sound of {media}: {str(error).splitlines()[0]}") from error
    # Its downmix makes stereo 3 dB louder than the mean. Indexing it would list the number of each sample.
    track.place(reader._array[0] * (2**-0.5 if channels > 1 else 1.0), track_start)


def _read_audio_librosa(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    librosa, soundfile = _import_backend("librosa"), importlib.import_module("soundfile")
    try:
        with soundfile.SoundFile(media.reader()) as file:
            track.place(librosa.load(file, sr=track.sampling_rate, mono=True)[0], track_start)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"librosa cannot decode {media}: {error} The backend 'pyav' decodes more formats.") from error


def _read_audio_torchcodec(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    torchcodec = _import_backend("torchcodec")
    try:
        samples = torchcodec.AudioDecoder(media.reader(), sample_rate=track.sampling_rate).get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"torchcodec cannot decode {media}: {str(error).splitlines()[0]}") from error
    track.place(samples.data.mean(dim=0).numpy(), track_start)


_AUDIO_READERS = {
    "pyav": _read_audio_pyav,
    "decord": _read_audio_decord,
    "librosa": _read_audio_librosa,
    "torchcodec": _read_audio_torchcodec,
}


# -------------------------------------------------------------------------------------------------------------- images


@contextmanager
def _open_image(source, timeout: float) -> Iterator[PIL.Image.Image]:
    """An image whose pixels are not yet decoded."""
    if isinstance(source, PIL.Image.Image):
        yield source
        return
    with _open_source(source, timeout) as media:
        try:
            image = PIL.Image.open(media.reader())
        except (OSError, PIL.Image.DecompressionBombError) as error:
            raise ValueError(f"{media} is not an image that Pillow reads, or it is damaged.") from error
        with image:
            yield image


def _image_frames(media: _Media) -> Iterator[PIL.Image.Image]:
    """The frames of an animated image, decoded, up to the end or to where it can no longer be read."""
    with PIL.Image.open(media.reader()) as image, suppress(OSError, SyntaxError, ValueError):
        for frame in PIL.ImageSequence.Iterator(image):
            frame.load()
            yield frame


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """An upright copy in RGB."""
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow would cut off what is brighter than 255.
        grey = np.asarray(image)
        image = PIL.Image.fromarray((grey // (257 if image.mode != "I" or grey.max() > 255 else 1)).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
