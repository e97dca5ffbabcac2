"""Reads the times of tracks from headers and packets without decoding them, and finds where clocks restart."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import av
import numpy as np

from .containers import MIN_SKIP, TIMED_FORMATS, demux, find_stream, is_one_of, read_only, sample_table
from .pyav import time_base
from .sources import Media

# Containers of broadcasts, whose clocks may jump ahead; in others only a gap of more than a day is a jump.
_BROADCAST_FORMATS = {"hls", "mpeg", "mpegts"}
_MAX_GAP, _MAX_BROADCAST_GAP = 30 * 3600.0, 10.0
# The most seconds of silence in all, in an audio file and in the sound of a video: beyond that, a clock is wrong.
MAX_SILENCE, MAX_SILENCE_OF_VIDEO = 3600.0, 6 * 3600.0
# No packet of sound lasts this many seconds.
_MAX_PACKET = 100.0
# Sampling rates in Hz; headers that claim others are wrong.
MIN_RATE, MAX_RATE = 1_000, 10_000_000
# The next part waits for the sound of one that outlasts its picture by more than this many seconds.
_MIN_OVERHANG = 0.25
# The clock of sound has restarted if it goes back by more than this many seconds.
_MIN_SETBACK = 0.1
# Seconds by which a header may differ from the packets, as it rounds and leaves out the padding of encoders.
_TOLERANCE = 0.2
# More seconds than this between entries of a sample table, or of sound after the last frame, need a closer look.
_MAX_STEP, _MAX_OVERHANG = 10.0, 1.0


@dataclass(frozen=True)
class Packets:
    """The packets of a stream in the order of the file."""

    times: np.ndarray  # of presentation, in seconds; NaN where the container has none
    pts: np.ndarray | None  # times of presentation in ticks, if all packets have them
    dts: np.ndarray | None  # times of decoding in ticks, if all packets have them
    places: np.ndarray  # among the packets of all streams
    durations: np.ndarray  # in seconds; 0 where they are unknown
    is_key: np.ndarray
    is_hidden: np.ndarray  # by an edit list; other frames may need these

    def __len__(self) -> int:
        return len(self.times)

    def heard_end(self, latest: float | None = None) -> float | None:
        """
        The second at which sound ends when [`Track`] has put the packets together; `None` if none has a time.
        `latest`: where silence ends at the latest; `None`: there is no picture, and only its total is limited.
        """
        is_timed = ~np.isnan(self.times)
        times, durations = self.times[is_timed], np.where(self.durations < _MAX_PACKET, self.durations, 0)[is_timed]
        if not len(times):
            return None
        gaps = np.diff(times)
        is_wrong = (gaps > MAX_SILENCE) | ((gaps > _MIN_SETBACK) & (times[1:] >= (latest or math.inf)))
        if not (is_wrong | (gaps < -_MIN_SETBACK)).any():
            return float((times + durations).max())
        clock, silent, shift = float(times[0]), 0.0, 0.0
        for time, duration in zip(times.tolist(), durations.tolist()):
            gap = time - clock
            if gap > _MIN_SETBACK and may_be_silence(time, silent + gap, latest):
                silent, shift = silent + gap, 0.0
            elif abs(gap + shift) > _MIN_SETBACK:
                shift = -gap
            clock = time + shift + duration
        return clock


def may_be_silence(time: float, seconds: float, latest: float | None) -> bool:
    """Whether the gap before sound at `time` is silence, `seconds` of it in all, rather than an error of the clock."""
    return seconds < MAX_SILENCE if latest is None else time < latest and seconds < MAX_SILENCE_OF_VIDEO


def read_packets(container, *streams) -> tuple[list[Packets], bool]:
    """The packets of each stream, and whether there is sound, which is decoded up to its first samples."""
    read_only(container, *streams)
    rows = {stream.index: [] for stream in streams}
    is_heard = False
    for place, packet in enumerate(demux(container, *streams)):
        stream = packet.stream
        if stream.type == "audio" and not is_heard:
            is_heard = is_sound(stream, packet)
        flags = packet.is_keyframe + 2 * packet.is_discard
        rows[stream.index].append((packet.pts, packet.dts, place, packet.duration or 0, flags))
    for stream in streams:
        if stream.type == "audio" and rows[stream.index] and not is_heard:
            is_heard = is_sound(stream, None)
    return [_to_packets(rows[stream.index], float(time_base(stream))) for stream in streams], is_heard


def is_sound(stream, packet: av.Packet | None) -> bool:
    """Whether samples can be decoded from a packet of an audio stream; `None` drains the decoder."""
    with suppress(av.FFmpegError, ValueError):
        return any(has_samples(frame) for frame in stream.decode(packet))
    return False


def has_samples(frame: av.AudioFrame) -> bool:
    """Whether a decoded frame has samples at a plausible rate."""
    return frame.samples > 0 and MIN_RATE <= frame.sample_rate <= MAX_RATE


def _to_packets(rows: list[tuple], tick: float) -> Packets:
    pts, dts, places, durations, flags = zip(*rows) if rows else ((),) * 5
    times, durations = np.array(pts, float) * tick, np.array(durations, float) * tick
    pts, dts = (None if None in ticks else np.array(ticks, np.int64) for ticks in (pts, dts))
    places, flags = np.array(places, np.int64), np.array(flags, np.int64)
    return Packets(times, pts, dts, places, durations, flags & 1 == 1, flags & 2 == 2)


class Parts(NamedTuple):
    """The parts of a file whose clock restarts, put on one continuous clock of seconds from the first frame on."""

    numbers: np.ndarray  # for each packet of the video, of its frame in the order of presentation; negative: none
    times: np.ndarray  # of every frame
    keys: np.ndarray  # numbers of key frames
    duration: float
    sound_times: np.ndarray | None  # of each packet of the sound; NaN: not to be heard
    jumped: float  # by which the clock jumps ahead between parts, in all


def max_gap_of(container) -> float:
    """The most seconds by which times in a container of this format may jump ahead without being wrong."""
    return _MAX_BROADCAST_GAP if is_one_of(container, _BROADCAST_FORMATS) else _MAX_GAP


def find_parts(container, video, picture: Packets, sound: Packets | None) -> Parts | None:
    """The parts of a file whose clock restarts or jumps, as happens where recordings were joined; else `None`."""
    if not len(picture) or picture.pts is None:
        return None
    sound = sound if sound is not None and len(sound) and sound.pts is not None else None
    max_gap = max_gap_of(container)
    starts, jumps, times = _find_starts(picture, max_gap)
    is_wrong = times is not picture.times
    picture = replace(picture, times=times)
    sound_starts = [0]
    if sound is not None:
        gaps = np.diff(sound.times)
        sound_starts += (np.flatnonzero((gaps < -_MIN_SETBACK) | (gaps > max_gap)) + 1).tolist()
        # Where sound goes on, the picture only pauses.
        heard = [(sound.times[start - 1], sound.times[start]) for start in sound_starts[1:]]
        jumps = {start: gap for start, gap in jumps.items() if any(_is_same_jump(gap, other) for other in heard)}
    starts = sorted({0, *starts, *jumps})
    # VP8 has frames that are never shown, with the time of one that is.
    is_repeated = len(np.unique(times)) < len(picture) and video.codec_context.name != "vp8"
    if len(starts) == 1 and not is_repeated and not is_wrong:
        return None
    return _join(picture, sound, starts, sound_starts, sum(after - before for before, after in jumps.values()))


def _find_starts(picture: Packets, max_gap: float) -> tuple[list[int], dict[int, tuple[float, float]], np.ndarray]:
    """Packets at which the clock restarts, those before which it jumps ahead, and all times, single errors mended."""
    times = picture.times
    step = _typical_step(times)
    # A key frame is shown after all packets before it in the file, another frame after all but a few of them.
    slack = np.where(picture.is_key, 0.0, (MIN_SKIP + 1) * step)
    latest = np.maximum.accumulate(times)[:-1]
    if not ((times[1:] < latest - slack[1:]) | (times[1:] > latest + max_gap)).any():
        return [], {}, times
    starts, jumps, largest, mended = [], {}, step, times.copy()

    def is_far_off(index: int, time: float, last: float) -> bool:
        # A packet from after a pause may precede some from before it, but no more than three.
        earlier, later = times[max(index - MIN_SKIP, 0) : index], times[index + 4 : index + MIN_SKIP]
        is_outside = time > last + max_gap or time < earlier.min() - max_gap
        return is_outside and len(later) > 0 and bool((np.abs(later - time) > max_gap).all())

    heap = [float(times[0])]  # the latest times of this part; one or two of them may be wrong
    for index, (time, allowed) in enumerate(zip(times[1:].tolist(), slack[1:].tolist()), 1):
        last = heap[-1]
        following = times[index + 1 : index + 4]
        if time < heap[0] - allowed and (not len(following) or following.min() <= heap[0] - allowed):
            starts.append(index)
            heap = [time]
        elif time > last + max(max_gap, 10 * largest) and (following > last + max_gap).all():
            jumps[index] = (last, time)
            heap = [time]
        elif is_far_off(index, time, last):
            mended[index] = last + step
        else:
            largest = max(largest, min(time - last, max_gap))
            heap = sorted([*heap, time])[-3:]
    return starts, jumps, times if np.array_equal(mended, times) else mended


def _typical_step(times: np.ndarray) -> float:
    steps = np.diff(np.unique(times))
    return float(np.median(steps)) if len(steps) else 0.04


def _is_same_jump(gap: tuple[float, float], other: tuple[float, float]) -> bool:
    return min(gap[1], other[1]) - max(gap[0], other[0]) > 0.8 * (gap[1] - gap[0])


def _join(picture: Packets, sound: Packets | None, starts: list[int], sound_starts: list[int], jumped: float) -> Parts:
    numbers = -1 - np.arange(len(picture))  # numbers of no frame, for packets of which nothing is shown
    sound_times = None if sound is None else np.full(len(sound), np.nan)
    owners = [] if sound is None else _find_owners(picture, sound, starts, sound_starts)
    times, keys, begin, end, sound_end = [], [], 0.0, 0.0, 0.0
    for part, (start, stop) in enumerate(zip(starts, [*starts[1:], len(picture)])):
        own, is_key = picture.times[start:stop], picture.is_key[start:stop]
        # What is shown before the first key frame cannot be decoded.
        shown = start + np.flatnonzero(~picture.is_hidden[start:stop] & (own >= own[np.argmax(is_key)]))
        if not len(shown):
            continue
        shown = shown[np.argsort(picture.times[shown], kind="stable")]
        numbers[shown] = len(times) + np.arange(len(shown))
        keys += sorted(number for number in numbers[start:stop][is_key].tolist() if number >= 0)
        if sound_end > end + _MIN_OVERHANG:
            begin = sound_end
        shift = begin - picture.times[shown[0]]
        times += (picture.times[shown] + shift).tolist()
        end = times[-1] + (float(picture.durations[shown[-1]]) or _typical_step(own))
        for segment in np.flatnonzero(np.array(owners) == part).tolist():
            stretch = slice(sound_starts[segment], [*sound_starts[1:], len(sound)][segment])
            heard = sound.times[stretch] + shift
            if segment and owners[segment - 1] == part and heard[0] < sound_end:
                heard += sound_end - heard[0]  # only the clock of the sound has restarted
            elif part:
                heard[heard + sound.durations[stretch] <= begin] = np.nan  # another part sounds there
            sound_times[stretch] = heard
            sound_end = max(sound_end, float(np.nan_to_num(heard + sound.durations[stretch]).max()))
        begin = end
    return Parts(numbers, np.array(times), np.array(keys, np.int64), end, sound_times, jumped)


def _find_owners(picture: Packets, sound: Packets, starts: list[int], sound_starts: list[int]) -> list[int]:
    """The part of the picture to which each stretch of sound belongs."""
    if len(starts) == len(sound_starts):
        return list(range(len(starts)))
    parts = np.maximum(np.searchsorted(picture.places[starts], sound.places, "right") - 1, 0)
    owners = []
    for start, stop in zip(sound_starts, [*sound_starts[1:], len(sound)]):
        # Sound that goes on while the clock of the picture restarts belongs where it began.
        shares = np.bincount(parts[start:stop], minlength=len(starts)) / (stop - start)
        owners.append(int(np.argmax(shares >= min(0.25, shares.max()))))
    return owners


def follow(container, stream, others, values: np.ndarray) -> Iterator[tuple[av.Packet, float]]:
    """The packets of one of the streams `others` in the order of [`read_packets`], each with its entry of `values`."""
    read_only(container, *others)
    own = (packet for packet in demux(container, *others) if packet.stream.index == stream.index)
    yield from zip(own, values.tolist())


def read_sample_table(container, video) -> tuple[np.ndarray, np.ndarray, int] | None:
    """
    Sorted presentation times of all frames and of key frames of an mp4 or mov by its sample table, and the duration of
    the last frame, all in ticks; `None` if the table does not settle them.

    It holds decoding times. If these are evenly spaced and every frame is shown, so are the presentation times, in
    another order, provided that just as many fit between the first and the last one.
    """
    if not is_one_of(container, {"mp4"}) or video.start_time is None:
        return None
    dts, flags = sample_table(video)
    length = len(dts)
    if length < 2 or length != video.frames:
        return None
    is_key, is_discarded = flags & 1 == 1, flags & 2 == 2
    step = int(dts[1] - dts[0])
    if step <= 0 or (np.diff(dts) != step).any() or is_discarded.any() or not is_key[0] or is_key.mean() > 0.1:
        return None
    read_only(container, video)
    keys, packets = [], iter(())
    # Each key frame is read after a seek, since FFmpeg mistakes times if the demuxer discards what lies between.
    for timestamp in dts[is_key].tolist():
        # FFmpeg seeks by presentation time, which is the decoding time of this frame or up to 16 frames later.
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
    return keys[0] + step * np.arange(length), np.array(keys), step


def audio_extent(stream, scanned_end: float | None) -> tuple[float, float]:
    """As [`read_extent`], of a track whose last packet ends at `scanned_end`; `None`: there is no packet."""
    start = float((stream.start_time or 0) * time_base(stream))
    if scanned_end is None or stream.duration is None:
        return start, start if scanned_end is None else scanned_end
    end = start + float(stream.duration * time_base(stream))
    # Unlike packets, headers leave out the padding of encoders. But some headers are only guesses.
    return start, min(end, scanned_end) if abs(end - scanned_end) < 0.05 else scanned_end


def read_extent(media: Media, container, stream, latest: float | None = None) -> tuple[float, float]:
    """
    The seconds between which a track sounds, on the clock of its container; twice the same if nothing can be heard.
    The header is believed if the last packet is where it claims. `latest`: see [`Packets.heard_end`].
    """
    start = float((stream.start_time or 0) * time_base(stream))
    if is_one_of(container, TIMED_FORMATS) and (stream.duration or 0) > 0:
        read_only(container, stream)
        if not any(is_sound(stream, packet) for packet in chain(demux(container, stream), [None])):
            return start, start
        end = _read_end(container, stream)
        if end is not None and (latest is None or end < latest + _MAX_OVERHANG):
            return audio_extent(stream, end)
    with media.container() as fresh:  # not every container can seek back to its start
        track = find_stream(media, fresh, "audio")
        (packets,), is_heard = read_packets(fresh, track)
        return audio_extent(track, packets.heard_end(latest)) if is_heard else (start, start)


def _read_end(container, stream) -> float | None:
    """Where the last packet ends, if that is where the header claims and there are no long gaps before it."""
    claimed = float(((stream.start_time or 0) + stream.duration) * time_base(stream))
    times, _ = sample_table(stream)
    if len(times) > 1 and np.diff(times).max() * float(time_base(stream)) > _MAX_STEP:
        return None
    ends = []
    with suppress(av.FFmpegError, OverflowError):
        container.seek(int((claimed - 1) / time_base(stream)), stream=stream)
        packets = [packet for packet in demux(container, stream) if packet.pts is not None]
        ends = [float((packet.pts + (packet.duration or 0)) * time_base(stream)) for packet in packets]
    return max(ends) if ends and abs(max(ends) - claimed) < _TOLERANCE else None
