"""Renders media files whose content tells where it comes from: frames show their number, sound tells its second."""

import io
import struct
import wave
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image

ROWS, COLUMNS = 3, 4
DARK, BRIGHT = 40, 216
# Seconds by which packets may tell of more sound than there is: FFmpeg before 8.1, that of PyAV before 17.1, counts
# the padding of some codecs.
PADDING = 2e-3 if hasattr(av.VideoStream, "set_display_rotation") else 0.03
X264 = {"preset": "veryfast", "threads": "1", "x264-params": "keyint=24:min-keyint=24:scenecut=0:bframes=3"}


@dataclass
class Sound:
    """An audio track; `start` is in seconds on the clock of the file; `samples`: what replaces [`render_sound`]."""

    seconds: float = 3.0
    start: float = 0.0
    rate: int = 44_100
    layout: str = "stereo"
    codec: str = "aac"
    samples: np.ndarray | None = None


def render_frame(number: int, width: int = 128, height: int = 96) -> np.ndarray:
    """Grey blocks that spell a number below 4096 in binary, uint8 (height, width, 3)."""
    bits = (number >> np.arange(ROWS * COLUMNS)) & 1
    blocks = np.where(bits, BRIGHT, DARK).reshape(ROWS, COLUMNS).astype(np.uint8)
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    return np.repeat(blocks[rows][:, columns, None], 3, axis=2)


def read_number(frame) -> int:
    """The number that a frame shows: (3, height, width) tensor, (height, width, 3) array or image."""
    if hasattr(frame, "permute"):
        frame = frame.permute(1, 2, 0).numpy()
    frame = np.asarray(frame)
    number = 0
    for bit in range(ROWS * COLUMNS):
        row, column = divmod(bit, COLUMNS)
        y, x = int((row + 0.5) * frame.shape[0] / ROWS), int((column + 0.5) * frame.shape[1] / COLUMNS)
        number |= int(frame[y - 3 : y + 4, x - 3 : x + 4].mean() > (DARK + BRIGHT) / 2) << bit
    return number


def read_numbers(frames) -> list[int]:
    return [read_number(frame) for frame in frames]


def render_sound(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """A sine for each second, of 300, 400, 500... Hz: float32 (channels, samples)."""
    time = np.arange(round(seconds * rate)) / rate
    return np.tile(0.5 * np.sin(2 * np.pi * (300 + 100 * np.floor(time)) * time), (channels, 1)).astype(np.float32)


def read_second(waveform: np.ndarray, rate: int = 16_000) -> int:
    """Which second of [`render_sound`] a stretch of a waveform is from."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return round((spectrum.argmax() * rate / len(waveform) - 300) / 100)


def write_video(
    path: str | Path,
    num_frames: int = 72,
    *,
    size: tuple[int, int] = (128, 96),
    fps: Fraction | int = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict | None = None,
    pts: list[int] | None = None,
    time_base: Fraction | None = None,
    turn: int = 0,
    sound: Sound | None = None,
    pictures: list[np.ndarray] | None = None,
    color: dict | None = None,
    **kwargs,
) -> Path:
    """
    Writes a video of numbered frames.

    Args:
        size: Width and height of the upright frames.
        pts: Presentation times in `time_base`; else frames are evenly spaced.
        turn: Degrees (90, 180, 270) by which the container asks players to turn the frames, which are stored as if
            the camera had been held that way.
        pictures: What to show instead of numbers.
        kwargs: Of `av.open`.
    """
    if turn and not hasattr(av.VideoStream, "set_display_rotation"):  # PyAV before 17.1
        stored = size[::-1] if turn % 180 else size
        turned = [np.rot90(render_frame(number, *size), -turn // 90) for number in range(num_frames)]
        return _turn(write_video(f"{path}.mov", num_frames, size=stored, pictures=turned), path, turn)
    time_base = time_base or 1 / Fraction(fps)
    packets = []
    with av.open(str(path), "w", **kwargs) as container:
        width, height = size[::-1] if turn % 180 else size
        video = container.add_stream(codec, rate=fps, options=options if options is not None else _options(codec))
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.time_base = time_base
        for name, value in (color or {}).items():
            setattr(video.codec_context, name, value)
        if turn:
            video.set_display_rotation(turn)
        audio = None
        if sound is not None:
            audio = container.add_stream(sound.codec, rate=sound.rate)
            audio.layout = sound.layout
        for number in range(num_frames):
            picture = render_frame(number, *size) if pictures is None else pictures[number]
            picture = np.ascontiguousarray(np.rot90(picture, -turn // 90))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if color:
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace="ITU709" if color.get("colorspace") == 1 else "ITU601",
                    dst_color_range=color.get("color_range", 1),
                )
            frame.pts, frame.time_base = number if pts is None else pts[number], time_base
            packets += video.encode(frame)
        packets += video.encode()
        if audio is not None:
            packets += _encode_sound(audio, sound)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return Path(path)


def _turn(plain: Path, path: str | Path, turn: int) -> Path:
    """Turns the numbered frames of a mov, and asks players to turn them back."""
    content = plain.read_bytes()
    matrix = content.index(b"tkhd") + 44
    cosine, sine = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[turn]
    entries = (cosine, sine, 0, -sine, cosine, 0, 0, 0)
    box = struct.pack(">9i", *(entry << 16 for entry in entries), 1 << 30)
    plain.write_bytes(content[:matrix] + box + content[matrix + len(box) :])
    remux(plain, path)
    plain.unlink()
    return Path(path)


def remux(source, target, edit=lambda packet: True, **kwargs) -> Path:
    """Copies packets to another file as `edit` leaves them; it returns whether to keep one. `kwargs`: of `av.open`."""
    with av.open(str(source)) as reader, av.open(str(target), "w", **kwargs) as writer:
        streams = {stream: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is not None and edit(packet):
                packet.stream = streams[packet.stream]
                writer.mux(packet)
    return Path(target)


def write_audio(path: str | Path, sound: Sound, samples: np.ndarray | None = None, **kwargs) -> Path:
    """Writes an audio file; `samples` (channels, samples): as of [`Sound`]."""
    with av.open(str(path), "w", **kwargs) as container:
        audio = container.add_stream(sound.codec, rate=sound.rate)
        audio.layout = sound.layout
        container.mux(_encode_sound(audio, sound if samples is None else replace(sound, samples=samples)))
    return Path(path)


def _encode_sound(audio, sound: Sound) -> list[av.Packet]:
    samples = sound.samples
    if samples is None:
        samples = render_sound(sound.seconds, sound.rate, audio.layout.nb_channels)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=sound.layout)
    frame.sample_rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
    frame.pts = round(sound.start * sound.rate)
    return [*audio.encode(frame), *audio.encode()]


def _options(codec: str) -> dict:
    return {
        "libx264": X264,
        "libx265": {"preset": "ultrafast", "x265-params": "keyint=24:bframes=3:open-gop=1:log-level=none"},
        "libvpx-vp9": {"g": "24", "deadline": "realtime", "cpu-used": "8"},
    }.get(codec, {"g": "24"})


def write_animation(path: str | Path, durations: list[int], size: tuple[int, int] = (64, 48), **options) -> Path:
    """Writes an animated GIF, PNG or WebP of numbered frames, which last so many milliseconds each."""
    frames = [PIL.Image.fromarray(render_frame(number, *size)) for number in range(len(durations))]
    # Pillow merges frames that look the same, which numbered ones never do.
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return Path(path)


def set_display_matrix(content: bytes, matrix: tuple[float, float, float, float]) -> bytes:
    """An mp4 with (a, b, c, d) of the display matrix of its picture: x becomes ax + cy, and y becomes bx + dy."""
    place = content.index(b"tkhd") + 44
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    return content[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[place + 36 :]


def image_bytes(image: PIL.Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def wav_bytes(samples: np.ndarray, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        writer.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def zero_media_data(content: bytes, start: float = 0.0, stop: float = 1.0) -> bytes:
    """An mp4 of which a share of the box `mdat`, the encoded data, is overwritten with zeros."""
    box = content.index(b"mdat") + 4
    length = struct.unpack(">I", content[box - 8 : box - 4])[0] - 8
    first, last = box + int(start * length), box + int(stop * length)
    return content[:first] + bytes(last - first) + content[last:]
