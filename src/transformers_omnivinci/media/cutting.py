"""Cuts a stretch out of a video without encoding anything anew."""

import io
import math

import av

from .containers import demux, find_stream
from .pyav import VERSION, time_base
from .sources import open_source
from .timeline import read_timeline

CONTAINERS = (("mp4", ".mp4"), ("matroska", ".mkv"))
"""Formats of cuts and their suffixes, in the order in which they are tried: not every one takes every codec."""


def cut_video(source, start: float, end: float, *, timeout: float = 30.0) -> tuple[bytes, str, float]:
    """
    Copies the packets of a stretch of a video, with its sound. As pictures can only be decoded from key frames on, the
    copy begins with the last key frame at or before `start`.

    Args:
        source (`str`, `Path`, `bytes` or binary file): See [`load_video`].
        start (`float`), end (`float`): In seconds of the video.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.

    Returns:
        `tuple[bytes, str, float]`: the content of a file, its suffix, and the second of it at which `start` is.

    Raises:
        ValueError, TypeError, OSError: the source is not accepted, cannot be read, or its packets cannot be copied.
    """
    with open_source(source, timeout) as media:
        origin = read_timeline(media).origin
        reasons = []
        for format, suffix in CONTAINERS:
            try:
                content, first = _copy(media, format, origin + start, origin + end)
            except (av.FFmpegError, ValueError) as error:
                reasons.append(f"{format}: {error}")
            else:
                return content, suffix, round(max(0.0, origin + start - first), 6)
    raise ValueError(f"{media} cannot be cut without encoding it anew ({'; '.join(reasons)}).")


def _copy(media, format: str, start: float, end: float) -> tuple[bytes, float]:
    """The copy, and the second on the clock of the container at which its first frame is."""
    file = io.BytesIO()
    with media.container() as container, av.open(file, "w", format=format) as copy:
        video = find_stream(media, container, "video")
        audio = find_stream(media, container, "audio", is_optional=True)
        streams = [video] if audio is None else [video, audio]
        options = {"opaque": True} if VERSION < (17, 0) else {}
        copies = {stream.index: copy.add_stream_from_template(stream, **options) for stream in streams}
        container.seek(math.floor(start / time_base(video)), stream=video, backward=True)
        first, done, waiting = None, set(), []
        for packet in demux(container, *streams):
            stream, tick = packet.stream, time_base(packet.stream)
            if packet.dts is None or packet.pts is None or stream.index in done:
                continue
            if packet.dts * tick >= end:
                done.add(stream.index)
                if len(done) == len(streams):
                    break
                continue
            if first is None and stream is not video and stream.index != video.index:
                waiting.append(packet)
                continue
            if first is None:
                if not packet.is_keyframe:
                    continue
                first = float(packet.pts * tick)
                for held in waiting:
                    _mux(copy, copies, held, first)
            _mux(copy, copies, packet, first)
        if first is None or first > start + 1.0:
            raise ValueError("there is no key frame from which it could begin")
    return file.getvalue(), first


def _mux(copy, copies: dict, packet, first: float) -> None:
    """Writes a packet, with times that count from the first frame; sound from before it is left out."""
    index, tick = packet.stream.index, time_base(packet.stream)
    shift = round(first / tick)
    if packet.stream.type == "audio" and packet.pts < shift:
        return
    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
    packet.stream = copies[index]
    copy.mux(packet)
