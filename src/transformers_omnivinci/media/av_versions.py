"""Differences between PyAV 15 and 18. No other module asks for a version of PyAV."""

import av
import numpy as np
from av import stream as _stream
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

_VERSION = tuple(int(part) for part in av.__version__.split(".")[:2])
_UNSPECIFIED = 2  # the colorspace of frames that name none


def read_only(container, *streams) -> None:
    """
    Lets the demuxer of a container skip the data of all but these streams. Before PyAV 17.1 it reads all packets and
    drops those of other streams.
    """
    discard = getattr(_stream, "Discard", None)
    if discard is not None:
        for stream in container.streams:
            stream.discard = discard.default if stream in streams else discard.all


def sample_table(stream) -> tuple[np.ndarray, np.ndarray]:
    """
    The times in ticks and the flags of the packets of a stream from the index of its container, two int64 arrays of
    shape (num_packets,). Before PyAV 17.0, which exposes it, they are empty.
    """
    entries = getattr(stream, "index_entries", ())
    # Hundreds of thousands of tuples, one for each packet, would keep the garbage collector busy.
    values = (value for entry in entries for value in (entry.timestamp, entry.flags))
    table = np.fromiter(values, np.int64, 2 * len(entries))
    return table[::2], table[1::2]


def reorder_depth(video) -> int:
    """
    How many packets the decoder of a video stream takes ahead of the frame that it returns. Before PyAV 17.0 only
    whether it takes any is known (0 or 1).
    """
    codec = video.codec_context
    return int(getattr(codec, "reorder_depth", codec.has_b_frames))


def to_rgb(
    reformatter: VideoReformatter, frame: av.VideoFrame, width: int, height: int, format: str = "rgb24"
) -> av.VideoFrame:
    """
    Converts a frame to RGB and resizes it, in the calling thread alone.

    Before PyAV 17.0 there is no other way, but the colour space of the frame is ignored unless the result is declared
    to have another one, which has no effect on RGB.

    Args:
        reformatter: One of the calling thread.
        frame: The frame.
        width, height: The size of the result in pixels.
        format: FFmpeg's name of the RGB format of the result.
    """
    options = {}
    if _VERSION >= (17, 0):
        options = {"threads": 1}
    elif frame.colorspace != _UNSPECIFIED or frame.color_range == ColorRange.JPEG:
        other = Colorspace.ITU709 if frame.colorspace == Colorspace.ITU601 else Colorspace.ITU601
        options = {"dst_colorspace": other, "src_color_range": frame.color_range, "dst_color_range": ColorRange.JPEG}
    return reformatter.reformat(frame, width=width, height=height, format=format, interpolation="BICUBIC", **options)


def copy_stream(muxer, stream):
    """
    Adds a stream with the header of another one to a muxer. Before PyAV 17.0 it would open an encoder unless told not
    to, which need not exist and may print.
    """
    return muxer.add_stream_from_template(stream, **({"opaque": True} if _VERSION < (17, 0) else {}))
