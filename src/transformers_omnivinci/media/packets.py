"""Reads the times of packets without decoding them, and finds out where the clock of a file restarts."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import av
import numpy as np

from .av_versions import read_only
from .containers import MIN_SKIP, demux, is_one_of

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


@dataclass(frozen=True)
class Packets:
    """
    The packets of a stream in the order of the file.

    Args:
        times: Presentation times in seconds; NaN where the container has none.
        pts, dts: Presentation and decoding times in ticks; 0 where there are none.
        has_pts, has_dts: Whether all packets have such times.
        places: The positions of the packets among those of all streams.
        durations: In seconds; 0 where they are unknown.
        is_key, is_hidden: Which packets hold key frames, and frames hidden by an edit list, which others may need.
    """

    times: np.ndarray
    pts: np.ndarray
    dts: np.ndarray
    has_pts: bool
    has_dts: bool
    places: np.ndarray
    durations: np.ndarray
    is_key: np.ndarray
    is_hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    def heard_end(self, latest: float | None = None) -> float | None:
        """
        The second at which sound ends when [`Track`] has put the packets together, as clocks may restart or jump;
        `None` if no packet has a time.

        Args:
            latest: Where silence ends at the latest; `None`: there is no picture, and only its total is limited.
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
    """
    Whether the gap before sound at `time` (in seconds) is silence, not an error of the clock. `seconds`: those of all
    silence, with this gap; `latest`: see [`Packets.heard_end`].
    """
    return seconds < MAX_SILENCE if latest is None else time < latest and seconds < MAX_SILENCE_OF_VIDEO


def read_packets(container, *streams) -> tuple[list[Packets], bool]:
    """
    The packets of each of the streams, and whether there is sound: a packet of an audio stream with samples that can
    be decoded. Only sound is decoded, up to its first samples.
    """
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
    return [_to_packets(rows[stream.index], float(stream.time_base)) for stream in streams], is_heard


def is_sound(stream, packet: av.Packet | None) -> bool:
    """Whether samples can be decoded from a packet of an audio stream; `None` drains the decoder."""
    with suppress(av.FFmpegError, ValueError):
        return any(has_samples(frame) for frame in stream.decode(packet))
    return False


def has_samples(frame: av.AudioFrame) -> bool:
    """Whether a decoded frame has samples at a plausible rate."""
    return frame.samples > 0 and MIN_RATE <= frame.sample_rate <= MAX_RATE


def _to_packets(rows: list[tuple], time_base: float) -> Packets:
    pts, dts, places, durations, flags = zip(*rows) if rows else ((),) * 5
    has_pts, has_dts = None not in pts, None not in dts
    times = np.array(pts, float) * time_base
    pts, dts = (
        np.array(values if is_whole else [value or 0 for value in values], np.int64)
        for values, is_whole in ((pts, has_pts), (dts, has_dts))
    )
    flags = np.array(flags, np.int64)
    durations = np.array(durations, float) * time_base
    places = np.array(places, np.int64)
    return Packets(times, pts, dts, has_pts, has_dts, places, durations, flags & 1 == 1, flags & 2 == 2)


class Parts(NamedTuple):
    """
    The parts of a file whose clock restarts, put on one continuous clock.

    Args:
        numbers: For each packet of the video, the number of its frame in the order of presentation; negative: none.
        times: Seconds of every frame from the first one on.
        keys: The numbers of key frames.
        duration: Seconds of all parts together.
        sound_times: Seconds of each packet of the sound from the first frame on.
        jumped: Seconds by which the clock jumps ahead between parts, in all.
    """

    numbers: np.ndarray
    times: np.ndarray
    keys: np.ndarray
    duration: float
    sound_times: np.ndarray | None
    jumped: float


def find_parts(container, video, picture: Packets, sound: Packets | None) -> Parts | None:
    """The parts of a file whose clock restarts or jumps, as happens where recordings were joined; else `None`."""
    if not len(picture) or not picture.has_pts:
        return None
    sound = sound if sound is not None and len(sound) and sound.has_pts else None
    max_gap = _MAX_BROADCAST_GAP if is_one_of(container, _BROADCAST_FORMATS) else _MAX_GAP
    starts, jumps, times = _find_starts(picture, max_gap)
    is_wrong = times is not picture.times
    picture = replace(picture, times=times)
    sound_starts = [0] if sound is None else _find_sound_starts(sound, max_gap)
    if sound is not None:
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
    """
    The packets at which the clock of the picture restarts, those before which it jumps ahead, and the times of all
    packets, of which single ones that are far off have been mended.
    """
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


def _find_sound_starts(sound: Packets, max_gap: float) -> list[int]:
    gaps = np.diff(sound.times)
    return [0, *(np.flatnonzero((gaps < -_MIN_SETBACK) | (gaps > max_gap)) + 1).tolist()]


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
    """
    The packets of a stream in the order of [`read_packets`], each with its entry of `values`. `others`: all streams
    that are read, including this one.
    """
    read_only(container, *others)
    own = (packet for packet in demux(container, *others) if packet.stream.index == stream.index)
    yield from zip(own, values.tolist())
