"""Rendered clips of many containers and codecs that the tests of media share, and what is done with them."""

import tempfile
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from .media_files import Sound, read_second, write_video

RATE = 16_000
NTSC = Fraction(30_000, 1001)
# Milliseconds between the frames of a clip of variable frame rate.
GAPS = [40 + 37 * (number * number % 11) for number in range(71)]
VARIABLE = {"pts": np.cumsum([0, *GAPS]).tolist(), "time_base": Fraction(1, 1000)}
PYRAMID = {"preset": "veryfast", "threads": "1", "x264-params": "keyint=40:scenecut=0:bframes=7:b-pyramid=normal"}
OPEN_GOP = {"preset": "veryfast", "threads": "1", "x264-params": "keyint=20:min-keyint=20:scenecut=0:open-gop=1"}
REFRESH = {"preset": "veryfast", "threads": "1", "x264-params": "keyint=20:scenecut=0:intra-refresh=1"}

CLIPS = {
    "plain.mp4": {"sound": Sound()},
    "pyramid.mp4": {"options": PYRAMID},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.ts": {"options": OPEN_GOP, "format": "mpegts", "sound": Sound()},
    "refresh.mkv": {"options": REFRESH},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "late.mp4": {"pts": list(range(12, 84)), "sound": Sound(start=0.5)},
    "hevc.mkv": {"codec": "libx265"},
    "vp9.webm": {"codec": "libvpx-vp9", "sound": Sound(rate=48_000, codec="libopus")},
    "ntsc.mkv": {"fps": NTSC, "sound": Sound()},
    "variable.mkv": VARIABLE,
    "variable.mp4": VARIABLE,
    "reordered.avi": {},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "24", "bf": "2"}, "sound": Sound(codec="mp2")},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "15", "bf": "2"}, "fps": 25},
    "raw.h264": {"format": "h264"},
    "flash.flv": {},
    "turned.mp4": {"turn": 90},
    "turned.mkv": {"turn": 270},
    "upside_down.mp4": {"turn": 180},
    "odd.mkv": {"size": (97, 75), "pix_fmt": "yuv444p"},
    "grey.mkv": {"codec": "ffv1", "pix_fmt": "gray"},
    "deep.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
}


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Paths of `CLIPS`, each rendered when it is first asked for."""
    folder = tmp_path_factory.mktemp("clips")

    def path(name):
        return folder / name if (folder / name).exists() else write_video(folder / name, **CLIPS[name])

    return path


@pytest.fixture(scope="session")
def decode_all(clip):
    """Every frame of a clip, decoded by PyAV from start to end."""
    decoded = {}

    def decode(name):
        if name not in decoded:
            with av.open(str(clip(name))) as container:
                frames = [(frame.to_ndarray(format="rgb24"), frame.rotation) for frame in container.decode(video=0)]
            decoded[name] = np.stack([np.rot90(frame, rotation // 90) for frame, rotation in frames])
        return decoded[name]

    return decode


@pytest.fixture
def many_seeks(monkeypatch):
    """Makes short clips be decoded as long ones are: with seeks, by several decoders."""
    monkeypatch.setattr("transformers_omnivinci.media.frames._MIN_SEEK", 8)
    monkeypatch.setattr("transformers_omnivinci.media.frames._MIN_SHARE", 8)


@pytest.fixture
def no_leftovers(capfd, monkeypatch, tmp_path):
    """Nothing may be printed, left in the temporary folder or left running."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert capfd.readouterr() == ("", "")
    assert list(folder.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("frames", "sound", "video"))]


def pick(indices):
    """A `sample_indices_fn` that always chooses these frames."""
    return lambda metadata: indices


def to_arrays(frames):
    """Frames (num_frames, 3, height, width) as an array (num_frames, height, width, 3)."""
    return frames.permute(0, 2, 3, 1).numpy()


def onset(waveform):
    """Second at which a waveform is first heard."""
    return float(np.argmax(np.abs(waveform) > 0.05)) / RATE


def seconds_heard(waveform, times):
    """Which second of [`render_sound`] is heard from each of the times on."""
    return [read_second(waveform[round(time * RATE) : round((time + 0.3) * RATE)]) for time in times]
