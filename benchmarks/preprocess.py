"""
Preprocessing videos: from a file to the tensors of the model, against the way of the release.

The release seeks once for every sampled frame with OpenCV, resizes each with PIL, normalises it with NumPy and
reads the sound with decord. The tables tell how far the tensors of both ways differ.
"""

import argparse
import functools
import itertools
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import PIL.Image
import torch
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from ._harness import MB, PeakMemory, Report, in_fresh_process, take_turns
from .merge import SAMPLING_RATE, build_processor

NOTE = (
    "720p30 H.264 (B-frames, a key frame each 250 frames and at cuts) with stereo AAC at 48 kHz, made for this. "
    "There are no weights in preprocessing."
)
RATE, SOUND_RATE, HEIGHT, WIDTH = 30, 48_000, 720, 1280
GROUP, SCENE = 250, 450  # frames


# ----------------------------------------------------------------------------------------------------------- clips


def make_clip(path: Path, seconds: int) -> Path:
    """Encodes moving, changing pictures and chirps, unless that was done before."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.mp4")
    with av.open(str(part), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "27", "bf": "3"})
        video.width, video.height, video.pix_fmt, video.gop_size = WIDTH, HEIGHT, "yuv420p", GROUP
        audio = container.add_stream("aac", rate=SOUND_RATE)
        audio.layout = "stereo"
        sounds = _sounds(seconds)
        for number, picture in enumerate(_pictures(seconds * RATE)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if number % RATE == 0:  # about a second of sound, so that the two lie side by side in the file
                for sound in itertools.islice(sounds, 47):
                    container.mux(audio.encode(sound))
        for sound in sounds:
            container.mux(audio.encode(sound))
        container.mux(video.encode())
        container.mux(audio.encode())
    return part.rename(path)


def _pictures(num_frames: int):
    """A camera that moves over a picture, with things that move on their own; another picture in each scene."""
    random = np.random.default_rng(0)
    for first in range(0, num_frames, SCENE):
        height, width = HEIGHT + 400, WIDTH + 700
        coarse = random.integers(0, 256, (height // 90, width // 90, 3), dtype=np.uint8)
        fine = random.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
        cubic = cv2.INTER_CUBIC
        coarse, fine = (cv2.resize(part, (width, height), interpolation=cubic) for part in (coarse, fine))
        scene = cv2.addWeighted(coarse, 0.7, fine, 0.3, 0)
        speed = random.uniform(0.5, 2.0)
        colours, phases = random.integers(0, 256, (8, 3)).tolist(), random.uniform(0, 6.28, (8, 2))
        for number in range(min(SCENE, num_frames - first)):
            top = int(200 + 200 * np.sin(speed * number / 70))
            left = int(350 + 350 * np.cos(speed * number / 110))
            picture = np.ascontiguousarray(scene[top : top + HEIGHT, left : left + WIDTH])
            for index, (colour, (a, b)) in enumerate(zip(colours, phases)):
                x = int(WIDTH * (0.5 + 0.45 * np.sin(a + speed * number / (25 + 9 * index))))
                y = int(HEIGHT * (0.5 + 0.45 * np.cos(b + speed * number / (33 + 7 * index))))
                cv2.circle(picture, (x, y), 20 + 8 * index, colour, -1)
            cv2.putText(picture, str(first + number), (40, 80), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 255, 255), 3)
            yield picture


def _sounds(seconds: int):
    """Frames of a chirp that begins anew each second, over noise."""
    random = np.random.default_rng(1)
    for start in range(0, seconds * SOUND_RATE, 1024):
        time = np.arange(start, min(start + 1024, seconds * SOUND_RATE)) / SOUND_RATE
        chirp = 0.3 * np.sin(2 * np.pi * (300 + 400 * (time % 1)) * (time % 1))
        noise = random.normal(0, 0.02, (2, len(time)))
        frame = av.AudioFrame.from_ndarray((chirp + noise).astype(np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        yield frame


def repeat_clip(source: Path, path: Path, times: int) -> Path:
    """A clip that is `source` over and over: its packets are copied, nothing is encoded."""
    if path.exists():
        return path
    part = path.with_suffix(".part.mp4")
    with av.open(str(part), "w") as output:
        streams, shift = None, {}
        for _ in range(times):
            with av.open(str(source)) as container:
                streams = streams or {
                    stream.index: output.add_stream_from_template(stream) for stream in container.streams
                }
                length = dict.fromkeys(streams, 0)
                for packet in container.demux():
                    if not packet.size or (shift and packet.pts < 0):
                        continue
                    index = packet.stream.index
                    length[index] = max(length[index], packet.pts + packet.duration)
                    packet.pts += shift.get(index, 0)
                    packet.dts += shift.get(index, 0)
                    packet.stream = streams[index]
                    output.mux(packet)
                shift = {index: shift.get(index, 0) + length[index] for index in length}
    return part.rename(path)


# ------------------------------------------------------------------------------------------------------- both ways


@functools.cache
def _processors():
    processor = build_processor()
    return processor, SiglipImageProcessorPil(size={"height": 448, "width": 448})


def release_frames(path: Path, num_frames: int) -> list[PIL.Image.Image]:
    """Frames as the release reads them: one seek for each."""
    capture = cv2.VideoCapture(str(path))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while total > 0:  # the release looks for the last frame that can be read
        capture.set(cv2.CAP_PROP_POS_FRAMES, total - 1)
        if capture.grab():
            break
        total -= 1
    images = []
    for index in np.round(np.linspace(0, total - 1, num_frames)).astype(int):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        read, frame = capture.read()
        if read:
            images.append(PIL.Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))
    capture.release()
    return images


def release_pixels(images: list[PIL.Image.Image]) -> torch.Tensor:
    """Each frame resized by PIL and normalised by the image processor of SigLIP."""
    siglip = _processors()[1]
    resized = [image.resize((448, 448), PIL.Image.Resampling.BICUBIC) for image in images]
    return torch.stack(
        [siglip.preprocess(image, do_resize=False, return_tensors="pt")["pixel_values"][0] for image in resized]
    )


def release_sound(path: Path) -> np.ndarray:
    """The whole track, mono at 16 kHz; slicing is the public way to many samples of a reader."""
    from decord import AudioReader

    return AudioReader(str(path), sample_rate=SAMPLING_RATE, mono=True)[:].asnumpy()[0]


def release_features(waveform: np.ndarray) -> torch.Tensor:
    """Log-mel windows of 30 s."""
    extractor = _processors()[0].feature_extractor
    padded = np.pad(waveform, (0, -len(waveform) % (30 * SAMPLING_RATE)))
    return extractor(padded, sampling_rate=SAMPLING_RATE, truncation=False, padding=False, return_tensors="pt")[
        "input_features"
    ]


def release(path: Path, num_frames: int, with_sound: bool) -> dict:
    data = {"pixel_values_videos": release_pixels(release_frames(path, num_frames))}
    if with_sound:
        data["input_features"] = release_features(release_sound(path))
    return data


def ours(path: Path, num_frames: int, with_sound: bool) -> dict:
    """The processor, with prompt, timestamps and temporal groups, which the release's part above leaves out."""
    processor = _processors()[0]
    return processor(
        text=processor.video_token + "What is shown?",
        videos=str(path),
        num_frames=num_frames,
        load_audio_from_video=with_sound,
        return_tensors="pt",
    )


# ------------------------------------------------------------------------------------------------------- measuring


def compare(title: str, path: Path, num_frames: int, with_sound: bool, wanted: str | None, repeats: int) -> dict:
    """A row of the table: both ways from file to tensors."""
    results = {}
    timings = take_turns(
        {
            "release": lambda: results.update(release=release(path, num_frames, with_sound)),
            "ours": lambda: results.update(ours=ours(path, num_frames, with_sound)),
        },
        repeats,
        warm_up=False,
    )
    pixels = [result["pixel_values_videos"] for result in results.values()]
    sound = None
    if with_sound:
        whole, windows = results["release"]["input_features"][0], results["ours"]["input_features"]
        difference = whole - windows.transpose(0, 1).flatten(1)
        sound = (difference - difference.median()).abs().mean().item()
    return {
        "from file to tensors": title,
        "release (s)": timings.median("release"),
        "ours (s)": timings.median("ours"),
        "release/ours ×": timings.ratio("release", "ours"),
        "by CPU time ×": timings.ratio("release", "ours", "cpu"),
        "wanted": wanted,
        "difference, grey levels": (pixels[0] - pixels[1]).abs().mean().item() * 127.5,
        "of log-mel": sound,  # but for the level: FFmpeg's own downmix, by decord, is 3 dB louder
    }


def compare_resizing(path: Path, num_frames: int, repeats: int) -> dict:
    """The same decoded frames, to normalised floats of 448 px."""
    processor = _processors()[0].video_processor
    loaded = processor.load_videos(str(path), num_frames=num_frames, do_resize=False)[0]
    frames, metadata = loaded.frames.permute(0, 2, 3, 1).numpy(), loaded.metadata
    images = [PIL.Image.fromarray(frame) for frame in frames]

    def mine() -> torch.Tensor:
        return processor((frames, metadata), return_tensors="pt")["pixel_values_videos"]

    timings = take_turns({"release": lambda: release_pixels(images), "ours": mine}, repeats, runs=3)
    return {
        "decoded frames": f"{num_frames} of 720p",
        "release (ms/frame)": 1e3 * timings.median("release") / num_frames,
        "ours (ms/frame)": 1e3 * timings.median("ours") / num_frames,
        "release/ours ×": timings.ratio("release", "ours"),
        "by CPU time ×": timings.ratio("release", "ours", "cpu"),
        "wanted": "8×",
        "difference, grey levels": (release_pixels(images) - mine()).abs().mean().item() * 127.5,
    }


def measure_memory(warm_up: Path, path: Path, num_frames: int) -> dict:
    """Peak memory of our way, in a process of its own."""
    processor = _processors()[0]
    ours(warm_up, 4, True)  # fills the caches of the libraries
    waveform = processor.video_processor.load_videos(str(path), num_frames=1, load_audio=True)[0].waveform
    pixels = num_frames * 3 * 448 * 448 * 4
    row = {"clip (s)": round(len(waveform) / SAMPLING_RATE), "waveform (MB)": waveform.nbytes / MB}
    with PeakMemory() as picture:
        processor.video_processor(str(path), num_frames=num_frames, return_tensors="pt")
    with PeakMemory() as decoded:
        processor.video_processor.load_videos(str(path), num_frames=num_frames, load_audio=True)
    with PeakMemory() as everything:
        result = ours(path, num_frames, True)
    return row | {
        "log-mel (MB)": result["input_features"].nbytes / MB,
        "pixels (MB)": pixels / MB,
        "picture alone (MB)": picture.bytes / MB,
        "decoded with sound (MB)": decoded.bytes / MB,
        "less the waveform (MB)": (decoded.bytes - waveform.nbytes) / MB,
        "everything (MB)": everything.bytes / MB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=120, help="of the densely sampled clip (default: 120)")
    parser.add_argument("--frames", type=int, default=64, help="sampled from it (default: 64)")
    parser.add_argument("--long-seconds", type=int, default=3600, help="of the long clip (default: 3600)")
    parser.add_argument("--long-frames", type=int, default=16, help="sampled from it (default: 16)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--clips",
        type=Path,
        default=Path(tempfile.gettempdir()) / "omnivinci-benchmarks",
        help="folder in which the clips are kept from one run to the next (default: in that for temporary files)",
    )
    arguments = parser.parse_args()
    report = Report("preprocess", vars(arguments) | {"clips": "…"}, NOTE)
    clip = make_clip(arguments.clips / f"{arguments.seconds}s.mp4", arguments.seconds)
    times = -(-arguments.long_seconds // arguments.seconds)
    hour = repeat_clip(clip, arguments.clips / f"{arguments.seconds}s-{times}-times.mp4", times)

    dense = f"{arguments.frames} frames of {arguments.seconds} s"
    sparse = f"{arguments.long_frames} frames of {times * arguments.seconds} s"
    rows = [
        compare(f"{dense}, with sound", clip, arguments.frames, True, "2×", arguments.repeats),
        compare(f"{sparse}, picture alone", hour, arguments.long_frames, False, "5×", arguments.repeats),
        compare(f"{sparse}, with sound", hour, arguments.long_frames, True, None, 1),
    ]
    report.add("From file to tensors", rows)
    report.add("Resizing and normalising alone", [compare_resizing(clip, arguments.frames, arguments.repeats)])

    short = make_clip(arguments.clips / f"{arguments.seconds // 4}s.mp4", arguments.seconds // 4)
    longer = repeat_clip(clip, arguments.clips / f"{arguments.seconds}s-5-times.mp4", 5)
    rows = [in_fresh_process(measure_memory, short, path, arguments.frames) for path in (short, clip, longer)]
    report.add(f"Most memory held by us for {arguments.frames} frames", rows)
    report.save()


if __name__ == "__main__":
    main()
