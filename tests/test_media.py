"""Decoding of real files, rendered for the occasion: which frames come out, when they are shown, what is heard."""

import ast
import base64
import http.server
import io
import os
import sys
import tempfile
import threading
import time
import warnings
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformers_omnivinci import media

from .media_files import (
    BRIGHT,
    PADDING,
    Sound,
    image_bytes,
    read_number,
    read_numbers,
    read_second,
    remux,
    render_frame,
    render_sound,
    write_animation,
    write_audio,
    write_video,
    zero_media_data,
)

pytestmark = pytest.mark.compat

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


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Paths of `CLIPS`, each rendered when it is first asked for."""
    folder = tmp_path_factory.mktemp("clips")

    def path(name):
        return folder / name if (folder / name).exists() else write_video(folder / name, **CLIPS[name])

    return path


@pytest.fixture(scope="module")
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
    monkeypatch.setattr(media.frames, "_MIN_SEEK", 8)
    monkeypatch.setattr(media.frames, "_MIN_SHARE", 8)


@pytest.fixture(autouse=True)
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
    return lambda metadata: indices


def to_arrays(frames):
    return frames.permute(0, 2, 3, 1).numpy()


# -------------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("name", CLIPS)
def test_all_frames_come_in_order(clip, decode_all, name):
    video = media.load_video(clip(name))
    assert read_numbers(video.frames) == list(range(72))
    assert np.array_equal(to_arrays(video.frames), decode_all(name))
    assert video.frames.dtype == torch.uint8
    assert video.metadata.frames_indices == list(range(72))
    assert (video.metadata.height, video.metadata.width) == video.frames.shape[-2:]
    assert video.waveform is None


@pytest.mark.parametrize("indices", [[0], [71], [19, 20, 21], [5, 33, 62], [0, 0, 40, 40, 40, 71], range(3, 72, 9)])
@pytest.mark.parametrize("name", CLIPS)
def test_sampled_frames_are_those_of_a_full_decoding(clip, decode_all, many_seeks, monkeypatch, name, indices):
    plans = []
    decode_runs = media.frames._decode_runs
    monkeypatch.setattr(media.frames, "_decode_runs", lambda *args: plans.append(args[2]) or decode_runs(*args))
    video = media.load_video(clip(name), sample_indices_fn=pick(indices))
    assert video.metadata.frames_indices == list(indices)
    assert np.array_equal(to_arrays(video.frames), decode_all(name)[list(indices)])
    # Decoding all is the last resort, for streams without key frames or times.
    assert all(plan[0].key is not None for plan in plans) or name in ("refresh.mkv", "raw.h264") or ".avi" in name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["pyramid.mp4", "open_gop.mp4", "open_gop.ts", "variable.mkv", "vp9.webm", "hevc.mkv"]),
    indices=st.lists(st.integers(0, 71), min_size=1, max_size=12),
    num_threads=st.integers(1, 4),
)
def test_any_choice_of_frames(clip, decode_all, many_seeks, name, indices, num_threads):
    video = media.load_video(clip(name), sample_indices_fn=pick(indices), num_threads=num_threads)
    assert video.metadata.frames_indices == indices
    assert np.array_equal(to_arrays(video.frames), decode_all(name)[indices])


def test_long_clip_by_seeking(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", 900, size=(64, 48))
    seeks, decoders = [], []
    demux_from, decode_runs = media.timeline.demux_from, media.frames._decode_runs
    monkeypatch.setattr(media.timeline, "demux_from", lambda *args: seeks.append(args) or demux_from(*args))
    monkeypatch.setattr(media.frames, "_decode_runs", lambda *args: decoders.append(args) or decode_runs(*args))
    video = media.load_video(path, sample_indices_fn=pick([150, 450, 899]))
    assert read_numbers(video.frames) == [150, 450, 899]
    assert len(seeks) == 3
    video = media.load_video(path, sample_indices_fn=pick(range(0, 900, 10)), num_threads=3)
    assert read_numbers(video.frames) == list(range(0, 900, 10))
    assert len(decoders) == 1 + 3


def test_broadcast_that_starts_between_key_frames(clip, tmp_path):
    content = clip("open_gop.ts").read_bytes()
    start = content.index(b"\x47", len(content) // 6 // 188 * 188)
    video = media.load_video(content[start:])  # no frame is said to be lost: those before the key frame never count
    numbers = read_numbers(video.frames)
    assert numbers == list(range(20, 72)) and video.metadata.total_num_frames == 52
    assert video.metadata.timestamps == pytest.approx(np.arange(52) / 24)


@pytest.mark.parametrize("name", ["plain.mp4", "pyramid.mp4", "open_gop.mp4", "late.mp4", "turned.mp4"])
def test_headers_tell_enough_of_an_mp4(clip, monkeypatch, name):
    if hasattr(av.stream.Stream, "index_entries"):  # PyAV before 17 reads the packets
        monkeypatch.setattr(media.timeline, "read_packets", None)
    assert media.probe_video(clip(name)).total_num_frames == 72
    assert read_numbers(media.load_video(clip(name), sample_indices_fn=pick([21, 45])).frames) == [21, 45]


def test_transform_is_applied_to_each_frame_and_frames_are_dropped(clip):
    shapes = []

    def shrink(frame):
        shapes.append((tuple(frame.shape), frame.dtype, frame.stride(0)))
        return frame[:, ::2, ::2].float() / 255

    video = media.load_video(clip("plain.mp4"), sample_indices_fn=pick([3, 3, 30]), transform=shrink)
    assert shapes == [((3, 96, 128), torch.uint8, 1)] * 2  # a repeated frame is transformed once
    assert video.frames.shape == (3, 3, 48, 64) and video.frames.dtype == torch.float32
    assert read_numbers(video.frames * 255) == [3, 3, 30]
    assert (video.metadata.height, video.metadata.width) == (96, 128)


def test_errors_of_transform_and_sampling_reach_the_caller(clip):
    with pytest.raises(ZeroDivisionError):
        media.load_video(clip("plain.mp4"), transform=lambda frame: 1 / 0, load_audio=True)
    with pytest.raises(ZeroDivisionError):
        media.load_video(clip("plain.mp4"), sample_indices_fn=lambda metadata: 1 / 0)
    widths = iter(range(1, 100))
    with pytest.raises(ValueError, match="one shape"):
        media.load_video(clip("plain.mp4"), transform=lambda frame: frame[:, :, : next(widths)])


@pytest.mark.parametrize("indices", [[], [72], [-1], [0.5], [[0, 1]], None])
def test_indices_are_checked(clip, indices):
    with pytest.raises(ValueError, match="sample_indices_fn"):
        media.load_video(clip("plain.mp4"), sample_indices_fn=pick(indices))


@pytest.mark.parametrize("colorspace, color_range", [(5, 1), (1, 1), (1, 2)])
def test_colours_follow_the_metadata_of_the_stream(tmp_path, colorspace, color_range):
    colours = [(255, 0, 0), (0, 200, 0), (30, 60, 250), (255, 255, 255), (0, 0, 0), (128, 128, 128)]
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    path = write_video(
        tmp_path / "colours.mkv",
        len(colours),
        size=(32, 32),
        codec="ffv1",
        pictures=pictures,
        color={"colorspace": colorspace, "color_range": color_range},
    )
    frames = media.load_video(path).frames
    assert (frames.amax((2, 3)).int() - torch.tensor(colours)).abs().max() <= 2
    assert (frames.amin((2, 3)).int() - torch.tensor(colours)).abs().max() <= 2


# -------------------------------------------------------------------------------------------------------------- timing


@pytest.mark.parametrize("name", CLIPS)
def test_metadata(clip, name):
    options = CLIPS[name]
    seen = []
    video = media.load_video(clip(name), sample_indices_fn=lambda metadata: seen.append(replace(metadata)) or [0, 50])
    probed = media.probe_video(clip(name), sample_indices_fn=pick([0, 50]))
    size = options.get("size", (128, 96))
    for metadata in (*seen, probed, video.metadata):
        assert isinstance(metadata, media.OmniVinciVideoMetadata)
        assert metadata.total_num_frames == 72
        assert (metadata.width, metadata.height) == size
        if "time_base" in options:
            times = np.array(options["pts"]) / 1000
            assert 71 / times[-1] * 0.95 < metadata.fps < 72 / times[-1] * 1.001
            assert times[-1] - 1e-3 < metadata.duration < times[-1] + 0.5
            assert metadata.fps == pytest.approx(72 / metadata.duration)
        else:
            assert metadata.fps == pytest.approx(float(options.get("fps", 24)), rel=1e-4)
            assert metadata.duration == pytest.approx(72 / metadata.fps)
    assert video.metadata.video_backend == "pyav"
    for metadata in (probed, video.metadata):
        assert metadata.frames_indices == [0, 50]
        if "time_base" in options:
            assert metadata.timestamps == metadata.frame_times == pytest.approx([0, times[50]], abs=2e-3)
        else:
            assert metadata.frame_times is None
            assert metadata.timestamps == pytest.approx([0, 50 / metadata.fps])


def replace(metadata):
    return media.OmniVinciVideoMetadata(**dict(metadata))


def test_dropped_frames_make_the_rate_variable(tmp_path):
    pts = [number for number in range(75) if number not in (30, 31, 32)]
    for suffix in ("mp4", "mkv"):
        path = write_video(tmp_path / f"dropped.{suffix}", pts=pts)
        metadata = media.probe_video(path, sample_indices_fn=pick([29, 30, 71]))
        assert metadata.timestamps == pytest.approx([29 / 24, 33 / 24, 74 / 24], abs=1e-3)
        assert metadata.duration == pytest.approx(75 / 24, abs=0.01)


def test_evenly_decoded_frames_need_not_be_evenly_shown(tmp_path):
    options = {"preset": "veryfast", "threads": "1", "x264-params": "keyint=24:scenecut=0:bframes=0"}
    even = write_video(tmp_path / "even.mp4", options=options)

    def delay(packet):
        packet.pts += (packet.pts * packet.time_base >= 2) * round(0.25 / packet.time_base)
        return True

    path = remux(even, tmp_path / "delayed.mp4", delay)
    video = media.load_video(path, sample_indices_fn=pick([47, 48, 71]))
    assert read_numbers(video.frames) == [47, 48, 71]
    assert video.metadata.timestamps == pytest.approx([47 / 24, 54 / 24, 77 / 24])


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path):
    options = {"avoid_negative_ts": "disabled"}
    path = write_video(tmp_path / "edited.mp4", pts=list(range(-12, 60)), container_options=options)
    video = media.load_video(path, sample_indices_fn=lambda metadata: range(metadata.total_num_frames))
    assert read_numbers(video.frames) == list(range(12, 72))
    assert video.metadata.timestamps == pytest.approx(np.arange(60) / 24)


@pytest.mark.parametrize(
    "start, end, first, last",
    [
        (None, 1.0, 0, 23),
        (1.0, None, 24, 71),
        (1.0, 2.0, 24, 47),
        (1.01, 1.02, 24, 24),
        (0, 3, 0, 71),
        (2.9, 3.9, 69, 71),
    ],
)
@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.ts", "late.mp4", "reordered.avi", "vp9.webm"])
def test_part(clip, many_seeks, name, start, end, first, last):
    options = {"video_start": start, "video_end": end}
    video = media.load_video(clip(name), **options)
    assert read_numbers(video.frames) == list(range(first, last + 1))
    metadata = video.metadata
    assert metadata.frames_indices == list(range(last - first + 1))
    assert metadata.total_num_frames == last - first + 1
    assert metadata.duration == pytest.approx((last - first + 1) / 24)
    assert metadata.timestamps[0] == 0
    assert media.probe_video(clip(name), **options).duration == metadata.duration
    sampled = media.load_video(
        clip(name), sample_indices_fn=lambda metadata: [metadata.total_num_frames - 1], **options
    )
    assert read_numbers(sampled.frames) == [last]


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv"])
def test_part_of_variable_rate(clip, many_seeks, name):
    times = np.array(VARIABLE["pts"]) / 1000
    video = media.load_video(clip(name), video_start=times[20] + 0.01, video_end=times[50])
    assert read_numbers(video.frames) == list(range(20, 50))
    assert video.metadata.timestamps == pytest.approx(times[20:50] - times[20], abs=2e-3)
    assert video.metadata.duration == pytest.approx(times[50] - times[20], abs=2e-3)
    assert video.metadata.fps == pytest.approx(30 / video.metadata.duration)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"video_start": -1}, ValueError),
        ({"video_end": -0.5}, ValueError),
        ({"video_end": 0}, ValueError),
        ({"video_start": 2, "video_end": 1}, ValueError),
        ({"video_start": 1, "video_end": 1}, ValueError),
        ({"video_start": 3.0}, ValueError),
        ({"video_start": 1e9}, ValueError),
        ({"video_end": 4.1}, ValueError),
        ({"video_start": float("nan")}, ValueError),
        ({"video_end": float("inf")}, ValueError),
        ({"video_start": "1"}, TypeError),
        ({"video_start": True}, TypeError),
    ],
)
def test_parts_that_do_not_exist(clip, options, error):
    for read in (media.load_video, media.probe_video):
        with pytest.raises(error, match=next(iter(options)).split("_")[0]):
            read(clip("plain.mp4"), **options)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.floats(0, 2.9), seconds=st.floats(0.01, 3.5), name=st.sampled_from(["plain.mp4", "ntsc.mkv"]))
def test_any_part_covers_what_is_on_screen(clip, start, seconds, name):
    end = min(start + seconds, 2.95)
    if end <= start:
        return
    fps = float(CLIPS[name].get("fps", 24))
    start, end = start * 24 / fps, end * 24 / fps
    video = media.load_video(clip(name), video_start=start, video_end=end)
    numbers = read_numbers(video.frames)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] / fps <= start + 1e-3 and start - 1e-3 <= (numbers[0] + 1) / fps
    assert numbers[-1] / fps <= end + 1e-3 and end - 1e-3 <= (numbers[-1] + 1) / fps


# --------------------------------------------------------------------------------------------------------------- sound


def onset(waveform):
    """Second at which a waveform is first heard."""
    return float(np.argmax(np.abs(waveform) > 0.05)) / RATE


def seconds_heard(waveform, times):
    return [read_second(waveform[round(time * RATE) : round((time + 0.3) * RATE)]) for time in times]


@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.ts", "vp9.webm", "ntsc.mkv", "mpeg4.avi", "late.mp4"])
def test_sound_of_a_video(clip, name):
    video = media.load_video(clip(name), load_audio=True)
    waveform = video.waveform
    assert waveform.dtype == np.float32 and waveform.ndim == 1 and np.abs(waveform).max() <= 1
    assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.1)  # stereo is averaged, not added
    assert seconds_heard(waveform, [0.3, 1.3, 2.3]) == [0, 1, 2]
    assert onset(waveform) < 0.03
    assert video.metadata.audio_duration == len(waveform) / RATE == pytest.approx(3, abs=0.06)
    assert media.probe_video(clip(name)).audio_duration == pytest.approx(len(waveform) / RATE, abs=PADDING)


@pytest.mark.parametrize("suffix, codec", [("mp4", "aac"), ("mkv", "aac"), ("webm", "libopus"), ("mov", "pcm_s16le")])
def test_sound_is_aligned_to_the_first_frame(tmp_path, suffix, codec):
    picture = {"codec": "libvpx-vp9"} if suffix == "webm" else {}
    late, early = Sound(start=0.75, rate=48_000, codec=codec), Sound(rate=48_000, codec=codec)
    path = write_video(tmp_path / f"late.{suffix}", sound=late, **picture)
    waveform = media.load_video(path, load_audio=True).waveform
    assert onset(waveform) == pytest.approx(0.75, abs=0.002)
    assert seconds_heard(waveform, [1.1, 2.1, 3.1]) == [0, 1, 2]
    path = write_video(tmp_path / f"early.{suffix}", pts=list(range(12, 84)), sound=early, **picture)
    video = media.load_video(path, load_audio=True)
    assert seconds_heard(video.waveform, [0.1, 0.6, 1.6]) == [0, 1, 2]
    assert video.metadata.audio_duration == pytest.approx(2.5, abs=0.03)


@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.ts", "vp9.webm", "ntsc.mkv", "mpeg4.avi"])
def test_sound_of_a_part(clip, many_seeks, name):
    whole = media.load_video(clip(name), load_audio=True).waveform
    video = media.load_video(clip(name), load_audio=True, video_start=1.5, video_end=2.75)
    metadata = video.metadata
    assert len(video.waveform) == round(metadata.duration * RATE)
    assert metadata.audio_duration == pytest.approx(metadata.duration, abs=1e-4)
    assert seconds_heard(video.waveform, [0.1, 0.6]) == [1, 2]
    start = round(read_number(video.frames[0]) / metadata.fps * RATE)
    delays = range(-40, 41)
    errors = [np.abs(whole[start + d : start + d + 8000] - video.waveform[:8000]).mean() for d in delays]
    assert abs(delays[int(np.argmin(errors))]) <= (0.0015 + PADDING / 60) * RATE
    assert media.probe_video(clip(name), video_start=1.5, video_end=2.75).audio_duration == pytest.approx(
        metadata.audio_duration, abs=1e-4
    )
    open_end = media.load_video(clip(name), load_audio=True, video_start=1.5)
    assert len(open_end.waveform) == pytest.approx(len(whole) - start, abs=40)


def test_part_before_and_after_the_sound(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 120, sound=Sound(seconds=1.0, start=2.0))
    before = media.load_video(path, load_audio=True, video_end=1.0)
    assert len(before.waveform) == RATE and not before.waveform.any()
    after = media.load_video(path, load_audio=True, video_start=4.0)
    assert len(after.waveform) == 0 and after.metadata.audio_duration == 0


def test_sound_may_be_limited_or_missing(clip):
    video = media.load_video(clip("plain.mp4"), load_audio=True, max_audio_seconds=0.5, sample_indices_fn=pick([71]))
    assert len(video.waveform) == RATE // 2
    assert video.metadata.audio_duration == pytest.approx(3, abs=0.03)
    video = media.load_video(clip("pyramid.mp4"), load_audio=True)
    assert video.waveform is None and video.metadata.audio_duration is None


def test_lost_sound_becomes_silence(clip, tmp_path):
    def keep(packet):
        return packet.stream.type == "video" or not 1 < packet.pts * packet.time_base < 2

    path = remux(clip("open_gop.ts"), tmp_path / "lost.ts", keep)
    waveform = media.load_video(path, load_audio=True).waveform
    assert len(waveform) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert seconds_heard(waveform, [0.3, 2.3]) == [0, 2]
    assert np.abs(waveform[round(1.2 * RATE) : round(1.8 * RATE)]).max() < 1e-3


def test_sound_long_after_the_end_of_the_picture_has_a_wrong_clock(clip, tmp_path):
    def delay(packet):
        late = round(1e4 / packet.time_base) * (packet.stream.type == "audio")
        packet.pts, packet.dts = packet.pts + late, packet.dts + late
        return True

    path = remux(clip("ntsc.mkv"), tmp_path / "wrong.mkv", delay)
    waveform = media.load_video(path, load_audio=True).waveform
    assert len(waveform) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert seconds_heard(waveform, [0.3, 1.3, 2.3]) == [0, 1, 2]


SOUNDS = {
    "plain.wav": Sound(rate=44_100, codec="pcm_s16le"),
    "telephone.wav": Sound(rate=8_000, layout="mono", codec="pcm_mulaw"),
    "surround.m4a": Sound(rate=48_000, layout="5.1"),
    "bytes.wav": Sound(rate=RATE, layout="mono", codec="pcm_u8"),
    "float.wav": Sound(rate=RATE, layout="mono", codec="pcm_f32le"),
    "lossless.flac": Sound(rate=96_000, codec="flac"),
    "song.mp3": Sound(codec="libmp3lame"),
    "opus.ogg": Sound(rate=48_000, codec="libopus"),
    "stream.aac": Sound(),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_audio_files(tmp_path, name):
    path = write_audio(tmp_path / name, SOUNDS[name], **({"format": "adts"} if name.endswith(".aac") else {}))
    waveform = media.load_audio(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert len(waveform) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert seconds_heard(waveform, [0.3, 1.3, 2.3]) == [0, 1, 2]
    assert media.probe_audio(path) == pytest.approx(len(waveform) / RATE, abs=PADDING)
    if path.suffix in (".wav", ".flac"):
        expected = render_sound(3, RATE)[0]
        assert np.abs(waveform[200:-200] - expected[: len(waveform)][200:-200]).mean() < 0.02
    short = media.load_audio(path, max_seconds=0.25)
    assert np.array_equal(short, waveform[: RATE // 4])
    assert len(media.load_audio(path, sampling_rate=8_000)) == pytest.approx(len(waveform) / 2, abs=1)


def test_channels_are_averaged(tmp_path):
    samples = np.zeros((6, RATE), np.float32)
    samples[3] = 0.6  # the low-frequency channel, which FFmpeg would drop
    path = write_audio(tmp_path / "lfe.wav", Sound(rate=RATE, layout="5.1", codec="pcm_f32le"), samples)
    assert media.load_audio(path)[100:-100] == pytest.approx(0.1, abs=1e-4)
    samples = np.full((2, RATE), 0.9, np.float32)
    path = write_audio(tmp_path / "loud.wav", Sound(rate=RATE, layout="stereo", codec="pcm_f32le"), samples)
    assert media.load_audio(path)[100:-100] == pytest.approx(0.9, abs=1e-4)


def test_any_number_of_channels(tmp_path):
    for num_channels in (3, 8, 12):
        with wave.open(str(tmp_path / "channels.wav"), "wb") as file:
            file.setparams((num_channels, 2, 44_100, 0, "NONE", ""))
            file.writeframes(np.repeat(render_sound(1, 44_100)[0] * 32_767, num_channels).astype("<i2").tobytes())
        waveform = media.load_audio(tmp_path / "channels.wav")
        assert len(waveform) == RATE and np.abs(waveform).max() == pytest.approx(0.5, abs=0.01)


def test_audio_of_a_video_starts_with_its_track(clip, tmp_path):
    path = write_video(tmp_path / "late.mkv", sound=Sound(start=1.0))
    waveform = media.load_audio(path)
    assert onset(waveform) < 0.03 and len(waveform) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert media.probe_audio(path) == pytest.approx(len(waveform) / RATE, abs=0.03)


@pytest.mark.parametrize("options", [{"sampling_rate": 0}, {"sampling_rate": 16e3}, {"max_seconds": 0}])
def test_audio_options_are_checked(clip, options):
    with pytest.raises(ValueError, match="not accepted"):
        media.load_audio(clip("plain.mp4"), **options)


# ------------------------------------------------------------------------------------------------------------- sources


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serves a folder on this computer; `/slow` says nothing, `/broken` hangs up midway, `/moved` points elsewhere."""
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            if self.path == "/slow":
                time.sleep(1)
            elif self.path == "/broken":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 10)
            elif self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/clip.mp4")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Pipe(io.RawIOBase):
    """A binary file that can only be read from start to end."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def read(self, size=-1):
        return self.content.read(size)


@pytest.mark.parametrize(
    "kind", ["str", "path", "file url", "bytes", "file", "BytesIO", "pipe", "data", "http", "moved"]
)
def test_sources(clip, server, kind):
    path = clip("plain.mp4")
    content = path.read_bytes()
    folder, address = server
    (folder / "clip.mp4").write_bytes(content)
    file = open(path, "rb")  # noqa: SIM115
    file.seek(5)
    source = {
        "str": str(path),
        "path": path,
        "file url": path.as_uri(),
        "bytes": content,
        "file": file,
        "BytesIO": io.BytesIO(content),
        "pipe": Pipe(content),
        "data": "data:video/mp4;base64," + base64.b64encode(content).decode(),
        "http": address + "/clip.mp4",
        "moved": address + "/moved",
    }[kind]
    video = media.load_video(source, sample_indices_fn=pick([10, 70]), load_audio=True, timeout=10)
    assert read_numbers(video.frames) == [10, 70]
    assert seconds_heard(video.waveform, [1.3]) == [1]
    assert not file.closed and file.tell() == 5
    file.close()


def test_other_media_by_url(server):
    folder, address = server
    (folder / "image.png").write_bytes(image_bytes(PIL.Image.fromarray(render_frame(77))))
    write_audio(folder / "sound.wav", Sound(seconds=1.0, codec="pcm_s16le"))
    assert read_number(media.load_image(address + "/image.png")) == 77
    assert len(media.load_audio(address + "/sound.wav")) == RATE
    assert media.probe_audio(address + "/sound.wav") == 1


@pytest.mark.parametrize(
    "path, error, words",
    [
        ("/nothing.mp4", OSError, "404"),
        ("/slow", TimeoutError, "0.2 s"),
        ("/broken", ConnectionError, "cannot be downloaded"),
    ],
)
def test_failing_downloads(server, path, error, words):
    for read in (media.load_video, media.load_audio, media.load_image):
        with pytest.raises(error, match=words):
            read(server[1] + path, timeout=0.2)


def test_unreachable_server():
    with pytest.raises(ConnectionError, match="cannot be downloaded"):
        media.load_video("http://127.0.0.1:9/clip.mp4", timeout=5)
    with pytest.raises(ConnectionError, match="cannot be downloaded"):
        media.load_video("http://", timeout=5)


@pytest.mark.parametrize(
    "source, error, words",
    [
        ("nowhere.mp4", FileNotFoundError, "nowhere.mp4"),
        ("", FileNotFoundError, "no file"),
        ("ftp://example.org/clip.mp4", ValueError, "http"),
        ("data:video/mp4,abc", ValueError, "base64"),
        ("data:video/mp4;base64,a?", ValueError, "not base64"),
        (b"", ValueError, "empty"),
        (b"hello " * 100, ValueError, "600 bytes"),
        (io.StringIO("hello"), TypeError, "binary"),
        (None, TypeError, "NoneType"),
        (7, TypeError, "int"),
        (os.curdir, IsADirectoryError, "folder"),
        (os.devnull, OSError, "regular"),
    ],
)
def test_sources_that_are_none(source, error, words):
    for read in (media.load_video, media.probe_video, media.load_audio, media.probe_audio, media.load_image):
        with pytest.raises(error, match=words):
            read(source)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.txt"])
def test_text_is_no_video(tmp_path, name):
    path = tmp_path / name
    path.write_text("Once upon a time there was no video.\n" * 100)
    for read in (media.load_video, media.load_audio, media.load_image):
        with pytest.raises(ValueError, match=name):
            read(path)


def test_missing_streams(clip, tmp_path):
    sound = write_audio(tmp_path / "sound.m4a", Sound(seconds=1.0))
    for read in (media.load_video, media.probe_video):
        with pytest.raises(ValueError, match="no video stream.*audio"):
            read(sound)
    for read in (media.load_audio, media.probe_audio):
        with pytest.raises(ValueError, match="no audio stream.*video"):
            read(clip("pyramid.mp4"))


def test_cover_of_a_song_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp3"), "w") as container:
        audio = container.add_stream("libmp3lame", rate=44_100)
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        sound = av.AudioFrame.from_ndarray(render_sound(1, 44_100, 2), format="fltp", layout="stereo")
        sound.sample_rate = 44_100
        container.mux(cover.encode(av.VideoFrame.from_ndarray(render_frame(1, 32, 32), format="rgb24")))
        container.mux([*audio.encode(sound), *audio.encode()])
    with pytest.raises(ValueError, match="no video stream"):
        media.load_video(tmp_path / "song.mp3")
    assert len(media.load_audio(tmp_path / "song.mp3")) == pytest.approx(RATE, abs=0.06 * RATE)


# -------------------------------------------------------------------------------------------------------------- damage


def test_truncated_files(clip, tmp_path):
    content = clip("plain.mp4").read_bytes()
    with pytest.raises(ValueError, match="damaged"):
        media.load_video(content[: len(content) // 2])  # the table `moov` comes last
    path = write_video(tmp_path / "fast.mp4", sound=Sound(), container_options={"movflags": "faststart"})
    content = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        video = media.load_video(content[: len(content) * 3 // 5], load_audio=True)
    numbers = read_numbers(video.frames)
    assert numbers[:10] == list(range(10)) and 10 < len(numbers) < 72
    assert video.metadata.timestamps == pytest.approx(np.array(numbers) / 24)
    assert 0.5 < len(video.waveform) / RATE < 3
    content = clip("ntsc.mkv").read_bytes()
    assert 10 < len(media.load_video(content[: len(content) * 3 // 5]).frames) < 72


def test_some_frames_fail(clip):
    content = zero_media_data(clip("pyramid.mp4").read_bytes(), 0.4, 0.55)
    with pytest.warns(UserWarning, match=r"\d+ of 72 frames of <\d+ bytes> cannot be decoded"):
        video = media.load_video(content)
    kept = video.metadata.frames_indices
    assert 40 < len(kept) < 72 and len(video.frames) == len(kept)
    assert kept[:10] == list(range(10)) and read_numbers(video.frames[:10]) == kept[:10]
    assert video.metadata.total_num_frames == 72
    assert len(video.metadata.timestamps) == len(kept)
    lost = sorted(set(range(72)) - set(kept))[0]
    with pytest.warns(UserWarning, match="1 of 2 frames"):
        repeated = media.load_video(content, sample_indices_fn=pick([0, 0, lost, lost]))
    assert repeated.metadata.frames_indices == [0, 0] and read_numbers(repeated.frames) == [0, 0]


def test_every_frame_fails(clip):
    content = zero_media_data(clip("plain.mp4").read_bytes())
    with pytest.raises(ValueError, match="None of the 72 frames"):
        media.load_video(content, load_audio=True)
    with pytest.raises(ValueError, match="no sample"):
        media.load_audio(content)


def test_tracks_of_no_length(clip, tmp_path):
    wav = write_audio(tmp_path / "none.wav", Sound(seconds=1.0, codec="pcm_s16le")).read_bytes()
    header = wav[: wav.index(b"data")] + b"data" + bytes(4)
    with pytest.raises(ValueError, match="no sample"):
        media.load_audio(header)
    assert media.probe_audio(header) == 0
    options = {"movflags": "empty_moov"}
    with (
        av.open(str(clip("pyramid.mp4"))) as source,
        av.open(str(tmp_path / "none.mp4"), "w", container_options=options) as target,
    ):
        target.add_stream_from_template(source.streams.video[0])
        target.start_encoding()
    for read in (media.load_video, media.probe_video):
        with pytest.raises(ValueError, match="no frame"):
            read(tmp_path / "none.mp4")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["plain.mp4", "open_gop.ts", "vp9.webm", "mpeg4.avi", "variable.mkv"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=40),
    length=st.floats(0.3, 1),
)
def test_any_damage_gives_frames_or_a_clear_error(clip, name, damage, length):
    content = bytearray(clip(name).read_bytes())
    for position, value in damage:
        content[int(position * len(content))] = value
    content = bytes(content[: int(length * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.monotonic()
        try:
            video = media.load_video(
                content, load_audio=True, sample_indices_fn=lambda m: range(min(80, m.total_num_frames))
            )
        except (ValueError, OSError) as error:
            assert "bytes" in str(error)
        else:
            assert len(video.frames) == len(video.metadata.frames_indices) == len(video.metadata.timestamps)
        assert time.monotonic() - start < 10


# -------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("suffix, options", [("gif", {}), ("webp", {"lossless": True}), ("png", {})])
@pytest.mark.parametrize("durations", [[100] * 12, [40, 200, 1000, 50, 90, 60]])
def test_animated_images(tmp_path, suffix, options, durations):
    path = write_animation(tmp_path / f"animation.{suffix}", durations, **options)
    video = media.load_video(path, load_audio=True)
    assert read_numbers(video.frames) == list(range(len(durations)))
    assert video.waveform is None and video.metadata.video_backend == "pillow"
    times = np.cumsum([0, *durations]) / 1000
    assert video.metadata.timestamps == pytest.approx(times[:-1])
    assert (video.metadata.frame_times is None) == (len(set(durations)) == 1)
    assert video.metadata.duration == pytest.approx(times[-1])
    assert video.metadata.fps == pytest.approx(len(durations) / times[-1])
    assert (video.metadata.width, video.metadata.height) == (64, 48)
    part = media.load_video(path, video_start=times[2] + 0.01, video_end=times[5], sample_indices_fn=pick([0, 2, 2]))
    assert read_numbers(part.frames) == [2, 4, 4]
    assert part.metadata.timestamps == pytest.approx([0, times[4] - times[2], times[4] - times[2]])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_still_image_is_a_video_of_one_frame(format):
    video = media.load_video(image_bytes(PIL.Image.fromarray(render_frame(99)), format))
    assert read_numbers(video.frames) == [99] and video.metadata.timestamps == [0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_image_modes(mode):
    image = PIL.Image.fromarray(render_frame(1234))
    if mode == "I;16":
        image = PIL.Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256 + 77)
    elif mode in ("LA", "RGBA"):
        image.putalpha(PIL.Image.new("L", image.size, 255))
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    given_mode = image.mode
    loaded = media.load_image(image)
    assert loaded.mode == "RGB" and image.mode == given_mode
    assert read_number(loaded) == 1234
    if mode not in ("1", "P"):
        assert abs(int(np.median(np.asarray(loaded)[:16, 40:60])) - BRIGHT) <= 1
    format = "TIFF" if mode in ("CMYK", "F", "I") else "PNG"
    assert read_number(media.load_image(image_bytes(image, format))) == 1234


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation):
    upright = PIL.Image.fromarray(render_frame(1234))
    # What a camera held that way stores: the inverse of what viewers are asked to do.
    transpose = PIL.Image.Transpose
    stored = {
        1: None,
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    content = image_bytes(upright if stored is None else upright.transpose(stored), "JPEG", exif=exif, quality=95)
    assert read_number(media.load_image(content)) == 1234
    assert media.probe_image(content) == (96, 128)
    assert read_number(media.load_video(content).frames[0]) == 1234


def test_damaged_images():
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for format in ("PNG", "JPEG", "WEBP", "GIF"):
        content = image_bytes(image, format)[:500]
        for read in (media.load_image, media.load_video):
            with pytest.raises(ValueError, match="500 bytes.*damaged"):
                read(content)


def test_video_is_no_image(clip):
    for read in (media.load_image, media.probe_image):
        with pytest.raises(ValueError, match="plain.mp4.*not an image"):
            read(clip("plain.mp4"))


def test_frames_folder(tmp_path):
    for number in (1, 2, 10, 11, 100):
        PIL.Image.fromarray(render_frame(number)).save(tmp_path / f"frame{number}.{'PNG' if number % 2 else 'bmp'}")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path, str(tmp_path)):
        assert read_numbers(media.load_frames_folder(path)) == [1, 2, 10, 11, 100]
    with pytest.raises(ValueError, match="no image"):
        media.load_frames_folder(tmp_path / "folder.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        media.load_frames_folder(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="notes.txt"):
        media.load_frames_folder(tmp_path / "notes.txt")


# ------------------------------------------------------------------------------------------------------------ backends


@pytest.mark.parametrize("name", ["plain.mp4", "pyramid.mp4", "vp9.webm", "ntsc.mkv", "variable.mkv", "turned.mp4"])
def test_decord_gives_the_same(clip, name):
    pytest.importorskip("decord", reason="decord has no wheels for this platform")
    for options in ({}, {"video_start": 1.0, "video_end": 2.0}):
        ours, theirs = (
            media.load_video(
                clip(name),
                sample_indices_fn=lambda metadata: range(0, metadata.total_num_frames, 5),
                backend=backend,
                load_audio=True,
                **options,
            )
            for backend in ("pyav", "decord")
        )
        assert np.abs(to_arrays(ours.frames).astype(int) - to_arrays(theirs.frames)).max() <= 1
        assert theirs.metadata.video_backend == "decord"
        assert ours.metadata.timestamps == theirs.metadata.timestamps
        if ours.waveform is None:
            assert theirs.waveform is None
        else:
            assert len(ours.waveform) == pytest.approx(len(theirs.waveform), abs=0.05 * RATE)
            assert np.abs(ours.waveform).max() == pytest.approx(np.abs(theirs.waveform).max(), abs=0.05)
            for video in (ours, theirs):
                assert seconds_heard(video.waveform, [0.2, 0.6]) == ([1, 1] if options else [0, 0])


def test_decord_reads_all_sources_and_tells_what_is_damaged(clip):
    pytest.importorskip("decord", reason="decord has no wheels for this platform")
    content = clip("plain.mp4").read_bytes()
    assert read_numbers(media.load_video(content, backend="decord", sample_indices_fn=pick([9, 9])).frames) == [9, 9]
    assert len(media.load_audio(content, backend="decord")) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    with pytest.raises(ValueError):
        media.load_video(zero_media_data(content), backend="decord")
    with pytest.raises(ZeroDivisionError):
        media.load_video(content, backend="decord", transform=lambda frame: 1 / 0)


def test_librosa_gives_the_same(clip, tmp_path):
    path = write_audio(tmp_path / "sound.wav", Sound(codec="pcm_s16le"))
    ours, theirs = (media.load_audio(path, backend=backend) for backend in ("pyav", "librosa"))
    assert theirs.dtype == np.float32 and len(theirs) == pytest.approx(len(ours), abs=1)
    assert np.abs(ours[:47_000] - theirs[:47_000]).max() < 0.02
    assert len(media.load_audio(path, backend="librosa", max_seconds=0.5)) == RATE // 2
    with pytest.raises(ValueError, match="librosa cannot decode.*pyav"):
        media.load_video(clip("plain.mp4"), load_audio=True, audio_backend="librosa")


@pytest.mark.parametrize("backend", ["decord", "librosa"])
def test_missing_packages(clip, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ImportError, match=f"pip install .*{backend}"):
        media.load_audio(clip("plain.mp4"), backend=backend)
    with pytest.raises(ImportError, match=f"pip install .*{backend}"):
        media.load_video(clip("plain.mp4"), load_audio=True, audio_backend=backend)


def test_unknown_backends(clip):
    with pytest.raises(ValueError, match="'opencv'.*'pyav', 'decord' are"):
        media.load_video(clip("plain.mp4"), backend="opencv")
    for read in (media.load_audio, lambda path, backend: media.load_video(path, audio_backend=backend)):
        with pytest.raises(ValueError, match="'sox'.*'pyav', 'decord', 'librosa' are"):
            read(clip("plain.mp4"), backend="sox")


def test_backends_are_imported_only_when_chosen():
    nodes = [
        node for path in Path(media.__file__).parent.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))
    ]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    optional = {"decord", "librosa", "soundfile", "torchaudio", "torchcodec", "torchvision", "cv2"}
    assert not optional & {name.partition(".")[0] for name in imported}
