"""Dynamic S2: one image seen at several scales, in tiles, merged into one feature map. Appendix C.1."""

import torch
from torch import nn

from ..planning import tile_grids


def stitch_tiles(tiles: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """(rows · columns, height, width, C) in reading order to one map (rows · height, columns · width, C)."""
    _, height, width, channels = tiles.shape
    grid = tiles.view(rows, columns, height, width, channels).transpose(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


def split_tiles(feature_map: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Undoes [`stitch_tiles`]: (rows · height, columns · width, C) to (rows · columns, height, width, C)."""
    height, width = feature_map.shape[0] // rows, feature_map.shape[1] // columns
    grid = feature_map.view(rows, height, columns, width, -1).transpose(1, 2)
    return grid.reshape(rows * columns, height, width, -1)


def area_resize(feature_map: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resizes a map (rows, columns, C) by area interpolation in float32."""
    channels_first = feature_map.permute(2, 0, 1)[None].float()
    resized = nn.functional.interpolate(channels_first, size=(height, width), mode="area")
    return resized[0].permute(1, 2, 0).to(feature_map.dtype)


def merge_scales(
    tiles: torch.Tensor, scales: list[int], rows: int, columns: int, output_index: int
) -> tuple[torch.Tensor, tuple[int, int]]:
    """
    Merges the feature maps of one tiled image.

    Args:
        tiles (`torch.Tensor` of shape `(num_tiles, height, width, C)`):
            Patch features of all tiles, smallest scale first, each scale in reading order.
        scales (`list[int]`): Side lengths in pixels; the first is the tile's.
        rows (`int`), columns (`int`): The tiles of the last scale.
        output_index (`int`): Index of the scale whose map size all maps are resized to.

    Returns:
        `tuple[torch.Tensor, tuple[int, int]]`: tiles of the merged map, (rows · columns, height, width,
        len(scales) · C), and their (rows, columns).
    """
    grids = tile_grids(scales, rows, columns)
    per_scale = tiles.split([grid_rows * grid_columns for grid_rows, grid_columns in grids])
    maps = [stitch_tiles(group, *grid) for group, grid in zip(per_scale, grids, strict=True)]
    height, width = maps[output_index].shape[:2]
    merged = torch.cat([area_resize(feature_map, height, width) for feature_map in maps], dim=-1)
    return split_tiles(merged, *grids[output_index]), grids[output_index]
