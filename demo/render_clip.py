"""Render `clip.mp4`, the demonstration clip: twelve seconds in which it is known what is seen and heard when."""

import math
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]


class Scene(NamedTuple):
    """A background, shaded from `top` to `bottom`, which fades in over the one before."""

    start: float
    end: float
    name: str
    top: Colour
    bottom: Colour


class Shape(NamedTuple):
    """A shape that pops up, goes straight from `origin` to `target` (as parts of the frame), and shrinks away."""

    start: float
    end: float
    name: str
    colour: Colour
    corners: int  # 0 draws a disc
    dent: float  # radius of the notches between the corners; 1 draws none
    turns: float
    origin: Point
    target: Point


class Sound(NamedTuple):
    """A tone gliding from one pitch to the other, in Hz; a short one is a click."""

    start: float
    end: float
    name: str
    pitch: float
    last_pitch: float


# The schedule, in seconds.
SCENES = (
    Scene(0.0, 4.0, "night blue", (18, 24, 62), (66, 58, 128)),
    Scene(4.0, 8.0, "sunset orange", (214, 92, 74), (250, 196, 120)),
    Scene(8.0, 12.0, "sea green", (10, 70, 84), (112, 186, 160)),
)
SHAPES = (
    Shape(0.5, 3.5, "red disc crosses to the right", (240, 72, 72), 0, 1.0, 0.0, (0.18, 0.60), (0.82, 0.60)),
    Shape(2.5, 6.0, "blue square sinks, turning", (70, 130, 245), 4, 1.0, 0.5, (0.30, 0.25), (0.30, 0.75)),
    Shape(5.0, 9.0, "green triangle rises, turning", (52, 176, 96), 3, 1.0, 1.0, (0.70, 0.75), (0.70, 0.30)),
    Shape(8.5, 11.5, "yellow star crosses to the left", (255, 214, 74), 5, 0.45, 0.6, (0.80, 0.55), (0.22, 0.55)),
)
SOUNDS = (
    Sound(0.5, 2.5, "low hum, 220 Hz", 220.0, 220.0),
    Sound(3.5, 3.54, "click", 1800.0, 1800.0),
    Sound(4.5, 6.0, "middle tone, 440 Hz", 440.0, 440.0),
    Sound(7.0, 7.04, "click", 1800.0, 1800.0),
    Sound(7.5, 7.54, "click", 1800.0, 1800.0),
    Sound(8.0, 8.04, "click", 1800.0, 1800.0),
    Sound(9.0, 11.0, "whistle, rising from 500 to 1500 Hz", 500.0, 1500.0),
)

SECONDS = 12
WIDTH, HEIGHT, FPS = 480, 360, 25
SAMPLE_RATE = 44_100
RADIUS = 56  # of a shape, in pixels
FADE = 0.4  # of a background into the next, in seconds
POP = 0.2  # of a shape into its size and out of it, in seconds
SMOOTH = 3  # shapes are drawn this many times larger, for smooth edges


def smoothstep(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def gradient(scene: Scene) -> np.ndarray:
    ramp = np.linspace(0, 1, HEIGHT)[:, None, None]
    return np.broadcast_to((1 - ramp) * scene.top + ramp * scene.bottom, (HEIGHT, WIDTH, 3))


def background(seconds: float) -> Image.Image:
    pixels = gradient(SCENES[0])
    for scene in SCENES[1:]:
        weight = smoothstep((seconds - scene.start) / FADE)
        pixels = (1 - weight) * pixels + weight * gradient(scene)
    return Image.fromarray(pixels.round().astype(np.uint8))


def outline(shape: Shape, centre: Point, radius: float, turn: float) -> list[Point]:
    """The corners of a shape, and the notches between them, clockwise from the top."""
    points = []
    for i in range(2 * shape.corners):
        reach = radius if i % 2 == 0 else radius * shape.dent
        if i % 2 and shape.dent == 1.0:
            continue
        angle = math.tau * (turn + i / (2 * shape.corners))
        points.append((centre[0] + reach * math.sin(angle), centre[1] - reach * math.cos(angle)))
    return points


def draw(image: Image.Image, shape: Shape, seconds: float) -> None:
    progress = smoothstep((seconds - shape.start) / (shape.end - shape.start))
    size = smoothstep(min(seconds - shape.start, shape.end - seconds) / POP)
    centre = tuple(
        SMOOTH * extent * ((1 - progress) * a + progress * b)
        for extent, a, b in zip((WIDTH, HEIGHT), shape.origin, shape.target)
    )
    radius = SMOOTH * RADIUS * size
    mask = Image.new("L", (SMOOTH * WIDTH, SMOOTH * HEIGHT))
    if shape.corners == 0:
        ImageDraw.Draw(mask).circle(centre, radius, fill=255)
    else:
        ImageDraw.Draw(mask).polygon(outline(shape, centre, radius, shape.turns * progress), fill=255)
    image.paste(shape.colour, mask=mask.resize(image.size, Image.Resampling.BOX))


def picture(seconds: float) -> np.ndarray:
    image = background(seconds)
    for shape in SHAPES:
        if shape.start < seconds < shape.end:
            draw(image, shape, seconds)
    return np.asarray(image)


def soundtrack() -> np.ndarray:
    track = np.zeros(SECONDS * SAMPLE_RATE, dtype=np.float64)
    for sound in SOUNDS:
        first, last = round(sound.start * SAMPLE_RATE), round(sound.end * SAMPLE_RATE)
        time = np.arange(last - first) / SAMPLE_RATE
        length = sound.end - sound.start
        phase = sound.pitch * time + (sound.last_pitch - sound.pitch) * time**2 / (2 * length)
        edge = np.minimum(time, length - time).clip(0)
        loudness = 0.3 * np.minimum(edge / min(0.03, length / 4), 1)
        track[first:last] += loudness * np.sin(math.tau * phase)
    return track.astype(np.float32)


def render(path: Path) -> None:
    samples = soundtrack()
    chunk = SAMPLE_RATE // FPS
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "slow", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 64_000

        for i in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(picture(i / FPS), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))

            block = av.AudioFrame.from_ndarray(samples[None, i * chunk : (i + 1) * chunk], "fltp", "mono")
            block.pts, block.sample_rate, block.time_base = i * chunk, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(block))

        container.mux(video.encode())
        container.mux(audio.encode())


def print_schedule() -> None:
    for title, events in (("background", SCENES), ("shape", SHAPES), ("sound", SOUNDS)):
        for event in events:
            print(f"{event.start:5.2f} - {event.end:5.2f} s  {title:10}  {event.name}")


if __name__ == "__main__":
    clip = Path(__file__).with_name("clip.mp4")
    render(clip)
    print_schedule()
    print(f"{clip.name}: {SECONDS} s, {WIDTH}x{HEIGHT}, {clip.stat().st_size / 1000:.0f} kB")
