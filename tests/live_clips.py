"""Clips with numbered frames and seconds to watch live, and what is checked of all that comes of them."""

import os
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from transformers_omnivinci.media import EVENTS, LiveSource

from .media_files import Sound, read_numbers, read_second, write_video

FPS, SECONDS = 24, 3
CONTAINERS = {
    "clip.ts": {"format": "mpegts"},
    "clip.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}},
    "clip.mkv": {},
}
# In MPEG-TS, whose sound starts with the padding of its encoder, and in fragments, the picture starts a little later.
LATE = 0.1


def write_clips(folder):
    """Clips of 72 numbered frames and 3 s of sound, by their names."""
    for name, options in CONTAINERS.items():
        write_video(folder / name, FPS * SECONDS, sound=Sound(seconds=SECONDS), **options)
    write_video(folder / "late_index.mp4", FPS * SECONDS, sound=Sound(seconds=SECONDS))
    write_video(folder / "small.ts", FPS * 2, size=(64, 48), format="mpegts", sound=Sound(seconds=2))
    write_video(folder / "silent.ts", FPS * SECONDS, format="mpegts")
    return folder


@contextmanager
def leaves_nothing():
    """No thread of a source goes on, and no file stays open."""
    handles = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "live"]
    if handles:
        assert len(os.listdir("/proc/self/fd")) <= len(handles)


class Watched:
    """All chunks of a source put together, each checked against what sessions accept."""

    def __init__(self, chunks):
        frames, self.timestamps, samples, self.events, self.starts = [], [], [], [], []
        last, end = -1.0, None
        for chunk in chunks:
            assert chunk.frames.dtype == np.uint8 and chunk.frames.shape[0] == len(chunk.timestamps)
            assert len(chunk.frames) == 0 or {frame.shape for frame in chunk.frames} == {chunk.frames.shape[1:]}
            for second in chunk.timestamps:
                assert second > last
                last = second
            assert last <= chunk.end + 1e-6
            if chunk.samples is not None:
                assert chunk.samples.dtype == np.float32 and np.abs(chunk.samples).max(initial=0) <= 1
                assert end is None or chunk.start >= end - 1e-9
                end = chunk.start + len(chunk.samples) / 16_000
                samples.append(chunk.samples)
                self.starts.append(chunk.start)
            frames += list(chunk.frames)
            self.timestamps += chunk.timestamps.tolist()
            self.events += chunk.events
        self.frames, self.samples = frames, np.concatenate(samples) if samples else None
        assert all(event.kind in EVENTS and event.message.endswith(".") for event in self.events)

    @property
    def kinds(self):
        return [event.kind for event in self.events]

    def heard(self, second: float) -> int:
        """Which second of the rendered sound is heard at a second."""
        return read_second(self.samples[round(second * 16_000) : round((second + 0.3) * 16_000)])


def watch(source, **options) -> Watched:
    options = {"fps": 4, "timeout": 0.3, "backoff": 0.02, **options}
    with LiveSource(source, **options) as opened:
        return Watched(opened)


def is_whole(watched: Watched, num_seconds: int = SECONDS) -> None:
    """The whole clip was seen and heard, its picture and sound together."""
    numbers = read_numbers(watched.frames)
    assert len(numbers) in (num_seconds * 4, num_seconds * 4 + 1)
    for number, second in zip(numbers, watched.timestamps):
        assert 0 <= second - number / FPS <= LATE
    assert np.diff(watched.timestamps) == pytest.approx(0.25, abs=0.1)
    assert num_seconds <= len(watched.samples) / 16_000 < num_seconds + LATE
    assert [watched.heard(second + 0.35) for second in range(num_seconds)] == list(range(num_seconds))
