"""The sound of an audio or video file."""

import math

import av
import numpy as np

from .backends import AUDIO_BACKENDS, AUDIO_READERS, check_backend
from .containers import find_stream
from .headers import read_extent
from .packets import MAX_RATE, MIN_RATE
from .sources import open_source
from .tracks import Track


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
    check_backend(backend, AUDIO_BACKENDS, "audio")
    check_audio_options(sampling_rate, max_seconds)
    with open_source(source, timeout) as media:
        track = Track(sampling_rate, None, math.inf if max_seconds is None else max_seconds)
        AUDIO_READERS[backend](media, track)
        waveform = track.waveform()
        if not len(waveform):
            raise ValueError(f"The audio track of {media} holds no sample that can be decoded.")
        return waveform


def probe_audio(source, *, timeout: float = 30.0) -> float:
    """Seconds of the audio track of a file, from its header or else its packets; nothing is decoded."""
    with open_source(source, timeout) as media, media.container() as container:
        stream = find_stream(media, container, "audio")
        start, end = read_extent(media, container, stream)
        return max(0.0, end - start)


def resample(samples: np.ndarray, rate: float, sampling_rate: int) -> np.ndarray:
    """
    Mono samples at another rate, as the sound of a file is resampled.

    Args:
        samples (`np.ndarray` of shape (num_samples,)): float32.
        rate (`float`), sampling_rate (`int`): Theirs and that of the result, in Hz.

    Returns:
        `np.ndarray` of shape `(round(num_samples * sampling_rate / rate),)`, float32.

    Raises:
        ValueError: no sound has such a rate.
    """
    if rate != int(rate) or not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(
            f"A sampling rate of {rate!r} Hz is not accepted: an integer from {MIN_RATE} to {MAX_RATE} is."
        )
    if rate == sampling_rate:
        return samples
    resampler = av.AudioResampler(format="flt", layout="mono", rate=sampling_rate)
    parts = []
    for start in range(0, len(samples), 1 << 20):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + (1 << 20)], format="flt", layout="mono")
        frame.sample_rate = int(rate)
        parts += resampler.resample(frame)
    parts += resampler.resample(None)
    resampled = np.concatenate([part.to_ndarray()[0] for part in parts])
    num_samples = round(len(samples) * sampling_rate / rate)
    return np.pad(resampled[:num_samples], (0, max(0, num_samples - len(resampled))))


def check_audio_options(sampling_rate: int, max_seconds: float | None) -> None:
    if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, (int, np.integer)) or sampling_rate < 1:
        raise ValueError(f"`sampling_rate={sampling_rate!r}` is not accepted: it is a positive integer, in Hz.")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"At most {max_seconds!r} seconds of sound is not accepted: a positive number is.")
