"""Images, animations and folders of images."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

from .containers import find_stream
from .kinds import identify, is_animated, is_of_pictures, open_picture
from .levels import to_levels, white_level
from .sources import Media, open_source

TRANSPARENCY = ("white", "drop")
"""What may become of transparent pixels, see [`load_image`]."""

_ORIENTATION = 0x0112
_REDUCED = 0xFE
# How long browsers show a frame of an animation that does not tell, or asks for no longer than this.
_DEFAULT_FRAME_MS = 100
_HASTY_MS = 10
# Pixels of the frames of an animation, each of which is composed on the one before: those of 8K.
_MAX_ANIMATED_PIXELS = 1 << 25


def load_image(
    source, *, transparency: str = "white", white: float | None = None, timeout: float = 30.0
) -> PIL.Image.Image:
    """
    An image in RGB, turned upright as its EXIF orientation says. Of an animation it is the first frame.

    Floats and integers of more than 8 bits become bytes as [`white_level`] says.

    Args:
        source (`str`, `Path`, `bytes`, binary file or `PIL.Image.Image`): See [`load_video`].
        transparency (`str`, defaults to `"white"`):
            `"white"`: transparent pixels are composed on white, as browsers show them. `"drop"`: alpha is dropped, as
            in the release.
        white (`float`, *optional*):
            The value of white in images of floats and of more than 8 bits. `None`: as [`white_level`] finds it.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, or cannot be read or decoded.
    """
    check_transparency(transparency)
    with open_image(source, timeout) as (image, name):
        image.load()
        with naming(name):
            return to_rgb(image, transparency, white)


def probe_image(source, *, timeout: float = 30.0) -> tuple[int, int]:
    """Height and width of an image once upright, from its header. Arguments and errors: as of [`load_image`]."""
    with open_image(source, timeout) as (image, _):
        return upright_size(image)


def value_range(source, *, timeout: float = 30.0) -> torch.Tensor | None:
    """
    The least and the greatest value of an image whose range tells what is white, (2,); `None` of any other, which is
    not decoded. Arguments and errors: as of [`load_image`].
    """
    with open_image(source, timeout) as (image, _):
        return torch.stack(torch.aminmax(values(image))) if is_deep(image) else None


def load_frames_folder(path: str | Path, *, transparency: str = "white") -> list[PIL.Image.Image]:
    """
    The images of a folder as frames, see [`list_frames_folder`], each as of [`load_image`].
    """
    return [load_image(file, transparency=transparency) for file in list_frames_folder(path)]


def list_frames_folder(path: str | Path) -> list[Path]:
    """
    The files of the images of a folder, in the natural order of their names (`frame2` before `frame10`); files that
    hold something else are passed over.

    Raises:
        ValueError, OSError: the path is no folder, or holds no image.
    """
    folder = Path(path)
    if not folder.is_dir():
        error = NotADirectoryError if folder.exists() else FileNotFoundError
        raise error(f"{str(path)!r} is not a folder: one that holds image files is accepted.")
    files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    files = [file for file in files if _is_meant_as_image(file)]
    if not files:
        raise ValueError(f"The folder {str(path)!r} holds no image that Pillow reads.")

    def natural_key(file: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name.lower())]

    return sorted(files, key=natural_key)


def _is_meant_as_image(file: Path) -> bool:
    """Whether a file is an image, or is called one: a damaged frame is to be told of, not passed over."""
    PIL.Image.init()
    if PIL.Image.EXTENSION.get(file.suffix.lower(), "MPEG") != "MPEG":
        return True
    return identify(file) == "picture"


def is_still(source, *, timeout: float = 30.0) -> bool:
    """
    Whether a source is an image of one frame, which may be a frame of a video.

    Raises:
        ValueError, TypeError, OSError: what is given is not accepted, or is neither an image nor a video.
    """
    if isinstance(source, PIL.Image.Image):
        return not is_animated(source)
    with open_source(source, timeout) as media:
        if not media.is_image:
            with media.container() as container:
                find_stream(media, container, "video")
            return False
        with suppress(Exception), open_picture(media.path, media.may_refer) as image:
            return not is_animated(image)
        return True  # what is wrong with it is said when it is read


# ------------------------------------------------------------------------------------------------------------ opening


@contextmanager
def open_image(source, timeout: float) -> Iterator[tuple[PIL.Image.Image, str]]:
    """An image whose pixels are not yet decoded, and its name; what Pillow says of it becomes a ValueError."""
    with open_source(source, timeout) as media, _open_media(media) as image:
        yield image, str(media)


@contextmanager
def _open_media(media: Media) -> Iterator[PIL.Image.Image]:
    try:
        if media.image is not None:
            yield media.image
        else:
            with open_picture(media.path, media.may_refer) as image:
                yield image
    except PixelError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(
            f"{media} is not read: {error} `PIL.Image.MAX_IMAGE_PIXELS` sets half of that limit."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{media} is {_tell_other(media)}.") from error
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
        reason = f": {error}".rstrip(".") if str(error) else ""
        raise ValueError(f"{media} is not an image that Pillow reads, or is damaged{reason}.") from error


class PixelError(ValueError):
    """An image is read, but its values are not understood."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Says whose pixels are not understood."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise PixelError(f"{name}: {error}") from error


def _tell_other(media: Media) -> str:
    """What a file is that Pillow does not know."""
    unknown = "not an image that Pillow reads, or is damaged"
    with suppress(ValueError, av.FFmpegError), media.container() as container:
        find_stream(media, container, "video")
        if is_of_pictures(container.format.name):
            return unknown
        if container.metadata.get("major_brand", "") in ("heic", "heix", "mif1", "msf1"):
            return "a HEIF image, which Pillow reads once `pillow_heif.register_heif_opener()` has been called"
        return "a video, not an image: give it as a video"
    return unknown


def check_transparency(transparency: str) -> None:
    if transparency not in TRANSPARENCY:
        raise ValueError(
            f"`transparency={transparency!r}` is not accepted: {' and '.join(map(repr, TRANSPARENCY))} are."
        )


# ------------------------------------------------------------------------------------------------------------- pixels


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Height and width of an opened image once upright."""
    # Pillow turns TIFF files by itself, and tells their orientation until it has decoded them.
    is_turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return image.size if is_turned else image.size[::-1]


def is_deep(image: PIL.Image.Image) -> bool:
    """Whether the range of the values tells what is white."""
    return image.mode.startswith(("I", "F"))


def values(image: PIL.Image.Image) -> torch.Tensor:
    """Those of a deep image, (height, width)."""
    grey = np.asarray(image)
    return torch.from_numpy(grey.astype(np.float32 if grey.dtype.kind == "f" else np.int32))


def to_rgb(image: PIL.Image.Image, transparency: str = "white", white: float | None = None) -> PIL.Image.Image:
    """An upright copy in RGB; `white`, of a deep image, as of [`to_levels`]."""
    image = PIL.ImageOps.exif_transpose(image)
    if is_deep(image):
        return PIL.Image.fromarray(to_levels(values(image), white).numpy()).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if transparency == "white":
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


# --------------------------------------------------------------------------------------------------------- animations


def image_frames(media: Media) -> Iterator[PIL.Image.Image]:
    """
    The frames of an image that is a video, decoded; each is the same object, at another position.

    Raises:
        ValueError: no frame can be decoded. From a later one that cannot on, they are left out, with a warning.
    """
    with _open_media(media) as image:
        if not is_animated(image):
            image.load()
            yield image
            return
        position, first = image.tell(), int(bool(image.info.get("default_image")))
        try:
            for number in range(first, image.n_frames):
                try:
                    image.seek(number)
                    image.load()
                except PIL.Image.DecompressionBombError:
                    raise
                except Exception as error:
                    if number == first:
                        raise
                    warnings.warn(
                        f"{media} is damaged: frame {number - first} of {image.n_frames - first} and those after it "
                        f"cannot be decoded and are left out ({error}).",
                        stacklevel=2,
                    )
                    return
                if image.format != "TIFF" or not image.tag_v2.get(_REDUCED, 0) & 1:
                    yield image
        finally:
            with suppress(Exception):
                image.seek(position)


def measure_frames(media: Media) -> tuple[tuple[int, int], list[float]]:
    """Height and width of an image that is a video, and the milliseconds that each frame is shown."""
    size, durations = None, []
    for frame in image_frames(media):
        if getattr(frame, "is_animated", False) and frame.width * frame.height > _MAX_ANIMATED_PIXELS:
            raise ValueError(
                f"{media} is an animation of {frame.width} x {frame.height} pixels: at most {_MAX_ANIMATED_PIXELS} "
                "are accepted."
            )
        size = size or upright_size(frame)
        duration = frame.info.get("duration") or 0
        durations.append(duration if duration > _HASTY_MS else _DEFAULT_FRAME_MS)
    return size, durations


def decode_frames(media: Media, numbers: Sequence[int], transparency: str = "white") -> Iterator[PIL.Image.Image]:
    """The frames of the given numbers, ascending, in RGB."""
    wanted, white = set(numbers), None
    with _open_media(media) as image:
        is_ranged = is_deep(image) and is_animated(image)
    if is_ranged:
        # All frames of a clip have one white.
        ranges = [torch.stack(torch.aminmax(values(frame))) for frame in _pick(media, wanted)]
        with naming(str(media)):
            white = white_level(*ranges)
    for frame in _pick(media, wanted):
        with naming(str(media)):
            yield to_rgb(frame, transparency, white)


def _pick(media: Media, wanted: set[int]) -> Iterator[PIL.Image.Image]:
    last = max(wanted)
    for number, frame in enumerate(image_frames(media)):
        if number in wanted:
            yield frame
        if number == last:
            return
