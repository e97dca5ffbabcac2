"""Finds out when the frames of a video are shown and when its sound is heard, without decoding it."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from transformers.video_utils import VideoMetadata

from .containers import SEEKABLE_FORMATS, demux, demux_from, find_stream, is_one_of, is_turned, reorder_depth
from .images import measure_frames
from .packets import (
    Packets,
    audio_extent,
    find_parts,
    follow,
    may_be_silence,
    read_extent,
    read_packets,
    read_sample_table,
)
from .pyav import time_base
from .sources import Media

# The frame rate of streams that do not tell theirs.
_DEFAULT_FPS = 25.0
# No clip lasts longer, and no camera has a higher frame rate: headers that claim so are wrong.
_MAX_SECONDS, _MAX_FPS = 1e6, 1e5
# Seconds by which `video_end` may exceed the end of a clip, because annotations are rounded.
_END_TOLERANCE = 1.0


@dataclass
class OmniVinciVideoMetadata(VideoMetadata):
    """
    The metadata of a clip, or of the part of it between `video_start` and `video_end`.

    Args:
        frame_times (`list[float]`, *optional*):
            Seconds of each sampled frame from the start of the part, if the frame rate varies. `None`: frame `i` is
            shown at `i / fps`.
        audio_duration (`float`, *optional*):
            Seconds of the audio track from the first frame on; 0 if none of it can be heard. `None`: there is no track
            that FFmpeg decodes.
        start (`float`, *optional*, defaults to 0.0): Second of the clip at which the part begins.
        clip_duration (`float`, *optional*): Seconds of the whole clip. `None`: not known.
    """

    frame_times: list[float] | None = None
    audio_duration: float | None = None
    start: float = 0.0
    clip_duration: float | None = None

    @property
    def timestamps(self) -> list[float]:
        """Seconds of each sampled frame from the start of the clip."""
        return super().timestamps if self.frame_times is None else list(self.frame_times)


@dataclass
class Timeline:
    """When the frames of a video are shown."""

    times: np.ndarray  # seconds of every frame from the first one on, float64
    fps: float  # on average, if the rate is variable
    duration: float  # seconds from the start of the first frame to the end of the last one
    is_variable: bool  # whether the frames are unevenly spaced
    size: tuple[int, int] = (0, 0)  # height and width of upright frames in pixels
    # Sorted presentation times in ticks; or the numbers of the frames, if `numbers` or `ticks` identify them.
    pts: np.ndarray | None = None
    # The entries of `pts` of key frames; `None` if times are not reliable, so that frames must be counted.
    keys: np.ndarray | None = None
    is_seekable: bool = False  # whether decoding may start at a key frame
    origin: float = 0.0  # second of the first frame on the clock of the container
    # Where the audio track starts and ends on that clock; `None`: there is none that FFmpeg decodes.
    audio: tuple[float, float] | None = None
    has_track: bool = False  # whether there is an audio track, even one that cannot be decoded
    # If the clock of the file restarts, the frame of each packet of the video, in the order of the file.
    numbers: np.ndarray | None = None
    ticks: np.ndarray | None = None  # decoding times of the packets, if these are the only ones (AVI)
    # Whether frames identified by `ticks` are shown in another order: they must be counted from a key frame on.
    is_reordered: bool = False
    sound_times: np.ndarray | None = None  # see [`Parts`]

    def packets(self, media: Media, container, video) -> Iterator[av.Packet]:
        """The packets of the video from the start of the file, their `pts` replaced by entries of `self.pts`."""
        if self.numbers is not None:
            audio = find_stream(media, container, "audio", is_optional=True)
            for packet, number in follow(container, video, [s for s in (video, audio) if s], self.numbers):
                packet.pts = number
                yield packet
        else:
            yield from self._number(demux(container, video))

    def packets_from(self, container, video, key: int) -> Iterator[av.Packet]:
        """The same from the key frame `key`, an entry of `keys`, or an earlier one on."""
        if self.ticks is None:
            return demux_from(container, video, key)
        return self._number(demux_from(container, video, int(self.ticks[key]), time="dts"))

    def _number(self, packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
        for packet in packets:
            if self.ticks is not None:
                number = int(np.searchsorted(self.ticks, packet.dts))
                packet.pts = number if self.ticks[min(number, len(self.ticks) - 1)] == packet.dts else -1
            yield packet

    def cut(self, media: Media, video_start: float | None, video_end: float | None):
        """The number of the first frame of a part, and the metadata of the part; arguments of [`load_video`]."""
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
            frame_times=(self.times[first:stop] - self.times[first]).tolist() if self.is_variable else None,
            audio_duration=audio_duration,
            start=start,
            clip_duration=self.duration,
        )

    def tell(self, metadata: OmniVinciVideoMetadata, first: int, indices: np.ndarray) -> None:
        """Adds the `indices` of sampled frames to the metadata of the part from frame `first` on."""
        metadata.frames_indices = indices.tolist()
        if self.is_variable:
            metadata.frame_times = (self.times[first + indices] - self.times[first]).tolist()


def read_timeline(media: Media) -> Timeline:
    """The timeline of a file, by its headers and packets; a ValueError if it has no frame, or implausible times."""
    if media.is_image:
        size, durations = measure_frames(media)
        *times, duration = (np.cumsum([0, *durations]) / 1000).tolist()
        timeline = Timeline(np.array(times), len(times) / duration, duration, len(set(durations)) > 1, size)
    else:
        timeline = _read_video(media)
    if timeline.duration > _MAX_SECONDS or (timeline.fps > _MAX_FPS and len(timeline.times) > 1):
        raise ValueError(
            f"{media} is damaged: its {len(timeline.times)} frames are said to last {timeline.duration:.3g} s at "
            f"{timeline.fps:.3g} fps. Up to {_MAX_SECONDS:.0e} s and {_MAX_FPS:.0e} fps are accepted."
        )
    return timeline


def _read_video(media: Media) -> Timeline:
    with media.container() as container:
        video = find_stream(media, container, "video")
        audio = find_stream(media, container, "audio", is_optional=True)
        table = read_sample_table(container, video)
        if table is not None:
            timeline = _read_times(container, video, *table)
            latest = timeline.origin + timeline.duration
            timeline.audio = None if audio is None else read_extent(media, container, audio, latest)
        else:
            (picture, *sounds), is_heard = read_packets(container, *filter(None, (video, audio)))
            if picture.is_hidden.all():
                raise ValueError(f"The video stream of {media} holds no frame.")
            timeline = _read_packets(media, container, video, picture, *sounds)
            if sounds and timeline.audio is None:
                timeline.audio = audio_extent(audio, sounds[0].heard_end(timeline.origin + timeline.duration))
            if sounds and not is_heard:
                timeline.audio = (timeline.origin, timeline.origin)
        if timeline.audio is not None:
            (start, end), origin = timeline.audio, timeline.origin
            if not may_be_silence(start, start - origin, origin + timeline.duration):
                # Sound after the end of the picture has a wrong time: it is taken to start with the picture.
                timeline.audio = (origin, origin + end - start)
        timeline.size = (video.width, video.height) if is_turned(video) else (video.height, video.width)
        timeline.has_track = len(container.streams.audio) > 0
    return timeline


def _read_packets(media: Media, container, video, picture: Packets, sound: Packets | None = None) -> Timeline:
    if container.format.name == "avi":
        return _read_avi(video, picture)
    if picture.pts is None:
        return _count(video, np.count_nonzero(~picture.is_hidden))
    parts = find_parts(container, video, picture, sound)
    if parts is None:
        shown = ~picture.is_hidden
        pts, keys = np.unique(picture.pts[shown]), np.unique(picture.pts[picture.is_key])
        # What is shown before the first key frame cannot be decoded.
        pts, keys = (pts[pts >= keys[0]], keys) if len(keys) else (pts, pts[:1])
        last_duration = picture.durations[shown][picture.durations[shown] > 0][-1:].sum()
        return _read_times(container, video, pts, keys, last_duration / float(time_base(video)))
    if parts.jumped:
        warnings.warn(
            f"The clock of {media} jumps ahead by {parts.jumped:.3f} s in all: the parts between are taken to follow "
            "each other.",
            stacklevel=2,
        )
    sound_times, audio = parts.sound_times, None
    if sound_times is not None:
        audio = (float(np.nanmin(sound_times)), float(np.nanmax(sound_times + sound.durations)))
    known = {"pts": np.arange(len(parts.times)), "keys": parts.keys, "numbers": parts.numbers}
    return _make_timeline(video, parts.times, parts.duration, audio=audio, sound_times=sound_times, **known)


def _read_avi(video, picture: Packets) -> Timeline:
    # AVI has decoding times only, which also show where empty packets, which the demuxer leaves out, hold a frame.
    ticks, length = picture.dts, len(picture)
    if ticks is None or (np.diff(ticks) <= 0).any():
        return _count(video, length)
    depth, keys = reorder_depth(video), np.flatnonzero(picture.is_key)
    # A frame is shown when the decoder returns it, which is so many packets later.
    shown = np.concatenate([ticks[depth:], ticks[-1] + 1 + np.arange(min(depth, length))])[:length]
    times, tick = (shown - shown[0]) * float(time_base(video)), float(time_base(video))
    known = {"pts": np.arange(length), "keys": keys if len(keys) else None, "is_seekable": True}
    known |= {"origin": float(int(ticks[0]) * time_base(video)), "ticks": ticks, "is_reordered": depth > 0}
    return _make_timeline(video, times, times[-1] + tick, **known)


def _count(video, length: int) -> Timeline:
    """The timeline of a stream without times."""
    fps = [_DEFAULT_FPS, *_rates(video)][-1]
    return Timeline(np.arange(length) / fps, fps, length / fps, False)


def _read_times(container, video, pts: np.ndarray, keys: np.ndarray, last_duration: float) -> Timeline:
    times, origin = (pts - pts[0]) * float(time_base(video)), float(int(pts[0]) * time_base(video))
    end = times[-1] + last_duration * float(time_base(video))
    is_seekable = is_one_of(container, SEEKABLE_FORMATS)
    return _make_timeline(video, times, end, pts=pts, keys=keys, is_seekable=is_seekable, origin=origin)


def _rates(video) -> list[float]:
    return [float(rate) for rate in (video.average_rate, video.guessed_rate) if rate]


def _make_timeline(video, times: np.ndarray, duration: float, **known) -> Timeline:
    """A timeline whose frames are evenly spaced if they are but for rounding; `known`: its other attributes."""
    rates, numbers = _rates(video), np.arange(len(times))
    if len(times) == 1:
        rates = [fps for fps in rates if 1 / _MAX_SECONDS < fps < _MAX_FPS] or [_DEFAULT_FPS]
    elif times[-1] > 0:
        rates.append((len(times) - 1) / times[-1])
    # Clocks of containers round, and encoders jitter: frames of a constant rate may be off by half a frame.
    fps = next((fps for fps in rates if np.abs(times - numbers / fps).max() <= 0.5 / fps), None)
    if fps is not None:
        return Timeline(numbers / fps, fps, len(numbers) / fps, False, **known)
    return Timeline(times, len(times) / duration if duration > 0 else math.inf, duration, True, **known)
