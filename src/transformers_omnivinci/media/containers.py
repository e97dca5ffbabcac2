"""Streams and packets of a container."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress

import av
import numpy as np
from av import stream as _stream
from av.sidedata.sidedata import SideDataContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from .pyav import VERSION, time_base
from .sources import Media

_UNSPECIFIED = 2  # the colorspace of frames that name none
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
    If FFmpeg decodes none, a ValueError or, of one that `is_optional`, `None`.
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
    # PyAV exposes the display matrix of decoded frames, but not that of a stream. A muxer copies the latter into the
    # box `tkhd` of its header, and writing one takes a tenth of a millisecond.
    header = io.BytesIO()
    # Before PyAV 17.0, an encoder would be opened, which need not exist and may print.
    options = {"opaque": True} if VERSION < (17, 0) else {}
    with suppress(av.FFmpegError, ValueError):
        with av.open(header, "w", format="mov", container_options={"movflags": "empty_moov"}) as muxer:
            muxer.add_stream_from_template(video, **options)
            muxer.start_encoding()
    box = header.getvalue()
    matrix = box.find(b"tkhd") + 44
    if matrix < 44 or len(box) < matrix + 36:
        return (1, 0, 0, 0, 1, 0, 0, 0, 1)
    return struct.unpack(">9i", box[matrix : matrix + 36])


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """
    How to turn a decoded frame upright: whether to swap rows and columns, and then to flip it top to bottom, and left
    to right. A display matrix is rounded to the nearest of these eight orientations.
    """
    # `frame.side_data` and the frame would refer to each other: hundreds of frames would wait to be collected.
    matrix = SideDataContainer(frame).get("DISPLAYMATRIX")
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
    """The packets of a stream from the key frame at `key` on, in ticks of `time` (`"pts"` or `"dts"`), or before."""
    second = round(1 / time_base(stream))
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


def read_only(container, *streams) -> None:
    """Lets the demuxer skip the data of all other streams. Before PyAV 17.1 it reads their packets and drops them."""
    discard = getattr(_stream, "Discard", None)
    if discard is not None:
        for stream in container.streams:
            stream.discard = discard.default if stream in streams else discard.all


def sample_table(stream) -> tuple[np.ndarray, np.ndarray]:
    """The times in ticks and the flags of all packets by the index of a container; empty before PyAV 17.0."""
    entries = getattr(stream, "index_entries", ())
    # Hundreds of thousands of tuples, one for each packet, would keep the garbage collector busy.
    values = (value for entry in entries for value in (entry.timestamp, entry.flags))
    table = np.fromiter(values, np.int64, 2 * len(entries))
    return table[::2], table[1::2]


def reorder_depth(video) -> int:
    """How many packets a decoder takes ahead of the frame that it returns; before PyAV 17.0 only 0 or 1 is known."""
    codec = video.codec_context
    return int(getattr(codec, "reorder_depth", codec.has_b_frames))


def to_rgb(reformatter: VideoReformatter, frame: av.VideoFrame, width: int, height: int, format: str) -> av.VideoFrame:
    """Converts a frame to RGB, in the `format` that FFmpeg names so, and resizes it, in the calling thread alone."""
    options = {}
    if VERSION >= (17, 0):
        options = {"threads": 1}
    elif frame.colorspace != _UNSPECIFIED or frame.color_range == ColorRange.JPEG:
        # The colour space of the frame is heeded only if the result has another one, which has no effect on RGB.
        other = Colorspace.ITU709 if frame.colorspace == Colorspace.ITU601 else Colorspace.ITU601
        options = {"dst_colorspace": other, "src_color_range": frame.color_range, "dst_color_range": ColorRange.JPEG}
    return reformatter.reformat(frame, width=width, height=height, format=format, interpolation="BICUBIC", **options)
