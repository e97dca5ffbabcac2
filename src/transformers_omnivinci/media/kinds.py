"""Finds out by content, never by name, whether a file is an image for Pillow or something for FFmpeg."""

import io
import mmap
import warnings
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Literal

import av
import PIL.Image
import PIL.ImageFile

# Demuxers that open files or URLs named in the content, which must not happen with content from elsewhere.
_REFERRING = {
    *("avisynth", "concat", "dash", "dvdvideo", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"),
    *("vapoursynth", "vobsub"),
}
SELF_CONTAINED = {"format_whitelist": ",".join(av.formats_available - _REFERRING)}
"""Options that keep FFmpeg from opening any other file."""

# Formats with unmistakable first bytes. For any other, FFmpeg is asked whether the file is a video.
_CERTAIN = {"AVIF", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PNG", "PSD", "TIFF", "WEBP"}
# Formats whose frames are shown one after another. In others, they are layers, sizes, views or previews.
_ANIMATED = {"AVIF", "FLI", "GIF", "PNG", "TIFF", "WEBP"}
# FFmpeg's demuxers of images.
_PICTURE_DEMUXERS = {"apng", "gif", "ico", "image2"}
# How a JPEG begins and ends, and how many bytes there may be between one's end and the next one's beginning.
_START_OF_JPEG, _END_OF_JPEG, _PADDING = b"\xff\xd8\xff", b"\xff\xd9", 64


@contextmanager
def open_picture(file, any_format: bool = False):
    """
    Opens an image with Pillow, which does not decode its pixels yet. Errors are those of `PIL.Image.open`.

    Args:
        file (path or binary file): The file.
        any_format (`bool`): Whether to accept EPS too, which is a program that Ghostscript executes.
    """
    PIL.Image.init()
    formats = None if any_format else [name for name in PIL.Image.ID if name != "EPS"]
    with PIL.Image.open(file, formats=formats) as image:
        yield image


def identify(path) -> Literal["picture", "mjpeg", "other"]:
    """
    Tells a still or animated image (`"picture"`) and a video of consecutive JPEGs (`"mjpeg"`) from everything else,
    which FFmpeg may be able to read. `path`: that of an existing file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow repeats its warnings when the image is loaded
            with open_picture(path) as image:
                format, has_views = image.format, "mp" in image.info
                if format == "MPEG" or isinstance(image, PIL.ImageFile.StubImageFile):
                    return "other"  # Pillow knows the format, but cannot read it
    except PIL.Image.DecompressionBombError:
        return "picture"
    except Exception:  # damaged files make Pillow raise exceptions of any kind
        return "other"
    if format == "JPEG" and not has_views and _is_mjpeg(path):
        return "mjpeg"
    return "picture" if format in _CERTAIN or not _is_video(path) else "other"


def is_animated(image: PIL.Image.Image) -> bool:
    """Whether an opened image has several frames that are shown one after another."""
    return image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1 + bool(image.info.get("default_image"))


def _is_mjpeg(path) -> bool:
    """Whether a JPEG is followed by another one of the same size. A smaller one is a preview of a photo."""
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
    The name of FFmpeg's demuxer for the content of a file. Given a path, FFmpeg would believe the suffixes of images.

    Raises:
        av.FFmpegError: no demuxer accepts the content.
    """
    with open(path, "rb") as file:
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        with av.open(nameless, container_options=SELF_CONTAINED) as container:
            return container.format.name.partition(",")[0]


def is_of_pictures(demuxer: str) -> bool:
    """Whether a demuxer of FFmpeg, given by name, reads images rather than videos."""
    return demuxer in _PICTURE_DEMUXERS or demuxer.endswith("_pipe")
