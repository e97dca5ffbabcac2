"""Wafer maps: what they hold, where their failing dies lie, and how they are drawn."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

PATTERNS = ("loc", "edge-loc", "center", "edge-ring", "scratch", "near-full", "donut", "random")
"""The eight defect patterns of WM-811K and MixedWM38, in the order of figure 12 of the paper."""
BLANK, PASSING, FAILING = 0, 1, 2
"""Values of a map: outside of the wafer, a die that works, a die that fails."""
RINGS = ("1", "2", "3")
"""Thirds of the radius, counted from the centre."""
COLOURS = np.array([(68, 1, 84), (33, 145, 140), (253, 231, 37)], np.uint8)
"""RGB of the three values: failing dies are yellow, as in figure 12."""


@dataclass(frozen=True)
class Wafer:
    """
    A wafer map.

    Attributes:
        name (`str`): File and place in it, or that it was generated.
        dies (`np.ndarray` of shape `(rows, columns)`): uint8, `BLANK`, `PASSING` or `FAILING`.
        patterns (`tuple[str, ...]`): Of `PATTERNS`; none on a wafer without a pattern.
        split (`str`, *optional*): `"train"` or `"test"` where its publisher says so.
        defect (`np.ndarray` of shape `(rows, columns)`, *optional*):
            Of a generated wafer, the bool mask of its pattern before dies failed by chance.
    """

    name: str
    dies: np.ndarray
    patterns: tuple[str, ...]
    split: str | None = None
    defect: np.ndarray | None = None


def polar(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Where the dies of a map lie, whose wafer fills it.

    Returns:
        `tuple` of arrays of `shape`: `x` to the right and `y` downwards in radii from the centre, and the radius.
    """
    rows, columns = (((2 * np.arange(count) + 1) / count - 1) for count in shape)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return x, y, np.hypot(x, y)


def clustered(dies: np.ndarray) -> np.ndarray:
    """
    The failing dies that have company: at least 3 of the 8 dies around them fail, too. Takes away dies that fail by
    chance, which is how a pattern is located where nobody has marked it.
    """
    failing = (dies == FAILING).astype(int)
    padded = np.pad(failing, 1)
    rows, columns = dies.shape
    around = sum(padded[1 + i : 1 + i + rows, 1 + j : 1 + j + columns] for i in (-1, 0, 1) for j in (-1, 0, 1))
    return (failing == 1) & (around >= 4)


def quadrant(mask: np.ndarray, margin: float = 0.08) -> str | None:
    """The quadrant of the centre of a mask's dies; `None` within `margin` radii of a border, or empty."""
    if not mask.any():
        return None
    x, y, _ = polar(mask.shape)
    across, down = x[mask].mean(), y[mask].mean()
    if min(abs(across), abs(down)) < margin:
        return None
    return f"{'up' if down < 0 else 'down'} {'left' if across < 0 else 'right'}"


def ring(mask: np.ndarray, margin: float = 0.04) -> str | None:
    """The third of the radius in which the median of a mask's dies lies; `None` near a border, as in [`quadrant`]."""
    if not mask.any():
        return None
    middle = float(np.median(polar(mask.shape)[2][mask]))
    if min(abs(middle - 1 / 3), abs(middle - 2 / 3)) < margin:
        return None
    return RINGS[min(int(3 * middle), 2)]


def draw(dies: np.ndarray, side: int = 128) -> Image.Image:
    """An RGB picture of `side` x `side` pixels: the wafer as a circle, whatever the shape of its dies."""
    return Image.fromarray(COLOURS[dies]).resize((side, side), Image.Resampling.NEAREST)
