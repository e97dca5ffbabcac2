"""Image processor of OmniVinci: the tiles of Dynamic S2."""

import math
from functools import partial

import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import SizeDict
from transformers.processing_utils import ImagesKwargs

from .. import media
from ..planning import choose_tile_grid, tile_grids
from ..remote_code import InstalledSettings
from .pixels import TorchPixels, array_size, is_array, resize_exactly, to_pixels


class OmniVinciImageProcessorKwargs(ImagesKwargs, total=False):
    """
    s2_scales (`list[int]`, *optional*), max_tiles (`int`, *optional*), transparency (`str`, *optional*):
        See [`OmniVinciImageProcessor`].
    """

    s2_scales: list[int] | tuple[int, ...] | None
    max_tiles: int | None
    transparency: str | None


class OmniVinciImageProcessor(InstalledSettings, TorchPixels, TorchvisionBackend):
    r"""
    Cuts images into the tiles of Dynamic S2 (appendix C.1), resized with PIL and normalised with torch.

    The only image of a prompt is tiled: into a square grid for every scale but the last, and for the last scale into
    the grid with the nearest aspect ratio. If a prompt has several images, each is resized to one tile. Nesting tells
    which images share a prompt: `[[a], [b, c]]` are two prompts, a flat list is one.

    Args:
        s2_scales (`list[int]`, *optional*, defaults to `[448, 896, 1344]`):
            Side lengths in pixels of the scales. The first is the tile size.
        max_tiles (`int`, *optional*, defaults to 12): The most tiles of the last scale.
        transparency (`str`, *optional*, defaults to `"white"`):
            What becomes of transparent pixels: `"white"` or `"drop"`, see [`media.load_image`].

    Returns, when called:
        `pixel_values` of shape `(num_tiles, 3, tile, tile)`, the tiles of all images, smallest scale first, each in
        reading order; and `image_grid_hw` of shape `(num_images, 2)`, the (rows, columns) of the last scale, or (1, 1)
        for an image that is not tiled.

    Raises:
        ValueError, TypeError, OSError: an image cannot be read, or has no pixels or an unknown layout.
    """

    valid_kwargs = OmniVinciImageProcessorKwargs
    model_input_names = ["pixel_values", "image_grid_hw"]

    s2_scales = [448, 896, 1344]
    max_tiles = 12
    transparency = "white"

    def __init__(self, **kwargs):
        if kwargs.get("s2_scales") is not None:
            kwargs["s2_scales"] = list(kwargs["s2_scales"])
            kwargs["size"] = {"height": kwargs["s2_scales"][0], "width": kwargs["s2_scales"][0]}
        super().__init__(**kwargs)

    def preprocess(self, images, *args, **kwargs) -> BatchFeature:
        """See the class; keyword arguments override its attributes for one call."""

        def option(name: str):
            return getattr(self, name) if kwargs.get(name) is None else kwargs[name]

        media.check_transparency(option("transparency"))
        to_rgb = partial(
            to_pixels,
            input_data_format=kwargs.pop("input_data_format", None),
            transparency=option("transparency"),
            as_they_are=not option("do_rescale") or not math.isclose(option("rescale_factor"), 1 / 255),
        )
        prompts = [[to_rgb(image) for image in prompt] for prompt in _nest(images)]
        return super().preprocess(prompts, *args, **kwargs)

    def fetch_images(self, image_url_or_urls):
        """Loads paths, URLs, bytes and file objects, also in nested lists; arrays and tensors stay as they are."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if is_array(image_url_or_urls):
            return image_url_or_urls
        return media.load_image(image_url_or_urls, transparency=self.transparency)

    def probe_image(self, image) -> tuple[int, int]:
        """Height and width in pixels of an image as when called, with its errors, from the header of a file alone."""
        return array_size(image) if is_array(image) else media.probe_image(image)

    def _prepare_images_structure(self, images, expected_ndims: int = 3):
        """The images as nested by `preprocess`."""
        return images

    def process_image(self, image, device=None, **kwargs) -> torch.Tensor:
        """Moves one image (3, height, width) to the device on which it is processed."""
        return image if device is None else image.to(device)

    def tile_grid(self, height: int, width: int, s2_scales=None, max_tiles=None) -> tuple[int, int]:
        """The (rows, columns) of the last scale if an image of `height` x `width` pixels is tiled."""
        return choose_tile_grid(height, width, s2_scales or self.s2_scales, max_tiles or self.max_tiles)

    @property
    def whole_image_options(self) -> dict:
        """Options of a call that reads an image alone as one of several in a prompt: as a single tile."""
        return {"s2_scales": list(self.s2_scales[:1]), "max_tiles": 1}

    def _preprocess(
        self,
        images: list[list[torch.Tensor]],
        s2_scales: list[int],
        max_tiles: int,
        do_resize: bool,
        size: SizeDict,
        resample: int,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean,
        image_std,
        return_tensors=None,
        **kwargs,
    ) -> BatchFeature:
        self._refuse_cropping(**kwargs)
        if do_resize is False or kwargs.get("do_convert_rgb") is False:
            raise ValueError(
                "`do_resize=False` and `do_convert_rgb=False` are not supported: tiles are RGB, of the sizes of "
                "`s2_scales`."
            )
        side, tiles, grids = s2_scales[0], [], []
        for prompt in images:
            for image in prompt:
                grid = self.tile_grid(*image.shape[-2:], s2_scales, max_tiles) if len(prompt) == 1 else (1, 1)
                grids.append(grid)
                for rows, columns in tile_grids(s2_scales, *grid):
                    resized = resize_exactly(image, rows * side, columns * side, resample)
                    blocks = resized.unflatten(1, (rows, side)).unflatten(3, (columns, side))  # (3, r, side, c, side)
                    tiles.append(blocks.permute(1, 3, 0, 2, 4).flatten(0, 1))
        options = (do_rescale, rescale_factor, do_normalize, image_mean, image_std)
        data = {"pixel_values": self.rescale_and_normalize(torch.cat(tiles), *options)}
        return BatchFeature(data | {"image_grid_hw": torch.tensor(grids)}, tensor_type=return_tensors)


def _nest(images) -> list[list]:
    """Images as a list of prompts, each a list of images."""
    if not isinstance(images, (list, tuple)):
        images = list(images) if getattr(images, "ndim", 3) == 4 else [images]
    is_nested = bool(images) and all(isinstance(prompt, (list, tuple)) for prompt in images)
    return [list(prompt) for prompt in images] if is_nested else [list(images)]


__all__ = ["OmniVinciImageProcessor"]
