"""Loads images, animations and folders of images."""

import re
import warnings
from collections.abc import Iterator
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
"""The accepted treatments of transparent pixels, see [`load_image`]."""

_ORIENTATION = 0x0112
_REDUCED = 0xFE
# How long browsers show a frame of an animation whose delay is missing, or no longer than `_HASTY_MS`.
_DEFAULT_FRAME_MS = 100
_HASTY_MS = 10
# The most pixels of a frame of an animation, which is composed on the one before it: those of 8K.
_MAX_ANIMATED_PIXELS = 1 << 25


def load_image(
    source, *, transparency: str = "white", white: float | None = None, timeout: float = 30.0
) -> PIL.Image.Image:
    """
    Loads an image in RGB, turned upright by its EXIF orientation; of an animation, the first frame. Floats and
    integers of more than 8 bits are scaled to bytes, see [`white_level`].

    Args:
        source (`str`, `Path`, `bytes`, binary file or `PIL.Image.Image`): See [`load_video`].
        transparency (`str`, defaults to `"white"`):
            `"white"`: transparent pixels are composed on white, as in browsers. `"drop"`: alpha is dropped, as in the
            released code.
        white (`float`, *optional*):
            The value of white in images of floats and of more than 8 bits. `None`: [`white_level`] finds it.
        timeout (`float`, defaults to 30.0): Seconds that a server may keep a download waiting.

    Raises:
        ValueError, TypeError, OSError: an argument is not accepted, or the source cannot be read or decoded.
    """
    check_transparency(transparency)
    with open_image(source, timeout) as (image, name):
        image.load()
        with naming(name):
            return to_rgb(image, transparency, white)


def probe_image(source, *, timeout: float = 30.0) -> tuple[int, int]:
    """
    Height and width in pixels of an upright image, from its header. Arguments and errors are those of [`load_image`].
    """
    with open_image(source, timeout) as (image, _):
        return upright_size(image)


def value_range(source, *, timeout: float = 30.0) -> torch.Tensor | None:
    """
    The least and the greatest value, of shape (2,), of an image whose range decides what is white; `None` for others,
    which are not decoded. Arguments and errors are those of [`load_image`].
    """
    with open_image(source, timeout) as (image, _):
        return torch.stack(torch.aminmax(values(image))) if is_deep(image) else None


def load_frames_folder(path: str | Path, *, transparency: str = "white") -> list[PIL.Image.Image]:
    """The images of a folder as frames: [`load_image`] of each file in [`list_frames_folder`]."""
    return [load_image(file, transparency=transparency) for file in list_frames_folder(path)]


def list_frames_folder(path: str | Path) -> list[Path]:
    """
    The image files of a folder, in the natural order of their names (`frame2` before `frame10`). Hidden files and
    files that are not images are skipped.

    Raises:
        ValueError, OSError: the path is not a folder, or holds no image.
    """
    folder = Path(path)
    if not folder.is_dir():
        error = NotADirectoryError if folder.exists() else FileNotFoundError
        raise error(f"{str(path)!r} is not a folder: a folder of image files is accepted.")
    files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    files = [file for file in files if _is_meant_as_image(file)]
    if not files:
        raise ValueError(f"The folder {str(path)!r} holds no image that Pillow reads.")

    def natural_key(file: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name.lower())]

    return sorted(files, key=natural_key)


def _is_meant_as_image(file: Path) -> bool:
    """Whether a file is an image or is named like one: a damaged frame must be reported, not skipped."""
    PIL.Image.init()
    if PIL.Image.EXTENSION.get(file.suffix.lower(), "MPEG") != "MPEG":
        return True
    return identify(file) == "picture"


def is_still(source, *, timeout: float = 30.0) -> bool:
    """
    Whether a source is an image of one frame, which may be a frame of a video; see [`load_video`] for sources.

    Raises:
        ValueError, TypeError, OSError: the source is not accepted, or is neither an image nor a video.
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
        return True  # an error is reported when the image is loaded


# ------------------------------------------------------------------------------------------------------------ opening


@contextmanager
def open_image(source, timeout: float) -> Iterator[tuple[PIL.Image.Image, str]]:
    """Opens an image without decoding it, and tells its name for messages; errors of Pillow become ValueErrors."""
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
            f"{media} is too large: {error} `PIL.Image.MAX_IMAGE_PIXELS` sets half of that limit."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{media} is {_describe(media)}.") from error
    except Exception as error:  # damaged files make Pillow raise exceptions of any kind
        reason = f": {error}".rstrip(".") if str(error) else ""
        raise ValueError(f"{media} is not an image that Pillow reads, or is damaged{reason}.") from error


class PixelError(ValueError):
    """An image was decoded, but its values have no known meaning."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Adds the name of an image to errors about its values."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise PixelError(f"{name}: {error}") from error


def _describe(media: Media) -> str:
    """Describes a file that Pillow does not know."""
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
    """Raises a ValueError unless `transparency` is one of [`TRANSPARENCY`]."""
    if transparency not in TRANSPARENCY:
        raise ValueError(
            f"`transparency={transparency!r}` is not accepted: {' and '.join(map(repr, TRANSPARENCY))} are."
        )


# ------------------------------------------------------------------------------------------------------------- pixels


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Height and width in pixels of an opened image once it is upright."""
    # Pillow rotates TIFF files by itself, but reports their orientation until it has decoded them.
    is_turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return image.size if is_turned else image.size[::-1]


def is_deep(image: PIL.Image.Image) -> bool:
    """Whether an image has floats or integers of more than 8 bits, whose range decides what is white."""
    return image.mode.startswith(("I", "F"))


def values(image: PIL.Image.Image) -> torch.Tensor:
    """The values of a deep image, float32 or int32 of shape (height, width)."""
    grey = np.asarray(image)
    return torch.from_numpy(grey.astype(np.float32 if grey.dtype.kind == "f" else np.int32))


def to_rgb(image: PIL.Image.Image, transparency: str = "white", white: float | None = None) -> PIL.Image.Image:
    """An upright copy in RGB. `transparency`: see [`load_image`]; `white`: for deep images, see [`to_levels`]."""
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
    Decodes the frames of a still or animated image, one after another in the same object. If a frame after the first
    one cannot be decoded, it and those after it are left out, with a warning.

    Raises:
        ValueError: the first frame cannot be decoded.
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
    """
    Height and width in pixels of a still or animated image, and for how many milliseconds each frame is shown.

    Raises:
        ValueError: the first frame cannot be decoded, or an animation is larger than 8K.
    """
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


def decode_frames(
    media: Media, numbers: np.ndarray, size: tuple[int, int], transparency: str = "white"
) -> Iterator[torch.Tensor]:
    """
    Decodes frames of a still or animated image.

    Args:
        media: The image.
        numbers (`np.ndarray` of shape (num_frames,)): The wanted frames, ascending.
        size (`tuple[int, int]`): Height and width in pixels; frames of other sizes are resized.
        transparency (`str`): See [`load_image`].

    Returns:
        `Iterator[torch.Tensor]`: uint8 RGB tensors of shape (3, height, width).
    """
    wanted, white = set(numbers.tolist()), None
    with _open_media(media) as image:
        is_ranged = is_deep(image) and is_animated(image)
    if is_ranged:
        # All frames of a clip have the same white.
        ranges = [torch.stack(torch.aminmax(values(frame))) for frame in _pick(media, wanted)]
        with naming(str(media)):
            white = white_level(*ranges)
    for frame in _pick(media, wanted):
        with naming(str(media)):
            picture = to_rgb(frame, transparency, white)
        if picture.size != size[::-1]:
            picture = picture.resize(size[::-1], PIL.Image.Resampling.BICUBIC)
        yield torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _pick(media: Media, wanted: set[int]) -> Iterator[PIL.Image.Image]:
    last = max(wanted)
    for number, frame in enumerate(image_frames(media)):
        if number in wanted:
            yield frame
        if number == last:
            return
