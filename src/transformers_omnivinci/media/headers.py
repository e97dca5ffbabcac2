"""Reads the times of tracks from the headers of a file and checks each claim against packets."""

from contextlib import suppress
from itertools import chain

import av
import numpy as np

from .av_versions import read_only, sample_table
from .containers import MIN_SKIP, TIMED_FORMATS, demux, find_stream, is_one_of
from .packets import is_sound, read_packets
from .sources import Media

# Seconds by which a header may differ from the packets, as it rounds and leaves out the padding of encoders.
_TOLERANCE = 0.2
# More seconds than this between entries of a sample table, or of sound after the last frame, need a closer look.
_MAX_STEP, _MAX_OVERHANG = 10.0, 1.0


def read_sample_table(container, video) -> tuple[np.ndarray, np.ndarray, int] | None:
    """
    The times of the frames of an mp4 or mov by its sample table, or `None` if this does not settle them.

    The table holds decoding times. If these are evenly spaced and every frame is shown, so are the presentation times,
    in another order, provided that just as many fit between the first and the last one. Packets are read of the last
    group of pictures and of key frames only, each after a seek, since FFmpeg mistakes their times if the demuxer
    discards what lies between.

    Returns:
        Sorted presentation times of all frames and of key frames, and the duration of the last frame, all in ticks.
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
    """
    The seconds between which a track sounds, on the clock of its container. `scanned_end`: the second at which its
    last packet ends, `None` if there is no packet.
    """
    start = float((stream.start_time or 0) * stream.time_base)
    if scanned_end is None or stream.duration is None:
        return start, start if scanned_end is None else scanned_end
    end = start + float(stream.duration * stream.time_base)
    # Unlike packets, headers leave out the padding of encoders. But some headers are only guesses.
    return start, min(end, scanned_end) if abs(end - scanned_end) < 0.05 else scanned_end


def read_extent(media: Media, container, stream, latest: float | None = None) -> tuple[float, float]:
    """
    The seconds between which a track sounds, on the clock of its container; twice the same if nothing can be heard.

    The header is believed if the last packet is where it claims; otherwise all packets are read. `latest`: see
    [`Packets.heard_end`].
    """
    start = float((stream.start_time or 0) * stream.time_base)
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
    claimed = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    times, _ = sample_table(stream)
    if len(times) > 1 and np.diff(times).max() * stream.time_base > _MAX_STEP:
        return None
    ends = []
    with suppress(av.FFmpegError, OverflowError):
        container.seek(int((claimed - 1) / stream.time_base), stream=stream)
        ends = [
            float((packet.pts + (packet.duration or 0)) * stream.time_base)
            for packet in demux(container, stream)
            if packet.pts is not None
        ]
    return max(ends) if ends and abs(max(ends) - claimed) < _TOLERANCE else None
