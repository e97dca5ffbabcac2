"""
Generated wafer maps: the eight patterns as the literature describes them. Nothing here comes from a fab.

Descriptions: M.-J. Wu et al., IEEE Transactions on Semiconductor Manufacturing 28(1), 2015 (WM-811K), and J. Wang et
al., the same journal 33(4), 2020 (MixedWM38). The numbers are this recipe's own.
"""

import math

import numpy as np

from .maps import BLANK, FAILING, PASSING, PATTERNS, Wafer, polar

SPLITS = ("train", "test")


def generate(split: str, number: int, seed: int = 0) -> Wafer:
    """
    A wafer with one pattern; patterns take turns, so that each is as frequent.

    Args:
        split (`str`): Of `SPLITS`; wafers of the two have nothing in common but the description.
        number (`int`): Which wafer; the same arguments give the same wafer.
        seed (`int`, *optional*, defaults to 0): Of the whole set.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    pattern = PATTERNS[number % len(PATTERNS)]
    rows, columns = rng.integers(26, 65, 2)  # most maps of WM-811K have so many, and seldom as many each way
    x, y, radius = polar((rows, columns))
    wafer = radius <= 1
    defect = wafer & _SHAPES[pattern](x, y, radius, rng)
    fails = rng.random(wafer.shape) < rng.uniform(0.01, 0.06)
    if pattern in ("random", "near-full"):  # whose density is the pattern
        fails = defect
    else:
        fails |= defect & (rng.random(wafer.shape) < rng.uniform(0.7, 0.95))
    dies = np.where(wafer, np.where(fails, FAILING, PASSING), BLANK).astype(np.uint8)
    return Wafer(f"generated {split} {number}", dies, (pattern,), split, defect)


def _blob(x, y, rng, across: float, down: float, size: tuple[float, float], stretch: float) -> np.ndarray:
    """A cluster with an uneven border around a point: an ellipse whose radius varies with the angle."""
    turn, long = rng.uniform(0, math.pi), rng.uniform(1, stretch)
    u = (x - across) * math.cos(turn) + (y - down) * math.sin(turn)
    v = (y - down) * math.cos(turn) - (x - across) * math.sin(turn)
    angle = np.arctan2(v, u)
    uneven = 1 + sum(rng.uniform(0, 0.12) * np.cos(k * angle + rng.uniform(0, math.tau)) for k in (2, 3, 5))
    return np.hypot(u / long, v * long**0.5) <= rng.uniform(*size) * uneven


def _center(x, y, radius, rng):
    """A round cluster in the middle."""
    across, down = rng.normal(0, 0.05, 2)
    return _blob(x, y, rng, across, down, (0.2, 0.4), 1.2)


def _donut(x, y, radius, rng):
    """A ring around the middle, away from the edge; its hole works."""
    across, down = rng.normal(0, 0.06, 2)
    inside = rng.uniform(0.18, 0.4)
    distance = np.hypot(x - across, y - down)
    return (distance > inside) & (distance <= inside + rng.uniform(0.15, 0.3))


def _edge_loc(x, y, radius, rng):
    """A cluster on a stretch of the edge."""
    return (radius > 1 - rng.uniform(0.12, 0.32)) & (_off(x, y, rng) < math.radians(rng.uniform(14, 45)))


def _edge_ring(x, y, radius, rng):
    """A ring on the edge, sometimes with a gap."""
    gap = math.radians(rng.choice([0.0, rng.uniform(10, 40)]))
    return (radius > 1 - rng.uniform(0.08, 0.2)) & (_off(x, y, rng) >= gap)


def _loc(x, y, radius, rng):
    """A cluster that lies neither in the middle nor on the edge."""
    angle, distance = rng.uniform(0, math.tau), rng.uniform(0.3, 0.68)
    return _blob(x, y, rng, distance * math.cos(angle), distance * math.sin(angle), (0.13, 0.24), 1.5)


def _near_full(x, y, radius, rng):
    """Hardly a die works."""
    return rng.random(x.shape) < rng.uniform(0.93, 1.0)


def _random(x, y, radius, rng):
    """Dies fail anywhere, without a cluster."""
    return rng.random(x.shape) < rng.uniform(0.12, 0.45)


def _scratch(x, y, radius, rng):
    """A thin line, straight or bent, as from something that was drawn over the wafer."""
    angle, distance = rng.uniform(0, math.tau), rng.uniform(0, 0.6)
    heading, bend = rng.uniform(0, math.tau), rng.normal(0, 0.9)
    length, width = rng.uniform(0.5, 1.4), rng.uniform(0.6, 1.1) * 2 / min(x.shape)
    along = np.linspace(-length / 2, length / 2, 80)
    turned = heading + bend * along
    step = along[1] - along[0]
    across = distance * math.cos(angle) + np.cumsum(np.cos(turned)) * step - length / 2 * math.cos(heading)
    down = distance * math.sin(angle) + np.cumsum(np.sin(turned)) * step - length / 2 * math.sin(heading)
    squared = np.full(x.shape, np.inf)
    for one, other in zip(across, down, strict=True):
        squared = np.minimum(squared, (x - one) ** 2 + (y - other) ** 2)
    return squared <= width**2


def _off(x, y, rng) -> np.ndarray:
    """How far each die is off a direction drawn at random, as an angle."""
    turn = rng.uniform(0, math.tau)
    return np.abs(np.angle(np.exp(1j * (np.arctan2(y, x) - turn))))


_SHAPES = {
    "center": _center,
    "donut": _donut,
    "edge-loc": _edge_loc,
    "edge-ring": _edge_ring,
    "loc": _loc,
    "near-full": _near_full,
    "random": _random,
    "scratch": _scratch,
}
