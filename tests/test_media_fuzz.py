"""Media files damaged at random, of a seed: each gives tokens or one clear error, in bounded time and memory."""

import os
import resource
import signal
import warnings
from contextlib import contextmanager

import av
import numpy as np
import PIL.Image
import pytest
from transformers import AutoProcessor

from transformers_omnivinci import NANO

from .media_files import Sound, image_bytes, render_frame, write_animation, write_audio, write_video

# `make fuzz` asks for more.
MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", 24))
SEED = int(os.environ.get("FUZZ_SEED", 0))
SECONDS, MEGABYTES = 20, 1500
SMALL = {"num_frames": 24, "size": (64, 48)}


def write(path, **options):
    return write_video(path, **{**SMALL, **options}).read_bytes()


FILES = {
    "mp4": lambda path: write(path / "a.mp4", sound=Sound(seconds=1.0)),
    "mkv": lambda path: write(path / "a.mkv", sound=Sound(seconds=1.0)),
    "webm": lambda path: write(path / "a.webm", codec="libvpx-vp9", sound=Sound(1.0, rate=48_000, codec="libopus")),
    "avi": lambda path: write(path / "a.avi", codec="mpeg4", sound=Sound(seconds=1.0, codec="mp2")),
    "ts": lambda path: 2 * write(path / "a.ts", format="mpegts", sound=Sound(seconds=1.0)),
    "flv": lambda path: write(path / "a.flv", sound=Sound(seconds=1.0)),
    "gif": lambda path: write_animation(path / "a.gif", [100] * 6).read_bytes(),
    "apng": lambda path: write_animation(path / "a.png", [100] * 6).read_bytes(),
    "webp": lambda path: write_animation(path / "a.webp", [100] * 6).read_bytes(),
    "png": lambda path: image_bytes(PIL.Image.fromarray(render_frame(99))),
    "jpg": lambda path: image_bytes(PIL.Image.fromarray(render_frame(99)), "JPEG"),
    "wav": lambda path: write_audio(path / "a.wav", Sound(seconds=0.2, codec="pcm_s16le")).read_bytes(),
    "mp3": lambda path: write_audio(path / "a.mp3", Sound(seconds=1.0, codec="libmp3lame")).read_bytes(),
    "flac": lambda path: write_audio(path / "a.flac", Sound(seconds=0.5, codec="flac")).read_bytes(),
    "m4a": lambda path: write_audio(path / "a.m4a", Sound(seconds=1.0)).read_bytes(),
}
PROMPTS = {
    **dict.fromkeys(["wav", "mp3", "flac", "m4a"], ("<sound>", "audio")),
    **dict.fromkeys(["png", "jpg"], ("<image>", "images")),
}


@pytest.fixture(scope="module")
def nano():
    return AutoProcessor.from_pretrained(NANO)


@contextmanager
def limits(name: str):
    """Fails what takes too long, or far more memory than before."""

    def stop(*_):
        pytest.fail(f"{name}: no answer in {SECONDS} s")  # no Exception, which decoders may swallow

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert used < MEGABYTES, f"{name}: {used:.0f} MB"


def damage(content: bytes, random: np.random.Generator) -> bytes:
    """A few bytes, words or stretches of a file changed, mostly near its ends, where headers are."""
    content = bytearray(content)
    for _ in range(random.integers(1, 5)):
        share = random.random() ** 3
        position = int((share if random.random() < 0.7 else 1 - share) * (len(content) - 8))
        kind = random.integers(6)
        if kind < 2:
            content[position] ^= 1 << random.integers(8)
        elif kind == 2:
            word = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"][random.integers(4)]
            content[position : position + 4] = word
        elif kind == 3:
            content[position : position + 4] = random.bytes(4)
        elif kind == 4:
            length = int(random.integers(1, 200))
            content[position : position + length] = content[position : position + length] * int(random.integers(3))
        elif random.random() < 0.3:
            del content[max(position, 16) :]
        if len(content) < 16:
            break
    return bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_tokens_or_a_clear_error(nano, tmp_path, name):
    content = FILES[name](tmp_path)
    text, kind = PROMPTS.get(name, ("<vila/video>", "videos"))
    options = {"load_audio_from_video": True, "num_frames": 4} if kind == "videos" else {}
    num_read = 0
    for mutation in range(MUTATIONS):
        damaged = damage(content, np.random.default_rng([SEED, mutation, *name.encode()]))
        for call in (nano.count_tokens, nano):
            with limits(f"{name}, mutation {mutation} of seed {SEED}"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    call(text=text, **{kind: [damaged]}, **options)
                    num_read += 1
                except (ValueError, OSError) as error:
                    assert str(error) and not isinstance(error, av.FFmpegError), repr(error)
    assert num_read or MUTATIONS < 20  # else nothing but the first bytes was ever tried
