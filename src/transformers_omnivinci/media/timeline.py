"""When the frames of a video are shown and its sound is heard, read without decoding."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from transformers.video_utils import VideoMetadata

from .av_versions import reorder_depth
from .containers import SEEKABLE_FORMATS, demux, demux_from, find_stream, is_one_of, is_turned
from .headers import audio_extent, read_extent, read_sample_table
from .images import measure_frames
from .packets import Packets, find_parts, follow, may_be_silence, read_packets
from .sources import Media

# Frames in a second of streams that do not tell.
_DEFAULT_FPS = 25.0
# What no clip lasts, and frames in a second that no camera takes: beyond lie headers that are wrong.
_MAX_SECONDS, _MAX_FPS = 1e6, 1e5
# Seconds that `video_end` may exceed the end of a clip, for annotations are rounded.
_END_TOLERANCE = 1.0


@dataclass
class OmniVinciVideoMetadata(VideoMetadata):
    """
    What is known of a clip, or of the part of it that `video_start` and `video_end` choose.

    Args:
        frame_times (`list[float]`, *optional*):
            Seconds of each sampled frame from the start of the clip, where the frame rate varies. `None`: frame `i`
            is at `i / fps`.
        audio_duration (`float`, *optional*):
            Seconds of the audio track, counted from the first frame; 0 where none of it can be heard. `None`: there is
            no track that FFmpeg decodes.
    """

    frame_times: list[float] | None = None
    audio_duration: float | None = None

    @property
    def timestamps(self) -> list[float]:
        """Seconds of the sampled frames from the start of the clip."""
        return super().timestamps if self.frame_times is None else list(self.frame_times)


@dataclass
class Timeline:
    """
    When the frames of a video are shown.

    Args:
        times: Seconds of every frame from the first one, float64.
        size: Height and width of upright frames.
        pts: Presentation times in ticks, sorted; or the numbers of frames, where `numbers` or `ticks` tell them.
        keys: Those of the key frames, or `None` if times cannot be relied on: frames are counted then.
        origin: Seconds of the first frame on the clock of the container.
        audio: Where the audio track starts and ends on that clock; `None`: there is none that FFmpeg decodes.
        has_track: Whether there is a track of sound, be it one that cannot be decoded.
        numbers: The frames in the packets of the video, in the order of the file, where its clock starts again.
        ticks: Decoding times of the packets, in ticks, where there are no others (AVI).
        is_reordered: Whether frames of packets known by `ticks` are shown in another order: they are counted then,
            from a key frame on.
        sound_times: Seconds of each packet of the sound from the first frame, where its clock starts again.
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
    has_track: bool = False
    numbers: np.ndarray | None = None
    ticks: np.ndarray | None = None
    is_reordered: bool = False
    sound_times: np.ndarray | None = None

    def packets(self, media: Media, container, video) -> Iterator[av.Packet]:
        """The packets of the video from the start of the file, their `pts` as in `self.pts`."""
        if self.numbers is not None:
            audio = find_stream(media, container, "audio", is_optional=True)
            for packet, number in follow(container, video, [s for s in (video, audio) if s], self.numbers):
                packet.pts = number
                yield packet
        else:
            yield from self._number(demux(container, video))

    def packets_from(self, container, video, key: int) -> Iterator[av.Packet]:
        """The same from a key frame, or an earlier one, on."""
        if self.ticks is None:
            return demux_from(container, video, key)
        return self._number(demux_from(container, video, int(self.ticks[key]), time="dts"))

    def _number(self, packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
        for packet in packets:
            if self.ticks is not None:
                number = int(np.searchsorted(self.ticks, packet.dts))
                packet.pts = number if self.ticks[min(number, len(self.ticks) - 1)] == packet.dts else -1
            yield packet

    def cut(
        self, media: Media, video_start: float | None, video_end: float | None
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
            frame_times=(self.times[first:stop] - self.times[first]).tolist() if self.is_variable else None,
            audio_duration=audio_duration,
        )

    def tell(self, metadata: OmniVinciVideoMetadata, first: int, indices: np.ndarray) -> None:
        """Completes the metadata of the part from frame `first` on by which frames of it were sampled."""
        metadata.frames_indices = indices.tolist()
        if self.is_variable:
            metadata.frame_times = (self.times[first + indices] - self.times[first]).tolist()


def read_timeline(media: Media) -> Timeline:
    """
    When the frames of a file are shown, by its headers and packets.

    Raises:
        ValueError: there is no frame, or their times cannot be true.
    """
    timeline = _read_image(media) if media.is_image else _read_video(media)
    if timeline.duration > _MAX_SECONDS or (timeline.fps > _MAX_FPS and len(timeline.times) > 1):
        raise ValueError(
            f"{media} is damaged: its {len(timeline.times)} frames are said to last {timeline.duration:.3g} s, "
            f"{timeline.fps:.3g} in a second. Up to {_MAX_SECONDS:.0e} s and {_MAX_FPS:.0e} fps are accepted."
        )
    return timeline


def _read_image(media: Media) -> Timeline:
    size, durations = measure_frames(media)
    *times, duration = (np.cumsum([0, *durations]) / 1000).tolist()
    return Timeline(np.array(times), len(times) / duration, duration, len(set(durations)) > 1, size)


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
                # Sound after the end of the picture has lost its time: it is taken to start with the picture.
                timeline.audio = (origin, origin + end - start)
        timeline.size = (video.width, video.height) if is_turned(video) else (video.height, video.width)
        timeline.has_track = len(container.streams.audio) > 0
    return timeline


def _read_packets(media: Media, container, video, picture: Packets, sound: Packets | None = None) -> Timeline:
    if container.format.name == "avi":
        return _read_avi(video, picture)
    if not picture.has_pts:
        return _count(video, np.count_nonzero(~picture.is_hidden))
    parts = find_parts(container, video, picture, sound)
    if parts is None:
        shown = ~picture.is_hidden
        pts, keys = np.unique(picture.pts[shown]), np.unique(picture.pts[picture.is_key])
        # What is shown before the first key frame cannot be decoded.
        pts, keys = (pts[pts >= keys[0]], keys) if len(keys) else (pts, pts[:1])
        last_duration = picture.durations[shown][picture.durations[shown] > 0][-1:].sum()
        return _read_times(container, video, pts, keys, last_duration / float(video.time_base))
    if parts.jumped:
        warnings.warn(
            f"The clock of {media} jumps ahead by {parts.jumped:.3f} s in all: the parts between are taken to follow "
            "each other.",
            stacklevel=2,
        )
    timeline = _make_timeline(video, parts.times, parts.duration)
    timeline.pts, timeline.keys, timeline.numbers = np.arange(len(parts.times)), parts.keys, parts.numbers
    if sound is not None and parts.sound_times is not None:
        timeline.sound_times = parts.sound_times
        ends = parts.sound_times + sound.durations
        timeline.audio = (float(np.nanmin(parts.sound_times)), float(np.nanmax(ends)))
    return timeline


def _read_avi(video, picture: Packets) -> Timeline:
    """
    AVI has one clock, that of decoding. Empty packets, which keep the frame before them on screen, tell on it, though
    the demuxer leaves them out.
    """
    ticks, length = picture.dts, len(picture)
    if not picture.has_dts or (np.diff(ticks) <= 0).any():
        return _count(video, length)
    depth = reorder_depth(video)
    # A frame is shown when the decoder has it, so many packets later.
    shown = np.concatenate([ticks[depth:], ticks[-1] + 1 + np.arange(min(depth, length))])[:length]
    times = (shown - shown[0]) * float(video.time_base)
    timeline = _make_timeline(video, times, times[-1] + float(video.time_base))
    timeline.ticks, timeline.is_reordered, timeline.is_seekable = ticks, depth > 0, True
    timeline.pts, timeline.keys = np.arange(length), np.flatnonzero(picture.is_key)
    timeline.origin = float(ticks[0] * video.time_base)
    if not len(timeline.keys):
        timeline.keys = None
    return timeline


def _count(video, length: int) -> Timeline:
    """Frames of a stream without times."""
    fps = [_DEFAULT_FPS, *_rates(video)][-1]
    return Timeline(np.arange(length) / fps, fps, length / fps, False, (0, 0))


def _read_times(container, video, pts: np.ndarray, keys: np.ndarray, last_duration: float) -> Timeline:
    times = (pts - pts[0]) * float(video.time_base)
    timeline = _make_timeline(video, times, times[-1] + last_duration * float(video.time_base))
    timeline.pts, timeline.keys = pts, keys
    timeline.is_seekable = is_one_of(container, SEEKABLE_FORMATS)
    timeline.origin = float(pts[0] * video.time_base)
    return timeline


def _rates(video) -> list[float]:
    return [float(rate) for rate in (video.average_rate, video.guessed_rate) if rate]


def _make_timeline(video, times: np.ndarray, duration: float) -> Timeline:
    """Times of frames, which are evenly spaced ones if they are so but for rounding."""
    rates, numbers = _rates(video), np.arange(len(times))
    if len(times) == 1:
        rates = [fps for fps in rates if 1 / _MAX_SECONDS < fps < _MAX_FPS] or [_DEFAULT_FPS]
    elif times[-1] > 0:
        rates.append((len(times) - 1) / times[-1])
    # Clocks of containers round, and encoders jitter: half a frame is what a constant rate may be off.
    fps = next((fps for fps in rates if np.abs(times - numbers / fps).max() <= 0.5 / fps), None)
    is_variable = fps is None
    if not is_variable:
        times, duration = numbers / fps, len(numbers) / fps
    return Timeline(times, len(times) / duration if duration > 0 else math.inf, duration, is_variable, (0, 0))
