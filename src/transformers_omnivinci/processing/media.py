"""Opens and decodes media: video and its sound, audio, images. No other module of the package reads a media file."""

import base64
import binascii
import importlib
import io
import math
import os
import re
import shutil
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

# What image files begin with, still or animated; anything else given as a video is left to FFmpeg.
_IMAGE_SIGNATURE = re.compile(
    rb"GIF8|\x89PNG|\xff\xd8\xff|BM....\0\0\0\0|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]", re.DOTALL
)
# Demuxers that open other files or URLs than the one they are given, which content from elsewhere must not name.
_REFERRING_FORMATS = {
    *("avisynth", "concat", "dash", "dvdvideo", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"),
    *("vapoursynth", "vobsub"),
}
# How long browsers show a frame of an animated image that does not tell.
_DEFAULT_FRAME_MS = 100
# Seconds that `video_end` may exceed the end of a clip, for annotations are rounded.
_END_TOLERANCE = 1.0
# Decoders that can leave out, packet by packet, frames which no other frame refers to.
_DROPS_NONREF = {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8"}
# Containers with a presentation time for each packet: in others (MPEG-PS), FFmpeg guesses anew after seeking.
_SEEKABLE_FORMATS = {"flv", "matroska", "mp4", "mpegts"}
# Containers whose headers tell exactly how long a track lasts.
_TIMED_FORMATS = {"aiff", "caf", "flac", "mp4", "w64", "wav"}
# Fewer unwanted frames than this before a key frame are decoded rather than skipped: emptying and filling the decoder
# costs about as much. No codec reorders frames across more than 16, so none is cut off from those it refers to.
_MIN_SKIP = 16
# From this many skipped frames on, seeking beats reading and dropping their packets.
_MIN_SEEK = 100
# Frames that a further decoder has to decode at least, to be worth opening the file again.
_MIN_SHARE = 60
# Seconds by which sound must be late for silence to be put before it, and from which on its clock must be wrong.
_MIN_GAP, _MAX_GAP = 0.1, 600.0


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
        load_audio (`bool`, defaults to `False`): Whether to decode the audio track too, see [`load_audio`].
        sampling_rate (`int`, defaults to 16000): Of the waveform, in Hz.
        max_audio_seconds (`float`, *optional*): The most seconds of sound to decode.
        backend (`str`, defaults to `"pyav"`): What decodes the picture, one of `VIDEO_BACKENDS`.
        audio_backend (`str`, *optional*): What decodes the sound, one of `AUDIO_BACKENDS`. `None`: `backend`.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.
        num_threads (`int`, *optional*): Threads that decode the picture. `None`: one for each core.

    Returns:
        [`LoadedVideo`]. A frame that cannot be decoded is left out, with a warning.

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, or cannot be read or decoded.
        ImportError: the package of a backend is missing.
    """
    audio_backend = audio_backend or backend
    _check_backend(backend, VIDEO_BACKENDS, "video")
    _check_backend(audio_backend, AUDIO_BACKENDS, "audio")
    _check_span(video_start, video_end)
    _check_audio_options(sampling_rate, max_audio_seconds)
    num_threads = num_threads or _count_cores()
    with _open_source(source, timeout) as media:
        timeline = _read_timeline(media)
        first, metadata = timeline.cut(media, video_start, video_end)
        metadata.video_backend = "pillow" if media.is_image else backend
        indices = _sample(sample_indices_fn, metadata)
        frames, rows = np.unique(indices, return_inverse=True)
        track = None
        if load_audio and timeline.audio is not None:
            seconds = math.inf if video_end is None else metadata.duration
            seconds = seconds if max_audio_seconds is None else min(seconds, max_audio_seconds)
            origin = timeline.origin
            track = _Track(sampling_rate, origin + timeline.times[first], seconds, latest=origin + timeline.duration)
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
    waveform = None if track is None else track.waveform()
    if waveform is not None and len(waveform) < (max_audio_seconds or math.inf) * sampling_rate - 1:
        metadata.audio_duration = len(waveform) / sampling_rate
    is_ordered = np.array_equal(rows, np.arange(len(sink.frames)))
    return LoadedVideo(sink.frames if is_ordered else sink.frames[torch.from_numpy(rows)], metadata, waveform)


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
    timeline.tell(metadata, first, _sample(sample_indices_fn, metadata))
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
        backend (`str`, defaults to `"pyav"`):
            What decodes, one of `AUDIO_BACKENDS`. More than two channels are mixed by FFmpeg's matrix with `"decord"`.
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
        is_timed = stream.duration and _is_one_of(container, _TIMED_FORMATS)
        start, end = _audio_extent(stream, None if is_timed else _scan(container, None, stream).audio_end)
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
    if not folder.is_dir():
        error = NotADirectoryError if folder.exists() else FileNotFoundError
        raise error(f"{str(path)!r} is not a folder: one that holds image files is accepted.")
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    if not files:
        raise ValueError(f"The folder {str(path)!r} holds no image: {', '.join(IMAGE_SUFFIXES)} files are accepted.")

    def natural_key(file: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name.lower())]

    return [load_image(file) for file in sorted(files, key=natural_key)]


# ------------------------------------------------------------------------------------------------------------ checking


def _check_backend(name: str, known: Sequence[str], kind: str) -> None:
    if name not in known:
        raise ValueError(f"Unknown {kind} backend {name!r}: {', '.join(map(repr, known))} are accepted.")
    if name != "pyav":
        _import_backend(name)


def _import_backend(name: str) -> ModuleType:
    try:
        module = importlib.import_module("torchcodec.decoders" if name == "torchcodec" else name)
    except (ImportError, OSError, RuntimeError) as error:
        # torchcodec raises RuntimeError where it finds no FFmpeg to link with.
        package = name if name == "torchcodec" else f'"transformers-omnivinci[{name}]"'
        raise ImportError(
            f"The backend {name!r} needs a package that cannot be imported: pip install {package}"
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


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------------------- sources


class _Media:
    """
    A file that is read, and what messages call it.

    Only a file that the caller has named by its path may name others in turn, as playlists do.
    """

    def __init__(self, path: str | Path, name: str, may_refer: bool = False):
        # An absolute path cannot be mistaken for one of FFmpeg's protocols.
        self.path, self.name, self.may_refer = os.path.abspath(path), name, may_refer
        with open(path, "rb") as file:
            head = file.read(32)
        if not head:
            raise ValueError(f"{name} is empty.")
        self.is_image = _IMAGE_SIGNATURE.match(head) is not None

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def container(self) -> Iterator[av.container.InputContainer]:
        options = {} if self.may_refer else {"format_whitelist": ",".join(av.formats_available - _REFERRING_FORMATS)}
        try:
            container = av.open(self.path, metadata_errors="replace", container_options=options)
        except av.FFmpegError as error:
            hint = "" if self.may_refer else " Lists of other files or streams are read from a path alone."
            raise ValueError(
                f"{self} is not a media file that FFmpeg reads, or is damaged: {error.strerror}.{hint}"
            ) from error
        with container:
            if container.format.name == "tty":
                raise ValueError(f"{self} is a text file: a media file is accepted.")
            yield container


@contextmanager
def _open_source(source, timeout: float) -> Iterator[_Media]:
    """
    A source as a file, in a temporary folder if it is none.

    Decoders then read it by themselves, several at a time, without waiting for Python.
    """
    text = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if text is not None and not text.startswith(("http://", "https://", "data:")):
        path = _find_file(text)
        yield _Media(path, repr(path), may_refer=True)
        return
    with tempfile.TemporaryDirectory(prefix="omnivinci-") as folder:
        path = Path(folder, "media")
        if text is not None and text.startswith("data:"):
            name = f"<{text[:40]}...>"
            path.write_bytes(_decode_data_url(text))
        elif text is not None:
            name = text
            _download(text, path, timeout)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            name = f"<{len(source)} bytes>"
            path.write_bytes(source)
        elif hasattr(source, "read"):
            name = f"<file {getattr(source, 'name', type(source).__name__)}>"
            _copy(source, path, name)
        else:
            raise TypeError(
                f"Media cannot be read from `{type(source).__name__}`: a path, URL, bytes or binary file is accepted."
            )
        yield _Media(path, name)


def _find_file(path: str) -> str:
    scheme = re.match(r"([A-Za-z][\w+.-]+)://", path)
    if scheme and scheme[1].lower() == "file":
        path = url2pathname(urlparse(path).path)
    elif scheme and not os.path.exists(path):
        raise ValueError(f"The URL {path[:200]!r} is not read: http, https, file and data URLs are accepted.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path[:200]!r}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder: a file is accepted.")
    if not os.path.isfile(path):
        raise OSError(f"{path!r} is not a regular file, which is what media are read from.")
    return path


def _copy(source, path: Path, name: str) -> None:
    """Writes all of a binary file object to a path; its position stays where it is."""
    if not isinstance(source.read(0), bytes):
        raise TypeError(f"{name} is opened as text: a file opened in binary mode is accepted.")
    position = source.tell() if hasattr(source, "seekable") and source.seekable() else None
    if position is not None:
        source.seek(0)
    with open(path, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    if position is not None:
        source.seek(position)


def _download(url: str, path: Path, timeout: float) -> None:
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as response, open(path, "wb") as file:
            response.raise_for_status()
            for chunk in response.iter_bytes(1 << 20):
                file.write(chunk)
    except httpx.HTTPStatusError as error:
        status = f"{error.response.status_code} {error.response.reason_phrase}"
        raise OSError(f"{url} cannot be downloaded: the server answers {status}.") from error
    except httpx.TimeoutException as error:
        raise TimeoutError(f"{url} cannot be downloaded: the server keeps silent for {timeout:g} s.") from error
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
        size: Height and width of upright frames.
        pts: Presentation times in ticks, sorted.
        keys: Those of the key frames, or `None` if times cannot be relied on: frames are counted then.
        origin: Seconds of the first frame on the clock of the container.
        audio: Where the audio track starts and ends on that clock; `None`: there is none.
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
        for name, value, limit in (
            ("video_start", video_start, self.duration - tolerance),
            ("video_end", video_end, self.duration + _END_TOLERANCE),
        ):
            if value is not None and value > limit:
                raise ValueError(f"`{name}={value}` is beyond the end of {media}, which lasts {self.duration:.3f} s.")
        first, stop = 0, len(self.times)
        if video_start is not None:
            first = max(0, int(np.searchsorted(self.times, video_start + tolerance, "right")) - 1)
        if video_end is not None:
            stop = max(first + 1, int(np.searchsorted(self.times, video_end - tolerance, "left")))
        start, end = float(self.times[first]), float([*self.times[stop : stop + 1], self.duration][0])
        audio_duration = None
        if self.audio is not None:
            audio_end = self.audio[1] - self.origin
            audio_duration = max(0.0, (audio_end if video_end is None else min(audio_end, end)) - start)
        return first, OmniVinciVideoMetadata(
            total_num_frames=stop - first,
            fps=(stop - first) / (end - start) if self.is_variable else self.fps,
            height=self.size[0],
            width=self.size[1],
            duration=end - start,
            audio_duration=audio_duration,
        )

    def tell(self, metadata: OmniVinciVideoMetadata, first: int, indices: np.ndarray) -> None:
        """Completes the metadata of the part from frame `first` on by which frames of it were sampled."""
        metadata.frames_indices = indices.tolist()
        if self.is_variable:
            metadata.frame_times = (self.times[first + indices] - self.times[first]).tolist()


def _read_timeline(media: _Media) -> _Timeline:
    if media.is_image:
        size, durations = None, []
        for frame in _image_frames(media):
            size = size or _to_rgb(frame).size[::-1]
            durations.append(frame.info.get("duration") or _DEFAULT_FRAME_MS)
        if not durations:
            raise ValueError(f"{media} is a damaged image: no frame of it can be decoded.")
        *times, duration = np.cumsum([0, *durations]) / 1000
        return _Timeline(np.array(times), len(times) / duration, duration, len(set(durations)) > 1, size)
    with media.container() as container:
        video = _find_stream(media, container, "video")
        audio = _find_stream(media, container, "audio", is_optional=True)
        size = (video.width, video.height) if _is_turned(video) else (video.height, video.width)
        packets = _read_sample_table(container, video) or _scan(container, video, audio)
        if not len(packets.pts):
            raise ValueError(f"The video stream of {media} holds no frame.")
        extent = None if audio is None else _audio_extent(audio, packets.audio_end)
        rates = [float(rate) for rate in (video.average_rate, video.guessed_rate) if rate]
        numbers = np.arange(len(packets.pts))
        if packets.keys is None:
            fps = rates[-1] if rates else 25.0
            return _Timeline(numbers / fps, fps, len(numbers) / fps, False, size, audio=extent)
        times = (packets.pts - packets.pts[0]) * float(video.time_base)
        duration = times[-1] + float(packets.last_duration * video.time_base)
        if len(times) > 1:
            rates.append((len(times) - 1) / times[-1])
        # Clocks of containers round, and encoders jitter: half a frame is what a constant rate may be off.
        fps = next((fps for fps in rates if np.abs(times - numbers / fps).max() <= 0.5 / fps), None)
        is_variable = fps is None
        if not is_variable:
            times, duration = numbers / fps, len(numbers) / fps
        return _Timeline(
            times,
            len(times) / duration,
            duration,
            is_variable,
            size,
            packets.pts,
            packets.keys,
            is_seekable=_is_one_of(container, _SEEKABLE_FORMATS),
            origin=float(packets.pts[0] * video.time_base),
            audio=extent,
        )


class _Packets(NamedTuple):
    """What packets tell: times of the video in ticks, `keys` as of [`_Timeline`], the end of the audio in seconds."""

    pts: np.ndarray
    keys: np.ndarray | None
    last_duration: int = 0
    audio_end: float | None = None


def _read_sample_table(container, video) -> _Packets | None:
    """
    The frames of an mp4 or mov by its sample table, or `None` if this does not settle their times.

    The table tells decoding times. Where these are evenly spaced and every frame is shown, presentation times are so
    too, in another order, if just as many fit between the first and the last one. No packets are read but the last
    group of pictures and the key frames, each after a seek, as FFmpeg mistakes their times if the demuxer discards
    what lies between.
    """
    entries = video.index_entries
    length = len(entries)
    if not _is_one_of(container, {"mp4"}) or length < 2 or length != video.frames or video.start_time is None:
        return None
    # No tuple for each frame: Python would look for garbage among hundreds of thousands of them.
    table = np.fromiter((value for entry in entries for value in (entry.timestamp, entry.flags)), np.int64, 2 * length)
    dts, is_key, is_discarded = table[::2], table[1::2] & 1 == 1, table[1::2] & 2 == 2
    step = int(dts[1] - dts[0])
    if step <= 0 or (np.diff(dts) != step).any() or is_discarded.any() or not is_key[0] or is_key.mean() > 0.1:
        return None
    _read_only(container, video)
    keys, packets = [], iter(())
    for timestamp in dts[is_key].tolist():
        # FFmpeg seeks by presentation times, which for this frame may be that of decoding, or up to 16 frames later.
        for delay in (video.start_time - int(dts[0]), _MIN_SKIP * step):
            container.seek(timestamp + delay, stream=video)
            packets = _demux(container, video)
            packet = next(packets, None)
            if packet is not None and packet.dts == timestamp and packet.pts is not None:
                keys.append(packet.pts)
                break
    last = max([*keys[-1:], *(packet.pts for packet in packets if packet.pts is not None)], default=None)
    container.seek(-(1 << 40))
    if len(keys) < np.count_nonzero(is_key) or last != keys[0] + step * (length - 1):
        return None
    return _Packets(keys[0] + step * np.arange(length), np.array(keys), step)


def _scan(container, video, audio) -> _Packets:
    """Reads all packets of the streams, decoding none."""
    streams = [stream for stream in (video, audio) if stream is not None]
    _read_only(container, *streams)
    pts, keys, last_duration, audio_end = [], [], 0, None
    for packet in _demux(container, *streams):
        if packet.stream is video:
            if packet.is_keyframe:
                keys.append(packet.pts)
            if not packet.is_discard:  # an edit list may hide frames that others need
                pts.append(packet.pts)
                last_duration = packet.duration or last_duration
        elif packet.pts is not None:
            audio_end = max(audio_end or 0, packet.pts + (packet.duration or 0))
    audio_end = None if audio_end is None else float(audio_end * audio.time_base)
    # AVI and raw streams have no presentation times, or wrong ones where frames are reordered.
    if None in pts or container.format.name == "avi":
        return _Packets(np.arange(len(pts)), None, audio_end=audio_end)
    pts, keys = np.unique(np.array(pts, np.int64)), np.unique(np.array(keys or pts[:1], np.int64))
    # What is shown before the first key frame cannot be decoded.
    return _Packets(pts[pts >= keys[:1].sum()] if len(keys) else pts, keys, last_duration, audio_end)


def _audio_extent(stream, scanned_end: float | None) -> tuple[float, float]:
    """Seconds between which a track sounds, on the clock of its container."""
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is None:
        return start, start if scanned_end is None else scanned_end
    end = start + float(stream.duration * stream.time_base)
    if scanned_end is None:
        return start, end
    # Headers leave out the padding of encoders, packets do not. But some headers are only guesses.
    return start, min(end, scanned_end) if abs(end - scanned_end) < 0.05 else scanned_end


def _find_stream(media: _Media, container, kind: str, is_optional: bool = False):
    """The default stream of a kind, or else the first; covers of songs are no video."""
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not streams and not is_optional:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise ValueError(f"{media} has no {kind} stream that FFmpeg decodes; the streams it has: {found}.")
    return max(streams, key=lambda stream: bool(stream.disposition & Disposition.default), default=None)


def _read_only(container, *streams) -> None:
    """Lets the demuxer skip the data of all other streams."""
    for stream in container.streams:
        stream.discard = Discard.default if stream in streams else Discard.all


def _is_one_of(container, formats: set[str]) -> bool:
    return not formats.isdisjoint(container.format.name.split(","))


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
    # PyAV raises IndexError at the end of a file in which another stream has turned up midway.
    with suppress(av.FFmpegError, IndexError):
        for packet in container.demux(*streams):
            if packet.size:
                yield packet


def _demux_from(container, stream, key: int) -> Iterator[av.Packet]:
    """The packets of a stream from the key frame at `key`, in ticks, or an earlier one."""
    second = round(1 / stream.time_base)
    # Seeking follows decoding times, or lands anywhere where a container has no index: it may be too late.
    for back in (0, 1, 10, 100, 1 << 20):
        with suppress(av.FFmpegError):
            container.seek(key - back * second, stream=stream)
            packets = _demux(container, stream)
            packet = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
            if packet is not None and packet.pts <= key:
                yield packet
                yield from packets
                return


# ------------------------------------------------------------------------------------------------------------ decoding


class _FrameSink:
    """Makes decoded pictures the rows of one tensor, in worker threads while decoders go on."""

    def __init__(self, num_rows: int, transform, size: tuple[int, int], num_threads: int):
        self.transform, self.size = transform, size
        self.frames: torch.Tensor | None = None
        self.is_stored = np.zeros(num_rows, dtype=bool)
        self.error: BaseException | None = None
        num_workers = min(8, num_threads)
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
        if self.error is not None:
            raise self.error
        self.slots.acquire()
        self.executor.submit(self._work, row, picture)

    def _work(self, row: int, picture: av.VideoFrame | torch.Tensor) -> None:
        try:
            self._store(row, self._to_tensor(picture) if isinstance(picture, av.VideoFrame) else picture)
        except av.FFmpegError:
            pass  # what cannot be converted counts as not decoded
        except Exception as error:
            self.error = error
        finally:
            self.slots.release()

    def _store(self, row: int, picture: torch.Tensor) -> None:
        if self.transform is not None:
            picture = torch.as_tensor(self.transform(picture))
        with self.lock:
            if self.frames is None:
                is_channels_last = picture.ndim == 3 and picture.stride(0) == 1
                layout = torch.channels_last if is_channels_last else torch.contiguous_format
                shape = (len(self.is_stored), *picture.shape)
                self.frames = torch.empty(shape, dtype=picture.dtype, device=picture.device, memory_format=layout)
        if picture.shape != self.frames.shape[1:]:
            shapes = f"{tuple(self.frames.shape[1:])} and {tuple(picture.shape)}"
            raise ValueError(f"`transform` made tensors of shapes {shapes} of two frames: one shape is accepted.")
        self.frames[row].copy_(picture)
        self.is_stored[row] = True

    def _to_tensor(self, frame: av.VideoFrame) -> torch.Tensor:
        """Upright RGB (3, height, width) of the size of the clip, whose resolution may change midway."""
        if not hasattr(self.local, "reformatter"):
            self.local.reformatter = VideoReformatter()
        turns = round(frame.rotation / 90) % 4
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


def _decode_pyav(media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads: int) -> None:
    """
    Decodes the frames of the given numbers into rows, in this order.

    Several decoders that start at different key frames keep all cores busy; the threads of one mostly wait for each
    other. They take what they decode out of `rows`, which is keyed by presentation times, or by numbers if need be.
    """
    rows = {key: row for row, key in enumerate((frames if timeline.keys is None else timeline.pts[frames]).tolist())}
    shares = _share(timeline, frames, num_threads)
    num_threads = max(1, num_threads // len(shares))
    with ThreadPoolExecutor(len(shares), "video") as executor:
        decoding = [
            executor.submit(_decode_runs, media, timeline, _plan(timeline, share), rows, sink, num_threads)
            for share in shares
        ]
        try:
            for share in decoding:
                share.result()
        except BaseException as error:
            sink.error = sink.error or error
            raise
    if rows and timeline.keys is not None:
        # Some streams need more than a key frame to begin with (gradual refresh), or mark frames wrongly.
        _decode_runs(media, timeline, [_Run(None, [], False)], rows, sink, num_threads * len(shares))


class _Run(NamedTuple):
    """Frames decoded in one go from a key frame (in ticks) on; `seek`: what comes before is not read either."""

    key: int | None
    frames: list[int]
    seek: bool


def _find_keys(timeline: _Timeline, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The key frame that decoding each frame begins with, the last one shown before it: its ticks and its number."""
    nearest = np.searchsorted(timeline.keys, timeline.pts[frames], "right") - 1
    keys = timeline.keys[np.maximum(nearest, 0)]
    return keys, np.searchsorted(timeline.pts, keys)


def _share(timeline: _Timeline, frames: np.ndarray, num_shares: int) -> list[np.ndarray]:
    """Splits frames where a key frame comes between them, so that each share takes about as long to decode."""
    if not timeline.is_seekable:
        return [frames]
    keys, numbers = _find_keys(timeline, frames)
    num_decoded = np.cumsum(frames - np.maximum(numbers - 1, np.concatenate([[-1], frames[:-1]])))
    starts = np.flatnonzero(np.diff(keys)) + 1
    num_shares = min(num_shares, len(starts) + 1, int(num_decoded[-1]) // _MIN_SHARE + 1)
    if num_shares == 1:
        return [frames]
    ideal = num_decoded[-1] * np.arange(1, num_shares)[:, None] / num_shares
    return np.split(frames, np.unique(starts[np.abs(num_decoded[starts - 1] - ideal).argmin(axis=1)]))


def _plan(timeline: _Timeline, frames: np.ndarray) -> list[_Run]:
    """Groups frames so that nothing is decoded between the last of one run and the key frame of the next."""
    if timeline.keys is None:
        return [_Run(None, frames.tolist(), False)]
    runs: list[_Run] = []
    for frame, key, number in zip(frames.tolist(), *(column.tolist() for column in _find_keys(timeline, frames))):
        num_skipped = number - (runs[-1].frames[-1] if runs else 0)
        if runs and num_skipped < _MIN_SKIP:
            runs[-1].frames.append(frame)
        else:
            runs.append(_Run(key, [frame], timeline.is_seekable and num_skipped >= _MIN_SEEK))
    return runs


def _decode_runs(media: _Media, timeline, plan: list[_Run], rows: dict[int, int], sink, num_threads: int) -> None:
    """Feeds a decoder the packets that the frames of a plan need, and hands over all frames that are in `rows`."""
    with media.container() as container:
        video = _find_stream(media, container, "video")
        _read_only(container, video)
        codec = video.codec_context
        codec.thread_type, codec.thread_count = "AUTO", num_threads
        can_drop = codec.name in _DROPS_NONREF and plan[0].key is not None
        num_decoded = 0

        def decode(packet: av.Packet | None) -> None:
            nonlocal num_decoded
            with suppress(av.FFmpegError):
                for frame in codec.decode(packet):
                    row = rows.pop(num_decoded if timeline.keys is None else frame.pts, None)
                    num_decoded += 1
                    if row is not None:
                        sink.put(row, frame)

        packets = _demux(container, video)
        for key, frames, seek in plan:
            if seek:
                packets = _demux_from(container, video, key)
            # The packet of a frame follows those of all frames that it refers to.
            missing = set() if key is None else set(timeline.pts[frames].tolist())
            is_fed = key is None
            for packet in packets:
                is_fed = is_fed or packet.pts == key
                if not is_fed:
                    continue
                if can_drop:
                    codec.skip_frame = "DEFAULT" if packet.pts in rows else "NONREF"
                decode(packet)
                missing.discard(packet.pts)
                if not rows or sink.error or key is not None and not missing:
                    break
            decode(None)
            codec.flush_buffers()


def _decode_decord(media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads: int) -> None:
    decord = _import_backend("decord")
    try:
        reader = decord.VideoReader(media.path, ctx=decord.cpu(0), num_threads=num_threads)
        for row, number in enumerate(frames[frames < len(reader)].tolist()):
            frame = reader[number]
            sink.put(row, torch.as_tensor(frame.asnumpy() if hasattr(frame, "asnumpy") else frame).permute(2, 0, 1))
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode {media}: {str(error).splitlines()[0]}") from error


def _decode_torchcodec(
    media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads: int
) -> None:
    torchcodec = _import_backend("torchcodec")
    try:
        reader = torchcodec.VideoDecoder(media.path, dimension_order="NHWC", num_ffmpeg_threads=num_threads)
        for row, number in enumerate(frames[frames < len(reader)].tolist()):
            sink.put(row, reader[number].permute(2, 0, 1))
    except (RuntimeError, ValueError) as error:
        if sink.error is not None:
            raise
        raise ValueError(f"torchcodec cannot decode {media}: {error}") from error


def _decode_image(media: _Media, timeline: _Timeline, frames: np.ndarray, sink: _FrameSink, num_threads: int) -> None:
    """The frames of a still or animated image."""
    rows = {number: row for row, number in enumerate(frames.tolist())}
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
        latest: Where on that clock silence ends at the latest; what seems to sound later has lost its time.
    """

    def __init__(self, sampling_rate: int, start: float | None, seconds: float, latest: float | None = None):
        self.sampling_rate, self.start, self.latest = sampling_rate, start, latest
        self.max_samples = math.inf if math.isinf(seconds) else max(1, round(seconds * sampling_rate))
        self.samples = np.empty(0, dtype=np.float32)  # of which the first `num_samples` are filled
        self.num_samples = 0  # negative: so many samples are still to come before `start`
        self.is_full = False
        self.resampler, self.format = None, None
        self.clock, self.end = 0.0, None

    def read(self, packets: Iterator[av.Packet], stream) -> None:
        """Decodes packets. One that cannot be decoded becomes silence, by the times of those that follow."""
        end = None
        for packet in packets:
            if self.is_full:
                break
            self._decode(stream, packet)
            end = packet.pts + packet.duration if packet.pts is not None and packet.duration else end
        else:
            self.end = None if end is None else float(end * stream.time_base)
        self._decode(stream, None)
        self._flush()

    def _decode(self, stream, packet: av.Packet | None) -> None:
        with suppress(av.FFmpegError):
            for frame in stream.decode(packet):
                self._resample(frame)

    def _resample(self, frame: av.AudioFrame) -> None:
        time = self.clock if frame.pts is None else frame.time
        if self.start is None:
            self.start = time
        is_first, gap = self.resampler is None, time - self.clock
        is_right = time < (self.clock + _MAX_GAP if self.latest is None else self.latest)
        is_late = gap > _MIN_GAP and is_right
        format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if is_first or is_late or format != self.format:
            self._flush()
            # Interleaved, for PyAV crashes on planes of more than seven channels; and a second at a time.
            rate = self.sampling_rate
            self.resampler, self.format = av.AudioResampler(format="flt", rate=rate, frame_size=rate), format
        if is_first and is_right:
            self._pad(round((time - self.start) * self.sampling_rate))
        elif is_late:
            self._pad(self.num_samples + round(gap * self.sampling_rate))
        if is_first or is_late:
            self.clock = time
        self.clock += frame.samples / frame.sample_rate
        self._mix(self.resampler.resample(frame))

    def _flush(self) -> None:
        self._mix([] if self.resampler is None else self.resampler.resample(None))

    def _mix(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            self._append(frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1))

    def place(self, samples: np.ndarray, track_start: float) -> None:
        """Takes over the whole track, which starts at `track_start` on the clock of the container."""
        self._pad(0 if self.start is None else round((track_start - self.start) * self.sampling_rate))
        self._append(samples)

    def _pad(self, position: int) -> None:
        """Silence up to a sample of the result; a negative one says how many come before `start`."""
        if position > self.num_samples:
            self._append(np.zeros(int(min(position, self.max_samples)) - self.num_samples, dtype=np.float32))
        elif self.num_samples <= 0:
            self.num_samples = position

    def _append(self, samples: np.ndarray) -> None:
        start, stop = self.num_samples, self.num_samples + len(samples)
        if stop > len(self.samples):
            # In place, where the system can: parts that are put together in the end take twice the memory.
            self.samples.resize(max(stop, len(self.samples) * 9 // 8, 1 << 16), refcheck=False)
        if stop > 0:
            self.samples[max(start, 0) : stop] = samples[max(-start, 0) :]
        self.num_samples = stop
        self.is_full = self.is_full or self.num_samples >= self.max_samples

    def waveform(self) -> np.ndarray:
        """float32 samples in [-1, 1]."""
        num_samples = min(max(self.num_samples, 0), self.max_samples)
        if self.end is not None and self.start is not None:
            # Decoders give the last frame in full, though containers tell that its rest is padding.
            end = max(0, round((self.end - self.start) * self.sampling_rate))
            num_samples = end if 0 < num_samples - end < 0.1 * self.sampling_rate else num_samples
        self.samples.resize(num_samples, refcheck=False)
        return np.clip(self.samples, -1.0, 1.0, out=self.samples)


def _read_audio_pyav(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    with media.container() as container:
        stream = _find_stream(media, container, "audio")
        _read_only(container, stream)
        packets = _demux(container, stream)
        # Decoders need some sound before the first sample that is to be right.
        if track.start is not None and track.start - 1 > track_start and _is_one_of(container, _SEEKABLE_FORMATS):
            packets = _demux_from(container, stream, math.floor((track.start - 1) / stream.time_base))
        track.read(packets, stream)


def _read_audio_decord(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    decord = _import_backend("decord")
    with media.container() as container:
        num_channels = _find_stream(media, container, "audio").channels
    try:
        # Without `mono`, decord 0.6 takes samples of interleaved channels for those of one after the other.
        reader = decord.AudioReader(media.path, ctx=decord.cpu(0), sample_rate=track.sampling_rate, mono=True)
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode the sound of {media}: {str(error).splitlines()[0]}") from error
    # Its downmix makes stereo 3 dB louder than the mean. Indexing it would list the number of each sample.
    track.place(reader._array[0] * (2**-0.5 if num_channels > 1 else 1.0), track_start)


def _read_audio_librosa(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    librosa, soundfile = _import_backend("librosa"), importlib.import_module("soundfile")
    try:
        with soundfile.SoundFile(media.path) as file:
            track.place(librosa.load(file, sr=track.sampling_rate, mono=True)[0], track_start)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"librosa cannot decode {media}: {error} The backend 'pyav' decodes more formats.") from error


def _read_audio_torchcodec(media: _Media, track: _Track, track_start: float = 0.0) -> None:
    torchcodec = _import_backend("torchcodec")
    with media.container() as container:
        _find_stream(media, container, "audio")  # checks what is not to be given to another FFmpeg
    try:
        samples = torchcodec.AudioDecoder(media.path, sample_rate=track.sampling_rate).get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"torchcodec cannot decode the sound of {media}: {error}") from error
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
    """An image whose pixels are not yet decoded; what Pillow says of it becomes a ValueError."""
    if isinstance(source, PIL.Image.Image):
        yield source
        return
    with _open_source(source, timeout) as media:
        try:
            with PIL.Image.open(media.path, formats=None if media.may_refer else _harmless_formats()) as image:
                yield image
        except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
            raise ValueError(f"{media} is not an image that Pillow reads, or is damaged.") from error


def _harmless_formats() -> list[str]:
    """The formats that Pillow reads by itself: EPS is a program, which it has Ghostscript run."""
    PIL.Image.init()
    return [format for format in PIL.Image.ID if format != "EPS"]


def _image_frames(media: _Media) -> Iterator[PIL.Image.Image]:
    """The frames of an animated image, decoded, up to the end or to where it can no longer be read."""
    with suppress(Exception), PIL.Image.open(media.path) as image:
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
