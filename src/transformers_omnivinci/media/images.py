"""Loads images, animations and folders of images."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import torch

from .containers import find_stream
from .levels import to_levels, white_level
from .sources import Media, identify, is_animated, is_of_pictures, open_picture, open_source

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
        with _naming(name):
            return _to_rgb(image, transparency, white)


def probe_image(source, *, timeout: float = 30.0) -> tuple[int, int]:
    """Height and width in pixels of an upright image, from its header; otherwise as [`load_image`]."""
    with open_image(source, timeout) as (image, _):
        return _upright_size(image)


def value_range(source, *, timeout: float = 30.0) -> torch.Tensor | None:
    """
    The least and the greatest value, of shape (2,), of an image whose range decides what is white; `None` for others,
    which are not decoded; otherwise as [`load_image`].
    """
    with open_image(source, timeout) as (image, _):
        return _range(image) if _is_deep(image) else None


def list_frames_folder(path: str | Path) -> list[Path]:
    """
    The image files of a folder, in the natural order of their names (`frame2` before `frame10`). Others are skipped.

    Raises:
        ValueError, OSError: the path is not a folder, or holds no image.
    """
    folder = Path(path)
    if not folder.is_dir():
        error = NotADirectoryError if folder.exists() else FileNotFoundError
        raise error(f"{str(path)!r} is not a folder: a folder of image files is accepted.")
    PIL.Image.init()
    files = [
        file
        for file in folder.iterdir()
        if not file.name.startswith(".")
        and file.is_file()
        # One that is named like an image may be damaged, which must be reported.
        and (PIL.Image.EXTENSION.get(file.suffix.lower(), "MPEG") != "MPEG" or identify(file) == "picture")
    ]
    if not files:
        raise ValueError(f"The folder {str(path)!r} holds no image that Pillow reads.")

    def natural_key(file: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name.lower())]

    return sorted(files, key=natural_key)


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


@contextmanager
def open_image(source, timeout: float) -> Iterator[tuple[PIL.Image.Image, str]]:
    """Opens an image without decoding it, and tells its name for messages."""
    with open_source(source, timeout) as media, _open_media(media) as image:
        yield image, str(media)


@contextmanager
def _open_media(media: Media) -> Iterator[PIL.Image.Image]:
    """Opens an image; errors of Pillow become ValueErrors."""
    try:
        if media.image is not None:
            yield media.image
        else:
            with open_picture(media.path, media.may_refer) as image:
                yield image
    except _PixelError:
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


class _PixelError(ValueError):
    """An image was decoded, but its values have no known meaning."""


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Adds the name of an image to errors about its values."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise _PixelError(f"{name}: {error}") from error


def _describe(media: Media) -> str:
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
    """Raises a ValueError if [`load_image`] does not accept `transparency`."""
    if transparency not in ("white", "drop"):
        raise ValueError(f"`transparency={transparency!r}` is not accepted: 'white' and 'drop' are.")


def _upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    # Pillow rotates TIFF files by itself, but reports their orientation until it has decoded them.
    is_turned = image.format != "TIFF" and image.getexif().get(PIL.ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return image.size if is_turned else image.size[::-1]


def _is_deep(image: PIL.Image.Image) -> bool:
    """Whether an image has floats or integers of more than 8 bits, whose range decides what is white."""
    return image.mode.startswith(("I", "F"))


def _values(image: PIL.Image.Image) -> torch.Tensor:
    """The values of a deep image, float32 or int32 of shape (height, width)."""
    grey = np.asarray(image)
    return torch.from_numpy(grey.astype(np.float32 if grey.dtype.kind == "f" else np.int32))


def _range(image: PIL.Image.Image) -> torch.Tensor:
    return torch.stack(torch.aminmax(_values(image)))


def _to_rgb(image: PIL.Image.Image, transparency: str, white: float | None) -> PIL.Image.Image:
    """An upright copy in RGB; arguments of [`load_image`]."""
    image = PIL.ImageOps.exif_transpose(image)
    if _is_deep(image):
        return PIL.Image.fromarray(to_levels(_values(image), white).numpy()).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if transparency == "white":
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _image_frames(media: Media) -> Iterator[PIL.Image.Image]:
    """The frames of an image, each in the same object, up to one that cannot be decoded, with a warning."""
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
                if image.format != "TIFF" or not image.tag_v2.get(PIL.ExifTags.Base.NewSubfileType, 0) & 1:
                    yield image
        finally:
            with suppress(Exception):
                image.seek(position)


def measure_frames(media: Media) -> tuple[tuple[int, int], list[float]]:
    """Height and width in pixels of a still or animated image, and for how many milliseconds each frame is shown."""
    size, durations = None, []
    for frame in _image_frames(media):
        if getattr(frame, "is_animated", False) and frame.width * frame.height > _MAX_ANIMATED_PIXELS:
            raise ValueError(
                f"{media} is an animation of {frame.width} x {frame.height} pixels: at most {_MAX_ANIMATED_PIXELS} "
                "are accepted."
            )
        size = size or _upright_size(frame)
        duration = frame.info.get("duration") or 0
        durations.append(duration if duration > 10 else 100)  # as in browsers
    return size, durations


def decode_frames(
    media: Media, numbers: np.ndarray, size: tuple[int, int], transparency: str
) -> Iterator[torch.Tensor]:
    """The frames of an image with these ascending numbers, uint8 RGB (3, height, width), resized to `size`."""
    wanted, white = set(numbers.tolist()), None
    with _open_media(media) as image:
        is_ranged = _is_deep(image) and is_animated(image)
    if is_ranged:
        # All frames of a clip have the same white.
        ranges = [_range(frame) for frame in _pick(media, wanted)]
        with _naming(str(media)):
            white = white_level(*ranges)
    for frame in _pick(media, wanted):
        with _naming(str(media)):
            picture = _to_rgb(frame, transparency, white)
        if picture.size != size[::-1]:
            picture = picture.resize(size[::-1], PIL.Image.Resampling.BICUBIC)
        yield torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _pick(media: Media, wanted: set[int]) -> Iterator[PIL.Image.Image]:
    last = max(wanted)
    for number, frame in enumerate(_image_frames(media)):
        if number in wanted:
            yield frame
        if number == last:
            return
