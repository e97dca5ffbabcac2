"""Tells what a source is, by its content."""

import os

from .images import is_still
from .sounds import probe_audio


def kind_of(source, *, timeout: float = 30.0) -> str:
    """
    Whether a source is an `"image"`, a `"video"` or `"audio"`; see [`load_video`] for sources. A folder of frames and
    an animated image are videos.

    Raises:
        ValueError, TypeError, OSError: the source is not accepted, cannot be read, or is none of the three.
    """
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return "video"
    try:
        return "image" if is_still(source, timeout=timeout) else "video"
    except ValueError as no_video:
        try:
            probe_audio(source, timeout=timeout)
        except ValueError:
            name = f"{os.fspath(source)!r:.200}" if isinstance(source, (str, os.PathLike)) else "The medium"
            raise ValueError(f"{name} cannot be read as a video, image or sound: {no_video}") from no_video
    return "audio"
