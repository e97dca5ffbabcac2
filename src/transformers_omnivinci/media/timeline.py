"""When the frames of a video are shown and its sound is heard, read without decoding."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from transformers.video_utils import VideoMetadata

from .containers import MIN_SKIP, SEEKABLE_FORMATS, demux, find_stream, is_one_of, is_turned, read_only
from .images import image_frames, to_rgb
from .sources import Media

# How long browsers show a frame of an animated image that does not tell.
_DEFAULT_FRAME_MS = 100
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
            Seconds of the audio track, counted from the first frame. `None`: there is no track.
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
            audio_duration=audio_duration,
        )

    def tell(self, metadata: OmniVinciVideoMetadata, first: int, indices: np.ndarray) -> None:
        """Completes the metadata of the part from frame `first` on by which frames of it were sampled."""
        metadata.frames_indices = indices.tolist()
        if self.is_variable:
            metadata.frame_times = (self.times[first + indices] - self.times[first]).tolist()


def read_timeline(media: Media) -> Timeline:
    if media.is_image:
        size, durations = None, []
        for frame in image_frames(media):
            size = size or to_rgb(frame).size[::-1]
            durations.append(frame.info.get("duration") or _DEFAULT_FRAME_MS)
        if not durations:
            raise ValueError(f"{media} is a damaged image: no frame of it can be decoded.")
        *times, duration = np.cumsum([0, *durations]) / 1000
        return Timeline(np.array(times), len(times) / duration, duration, len(set(durations)) > 1, size)
    with media.container() as container:
        video = find_stream(media, container, "video")
        audio = find_stream(media, container, "audio", is_optional=True)
        size = (video.width, video.height) if is_turned(video) else (video.height, video.width)
        packets = _read_sample_table(container, video) or scan(container, video, audio)
        if not len(packets.pts):
            raise ValueError(f"The video stream of {media} holds no frame.")
        extent = None if audio is None else audio_extent(audio, packets.audio_end)
        rates = [float(rate) for rate in (video.average_rate, video.guessed_rate) if rate]
        numbers = np.arange(len(packets.pts))
        if packets.keys is None:
            fps = rates[-1] if rates else 25.0
            return Timeline(numbers / fps, fps, len(numbers) / fps, False, size, audio=extent)
        times = (packets.pts - packets.pts[0]) * float(video.time_base)
        duration = times[-1] + float(packets.last_duration * video.time_base)
        if len(times) > 1:
            rates.append((len(times) - 1) / times[-1])
        # Clocks of containers round, and encoders jitter: half a frame is what a constant rate may be off.
        fps = next((fps for fps in rates if np.abs(times - numbers / fps).max() <= 0.5 / fps), None)
        is_variable = fps is None
        if not is_variable:
            times, duration = numbers / fps, len(numbers) / fps
        return Timeline(
            times,
            len(times) / duration,
            duration,
            is_variable,
            size,
            packets.pts,
            packets.keys,
            is_seekable=is_one_of(container, SEEKABLE_FORMATS),
            origin=float(packets.pts[0] * video.time_base),
            audio=extent,
        )


class _Packets(NamedTuple):
    """What packets tell: times of the video in ticks, `keys` as of [`Timeline`], the end of the audio in seconds."""

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
    if not is_one_of(container, {"mp4"}) or length < 2 or length != video.frames or video.start_time is None:
        return None
    # No tuple for each frame: Python would look for garbage among hundreds of thousands of them.
    table = np.fromiter((value for entry in entries for value in (entry.timestamp, entry.flags)), np.int64, 2 * length)
    dts, is_key, is_discarded = table[::2], table[1::2] & 1 == 1, table[1::2] & 2 == 2
    step = int(dts[1] - dts[0])
    if step <= 0 or (np.diff(dts) != step).any() or is_discarded.any() or not is_key[0] or is_key.mean() > 0.1:
        return None
    read_only(container, video)
    keys, packets = [], iter(())
    for timestamp in dts[is_key].tolist():
        # FFmpeg seeks by presentation times, which for this frame may be that of decoding, or up to 16 frames later.
        for delay in (video.start_time - int(dts[0]), MIN_SKIP * step):
            container.seek(timestamp + delay, stream=video)
            packets = demux(container, video)
            packet = next(packets, None)
            if packet is not None and packet.dts == timestamp and packet.pts is not None:
                keys.append(packet.pts)
                break
    last = max([*keys[-1:], *(packet.pts for packet in packets if packet.pts is not None)], default=None)
    container.seek(-(1 << 40))
    if len(keys) < np.count_nonzero(is_key) or last != keys[0] + step * (length - 1):
        return None
    return _Packets(keys[0] + step * np.arange(length), np.array(keys), step)


def scan(container, video, audio) -> _Packets:
    """Reads all packets of the streams, decoding none."""
    streams = [stream for stream in (video, audio) if stream is not None]
    read_only(container, *streams)
    pts, keys, last_duration, audio_end = [], [], 0, None
    for packet in demux(container, *streams):
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


def audio_extent(stream, scanned_end: float | None) -> tuple[float, float]:
    """Seconds between which a track sounds, on the clock of its container."""
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is None:
        return start, start if scanned_end is None else scanned_end
    end = start + float(stream.duration * stream.time_base)
    if scanned_end is None:
        return start, end
    # Headers leave out the padding of encoders, packets do not. But some headers are only guesses.
    return start, min(end, scanned_end) if abs(end - scanned_end) < 0.05 else scanned_end
