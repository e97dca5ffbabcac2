"""A point as a broadcast: frames from behind a baseline, and the sound of rackets, ball, spectators and umpire."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from transformers_omnivinci.synthetic import Clip

from .rally import BESIDE_BASELINE, SERVICE_LINE, Rally

SAMPLING_RATE = 16_000
RGB = {
    "red": (225, 30, 35),
    "orange": (255, 135, 0),
    "yellow": (250, 230, 40),
    "blue": (40, 75, 235),
    "pink": (245, 70, 200),
    "white": (250, 250, 250),
}
SURFACES = (((60, 125, 70), (35, 85, 50)), ((75, 110, 120), (45, 75, 85)), ((95, 95, 110), (60, 62, 75)))
"""Colours of the court and around it: grass and two hard courts."""
FINE = 3
"""Frames are drawn this many times larger, so that the ball moves by fractions of a pixel."""
SWING, TOSS = 0.18, 0.45
BODY, BALL = 1.5, 0.09
"""Players and ball are drawn larger than life, so that they can be told apart in 64 pixels."""


def render_rally(rally: Rally, calls: Mapping[str, np.ndarray], seed: int, fps: int, size: tuple[int, int]) -> Clip:
    """
    The clip of a point.

    Args:
        rally ([`Rally`]): What happens.
        calls (`Mapping[str, np.ndarray]`): The samples of each call that the point has, at `SAMPLING_RATE`.
        seed (`int`): Of the noise and of the surface.
        fps (`int`): Frames per second.
        size (`tuple[int, int]`): Width and height in pixels, both even.
    """
    frames = np.stack([draw_frame(rally, place / fps, seed, size) for place in range(math.ceil(rally.seconds * fps))])
    return Clip(frames, sound_of(rally, calls, seed), fps, SAMPLING_RATE)


def project(x: float, y: float, z: float = 0.0) -> tuple[float, float, float]:
    """A point of the court in a picture of width and height 1, and how large a unit is there."""
    scale = 1.13 / (y + 4.14)
    return 0.5 + x * scale, -0.785 + 4.57 * scale - z * scale, scale


def draw_frame(rally: Rally, second: float, seed: int, size: tuple[int, int]) -> np.ndarray:
    """The picture at a second: uint8 RGB of shape (height, width, 3)."""
    picture = _court(seed % len(SURFACES), size).copy()
    draw, width, height = ImageDraw.Draw(picture), size[0] * FINE, size[1] * FINE
    ball = ball_at(rally, second)
    _draw_player(draw, rally, False, second, width, height)
    if ball[1] > 0:
        _draw_ball(draw, ball, width, height)
    left, right = project(-1.1, 0.0), project(1.1, 0.0)
    draw.line((left[0] * width, left[1] * height, right[0] * width, right[1] * height), (20, 20, 20), FINE)
    top = [project(x, 0.0, 0.09) for x in (-1.1, 1.1)]
    draw.line([(x * width, y * height) for x, y, _ in top], (235, 235, 235), FINE)
    _draw_player(draw, rally, True, second, width, height)
    if ball[1] <= 0:
        _draw_ball(draw, ball, width, height)
    return np.asarray(picture.reduce(FINE))


@lru_cache(maxsize=8)
def _court(surface: int, size: tuple[int, int]) -> Image.Image:
    width, height = size[0] * FINE, size[1] * FINE
    inside, outside = SURFACES[surface]
    picture = Image.new("RGB", (width, height), outside)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width, 0.1 * height), (70, 60, 65))  # the stands

    def place(x: float, y: float) -> tuple[float, float]:
        across, down, _ = project(x, y)
        return across * width, down * height

    draw.polygon([place(-1, -1), place(1, -1), place(1, 1), place(-1, 1)], inside)
    lines = [((-1, y), (1, y)) for y in (-1, 1)] + [((x, -1), (x, 1)) for x in (-1, 1)]
    lines += [((-1, y), (1, y)) for y in (-SERVICE_LINE, SERVICE_LINE)]
    lines += [((0, -SERVICE_LINE), (0, SERVICE_LINE))]
    for start, end in lines:
        draw.line((*place(*start), *place(*end)), (225, 225, 225), max(FINE // 2, 1))
    return picture


def ball_at(rally: Rally, second: float) -> tuple[float, float, float]:
    """Where the ball is: on its way, at rest where it ended, or in the server's hand, who tosses it up."""
    serves = [rally.strokes[0]] if rally.ending != "double fault" else list(rally.strokes)
    for serve in serves:
        before = serve.second - second
        if 0 < before <= (serve.second if serve is serves[0] else 0.8):
            y = -BESIDE_BASELINE if serve.is_near else BESIDE_BASELINE
            return serve.x, y, 0.12 + 0.25 * max(0.0, 1 - before / TOSS)
    under_way = [leg for leg in rally.legs if leg.start <= second]
    return under_way[-1].at(second) if under_way else rally.legs[0].origin


def player_at(rally: Rally, is_near: bool, second: float) -> float:
    """The `x` of a player, who runs to where the ball will be hit and, where it ends the point, too late."""
    places = [(stroke.second, stroke.x) for stroke in rally.strokes if stroke.is_near == is_near]
    last = rally.strokes[-1]
    if last.is_near != is_near and rally.ending != "double fault":
        target = rally.legs[-2].target[0]
        start = places[-1][1] if places else -last.x * 0.6
        places.append((last.second, start * 0.6))
        places.append((last.second + 0.6, start * 0.6 + 0.45 * (target - start * 0.6)))
    if not places:
        places = [(0.0, -last.x * 0.6)]
    return float(np.interp(second, *zip(*places)))


def _draw_player(draw, rally: Rally, is_near: bool, second: float, width: int, height: int) -> None:
    x = player_at(rally, is_near, second)
    y = -BESIDE_BASELINE - 0.06 if is_near else BESIDE_BASELINE + 0.06
    hits = [stroke.second for stroke in rally.strokes if stroke.is_near == is_near]
    swing = max((1 - abs(second - hit) / SWING for hit in hits), default=0.0)
    across, down, scale = project(x - 0.15, y)
    unit, down = BODY * scale * height, down * height
    across, shirt = across * width, RGB[rally.shirts[0 if is_near else 1]]
    wide = 0.11 * unit * width / height
    draw.rectangle((across - 0.6 * wide, down - 0.16 * unit, across + 0.6 * wide, down), (40, 40, 45))
    draw.rounded_rectangle((across - wide, down - 0.42 * unit, across + wide, down - 0.13 * unit), 0.05 * unit, shirt)
    draw.ellipse((across - 0.5 * wide, down - 0.54 * unit, across + 0.5 * wide, down - 0.41 * unit), (190, 140, 110))
    reach = 0.12 + 0.14 * max(swing, 0.0)
    hand, tip = (across + wide, down - 0.3 * unit), (across + wide + reach * unit, down - (0.28 + 0.7 * reach) * unit)
    draw.line((*hand, *tip), (200, 170, 60), FINE)
    draw.ellipse(
        (tip[0] - 0.06 * unit, tip[1] - 0.06 * unit, tip[0] + 0.06 * unit, tip[1] + 0.06 * unit), (30, 30, 30)
    )


def _draw_ball(draw, ball: tuple[float, float, float], width: int, height: int) -> None:
    x, y, z = ball
    for place, colour, size in (((x, y, 0.0), (25, 35, 30), 0.8), ((x, y, z), (235, 255, 90), 1.0)):
        across, down, scale = project(*place)
        radius = size * BALL * scale * height
        across, down = across * width, down * height
        draw.ellipse((across - radius, down - radius, across + radius, down + radius), colour)


def sound_of(rally: Rally, calls: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """What is heard: float32 samples of shape (num_samples,) in [-1, 1] at `SAMPLING_RATE`."""
    noise = np.random.Generator(np.random.PCG64([seed, 2]))
    samples = 0.01 * noise.standard_normal(round(rally.seconds * SAMPLING_RATE))
    for stroke in rally.strokes:
        loud = 0.6 if stroke.is_near else 0.4
        pitch = noise.uniform(700, 900) * (1.0 if stroke.is_near else 0.85)
        _add(samples, stroke.second, loud * _knock(noise, pitch, 0.07, 0.5))
    for second in rally.bounces:
        _add(samples, second, 0.12 * _knock(noise, 180.0, 0.05, 0.2))
    if rally.ending == "net":  # hardly louder than the spectators
        _add(samples, rally.legs[-1].start, 0.04 * _knock(noise, 120.0, 0.08, 0.8))
    for call in rally.calls:
        _add(samples, call.second, noise.uniform(0.55, 0.8) * calls[call.text])
    applause = noise.uniform(0.0, 0.05) * noise.standard_normal(len(samples))
    seconds = np.arange(len(samples)) / SAMPLING_RATE
    samples += applause * np.clip(seconds - rally.calls[-1].second + 0.5, 0.0, 1.0)
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def _knock(noise: np.random.Generator, pitch: float, seconds: float, share: float) -> np.ndarray:
    """A short sound: a tone and, for a share of it, noise, both dying away."""
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tone = np.sin(math.tau * pitch * time)
    return ((1 - share) * tone + share * noise.uniform(-1, 1, len(time))) * np.exp(-4 * time / seconds)


def _add(samples: np.ndarray, second: float, sound: Sequence[float]) -> None:
    start = round(second * SAMPLING_RATE)
    room = samples[start : start + len(sound)]
    room += sound[: len(room)]
