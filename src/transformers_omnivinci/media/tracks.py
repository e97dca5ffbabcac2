"""Decodes the samples of an audio track with PyAV."""

import math
from collections.abc import Iterator
from contextlib import suppress

import av
import numpy as np

from .av_versions import read_only
from .containers import SEEKABLE_FORMATS, demux, demux_from, find_stream, is_one_of
from .packets import follow, has_samples, may_be_silence
from .sources import Media

# Seconds by which sound must be late for silence to be put before it.
_MIN_GAP = 0.1
# Seconds by which sound of a file whose clock starts again may be off.
_MAX_DRIFT = 0.02


class Track:
    """
    The samples of an audio track, mono and resampled, with silence where the track has none.

    Args:
        sampling_rate: Of the result, in Hz.
        start: Where on the clock of the container the result starts, in seconds; `None`: where the track does.
        seconds: The most seconds of the result.
        latest: Where on that clock silence ends at the latest; what seems to sound later has lost its time.
        times: Seconds of each packet of the track, NaN where none of it is to be heard, if the clock of the container
            starts again. Only PyAV heeds them.
    """

    def __init__(
        self,
        sampling_rate: int,
        start: float | None,
        seconds: float,
        latest: float | None = None,
        times: np.ndarray | None = None,
    ):
        self.sampling_rate, self.start, self.latest, self.times = sampling_rate, start, latest, times
        self.max_samples = math.inf if math.isinf(seconds) else max(1, round(seconds * sampling_rate))
        self.samples = np.empty(0, dtype=np.float32)  # of which the first `num_samples` are filled
        self.num_samples = 0  # negative: so many samples are still to come before `start`
        self.is_full = False
        self.resampler, self.format = None, None
        self.clock, self.end, self.silent = 0.0, None, 0.0

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
            for frame in filter(has_samples, stream.decode(packet)):
                self._resample(frame)

    def _resample(self, frame: av.AudioFrame) -> None:
        time = self.clock if frame.pts is None else frame.time
        if self.start is None:
            self.start = time
        is_first = self.resampler is None
        gap = time - (self.start if is_first else self.clock)
        is_right = may_be_silence(time, self.silent + max(gap, 0.0), self.latest)
        is_late = (gap > _MIN_GAP or (self.times is not None and abs(gap) > _MAX_DRIFT)) and is_right
        format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if is_first or is_late or format != self.format:
            self._flush()
            # Interleaved, for PyAV crashes on planes of more than seven channels; and a second at a time.
            rate = self.sampling_rate
            self.resampler, self.format = av.AudioResampler(format="flt", rate=rate, frame_size=rate), format
        if is_first and is_right:
            self._pad(round((time - self.start) * self.sampling_rate))
        elif is_late:
            self._move(self.num_samples + round(gap * self.sampling_rate))
        if is_late:
            self.silent += max(gap, 0.0)
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

    def _move(self, position: int) -> None:
        """Goes on at a sample of the result, after silence or over what is there."""
        self._pad(position)
        self.num_samples = min(self.num_samples, position)

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


def read_audio_pyav(media: Media, track: Track, track_start: float = 0.0) -> None:
    with media.container() as container:
        stream = find_stream(media, container, "audio")
        if track.times is not None:
            track.read(_retime(media, container, stream, track.times), stream)
            return
        read_only(container, stream)
        packets = demux(container, stream)
        # Decoders need some sound before the first sample that is to be right.
        if track.start is not None and track.start - 1 > track_start and is_one_of(container, SEEKABLE_FORMATS):
            packets = demux_from(container, stream, math.floor((track.start - 1) / stream.time_base))
        track.read(packets, stream)


def _retime(media: Media, container, stream, times: np.ndarray) -> Iterator[av.Packet]:
    video = find_stream(media, container, "video")
    for packet, time in follow(container, stream, [video, stream], times):
        if not math.isnan(time):
            packet.pts = round(time / stream.time_base)
            yield packet
