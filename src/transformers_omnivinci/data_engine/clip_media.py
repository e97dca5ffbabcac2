"""Clips as servers take them: frames as JPEG, sound as WAV, both as mp4; decoded by the package's own reader."""

import base64
import io
import math
import wave
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from ..media import LoadedVideo, load_video
from .backends.protocol import Medium

SAMPLING_RATE = 16_000


def sample_evenly(seconds: float, fps: float, most: int):
    """Which frames of a clip are taken: `fps` a second and at most `most`, in the middles of equal stretches."""
    count = max(1, min(most, round(seconds * fps)))

    def sample(metadata) -> np.ndarray:
        total = metadata.total_num_frames
        return np.unique(((np.arange(min(count, total)) + 0.5) / min(count, total) * total).astype(np.int64))

    return sample


def load_clip(medium: Medium, fps: float, most: int) -> LoadedVideo:
    """Frames and, unless only the picture is wanted, the sound of a clip; see [`load_video`]."""
    return load_video(
        medium.source,
        sample_indices_fn=sample_evenly(medium.end - medium.start, fps, most),
        video_start=medium.start,
        video_end=medium.end,
        load_audio=medium.senses != "picture",
        sampling_rate=SAMPLING_RATE,
    )


def load_sound(source: str, start: float, end: float, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """The sound of a stretch of a video: float32 mono of shape (num_samples,). A ValueError if there is none."""
    loaded = load_video(
        source,
        sample_indices_fn=lambda metadata: [0],
        video_start=start,
        video_end=end,
        load_audio=True,
        sampling_rate=sampling_rate,
    )
    if loaded.waveform is None or not len(loaded.waveform):
        raise ValueError(f"There is no sound from {start:g} to {end:g} s.")
    return loaded.waveform


def loudness(source: str, start: float, end: float) -> float:
    """The highest level of a stretch of sound in dB of full scale; minus infinity where there is none."""
    try:
        peak = float(np.abs(load_sound(source, start, end)).max())
    except ValueError:
        return -math.inf
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def jpeg(frame: np.ndarray, longest: int) -> bytes:
    """A frame (height, width, 3) of uint8 RGB as JPEG, its longer side at most `longest` pixels."""
    image = Image.fromarray(frame)
    image.thumbnail((longest, longest))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def wav(samples: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> bytes:
    """Samples (num_samples,) in [-1, 1] as WAV of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sampling_rate)
        out.writeframes((32767 * np.clip(samples, -1, 1)).round().astype("<i2").tobytes())
    return file.getvalue()


def mp4(frames: np.ndarray, fps: float, samples: np.ndarray | None) -> bytes:
    """Frames (num_frames, height, width, 3) of uint8 RGB, with sound or without it, as mp4 (H.264 and AAC)."""
    file = io.BytesIO()
    height, width = (side - side % 2 for side in frames.shape[1:3])
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = None if samples is None else container.add_stream("aac", rate=SAMPLING_RATE, layout="mono")
        packets = []
        for index, picture in enumerate(frames[:, :height, :width]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            packets += video.encode(frame)
        packets += video.encode()
        if audio is not None:
            block = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
            block.pts, block.sample_rate, block.time_base = 0, SAMPLING_RATE, Fraction(1, SAMPLING_RATE)
            packets += [*audio.encode(block), *audio.encode()]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return file.getvalue()


def data_url(content: bytes, media_type: str) -> str:
    """Content as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
