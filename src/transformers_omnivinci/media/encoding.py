"""Writes mono samples as sound files, whole or piece by piece."""

import io
from fractions import Fraction

import av
import numpy as np

# Container, codec and, where a codec does not take every rate, the rate of each format.
_FORMATS = {
    "wav": ("wav", "pcm_s16le", None),
    "mp3": ("mp3", "libmp3lame", None),
    "flac": ("flac", "flac", None),
    "opus": ("ogg", "libopus", 48_000),
    "aac": ("adts", "aac", None),
    "pcm": ("s16le", "pcm_s16le", 24_000),
}
SOUND_FORMATS = tuple(_FORMATS)
"""The formats that can be written: `"opus"` is in Ogg, `"aac"` in ADTS, and `"pcm"` is 16 bits at 24 kHz alone."""


class _Written(bytearray):
    """What FFmpeg has written, for files that are sent while they are made: it cannot seek there."""

    def write(self, content) -> int:
        self.extend(content)
        return len(content)

    def take(self) -> bytes:
        content = bytes(self)
        self.clear()
        return content


class SoundEncoder:
    """
    A sound file that is made piece by piece. Its header cannot tell how long it will be.

    Args:
        format (`str`): One of `SOUND_FORMATS`.
        sampling_rate (`int`): Of the samples, in Hz.

    Raises:
        ValueError: there is no such format, or FFmpeg lacks its codec.
    """

    def __init__(self, format: str, sampling_rate: int):
        self._file = _Written()
        self._sound = _Sound(self._file, format, sampling_rate)

    def add(self, samples: np.ndarray) -> bytes:
        """The bytes that float32 samples of shape (num_samples,) in [-1, 1] complete; there may be none yet."""
        self._sound.add(samples)
        return self._file.take()

    def finish(self) -> bytes:
        """The last bytes. Nothing is added afterwards."""
        self._sound.finish()
        return self._file.take()


def encode_sound(samples: np.ndarray, sampling_rate: int, format: str = "wav") -> bytes:
    """A whole sound file of float32 samples of shape (num_samples,); arguments and errors as in [`SoundEncoder`]."""
    file = io.BytesIO()
    sound = _Sound(file, format, sampling_rate)
    sound.add(samples)
    sound.finish()
    return file.getvalue()


class _Sound:
    def __init__(self, file, format: str, sampling_rate: int):
        if format not in _FORMATS:
            raise ValueError(f"{format!r:.40} is no format of sound: {', '.join(SOUND_FORMATS)} are accepted.")
        container, codec, rate = _FORMATS[format]
        self.rate, self.num_samples = sampling_rate, 0
        try:
            self.container = av.open(file, "w", format=container)
            self.stream = self.container.add_stream(codec, rate=rate or sampling_rate, layout="mono")
        except ValueError as error:  # of PyAV, among them av.codec.codec.UnknownCodecError
            raise ValueError(f"The FFmpeg of PyAV cannot write {format}: {error}.") from error
        self.resampler = av.AudioResampler(
            format=self.stream.codec_context.format, layout="mono", rate=rate or sampling_rate
        )

    def add(self, samples: np.ndarray) -> None:
        samples = np.clip(np.asarray(samples, np.float32), -1.0, 1.0)
        for start in range(0, len(samples), 1 << 20):
            part = samples[None, start : start + (1 << 20)]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self.rate, self.num_samples, Fraction(1, self.rate)
            self.num_samples += part.shape[1]
            self._encode(self.resampler.resample(frame))

    def finish(self) -> None:
        self._encode(self.resampler.resample(None) if self.num_samples else [])
        self._encode([None])
        self.container.close()

    def _encode(self, frames) -> None:
        for frame in frames:
            for packet in self.stream.encode(frame):
                self.container.mux(packet)
