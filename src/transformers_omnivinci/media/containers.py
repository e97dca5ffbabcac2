"""Streams and packets of a container."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress

import av
import numpy as np
from av.stream import Disposition

from .av_versions import copy_stream
from .sources import Media

# Containers with a presentation time for each packet: in others (MPEG-PS), FFmpeg guesses anew after seeking.
SEEKABLE_FORMATS = {"flv", "matroska", "mp4", "mpegts"}
# Containers whose headers tell the exact duration of a track.
TIMED_FORMATS = {"aiff", "caf", "flac", "mp4", "w64", "wav"}
# Fewer unwanted frames than this before a key frame are decoded rather than skipped, as draining and refilling the
# decoder costs about as much. No codec reorders across more than 16 frames, so none is cut off from its references.
MIN_SKIP = 16


def find_stream(media: Media, container, kind: str, is_optional: bool = False):
    """
    The default stream of a kind (`"video"` or `"audio"`), or else the first one; cover art does not count as video.

    Raises:
        ValueError: there is no such stream that FFmpeg decodes, unless it `is_optional`: then `None` is returned.
    """
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not streams and not is_optional:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise ValueError(f"{media} has no {kind} stream that FFmpeg decodes; the streams it has: {found}.")
    return max(streams, key=lambda stream: bool(stream.disposition & Disposition.default), default=None)


def is_one_of(container, formats: set[str]) -> bool:
    """Whether the format of a container is one of FFmpeg's format names."""
    return not formats.isdisjoint(container.format.name.split(","))


def is_turned(video) -> bool:
    """Whether the display matrix of a video stream asks for a quarter turn, with a reflection or without."""
    a, *_ = _display_matrix(video)
    return a == 0


def is_mirrored(video) -> bool:
    """Whether the display matrix of a video stream asks for a reflection, with a turn or without."""
    a, b, _, c, d, *_ = _display_matrix(video)
    return a * d < b * c


def _display_matrix(video) -> tuple[int, ...]:
    """
    PyAV exposes the display matrix of decoded frames, but not that of a stream. A muxer copies the latter into the box
    `tkhd` of its header, and writing one takes a tenth of a millisecond.
    """
    header = io.BytesIO()
    with suppress(av.FFmpegError, ValueError):
        with av.open(header, "w", format="mov", container_options={"movflags": "empty_moov"}) as muxer:
            copy_stream(muxer, video)
            muxer.start_encoding()
    box = header.getvalue()
    matrix = box.find(b"tkhd") + 44
    if matrix < 44 or len(box) < matrix + 36:
        return (1, 0, 0, 0, 1, 0, 0, 0, 1)
    return struct.unpack(">9i", box[matrix : matrix + 36])


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """
    How to turn a decoded frame upright: whether to swap rows and columns, and then whether to flip it top to bottom,
    and left to right. A display matrix is rounded to the nearest of these eight orientations.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def demux(container, *streams) -> Iterator[av.Packet]:
    """The packets of streams up to the end of the file, or to where it becomes unreadable."""
    # PyAV raises IndexError at the end of a file in which another stream has appeared midway.
    with suppress(av.FFmpegError, IndexError):
        for packet in container.demux(*streams):
            if packet.size:
                yield packet


def demux_from(container, stream, key: int, time: str = "pts") -> Iterator[av.Packet]:
    """
    The packets of a stream from a key frame on, or an earlier one. `key` is its time in ticks, the presentation time
    (`time="pts"`) or the decoding time (`"dts"`).
    """
    second = round(1 / stream.time_base)
    # Seeking follows decoding times, or lands anywhere if a container has no index, so that it may go too far.
    for back in (0, 1, 10, 100, 1 << 20):
        with suppress(av.FFmpegError):
            container.seek(key - back * second, stream=stream)
            packets = demux(container, stream)
            packet = next((packet for packet in packets if packet.is_keyframe), None)
            if packet is not None and getattr(packet, time) is not None and getattr(packet, time) <= key:
                yield packet
                yield from packets
                return
