"""What differs between the versions of PyAV, 15 to 18: the only place that asks for them."""

import av
import numpy as np
from av import stream as _stream
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

_VERSION = tuple(int(part) for part in av.__version__.split(".")[:2])
_UNSPECIFIED = 2  # the colorspace of frames that name none


def read_only(container, *streams) -> None:
    """
    Lets the demuxer skip the data of all other streams.

    Until PyAV 17.0 nothing can be skipped: packets of other streams are read, and dropped. To go with 17.1.
    """
    discard = getattr(_stream, "Discard", None)
    if discard is not None:
        for stream in container.streams:
            stream.discard = discard.default if stream in streams else discard.all


def sample_table(stream) -> tuple[np.ndarray, np.ndarray]:
    """
    Times, in ticks, and flags of the packets of a stream by the index of its container.

    Until PyAV 16 it cannot be asked for: there is none, and packets are read. To go with 17.0.
    """
    entries = getattr(stream, "index_entries", ())
    # No tuple for each packet: Python would look for garbage among hundreds of thousands of them.
    values = (value for entry in entries for value in (entry.timestamp, entry.flags))
    table = np.fromiter(values, np.int64, 2 * len(entries))
    return table[::2], table[1::2]


def reorder_depth(video) -> int:
    """
    How many packets a decoder takes ahead of the frame that it gives.

    Until PyAV 16 only whether it takes any is known. To go with 17.0.
    """
    codec = video.codec_context
    return int(getattr(codec, "reorder_depth", codec.has_b_frames))


def to_rgb(
    reformatter: VideoReformatter, frame: av.VideoFrame, width: int, height: int, format: str = "rgb24"
) -> av.VideoFrame:
    """
    A frame in RGB of a size, in one of FFmpeg's formats of it, converted by the calling thread alone.

    Until PyAV 16 there is no other way, and the colours that the frame names are heeded only where the result is said
    to have others, which in RGB have no effect. To go with 17.0.
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
    A stream of a muxer with the header of another one.

    Until PyAV 16 a video would get an encoder too, which need not exist, and may print. To go with 17.0.
    """
    return muxer.add_stream_from_template(stream, **({"opaque": True} if _VERSION < (17, 0) else {}))
