"""What a file is, by what it contains: pictures that Pillow reads, or what is left to FFmpeg. Names decide nothing."""

import io
import mmap
import warnings
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Literal

import av
import PIL.Image
import PIL.ImageFile

# Demuxers that open other files or URLs than the one they are given, which content from elsewhere must not name.
_REFERRING = {
    *("avisynth", "concat", "dash", "dvdvideo", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"),
    *("vapoursynth", "vobsub"),
}
SELF_CONTAINED = {"format_whitelist": ",".join(av.formats_available - _REFERRING)}
"""Options of FFmpeg by which it opens no other file."""

# Formats whose first bytes are certain. Of any other, FFmpeg is asked whether the file is a video.
_CERTAIN = {"AVIF", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PNG", "PSD", "TIFF", "WEBP"}
# Formats whose frames are shown one after another. Those of others are layers, sizes, views or previews.
_ANIMATED = {"AVIF", "FLI", "GIF", "PNG", "TIFF", "WEBP"}
# Demuxers of FFmpeg for pictures.
_PICTURE_DEMUXERS = {"apng", "gif", "ico", "image2"}
# What a JPEG begins and ends with, and how many bytes there may be from the one end to the next beginning.
_START_OF_JPEG, _END_OF_JPEG, _PADDING = b"\xff\xd8\xff", b"\xff\xd9", 64


@contextmanager
def open_picture(file, any_format: bool = False):
    """
    A picture whose pixels are not yet decoded.

    Args:
        file (path or binary file): What holds it.
        any_format (`bool`): Whether EPS may be read too: it is a program, which Pillow has Ghostscript run.
    """
    PIL.Image.init()
    formats = None if any_format else [name for name in PIL.Image.ID if name != "EPS"]
    with PIL.Image.open(file, formats=formats) as image:
        yield image


def identify(path) -> Literal["picture", "mjpeg", "other"]:
    """
    Whether a file is a picture, still or animated, or JPEGs one after another, which are a video; or something else,
    which FFmpeg may read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of it says again when the picture is read
            with open_picture(path) as image:
                format, has_views = image.format, "mp" in image.info
                if format == "MPEG" or isinstance(image, PIL.ImageFile.StubImageFile):
                    return "other"  # known to Pillow by its name alone
    except PIL.Image.DecompressionBombError:
        return "picture"
    except Exception:  # Pillow raises whatever a file makes it stumble over
        return "other"
    if format == "JPEG" and not has_views and _is_mjpeg(path):
        return "mjpeg"
    return "picture" if format in _CERTAIN or not _is_video(path) else "other"


def is_animated(image: PIL.Image.Image) -> bool:
    """Whether an opened picture has several frames that are shown one after another."""
    return image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1 + bool(image.info.get("default_image"))


def _is_mjpeg(path) -> bool:
    """Whether a JPEG is followed by another one of the same size: smaller ones are previews of a photo."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.find(_END_OF_JPEG)
        while end >= 0 and _START_OF_JPEG not in content[end : end + _PADDING]:
            end = content.find(_END_OF_JPEG, end + 1)
        if end < 0:
            return False
    sizes = []
    try:
        with av.open(str(path), format="mjpeg") as container:
            for packet in container.demux(video=0):
                with PIL.Image.open(io.BytesIO(bytes(packet)), formats=["JPEG"]) as image:
                    sizes.append(image.size)
                if len(sizes) == 2:
                    break
    except Exception:
        pass
    return len(sizes) == 2 and sizes[0] == sizes[1]


def _is_video(path) -> bool:
    try:
        return not is_of_pictures(find_demuxer(path))
    except av.FFmpegError:
        return False


def find_demuxer(path) -> str:
    """
    The demuxer of FFmpeg for a file by its content: of a name that ends as those of pictures, it believes the ending.

    Raises:
        av.FFmpegError: there is none.
    """
    with open(path, "rb") as file:
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        with av.open(nameless, container_options=SELF_CONTAINED) as container:
            return container.format.name.partition(",")[0]


def is_of_pictures(demuxer: str) -> bool:
    """Whether a demuxer of FFmpeg reads pictures rather than videos."""
    return demuxer in _PICTURE_DEMUXERS or demuxer.endswith("_pipe")
