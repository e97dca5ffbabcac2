"""Which frames of real files come out, and how they are decoded."""

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformers_omnivinci import media

from .media_clips import CLIPS, pick, to_arrays
from .media_files import read_numbers, write_video

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("no_leftovers")]


@pytest.mark.parametrize("name", CLIPS)
def test_all_frames_come_in_order(clip, decode_all, name):
    video = media.load_video(clip(name))
    assert read_numbers(video.frames) == list(range(72))
    assert np.array_equal(to_arrays(video.frames), decode_all(name))
    assert video.frames.dtype == torch.uint8
    assert video.metadata.frames_indices == list(range(72))
    assert (video.metadata.height, video.metadata.width) == video.frames.shape[-2:]
    assert video.waveform is None


@pytest.mark.slow
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
