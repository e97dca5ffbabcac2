"""Decoders that callers can choose instead of PyAV: decord and librosa, which are optional packages."""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
import torch

from .containers import find_stream, is_mirrored, is_turned
from .levels import HLG, PQ
from .sources import Media

VIDEO_BACKENDS = ("pyav", "decord")
AUDIO_BACKENDS = ("pyav", "decord", "librosa")


def check_backend(name: str, known: Sequence[str], kind: str) -> None:
    """A ValueError unless a backend is one of those `known`, and an ImportError if its package cannot be imported."""
    if name not in known:
        raise ValueError(f"Unknown {kind} backend {name!r}: {', '.join(map(repr, known))} are accepted.")
    if name != "pyav":
        _import_backend(name)


def _import_backend(name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ImportError(
            f"The backend {name!r} needs a package that cannot be imported: "
            f'pip install "transformers-omnivinci[{name}]"'
        ) from error
    if name == "decord":
        importlib.import_module("decord.logging").set_level(-8)  # or its FFmpeg writes to stderr
    return module


def decode_decord(media: Media, frames: np.ndarray, num_threads: int) -> Iterator[torch.Tensor]:
    """The frames with the given numbers, in that order, as uint8 RGB tensors of shape (3, height, width)."""
    decord = _import_backend("decord")
    with media.container() as container:
        video = find_stream(media, container, "video")
        if video.codec_context.color_trc in (PQ, HLG):
            warnings.warn(
                f"{media} is HDR, which the backend 'decord' does not map to SDR: its frames are washed out. The "
                "backend 'pyav' maps it.",
                stacklevel=2,
            )
        # decord applies the rotation of the display matrix but not its reflection.
        reflected = (1 if is_turned(video) else 0,) if is_mirrored(video) else ()
    try:
        reader = decord.VideoReader(media.path, ctx=decord.cpu(0), num_threads=num_threads)
        for number in frames[frames < len(reader)].tolist():
            frame = reader[number]
            frame = torch.as_tensor(frame.asnumpy() if hasattr(frame, "asnumpy") else frame)
            yield (frame.flip(reflected) if reflected else frame).permute(2, 0, 1)
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode {media}: {str(error).splitlines()[0]}") from error


def read_audio_decord(media: Media, sampling_rate: int) -> np.ndarray:
    """The whole audio track as float32 mono samples of shape (num_samples,) at `sampling_rate` Hz."""
    decord = _import_backend("decord")
    with media.container() as container:
        num_channels = find_stream(media, container, "audio").channels
    try:
        # Without `mono`, decord 0.6 takes interleaved channels for consecutive ones.
        reader = decord.AudioReader(media.path, ctx=decord.cpu(0), sample_rate=sampling_rate, mono=True)
    except decord.DECORDError as error:
        raise ValueError(f"decord cannot decode the sound of {media}: {str(error).splitlines()[0]}") from error
    # Its downmix makes stereo 3 dB louder than the mean. Indexing the reader would list the number of every sample.
    return reader._array[0] * (2**-0.5 if num_channels > 1 else 1.0)


def read_audio_librosa(media: Media, sampling_rate: int) -> np.ndarray:
    """The whole audio track as float32 mono samples of shape (num_samples,) at `sampling_rate` Hz."""
    librosa, soundfile = _import_backend("librosa"), importlib.import_module("soundfile")
    try:
        with soundfile.SoundFile(media.path) as file:
            return librosa.load(file, sr=sampling_rate, mono=True)[0]
    except soundfile.LibsndfileError as error:
        raise ValueError(f"librosa cannot decode {media}: {error} The backend 'pyav' decodes more formats.") from error
