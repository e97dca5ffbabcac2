"""Decodes the sound of audio and video files into mono samples."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import av
import numpy as np

from .backends import AUDIO_BACKENDS, check_backend, read_audio_decord, read_audio_librosa
from .containers import SEEKABLE_FORMATS, demux, demux_from, find_stream, is_one_of, read_only
from .packets import MAX_RATE, MIN_RATE, follow, has_samples, may_be_silence, read_extent
from .pyav import time_base
from .samples import SampleArray, SampleFile
from .sources import Media, open_source

# Seconds by which sound must be late for silence to be put before it.
_MIN_GAP = 0.1
# Seconds by which the sound of a file whose clock restarts may be off.
_MAX_DRIFT = 0.02


def load_audio(
    source,
    *,
    sampling_rate: int = 16_000,
    max_seconds: float | None = None,
    backend: str = "pyav",
    timeout: float = 30.0,
    in_file: bool = False,
) -> np.ndarray | SampleFile:
    """
    Decodes the sound of an audio or video file, from the start of its audio track.

    Channels are averaged. FFmpeg's own downmix makes stereo 3 dB louder, which clips, and drops the LFE channel.

    Args:
        source (`str`, `Path`, `bytes` or binary file): See [`load_video`].
        sampling_rate (`int`, defaults to 16000): Sampling rate of the result in Hz.
        max_seconds (`float`, *optional*): Decode at most this many seconds.
        backend (`str`, defaults to `"pyav"`):
            The decoder, one of `AUDIO_BACKENDS`. `"decord"` mixes more than two channels by FFmpeg's matrix.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.
        in_file (`bool`, defaults to `False`): Whether long sound is not held in memory.

    Returns:
        `np.ndarray` of shape (num_samples,): float32 in [-1, 1]; or a [`SampleFile`] of them.

    Raises:
        ValueError, TypeError, OSError: the source is not accepted, has no sound, or cannot be read or decoded.
        ImportError: the package of the backend is missing.
    """
    check_backend(backend, AUDIO_BACKENDS, "audio")
    check_audio_options(sampling_rate, max_seconds)
    with open_source(source, timeout) as media:
        track = Track(sampling_rate, seconds=math.inf if max_seconds is None else max_seconds, in_file=in_file)
        read_audio(media, track, backend)
        waveform = track.waveform()
        if not len(waveform):
            raise ValueError(f"The audio track of {media} holds no sample that can be decoded.")
        return waveform


def probe_audio(source, *, timeout: float = 30.0) -> float:
    """
    The duration of the audio track of a file in seconds, from its header or, if that is not reliable, its packets.
    Arguments and errors are those of [`load_audio`].
    """
    with open_source(source, timeout) as media, media.container() as container:
        stream = find_stream(media, container, "audio")
        start, end = read_extent(media, container, stream)
        return max(0.0, end - start)


def resample(samples: np.ndarray, rate: float, sampling_rate: int) -> np.ndarray:
    """
    Resamples float32 mono samples (num_samples,) from `rate` to `sampling_rate`, both in Hz, with the resampler that
    decoded files go through: float32 of shape (round(num_samples * sampling_rate / rate),).

    Raises:
        ValueError: `rate` is not a plausible sampling rate.
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
    """A ValueError unless [`load_audio`] accepts these options."""
    if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, (int, np.integer)) or sampling_rate < 1:
        raise ValueError(f"`sampling_rate={sampling_rate!r}` is not accepted: it must be a positive integer, in Hz.")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"A limit of {max_seconds!r} seconds of sound is not accepted: it must be positive.")


class MonoResampler:
    """
    Decoded frames of any format become float32 mono samples at one rate, a second at a time or, if they `flow`, as
    soon as they can be had. The mean of the channels is taken.
    """

    def __init__(self, sampling_rate: int, flow: bool = False):
        self.sampling_rate, self.frame_size = sampling_rate, None if flow else sampling_rate
        self.resampler, self.format = None, None

    def push(self, frame: av.AudioFrame) -> list[np.ndarray]:
        """The samples, each array of shape (num_samples,), that this frame completes."""
        format, completed = (frame.format.name, frame.layout.name, frame.sample_rate), []
        if format != self.format:
            completed = self.flush()
        if self.resampler is None:
            # Interleaved, because PyAV crashes on planes of more than seven channels.
            options = {"rate": self.sampling_rate, "frame_size": self.frame_size}
            self.resampler, self.format = av.AudioResampler(format="flt", **options), format
        return completed + [_mean(part) for part in self.resampler.resample(frame)]

    def flush(self) -> list[np.ndarray]:
        """The samples that are still held back. What is pushed next need not follow what came before."""
        resampler, self.resampler = self.resampler, None
        return [] if resampler is None else [_mean(part) for part in resampler.resample(None)]


def _mean(frame: av.AudioFrame) -> np.ndarray:
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1)


@dataclass
class Track:
    """Collects the samples of an audio track, mono and resampled, with silence where the track has none."""

    sampling_rate: int
    # Where on the clock of the container the result starts, in seconds; `None`: where the track does.
    start: float | None = None
    seconds: float = math.inf  # the most of the result
    # Where on that clock silence ends at the latest; the time of anything later is taken to be wrong.
    latest: float | None = None
    # If the clock restarts, the seconds of each packet, NaN where it is not to be heard. Only PyAV heeds them.
    times: np.ndarray | None = None
    in_file: bool = False  # whether a [`SampleFile`] collects them

    def __post_init__(self):
        self.max_samples = self.seconds
        if not math.isinf(self.seconds):
            self.max_samples = max(1, round(self.seconds * self.sampling_rate))
        self.samples = SampleFile() if self.in_file else SampleArray()
        self.num_samples = 0  # negative: so many samples are still to come before `start`
        self.is_full = False
        self.resampler, self.is_heard = MonoResampler(self.sampling_rate), False
        self.clock, self.end, self.silent = 0.0, None, 0.0

    def read(self, packets: Iterator[av.Packet], stream) -> None:
        """Decodes packets. One that cannot be decoded becomes silence, by the times of those after it."""
        end = None
        for packet in packets:
            if self.is_full:
                break
            self._decode(stream, packet)
            end = packet.pts + packet.duration if packet.pts is not None and packet.duration else end
        else:
            self.end = None if end is None else float(end * time_base(stream))
        self._decode(stream, None)
        self._flush()

    def _decode(self, stream, packet: av.Packet | None) -> None:
        with suppress(av.FFmpegError):
            for frame in filter(has_samples, stream.decode(packet)):
                self._resample(frame)

    def _resample(self, frame: av.AudioFrame) -> None:
        time = self.clock if frame.pts is None else frame.time
        if self.start is None:
            self.start = time
        is_first, self.is_heard = not self.is_heard, True
        gap = time - (self.start if is_first else self.clock)
        is_right = may_be_silence(time, self.silent + max(gap, 0.0), self.latest)
        is_late = (gap > _MIN_GAP or (self.times is not None and abs(gap) > _MAX_DRIFT)) and is_right
        if is_late:
            self._flush()
        if is_first and is_right:
            self._pad(round((time - self.start) * self.sampling_rate))
        elif is_late:
            # Goes on after silence, or over what is there.
            position = self.num_samples + round(gap * self.sampling_rate)
            self._pad(position)
            self.num_samples = min(self.num_samples, position)
        if is_late:
            self.silent += max(gap, 0.0)
        if is_first or is_late:
            self.clock = time
        self.clock += frame.samples / frame.sample_rate
        for samples in self.resampler.push(frame):
            self._append(samples)

    def _flush(self) -> None:
        for samples in self.resampler.flush():
            self._append(samples)

    def place(self, samples: np.ndarray, track_start: float) -> None:
        """Takes over the whole track, which starts at this second on the clock of the container."""
        self._pad(0 if self.start is None else round((track_start - self.start) * self.sampling_rate))
        self._append(samples)

    def _pad(self, position: int) -> None:
        """Adds silence up to a sample of the result; a negative one tells how many come before `start`."""
        if position > self.num_samples:
            position = int(min(position, self.max_samples))
            for start in range(self.num_samples, position, 1 << 20):
                self._append(np.zeros(min(position - start, 1 << 20), dtype=np.float32))
        elif self.num_samples <= 0:
            self.num_samples = position

    def _append(self, samples: np.ndarray) -> None:
        start, stop = self.num_samples, self.num_samples + len(samples)
        if stop > 0:
            self.samples.write(max(start, 0), samples[max(-start, 0) :])
        self.num_samples = stop
        self.is_full = self.is_full or self.num_samples >= self.max_samples

    def count(self) -> int:
        """How many samples it has."""
        num_samples = int(min(max(self.num_samples, 0), self.max_samples))
        if self.end is not None and self.start is not None:
            # Decoders return the last frame in full, even if the container says that the rest of it is padding.
            end = max(0, round((self.end - self.start) * self.sampling_rate))
            num_samples = end if 0 < num_samples - end < 0.1 * self.sampling_rate else num_samples
        return num_samples

    def waveform(self, num_samples: int | None = None) -> np.ndarray | SampleFile:
        """float32 samples in [-1, 1], of shape (num_samples,); `None`: as many as there are."""
        return self.samples.finish(self.count() if num_samples is None else num_samples)


def read_audio(media: Media, track: Track, backend: str, track_start: float = 0.0) -> None:
    """Decodes the audio track of a file, which starts at second `track_start` on its clock, into a [`Track`]."""
    if backend != "pyav":
        read = read_audio_decord if backend == "decord" else read_audio_librosa
        track.place(read(media, track.sampling_rate), track_start)
        return
    with media.container() as container:
        stream = find_stream(media, container, "audio")
        if track.times is not None:
            track.read(_retime(media, container, stream, track.times), stream)
            return
        read_only(container, stream)
        packets = demux(container, stream)
        # Decoders need some sound before the first sample that has to be right.
        if track.start is not None and track.start - 1 > track_start and is_one_of(container, SEEKABLE_FORMATS):
            packets = demux_from(container, stream, math.floor((track.start - 1) / time_base(stream)))
        track.read(packets, stream)


def _retime(media: Media, container, stream, times: np.ndarray) -> Iterator[av.Packet]:
    video = find_stream(media, container, "video")
    for packet, time in follow(container, stream, [video, stream], times):
        if not math.isnan(time):
            packet.pts = round(time / time_base(stream))
            yield packet
