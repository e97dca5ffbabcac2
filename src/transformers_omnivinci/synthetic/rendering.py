"""Scenes as arrays: their frames and their sound."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .config import WorldConfig
from .scenes import AudibleSound, Background, Point, Scene, between

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


def draw_frames(scene: Scene, config: WorldConfig, seconds: Sequence[float] | None = None) -> np.ndarray:
    """
    Draws frames of a scene.

    Args:
        scene ([`Scene`]): What to draw.
        config ([`WorldConfig`]): The config of its world.
        seconds (`Sequence[float]`, *optional*): Times of the frames. `None`: those of a clip, at `config.fps`.

    Returns:
        `np.ndarray` of shape `(num_frames, height, width, 3)`: uint8 RGB.
    """
    if seconds is None:
        seconds = np.arange(round(scene.seconds * config.fps)) / config.fps
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
    """The share of the pixel that starts at [i - `_FINE`, j - `_FINE`] of the fine grid, and half the form's side."""
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

PITCHES = {"low tone": (220.0,), "middle tone": (660.0,), "high tone": (1980.0,), "chord": (330.0, 415.3, 493.9)}
SWEEPS = {"rising sweep": (300.0, 2700.0), "falling sweep": (2700.0, 300.0)}
_LOUDNESS = 0.6
_HUM_PITCH = 60.0
_EDGE_SECONDS = 0.02


def synthesise(scene: Scene, config: WorldConfig) -> np.ndarray:
    """
    Synthesises the sound of a scene.

    Args:
        scene ([`Scene`]): What to synthesise.
        config ([`WorldConfig`]): The config of its world.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32 mono in [-1, 1], at `config.sampling_rate`.
    """
    rate = config.sampling_rate
    generator = np.random.Generator(np.random.PCG64([scene.seed, 1]))
    time = np.arange(round(scene.seconds * rate)) / rate
    waveform = scene.noise * _noise(len(time), generator) + scene.hum * np.sin(math.tau * _HUM_PITCH * time)
    for sound in scene.sounds:
        first, last = round(sound.start * rate), round(sound.end * rate)
        waveform[first:last] += _LOUDNESS * sound.gain * _synthesise(sound, last - first, rate, generator)
    return waveform.clip(-1, 1).astype(np.float32)


def _synthesise(sound: AudibleSound, num_samples: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    time = np.arange(num_samples) / rate
    length = num_samples / rate
    if sound.kind == "click":
        return _noise(num_samples, generator) * np.exp(-5 * time / length)
    if sound.kind == "noise":
        samples = _noise(num_samples, generator)
    elif sound.kind in SWEEPS:
        low, high = SWEEPS[sound.kind]
        growth = math.log(high / low) / length  # the pitch is low * exp(growth * time)
        samples = np.sin(math.tau * low * np.expm1(growth * time) / growth)
    else:
        pitches = PITCHES[sound.kind]
        samples = sum(np.sin(math.tau * pitch * time) for pitch in pitches) / len(pitches)
    return samples * np.minimum(np.minimum(time, length - time) / _EDGE_SECONDS, 1)


def _noise(num_samples: int, generator: np.random.Generator) -> np.ndarray:
    """White noise in [-1, 1]."""
    return 2 * generator.random(num_samples) - 1
