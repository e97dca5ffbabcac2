"""Small media made of arrays, and chats about them."""

import av
import numpy as np
import PIL.Image


def image(height: int = 90, width: int = 160, seed: int = 0) -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BICUBIC)


def video(num_frames: int = 6, fps: float = 2.0, seed: int = 0) -> tuple[np.ndarray, dict]:
    """Frames with the metadata of a clip that has just these."""
    frames = np.stack([np.asarray(image(60, 80, seed=1000 * seed + index)) for index in range(num_frames)])
    indices = list(range(num_frames))
    return frames, {"fps": fps, "total_num_frames": num_frames, "frames_indices": indices}


def sound(seconds: float = 2.0, pitch: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def user(*content) -> list[dict]:
    """A conversation of one turn: strings are text, the rest are content items."""
    items = [{"type": "text", "text": item} if isinstance(item, str) else item for item in content]
    return [{"role": "user", "content": items}]


def image_item(**kwargs) -> dict:
    return {"type": "image", "image": image(**kwargs)}


def video_item(**kwargs) -> dict:
    return {"type": "video", "video": video(**kwargs)}


def audio_item(**kwargs) -> dict:
    return {"type": "audio", "audio": sound(**kwargs)}


def render(path, num_frames: int = 60, fps: int = 10) -> None:
    """Writes a silent H.264 clip of noise: its packets are large, so that damage hits pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "5", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for index in range(num_frames):
            pixels = np.random.default_rng(index).integers(0, 256, (64, 80, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
