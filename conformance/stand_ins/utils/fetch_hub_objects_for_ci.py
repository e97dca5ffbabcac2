"""
Stands in for a file that the source distribution lacks: makes media instead of fetching them from the Hub.

A made file has the name, the length and the size that the tests rely on; its content is noise.
"""

import tempfile
import wave
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(tempfile.gettempdir()) / "omnivinci_conformance_media"
SAMPLING_RATE = 16_000
FRAME_RATE = 30
NUM_FRAMES = {"tiny_video_320x240.mp4": 11}
"""Frames of a video; others have two seconds, with sound."""


def url_to_local_path(url: str) -> str:
    """The path of a file that is made for `url`, once."""
    path = FOLDER / url.rpartition("/")[2]
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:  # made aside: several processes run tests
            made = Path(folder) / path.name
            _MAKERS[path.suffix](made)
            made.replace(path)
    return str(path)


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _make_image(path: Path):
    Image.fromarray(_noise(120, 160, 3)).save(path)


def _make_wave(path: Path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(_noise(2 * SAMPLING_RATE).tobytes())


def _make_media(path: Path):
    import av

    with av.open(str(path), "w") as container:
        parts = []  # all streams are added before the first packet is written
        if path.suffix == ".mp4":
            stream = container.add_stream("mpeg4", rate=FRAME_RATE)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            frame = av.VideoFrame.from_ndarray(_noise(240, 320, 3), format="rgb24")
            parts.append((stream, [frame] * NUM_FRAMES.get(path.name, 2 * FRAME_RATE)))
        if path.name not in NUM_FRAMES:
            stream = container.add_stream("aac" if path.suffix == ".mp4" else "mp3", rate=SAMPLING_RATE)
            samples = (_noise(2 * SAMPLING_RATE).astype(np.int16) - 128) * 64
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLING_RATE
            parts.append((stream, [frame]))
        for stream, frames in parts:
            for frame in [*frames, None]:
                container.mux(stream.encode(frame))


_MAKERS = {
    ".jpg": _make_image,
    ".png": _make_image,
    ".wav": _make_wave,
    ".mp3": _make_media,
    ".mp4": _make_media,
}
