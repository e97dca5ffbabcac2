"""Clips as arrays and as files: mp4 (H.264 and AAC), PNG and WAV (16 bits)."""

import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ..new_file import new_file
from .config import WorldConfig
from .rendering import draw_frames, synthesise
from .scenes import Scene

SUFFIXES = {"video": ".mp4", "image": ".png", "audio": ".wav"}
"""The suffix of the files of each modality."""


@dataclass(frozen=True)
class Clip:
    """
    A rendered scene.

    Attributes:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`, *optional*): uint8 RGB. `None` for sounds.
        waveform (`np.ndarray` of shape `(num_samples,)`, *optional*):
            float32 mono samples in [-1, 1]. `None` for pictures.
        fps (`int`): Frames per second; the first frame is at 0 s.
        sampling_rate (`int`): Of the waveform, in Hz.
    """

    frames: np.ndarray | None
    waveform: np.ndarray | None
    fps: int
    sampling_rate: int

    @property
    def modality(self) -> str:
        """A key of `SUFFIXES`."""
        return "audio" if self.frames is None else "image" if self.waveform is None else "video"


def render(scene: Scene, config: WorldConfig, modality: str = "video") -> Clip:
    """
    Renders a scene, all frames of it.

    Args:
        scene ([`Scene`]): What to render.
        config ([`WorldConfig`]): The config of its world.
        modality (`str`, *optional*, defaults to `"video"`):
            `"image"` renders the frames alone and `"audio"` the waveform alone.

    Returns:
        [`Clip`]: the same scene gives the same bytes.

    Raises:
        ValueError: the modality is unknown.
    """
    if modality not in SUFFIXES:
        raise ValueError(f"Unknown modality {modality!r}: {', '.join(map(repr, SUFFIXES))} are accepted.")
    frames = None if modality == "audio" else draw_frames(scene, config)
    waveform = None if modality == "image" else synthesise(scene, config)
    return Clip(frames, waveform, config.fps, config.sampling_rate)


def write_clip(path: str | Path, clip: Clip, with_sound: bool = True) -> None:
    """
    Writes a clip to an mp4, PNG or WAV file. The file appears complete or not at all.

    Args:
        path (`str` or `Path`): With the suffix of the clip's modality, see `SUFFIXES`.
        clip ([`Clip`]): What to write.
        with_sound (`bool`, *optional*, defaults to `True`): Whether an mp4 file has the sound of the clip.

    Raises:
        ValueError: the suffix is another one, or a picture has several frames.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = SUFFIXES[clip.modality]
    if path.suffix != suffix:
        raise ValueError(f"{path.name!r} cannot hold a clip of modality {clip.modality!r}: {suffix} is accepted.")
    with new_file(path) as part:
        if clip.modality == "video":
            _write_mp4(part, clip, with_sound)
        else:
            {"image": _write_png, "audio": _write_wav}[clip.modality](part, clip)


def _write_png(path: Path, clip: Clip) -> None:
    if len(clip.frames) != 1:
        raise ValueError(f"A PNG holds one frame, but the clip has {len(clip.frames)}.")
    Image.fromarray(clip.frames[0]).save(path)


def _write_wav(path: Path, clip: Clip) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sampling_rate)
        file.writeframes((32767 * clip.waveform).round().astype("<i2").tobytes())


def _write_mp4(path: Path, clip: Clip, with_sound: bool) -> None:
    height, width = clip.frames.shape[1:3]
    # The same clip must give the same bytes: one thread, no dates, and no macroblock tree, which makes x264 vary.
    options = {"crf": "16", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=clip.fps, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if with_sound:
            # The default coder takes ten times as long as encoding the frames.
            audio = container.add_stream("aac", rate=clip.sampling_rate, layout="mono", options={"aac_coder": "fast"})
            audio.bit_rate = 64_000
        packets = []
        for index, picture in enumerate(clip.frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, clip.fps)
            packets += video.encode(frame)
        packets += video.encode()
        if with_sound:
            block = av.AudioFrame.from_ndarray(clip.waveform[None], "fltp", "mono")
            block.pts, block.sample_rate, block.time_base = 0, clip.sampling_rate, Fraction(1, clip.sampling_rate)
            packets += [*audio.encode(block), *audio.encode()]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
