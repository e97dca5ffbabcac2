"""Clips as arrays and as files: mp4 (H.264 and AAC), PNG and WAV (16 bits), or the arrays themselves."""

import os
import secrets
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from zipfile import BadZipFile

import av
import numpy as np
from PIL import Image

from .config import WorldConfig
from .pictures import draw_frames, frame_seconds
from .scenes import Scene
from .sounds import synthesise

SUFFIXES = {"video": ".mp4", "image": ".png", "audio": ".wav"}
ARRAYS_SUFFIX = ".npz"


@dataclass(frozen=True)
class Clip:
    """
    A rendered scene.

    Attributes:
        frames (`np.ndarray`, *optional*): uint8 RGB (frames, height, width, 3). `None` for sounds.
        seconds (`np.ndarray`, *optional*): Of the frames: float64 (frames,). `None` for sounds.
        waveform (`np.ndarray`, *optional*): float32 mono (samples,), in [-1, 1]. `None` for pictures.
        sampling_rate (`int`): Of the waveform, in Hz.
    """

    frames: np.ndarray | None
    seconds: np.ndarray | None
    waveform: np.ndarray | None
    sampling_rate: int

    @property
    def modality(self) -> str:
        """A key of `SUFFIXES`."""
        return "audio" if self.frames is None else "image" if self.waveform is None else "video"


def render(scene: Scene, config: WorldConfig, seconds=None, modality: str = "video") -> Clip:
    """
    Args:
        scene ([`Scene`]): What to render.
        config ([`WorldConfig`]): The world's.
        seconds (`Sequence[float]`, *optional*): Of the frames to draw. `None`: all of the clip.
        modality (`str`, defaults to `"video"`): Or `"image"`: the frames alone; or `"audio"`: the waveform alone.

    Raises:
        ValueError: there is no such modality.
    """
    if modality not in SUFFIXES:
        raise ValueError(f"Unknown modality {modality!r}: {', '.join(map(repr, SUFFIXES))} are accepted.")
    frames = waveform = None
    if modality == "audio":
        seconds = None
    else:
        seconds = frame_seconds(scene, config) if seconds is None else np.asarray(seconds, dtype=np.float64)
        frames = draw_frames(scene, config, seconds)
    if modality != "image":
        waveform = synthesise(scene, config)
    return Clip(frames, seconds, waveform, config.sampling_rate)


def write_clip(path: str | Path, clip: Clip) -> None:
    """
    Writes a clip as what the suffix of `path` says: that of its modality in `SUFFIXES`, or npz for the arrays of
    [`Clip`]. The file is there whole or not at all.

    Raises:
        ValueError:
            The suffix is neither; or the frames of an mp4 are not evenly spaced from 0 s, or those of a PNG not one.
        OSError: the file cannot be written.
    """
    path = Path(path)
    writers = {".mp4": _write_mp4, ".png": _write_png, ".wav": _write_wav, ARRAYS_SUFFIX: _write_arrays}
    accepted = (SUFFIXES[clip.modality], ARRAYS_SUFFIX)
    if path.suffix not in accepted:
        raise ValueError(
            f"A clip of modality {clip.modality!r} cannot be written as {path.name!r}: {' and '.join(accepted)} are "
            "accepted."
        )
    with replaced(path) as part:
        writers[path.suffix](part, clip)


def read_clip(path: str | Path, sampling_rate: int = 16_000) -> Clip:
    """
    Reads what [`write_clip`] wrote; all but arrays through the decoders of the package.

    Args:
        path (`str` or `Path`): An mp4, PNG, WAV or npz file.
        sampling_rate (`int`, defaults to 16000): Of decoded sound, in Hz. Arrays have that of their world.

    Raises:
        ValueError, OSError: the file cannot be read, or an mp4 has no sound.
    """
    suffix = Path(path).suffix
    if suffix == ARRAYS_SUFFIX:
        try:
            with open(path, "rb") as file, np.load(file) as arrays:
                given = (arrays.get(name) for name in ("frames", "seconds", "waveform"))
                return Clip(*given, int(arrays["sampling_rate"]))
        except (EOFError, KeyError, ValueError, BadZipFile) as error:
            raise ValueError(f"{str(path)!r} does not hold the arrays of a clip.") from error
    from ..media import load_audio, load_image, load_video

    if suffix == SUFFIXES["image"]:
        return Clip(np.asarray(load_image(path))[None], np.zeros(1), None, sampling_rate)
    if suffix == SUFFIXES["audio"]:
        return Clip(None, None, load_audio(path, sampling_rate=sampling_rate), sampling_rate)
    video = load_video(path, load_audio=True, sampling_rate=sampling_rate)
    if video.waveform is None:
        raise ValueError(f"{str(path)!r} has no sound: a clip has both.")
    frames = video.frames.permute(0, 2, 3, 1).contiguous().numpy()
    return Clip(frames, np.array(video.metadata.timestamps), video.waveform, sampling_rate)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Gives a hidden sibling of a file, which takes its place when the block ends and is removed when it fails."""
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.incomplete{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_arrays(path: Path, clip: Clip) -> None:
    # The frames compress well; the waveform would only take time.
    np.savez_compressed(path, **{name: array for name, array in vars(clip).items() if array is not None})


def _write_png(path: Path, clip: Clip) -> None:
    if len(clip.frames) != 1:
        raise ValueError(f"A PNG is written from one frame, and the clip has {len(clip.frames)}.")
    Image.fromarray(clip.frames[0]).save(path)


def _write_wav(path: Path, clip: Clip) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sampling_rate)
        file.writeframes((32767 * clip.waveform).round().astype("<i2").tobytes())


def _write_mp4(path: Path, clip: Clip) -> None:
    spacing = clip.seconds[1] - clip.seconds[0] if len(clip.seconds) > 1 else 0.0
    if spacing <= 0 or not np.allclose(clip.seconds, np.arange(len(clip.seconds)) * spacing):
        raise ValueError("An mp4 is written from two frames at least, evenly spaced from 0 s: `render` gives such.")
    fps = Fraction(1 / spacing).limit_denominator(1000)
    height, width = clip.frames.shape[1:3]
    # The same clip gives the same bytes: one thread, no dates, and no macroblock tree, with which x264 varies.
    options = {"crf": "16", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=fps, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # The default coder takes ten times as long as the picture.
        audio = container.add_stream("aac", rate=clip.sampling_rate, layout="mono", options={"aac_coder": "fast"})
        audio.bit_rate = 64_000
        packets = []
        for index, picture in enumerate(clip.frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, 1 / fps
            packets += video.encode(frame)
        packets += video.encode()
        block = av.AudioFrame.from_ndarray(clip.waveform[None], "fltp", "mono")
        block.pts, block.sample_rate, block.time_base = 0, clip.sampling_rate, Fraction(1, clip.sampling_rate)
        packets += [*audio.encode(block), *audio.encode()]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
