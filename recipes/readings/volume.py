"""A generated volume, slice by slice: grey ellipses for trunk, lungs, liver, spine and findings. No patient."""

from dataclasses import dataclass

import numpy as np

SIDES = {"left": 0.28, "middle": 0.5, "right": 0.72}
"""Where findings lie in the picture, as shares of its width."""


@dataclass(frozen=True)
class Finding:
    """
    A small bright ellipsoid.

    Attributes:
        depth (`float`): Of its centre, from 0 (head) to 1 (feet).
        side (`str`): One of `SIDES`.
        height (`float`): Of its centre in the picture, as a share, from the top.
    """

    depth: float
    side: str
    height: float


def draw_slices(depths: np.ndarray, findings: tuple[Finding, ...], seed: int, size: int = 64) -> np.ndarray:
    """
    Slices of the volume.

    Args:
        depths (`np.ndarray` of shape `(num_slices,)`): Where they are cut, from 0 (head) to 1 (feet).
        findings (`tuple[Finding, ...]`): What is in it beside organs.
        seed (`int`): Of the sizes of organs and of the grain.
        size (`int`, *optional*, defaults to 64): Pixels each way.

    Returns:
        `np.ndarray` of shape `(num_slices, size, size, 3)`: uint8, grey.
    """
    rng = np.random.default_rng(seed)
    wide, deep, grain = rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.1), rng.uniform(2, 6)
    z = np.asarray(depths, float)[:, None, None]
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")
    trunk = 0.22 + 0.24 * np.clip(z / 0.35, 0, 1)  # a neck that widens to shoulders
    grey = np.full((len(z), size, size), 14.0)
    grey[_ellipse(x, y, 0.5, 0.5, trunk * wide, 0.8 * trunk * deep)] = 92
    lungs = np.sqrt(np.clip(1 - ((z - 0.42) / 0.3) ** 2, 0, None))  # an ellipsoid on either side, from 0.12 to 0.72
    for centre in (0.34, 0.66):
        grey[_ellipse(x, y, centre, 0.47, 0.13 * lungs * wide, 0.24 * lungs * deep)] = 40
    liver = np.sqrt(np.clip(1 - ((z - 0.85) / 0.25) ** 2, 0, None))
    grey[_ellipse(x, y, 0.4, 0.48, 0.24 * liver * wide, 0.2 * liver * deep)] = 122
    grey[_ellipse(x, y, 0.5, 0.76, 0.06, 0.06 * np.ones_like(z))] = 190
    for finding in findings:
        near = 0.07 * np.sqrt(np.clip(1 - ((z - finding.depth) / 0.08) ** 2, 0, None))
        grey[_ellipse(x, y, SIDES[finding.side], finding.height, near, near)] = 235
    grey += rng.uniform(-grain, grain, (1, size, size))
    return np.repeat(np.clip(grey, 0, 255).round().astype(np.uint8)[..., None], 3, axis=3)


def _ellipse(x, y, across, down, wide, high) -> np.ndarray:
    """The pixels of an ellipse in each slice; none where it has no size."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((x - across) / wide) ** 2 + ((y - down) / high) ** 2 < 1
