"""The frames of a scene."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .config import WorldConfig
from .scenes import Background, Point, Scene, between

RGB = {
    "red": (225, 30, 35),
    "orange": (255, 135, 0),
    "yellow": (250, 230, 40),
    "green": (30, 170, 50),
    "cyan": (30, 220, 230),
    "blue": (40, 75, 235),
    "pink": (245, 70, 200),
    "white": (250, 250, 250),
}
_SPECK = (130, 130, 130)
_SPECK_RADIUS = 0.025
# Shapes are drawn this many times larger: their edges are smooth and they move by fractions of a pixel.
_FINE = 8


def frame_seconds(scene: Scene, config: WorldConfig) -> np.ndarray:
    """Times of all frames of a scene in seconds, as float64 of shape `(num_frames,)`."""
    return np.arange(round(scene.seconds * config.fps)) / config.fps


def draw_frames(scene: Scene, config: WorldConfig, seconds: Sequence[float]) -> np.ndarray:
    """
    Draws frames of a scene.

    Args:
        scene ([`Scene`]): What to draw.
        config ([`WorldConfig`]): The config of its world.
        seconds (`Sequence[float]`): Times of the frames; those of a clip are [`frame_seconds`].

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)`: uint8 RGB.
    """
    seconds = np.asarray(seconds, dtype=np.float64)
    frames = np.repeat(_draw_background(scene.background, scene.seed, config)[None], len(seconds), axis=0)
    side = min(config.height, config.width)
    for origin, target in scene.background.specks:
        for frame, part in zip(frames, seconds / scene.seconds):
            _stamp(frame, "circle", _SPECK_RADIUS * side, _SPECK, between(origin, target, part))
    for shape in scene.shapes:
        for index in np.flatnonzero((shape.start <= seconds) & (seconds < shape.end)):
            part = (seconds[index] - shape.start) / (shape.end - shape.start)
            centre = between(shape.origin, shape.target, part)
            _stamp(frames[index], shape.form, shape.radius * side, RGB[shape.colour], centre)
    return frames


def _draw_background(background: Background, seed: int, config: WorldConfig) -> np.ndarray:
    """The background as uint8 of shape `(height, width, 3)`."""
    y, x = np.meshgrid(np.linspace(0, 1, config.height), np.linspace(0, 1, config.width), indexing="ij")
    second = {  # the share of the second colour in each pixel
        "plain": lambda: np.zeros_like(x),
        "vertical": lambda: y,
        "horizontal": lambda: x,
        "diagonal": lambda: (x + y) / 2,
        "stripes": lambda: np.floor(7.99 * y) % 2,
        "checks": lambda: (np.floor(5.99 * x) + np.floor(5.99 * y)) % 2,
    }[background.pattern]()[..., None]
    pixels = (1 - second) * np.array(background.first) + second * np.array(background.second)
    grain = np.random.Generator(np.random.PCG64(seed)).random((config.height, config.width, 1)) - 0.5
    return np.clip(pixels + 2 * background.grain * grain, 0, 255).round().astype(np.uint8)


def _stamp(frame: np.ndarray, form: str, radius: float, colour: tuple[int, int, int], centre: Point) -> None:
    """Draws a form into a frame of shape `(height, width, 3)`, in place. It may extend beyond the edges."""
    height, width = frame.shape[:2]
    coverage, reach = _coverage(form, round(radius * _FINE))
    # Where the form begins: whole pixels, and the fraction of a pixel by which it is shifted.
    (top, down), (left, right) = (
        divmod(round(part * side * _FINE) - reach, _FINE) for part, side in ((centre[1], height), (centre[0], width))
    )
    alpha = coverage[_FINE - down :: _FINE, _FINE - right :: _FINE]
    rows = slice(max(top, 0), max(min(top + alpha.shape[0], height), 0))
    columns = slice(max(left, 0), max(min(left + alpha.shape[1], width), 0))
    alpha = alpha[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    part = frame[rows, columns]
    part[:] = np.rint(part + alpha * (np.array(colour, dtype=np.float32) - part))


@lru_cache(maxsize=1024)
def _coverage(form: str, radius: int) -> tuple[np.ndarray, int]:
    """
    How much of a pixel a form covers, for pixels at every position of the fine grid, and half the form's side on that
    grid. Element [i, j] is the pixel that starts at (i - `_FINE`, j - `_FINE`) from the form's first point.
    """
    reach = radius + 1
    side = 2 * reach + 1
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    box = (1, 1, side - 2, side - 2)
    if form in ("circle", "ring"):
        draw.ellipse(box, fill=1)
        if form == "ring":
            hole = 0.55 * radius
            draw.ellipse((reach - hole, reach - hole, reach + hole, reach + hole), fill=0)
    else:
        draw.polygon([(reach + radius * x, reach + radius * y) for x, y in _OUTLINES[form]], fill=1)
    # Sums over a pixel's square at every position, as differences of cumulative sums.
    sums = np.pad(np.asarray(mask, dtype=np.int32), _FINE).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    window = sums[_FINE:, _FINE:] - sums[:-_FINE, _FINE:] - sums[_FINE:, :-_FINE] + sums[:-_FINE, :-_FINE]
    return (window / _FINE**2).astype(np.float32), reach


def _star(points: int, dent: float) -> list[Point]:
    angles = [math.pi * i / points for i in range(2 * points)]
    reaches = [1.0 if i % 2 == 0 else dent for i in range(2 * points)]
    return [(reach * math.sin(angle), -reach * math.cos(angle)) for angle, reach in zip(angles, reaches)]


_ARM = 0.32
_CROSS = [(_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM)]  # a quarter, rotated three times
_OUTLINES = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": _star(5, 0.42),
    "cross": [
        point
        for turn in (lambda x, y: (x, y), lambda x, y: (-y, x), lambda x, y: (-x, -y), lambda x, y: (y, -x))
        for point in (turn(x, y) for x, y in _CROSS)
    ],
}
