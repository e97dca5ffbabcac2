"""When frames are shown by the metadata of a clip, and parts of clips."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformers_omnivinci import media

from .media_clips import CLIPS, VARIABLE, pick
from .media_files import read_numbers, remux, write_video

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("no_leftovers")]


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
