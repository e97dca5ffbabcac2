"""Images and folders of images."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.ImageSequence

from .sources import Media, open_source

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def load_image(source, *, timeout: float = 30.0) -> PIL.Image.Image:
    """
    An image in RGB, turned upright as its EXIF orientation says. Alpha is dropped; 16-bit greys become 8-bit ones.

    Args:
        source (`str`, `Path`, `bytes`, binary file or `PIL.Image.Image`): See [`load_video`].
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, or cannot be read or decoded.
    """
    with _open_image(source, timeout) as image:
        return to_rgb(image)


def probe_image(source, *, timeout: float = 30.0) -> tuple[int, int]:
    """Height and width of an image once upright, from its header. Arguments and errors: as of [`load_image`]."""
    with _open_image(source, timeout) as image:
        is_turned = image.getexif().get(0x0112, 1) >= 5
        return image.size if is_turned else image.size[::-1]


def load_frames_folder(path: str | Path) -> list[PIL.Image.Image]:
    """
    The images of a folder as frames, in RGB and in the natural order of their names (`frame2` before `frame10`).

    Raises:
        ValueError, OSError: the path is no folder, or none of its files has one of `IMAGE_SUFFIXES`.
    """
    folder = Path(path)
    if not folder.is_dir():
        error = NotADirectoryError if folder.exists() else FileNotFoundError
        raise error(f"{str(path)!r} is not a folder: one that holds image files is accepted.")
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    if not files:
        raise ValueError(f"The folder {str(path)!r} holds no image: {', '.join(IMAGE_SUFFIXES)} files are accepted.")

    def natural_key(file: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name.lower())]

    return [load_image(file) for file in sorted(files, key=natural_key)]


@contextmanager
def _open_image(source, timeout: float) -> Iterator[PIL.Image.Image]:
    """An image whose pixels are not yet decoded; what Pillow says of it becomes a ValueError."""
    if isinstance(source, PIL.Image.Image):
        yield source
        return
    with open_source(source, timeout) as media:
        try:
            with PIL.Image.open(media.path, formats=None if media.may_refer else _harmless_formats()) as image:
                yield image
        except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
            raise ValueError(f"{media} is not an image that Pillow reads, or is damaged.") from error


def _harmless_formats() -> list[str]:
    """The formats that Pillow reads by itself: EPS is a program, which it has Ghostscript run."""
    PIL.Image.init()
    return [format for format in PIL.Image.ID if format != "EPS"]


def image_frames(media: Media) -> Iterator[PIL.Image.Image]:
    """The frames of an animated image, decoded, up to the end or to where it can no longer be read."""
    with suppress(Exception), PIL.Image.open(media.path) as image:
        for frame in PIL.ImageSequence.Iterator(image):
            frame.load()
            yield frame


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """An upright copy in RGB."""
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow would cut off what is brighter than 255.
        grey = np.asarray(image)
        image = PIL.Image.fromarray((grey // (257 if image.mode != "I" or grey.max() > 255 else 1)).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
