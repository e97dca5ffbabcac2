"""Headers that claim what cannot be true: rates, durations, sizes and counts."""

import resource
import struct
import time
import warnings

import pytest
from transformers import AutoProcessor

from transformers_omnivinci import NANO, media

from .media_files import Sound, remux, write_animation, write_audio, write_video

LARGEST = 2**31 - 1


@pytest.fixture(scope="module")
def nano():
    return AutoProcessor.from_pretrained(NANO)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of small files, each rendered when it is first asked for."""
    folder, found = tmp_path_factory.mktemp("claims"), {}
    makers = {
        "avi": lambda path: write_video(path, codec="mpeg4", sound=Sound(codec="mp2")),
        "mp4": lambda path: write_video(path, sound=Sound()),
        "mkv": lambda path: write_video(path, sound=Sound()),
        "gif": lambda path: write_animation(path, [100] * 6),
        "png": lambda path: write_animation(path, [100] * 6),
        "wav": lambda path: write_audio(path, Sound(seconds=0.3, codec="pcm_s16le")),
        "flac": lambda path: write_audio(path, Sound(codec="flac")),
        "m4a": lambda path: write_audio(path, Sound()),
    }

    def read(suffix):
        if suffix not in found:
            found[suffix] = makers[suffix](folder / f"clip.{suffix}").read_bytes()
        return found[suffix]

    return read


def patch(content: bytes, name: bytes, offset: int, layout: str, *values, track: int = 0) -> bytes:
    """Writes values `offset` bytes after the end of a name; `track`: which one of that name."""
    position = -1
    for _ in range(track + 1):
        position = content.index(name, position + 1)
    position += len(name) + offset
    data = struct.pack(layout, *values)
    return content[:position] + data + content[position + len(data) :]


def answers(nano, content: bytes, text: str = "<vila/video>", kind: str = "videos") -> list:
    """Tokens by headers and by loading, or the errors; within bounds of time and memory."""
    found, start, before = [], time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = {"load_audio_from_video": True, "num_frames": 8} if kind == "videos" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in (nano.count_tokens, lambda **options: len(nano(**options)["input_ids"][0])):
            try:
                found.append(call(text=text, **{kind: [content]}, **options))
            except (ValueError, OSError) as error:
                found.append(error)
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kilobytes
    return found


@pytest.mark.parametrize("rate, scale", [(1, 10**9), (10**9, 1), (24, 1 << 30), (LARGEST, 1)])
def test_rates_of_frames(nano, content, rate, scale):
    damaged = patch(content("avi"), b"vids", 16, "<II", scale, rate)
    for error in answers(nano, damaged):
        assert isinstance(error, ValueError) and "is damaged: its 72 frames are said to last" in str(error)
    with pytest.raises(ValueError, match="is damaged"):
        media.load_video(damaged)


@pytest.mark.parametrize("unit", [1, 2**24 - 1])
def test_units_of_time(nano, content, unit):
    damaged = content("mkv").replace(b"\x2a\xd7\xb1\x83\x0f\x42\x40", b"\x2a\xd7\xb1\x83" + unit.to_bytes(3, "big"))
    tokens = answers(nano, damaged)
    assert all(isinstance(error, ValueError) for error in tokens) if unit == 1 else tokens[0] == tokens[1]


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_duration_of_a_file(nano, content, seconds):
    damaged = patch(content("mkv"), b"\x44\x89\x88", 0, ">d", seconds)
    assert answers(nano, damaged) == answers(nano, content("mkv"))


@pytest.mark.slow
@pytest.mark.parametrize("track", [0, 1])
@pytest.mark.parametrize(
    "name, offset, layout, values",
    [
        (b"mdhd", 12, ">I", (1,)),
        (b"mdhd", 12, ">I", (2**32 - 1,)),
        (b"mdhd", 16, ">I", (2**32 - 2,)),
        (b"stts", 4, ">I", (LARGEST,)),
        (b"stts", 8, ">I", (LARGEST,)),
        (b"stts", 12, ">I", (LARGEST,)),
        (b"stsz", 4, ">II", (1, LARGEST)),
        (b"stsz", 8, ">I", (LARGEST,)),
        (b"stsc", 12, ">I", (LARGEST,)),
        (b"stco", 4, ">I", (LARGEST,)),
        (b"elst", 8, ">I", (LARGEST,)),
        (b"elst", 12, ">i", (LARGEST,)),
        (b"elst", 12, ">i", (-LARGEST,)),
    ],
)
def test_tables_of_an_mp4(nano, content, name, offset, layout, values, track):
    tokens = answers(nano, patch(content("mp4"), name, offset, layout, *values, track=track))
    assert isinstance(tokens[0], ValueError) == isinstance(tokens[1], ValueError)
    for error in tokens:
        assert isinstance(error, int) or "bytes>" in str(error)


@pytest.mark.parametrize("name, offset", [(b"avc1", 24), (b"tkhd", 76)])
def test_size_of_pictures(nano, content, name, offset):
    damaged = patch(content("mp4"), name, offset, ">HH", 65_535, 65_535)
    assert answers(nano, damaged) == answers(nano, content("mp4"))
    assert media.load_video(damaged).frames.shape[-2:] == (96, 128)


@pytest.mark.parametrize("channels, rate", [(2, 1), (2, 0), (2, 2**32 - 1), (65_535, 44_100), (0, 44_100)])
def test_channels_and_rates_of_sound(nano, content, channels, rate):
    for suffix, offset, arguments in (("wav", 6, ("<sound>", "audio")), ("avi", 6, ())):
        name, track = (b"fmt ", 0) if suffix == "wav" else (b"strf", 1)
        damaged = patch(content(suffix), name, offset, "<HI", channels, rate, track=track)
        tokens = answers(nano, damaged, *arguments)
        assert isinstance(tokens[0], ValueError) == isinstance(tokens[1], ValueError)
        assert suffix == "avi" or all(isinstance(error, ValueError) for error in tokens)


@pytest.mark.parametrize("total", [2**36 - 1, 1000])
def test_length_of_lossless_sound(nano, content, total):
    position = content("flac").index(b"fLaC") + 4 + 4 + 10
    packed = int.from_bytes(content("flac")[position : position + 8], "big") >> 36 << 36
    damaged = content("flac")[:position] + (packed | total).to_bytes(8, "big") + content("flac")[position + 8 :]
    assert media.probe_audio(damaged) == len(media.load_audio(damaged)) / 16_000 == 3
    tokens = answers(nano, damaged, "<sound>", "audio")
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("name, offset, value", [(b"mdhd", 16, 2**32 - 2), (b"stts", 8, LARGEST), (b"mvhd", 16, 1)])
def test_length_of_a_track(nano, content, name, offset, value):
    tokens = answers(nano, patch(content("m4a"), name, offset, ">I", value), "<sound>", "audio")
    assert tokens[0] == tokens[1]


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["video", "audio"])
@pytest.mark.parametrize("seconds", [500.0, 1e5, 1e9])
def test_a_packet_far_off(nano, tmp_path, stream, seconds):
    path = write_video(tmp_path / "clip.mp4", sound=Sound(), options={"preset": "veryfast", "bf": "0"})
    last = []

    def move(packet):
        if packet.stream.type == stream and packet.pts * packet.time_base > 2.9 and not last:
            last.append(packet)
            packet.pts = packet.dts = packet.pts + round(seconds / packet.time_base)
        return not last or packet is last[0] or packet.stream.type != stream

    tokens = answers(nano, remux(path, tmp_path / "far.mkv", move).read_bytes())
    assert last and isinstance(tokens[0], ValueError) == isinstance(tokens[1], ValueError)


def test_size_and_count_of_animations(nano, content):
    screen = content("gif")[:6] + struct.pack("<HH", 65_535, 65_535) + content("gif")[10:]
    frames = patch(content("png"), b"acTL", 0, ">I", LARGEST)
    delays = patch(content("png"), b"fcTL", 20, ">HH", 65_535, 1)
    wide = content("gif")[:6] + struct.pack("<HH", 10_000, 10_000) + content("gif")[10:]
    for damaged in (screen, frames, delays, wide):
        tokens = answers(nano, damaged)
        assert isinstance(tokens[0], ValueError) == isinstance(tokens[1], ValueError)
    assert "an animation of 10000 x 10000 pixels" in str(answers(nano, wide)[0])


def test_what_is_shown_for_long_is_no_damage(nano, tmp_path):
    path = write_video(tmp_path / "slides.mkv", 4, fps=1, pts=[0, 60, 300, 3600])
    metadata = media.load_video(path).metadata
    assert metadata.timestamps == pytest.approx([0, 60, 300, 3600])
    assert answers(nano, path.read_bytes())[0] == answers(nano, path.read_bytes())[1]
