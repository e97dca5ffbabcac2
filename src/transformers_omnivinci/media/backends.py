"""What decodes a medium: PyAV, or the package that the caller names."""

import importlib
import warnings
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import PIL.Image
import torch

from .containers import find_stream, is_mirrored, is_turned
from .frames import FrameSink, decode_pyav
from .hdr import HLG, PQ
from .images import decode_frames
from .sources import Media
from .timeline import Timeline
from .tracks import Track, read_audio_pyav

VIDEO_BACKENDS = ("pyav", "decord", "torchcodec")
AUDIO_BACKENDS = ("pyav", "decord", "librosa", "torchcodec")


def check_backend(name: str, known: Sequence[str], kind: str) -> None:
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


def _warn_of_hdr(media: Media, video, backend: str) -> None:
    if video.codec_context.color_trc in (PQ, HLG):
        warnings.warn(
            f"{media} is HDR, which the backend {backend!r} does not map to SDR: its frames are washed out. The "
            "backend 'pyav' maps it.",
            stacklevel=2,
        )


def _decode_decord(media: Media, timeline: Timeline, frames: np.ndarray, sink: FrameSink, num_threads: int) -> None:
    decord = _import_backend("decord")
    with media.container() as container:
        video = find_stream(media, container, "video")
        _warn_of_hdr(media, video, "decord")
        # It turns frames by the angle of the display matrix, and knows nothing of reflections.
        reflected = (1 if is_turned(video) else 0,) if is_mirrored(video) else ()
    try:
        reader = decord.VideoReader(media.path, ctx=decord.cpu(0), num_threads=num_threads)
        for row, number in enumerate(frames[frames < len(reader)].tolist()):
            frame = reader[number]
            frame = torch.as_tensor(frame.asnumpy() if hasattr(frame, "asnumpy") else frame)
            sink.put(row, frame.flip(reflected).permute(2, 0, 1) if reflected else frame.permute(2, 0, 1))
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode {media}: {str(error).splitlines()[0]}") from error


def _decode_torchcodec(
    media: Media, timeline: Timeline, frames: np.ndarray, sink: FrameSink, num_threads: int
) -> None:
    torchcodec = _import_backend("torchcodec")
    with media.container() as container:
        _warn_of_hdr(media, find_stream(media, container, "video"), "torchcodec")
    try:
        reader = torchcodec.VideoDecoder(media.path, dimension_order="NHWC", num_ffmpeg_threads=num_threads)
        for row, number in enumerate(frames[frames < len(reader)].tolist()):
            sink.put(row, reader[number].permute(2, 0, 1))
    except (RuntimeError, ValueError) as error:
        if sink.error is not None:
            raise
        raise ValueError(f"torchcodec cannot decode {media}: {error}") from error


def decode_image(
    media: Media, timeline: Timeline, frames: np.ndarray, sink: FrameSink, num_threads: int, transparency: str
) -> None:
    """The frames of a still or animated image, of the size of the first one."""
    for row, picture in enumerate(decode_frames(media, frames.tolist(), transparency)):
        if picture.size != sink.size[::-1]:
            picture = picture.resize(sink.size[::-1], PIL.Image.Resampling.BICUBIC)
        sink.put(row, torch.from_numpy(np.array(picture)).permute(2, 0, 1))


def _read_audio_decord(media: Media, track: Track, track_start: float = 0.0) -> None:
    decord = _import_backend("decord")
    with media.container() as container:
        num_channels = find_stream(media, container, "audio").channels
    try:
        # Without `mono`, decord 0.6 takes samples of interleaved channels for those of one after the other.
        reader = decord.AudioReader(media.path, ctx=decord.cpu(0), sample_rate=track.sampling_rate, mono=True)
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode the sound of {media}: {str(error).splitlines()[0]}") from error
    # Its downmix makes stereo 3 dB louder than the mean. Indexing it would list the number of each sample.
    track.place(reader._array[0] * (2**-0.5 if num_channels > 1 else 1.0), track_start)


def _read_audio_librosa(media: Media, track: Track, track_start: float = 0.0) -> None:
    librosa, soundfile = _import_backend("librosa"), importlib.import_module("soundfile")
    try:
        with soundfile.SoundFile(media.path) as file:
            track.place(librosa.load(file, sr=track.sampling_rate, mono=True)[0], track_start)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"librosa cannot decode {media}: {error} The backend 'pyav' decodes more formats.") from error


def _read_audio_torchcodec(media: Media, track: Track, track_start: float = 0.0) -> None:
    torchcodec = _import_backend("torchcodec")
    with media.container() as container:
        find_stream(media, container, "audio")  # checks what is not to be given to another FFmpeg
    try:
        samples = torchcodec.AudioDecoder(media.path, sample_rate=track.sampling_rate).get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"torchcodec cannot decode the sound of {media}: {error}") from error
    track.place(samples.data.mean(dim=0).numpy(), track_start)


VIDEO_DECODERS = {"pyav": decode_pyav, "decord": _decode_decord, "torchcodec": _decode_torchcodec}
AUDIO_READERS = {
    "pyav": read_audio_pyav,
    "decord": _read_audio_decord,
    "librosa": _read_audio_librosa,
    "torchcodec": _read_audio_torchcodec,
}
