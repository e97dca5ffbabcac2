"""Pixels of images and frames as tensors: to RGB, resized and normalised with torch alone."""

import numpy as np
import PIL.Image
import torch
from PIL.Image import Resampling
from torch.nn import functional as F
from transformers.image_utils import ChannelDimension, SizeDict

from .. import media
from ..media.levels import ACCEPTED, to_levels

RESAMPLING_MODES = {Resampling.BICUBIC: "bicubic", Resampling.BILINEAR: "bilinear"}


def to_pixels(
    pixels,
    input_data_format: ChannelDimension | str | None = None,
    transparency: str = "white",
    white: float | None = None,
    as_they_are: bool = False,
) -> torch.Tensor:
    """
    Converts an image or a stack of frames to RGB from 0 to 255 of shape (..., 3, height, width): uint8, or the given
    dtype if values are kept.

    Args:
        pixels (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            Grey of shape (height, width), or 1, 3 or 4 channels first or last, after any leading axes; or another
            source of an image, see [`media.load_image`], also for `transparency` and `white`.
        input_data_format (`ChannelDimension` or `str`, *optional*): Where the channels are. `None`: by the shape.
        as_they_are (`bool`, defaults to `False`): Whether arrays keep their values, because they are not rescaled.

    Raises:
        TypeError: this is not an image.
        ValueError: there are no pixels or no axis of 1, 3 or 4 channels, or the range of the values is unknown.
    """
    if not is_array(pixels):
        if isinstance(pixels, PIL.Image.Image) and 0 in pixels.size:
            raise ValueError(f"The image of {pixels.width} x {pixels.height} pixels is empty.")
        image = media.load_image(pixels, transparency=transparency, white=white)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    pixels = _move_channels_first(as_tensor(pixels), input_data_format)
    if not as_they_are:
        pixels = to_levels(pixels, white)
    channels = pixels.shape[-3]
    if channels == 1:
        return pixels.expand(*pixels.shape[:-3], 3, *pixels.shape[-2:])
    if channels == 3:
        return pixels
    colours, alpha = pixels[..., :3, :, :], pixels[..., 3:, :, :]
    if transparency == "drop" or as_they_are:
        return colours
    return (255 - (255 - colours.float()) * (alpha.float() / 255)).round().to(torch.uint8)


def is_array(pixels) -> bool:
    """Whether pixels are an array or tensor rather than a source of an image."""
    return hasattr(pixels, "shape") and not isinstance(pixels, memoryview)


def as_tensor(pixels) -> torch.Tensor:
    """The pixels of an array as a tensor of the same shape; a TypeError if this is not an array of numbers."""
    if isinstance(pixels, torch.Tensor):
        return pixels
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"Pixels of `{type(pixels).__name__}`: a PIL image, NumPy array or torch tensor is accepted.")
    if pixels.dtype.kind not in "buif":
        raise TypeError(f"Pixels of `{pixels.dtype}` are not understood: {ACCEPTED}.")
    if not pixels.dtype.isnative or pixels.dtype.itemsize > 8:
        pixels = pixels.astype(pixels.dtype.newbyteorder("=") if pixels.dtype.itemsize <= 8 else np.float64)
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def _move_channels_first(pixels: torch.Tensor, input_data_format: ChannelDimension | str | None) -> torch.Tensor:
    """Pixels as (..., channels, height, width), with 1, 3 or 4 channels."""
    shape = tuple(pixels.shape)
    if pixels.ndim < 2 or 0 in shape:
        raise ValueError(
            f"An array of shape {shape} holds no image: height, width and every other axis must be positive."
        )
    if pixels.ndim == 2:
        return pixels[None]
    if input_data_format is None:
        first, last = shape[-3] in (1, 3, 4), shape[-1] in (1, 3, 4)
        if not first and not last:
            raise ValueError(
                f"An array of shape {shape} has no axis of 1, 3 or 4 channels, neither third from last nor last."
            )
        input_data_format = ChannelDimension.FIRST if first else ChannelDimension.LAST
    if ChannelDimension(input_data_format) == ChannelDimension.LAST:
        pixels = pixels.movedim(-1, -3)
    if pixels.shape[-3] not in (1, 3, 4):
        raise ValueError(f"An array of shape {shape} has {pixels.shape[-3]} channels: 1, 3 or 4 are accepted.")
    return pixels


def array_size(pixels, input_data_format: ChannelDimension | str | None = None) -> tuple[int, int]:
    """Height and width in pixels of an array or tensor. Arguments and errors are those of [`to_pixels`]."""
    return tuple(_move_channels_first(as_tensor(pixels), input_data_format).shape[-2:])


def resize(pixels: torch.Tensor, height: int, width: int, resample: int = Resampling.BICUBIC) -> torch.Tensor:
    """
    Resizes pixels (..., 3, old height, old width) with antialiasing; bytes stay bytes, within one grey level of PIL's.

    Raises:
        ValueError: `resample` is neither `Resampling.BICUBIC` nor `Resampling.BILINEAR`.
    """
    if pixels.shape[-2:] == (height, width):
        return pixels
    if resample not in RESAMPLING_MODES:
        raise ValueError(f"`resample={resample!r}` is not supported: use one of {[*RESAMPLING_MODES]}.")
    mode, dtype = RESAMPLING_MODES[resample], pixels.dtype
    batch = pixels.reshape(-1, *pixels.shape[-3:])
    if dtype == torch.uint8 and pixels.device.type == "cpu":
        # Interleaved bytes take the vectorised path.
        batch = batch.contiguous(memory_format=torch.channels_last)
        resized = F.interpolate(batch, (height, width), mode=mode, antialias=True)
    else:
        resized = F.interpolate(batch.float(), (height, width), mode=mode, antialias=True)
        if not dtype.is_floating_point:
            limits = torch.iinfo(dtype)
            resized = resized.round().clamp(limits.min, limits.max)
        resized = resized.to(dtype)
    return resized.reshape(*pixels.shape[:-2], height, width)


def resize_exactly(pixels: torch.Tensor, height: int, width: int, resample: int = Resampling.BICUBIC) -> torch.Tensor:
    """
    [`resize`] for one image (3, old height, old width). Bytes on the CPU go through PIL, which is slower but gives
    exactly the grey levels of the released code.

    PIL resizes one axis after the other and rounds in between, so that their order matters. It is fixed to that of
    Pillow 13 (rows first if more than twice as many of them are lost); older versions always began with columns.
    """
    if pixels.dtype != torch.uint8 or pixels.device.type != "cpu":
        return resize(pixels, height, width, resample)
    image = PIL.Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    lost_rows, lost_columns = image.height - height, image.width - width
    rows_first = lost_rows > max(0, 2 * lost_columns)
    half_way = (image.width, height) if rows_first else (width, image.height)
    for size in (half_way, (width, height)):
        image = image.resize(size, resample)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _empty_floats_like(pixels: torch.Tensor) -> torch.Tensor:
    """Uninitialised float32 on the CPU in the memory layout of `pixels`."""
    # Unlike torch, NumPy asks for huge pages: small ones take longer to provide than to fill.
    order = sorted(range(pixels.ndim), key=pixels.stride, reverse=True)
    empty = torch.from_numpy(np.empty([pixels.shape[axis] for axis in order], dtype=np.float32))
    return empty.permute([order.index(axis) for axis in range(pixels.ndim)])


class TorchPixels:
    """
    The pixel operations of transformers' torchvision backend with torch alone, and SigLIP's settings for them. A mixin
    of the image and the video processor, in front of their base class.
    """

    do_resize = True
    resample = Resampling.BICUBIC
    size = {"height": 448, "width": 448}
    do_rescale = True
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_convert_rgb = True

    def resize(self, image: torch.Tensor, size: SizeDict, resample: int | None = None, **kwargs) -> torch.Tensor:
        """Resizes pixels (..., 3, height, width) to `size`; a ValueError if that has no `height` or `width`."""
        if not size.height or not size.width:
            raise ValueError(f"`size={dict(size)}` is not supported: it must have `height` and `width`.")
        return resize(image, size.height, size.width, self.resample if resample is None else resample)

    def normalize(self, image: torch.Tensor, mean, std, inplace: bool = False, **kwargs) -> torch.Tensor:
        """(image - mean) / std for each channel of (..., 3, height, width)."""
        mean = torch.as_tensor(mean, dtype=image.dtype, device=image.device).view(-1, 1, 1)
        std = torch.as_tensor(std, dtype=image.dtype, device=image.device).view(-1, 1, 1)
        return image.sub_(mean).div_(std) if inplace else (image - mean) / std

    def rescale_and_normalize(
        self, images: torch.Tensor, do_rescale: bool, rescale_factor: float, do_normalize: bool, image_mean, image_std
    ) -> torch.Tensor:
        """As in transformers. Bytes on the CPU take a faster way if all channels have the same mean and deviation."""
        means, deviations = np.unique(image_mean), np.unique(image_std)
        uniform = do_rescale and do_normalize and len(means) == len(deviations) == 1
        if not uniform or images.dtype != torch.uint8 or images.device.type != "cpu":
            return super().rescale_and_normalize(
                images, do_rescale, rescale_factor, do_normalize, image_mean, image_std
            )
        floats = _empty_floats_like(images).copy_(images)
        return floats.sub_(means.item() / rescale_factor).div_(deviations.item() / rescale_factor)

    def _refuse_cropping(self, **kwargs):
        if kwargs.get("do_center_crop") or kwargs.get("do_pad"):
            raise ValueError(
                f"`do_center_crop` and `do_pad` are not supported by {type(self).__name__}, which resizes instead."
            )
