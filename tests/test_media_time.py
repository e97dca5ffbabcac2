"""Clocks of real files: ones that start again, jump or keep time with empty packets, and frame rates that vary."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import pytest

from transformers_omnivinci import media
from transformers_omnivinci.media.pyav import time_base

from .media_files import Sound, read_numbers, remux, render_frame, write_animation, write_video

RATE = 16_000
OPTIONS = {
    "ts": {"format": "mpegts"},
    "mkv": {},
    "flv": {},
    "mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}, "fps": 25},
}


def write_part(path, first: int, num_frames: int = 24, sound: Sound | None = None, start: int = 0, **options):
    """Frames numbered from `first` on; `start`: of the clock, in frames."""
    suffix = path.suffix[1:]
    if sound is not None and suffix == "mpg":
        sound.codec = "mp2"
    pictures = [render_frame(first + number) for number in range(num_frames)]
    pts = [start + number for number in range(num_frames)]
    return write_video(path, num_frames, pictures=pictures, pts=pts, sound=sound, **{**OPTIONS[suffix], **options})


def join(path, parts):
    contents = [part.read_bytes() for part in parts]
    if path.suffix == ".flv":  # a recorder that goes on writes no second header, nor its metadata
        for index in range(1, len(contents)):
            content = contents[index][13:]
            contents[index] = content[15 + int.from_bytes(content[1:4], "big") :]
    path.write_bytes(b"".join(contents))
    return path


def heard_spans(waveform) -> list[tuple[float, float]]:
    """Seconds between which there is sound."""
    level = np.abs(waveform[: len(waveform) // 160 * 160]).reshape(-1, 160).max(axis=1) > 0.05
    edges = np.flatnonzero(np.diff(np.concatenate([[0], level, [0]]).astype(int)))
    return [(start / 100, stop / 100) for start, stop in edges.reshape(-1, 2)]


@pytest.mark.parametrize("suffix", OPTIONS)
def test_parts_whose_clock_starts_again_follow_each_other(tmp_path, suffix):
    fps = OPTIONS[suffix].get("fps", 24)
    # Of Matroska FFmpeg reads no more than two. In MPEG-PS most packets have no time, and what FFmpeg guesses is off.
    num_parts, tolerance = (2, 0.01) if suffix == "mkv" else (4, 0.1 if suffix == "mpg" else 0.01)
    lengths = [24, 25, 26, 27][:num_parts]
    parts = [
        write_part(tmp_path / f"{part}.{suffix}", 100 * part, length, Sound(seconds=0.5, start=0.25))
        for part, length in enumerate(lengths)
    ]
    path = join(tmp_path / f"joined.{suffix}", parts)
    video = media.load_video(path, load_audio=True)
    numbers = [100 * part + number for part, length in enumerate(lengths) for number in range(length)]
    assert read_numbers(video.frames) == numbers
    assert video.metadata.timestamps == pytest.approx((np.arange(len(numbers)) / fps).tolist(), abs=tolerance)
    assert video.metadata.duration == pytest.approx(len(numbers) / fps, abs=tolerance)
    begins = np.cumsum([0, *lengths[:-1]]) / fps
    spans = heard_spans(video.waveform)
    assert [start for start, _ in spans] == pytest.approx(begins + 0.25, abs=0.06 + tolerance)
    assert [stop for _, stop in spans] == pytest.approx(begins + 0.75, abs=0.09 + tolerance)
    probed = media.probe_video(path)
    assert (probed.total_num_frames, probed.duration) == (len(numbers), video.metadata.duration)
    assert probed.audio_duration == pytest.approx(len(video.waveform) / RATE, abs=0.1)
    some = media.load_video(path, video_start=1.5, sample_indices_fn=lambda part: [0, part.total_num_frames - 1])
    assert 110 < read_numbers(some.frames)[0] < 114 and read_numbers(some.frames)[1] == numbers[-1]


def test_sound_stays_in_step_over_many_joints(tmp_path):
    # Each part sounds a little longer than it is seen: what is left over must not pile up.
    part = write_part(tmp_path / "part.ts", 0, 12, Sound(seconds=0.55, codec="mp2"))
    last = write_part(tmp_path / "last.ts", 50, 12, Sound(seconds=0.2, start=0.25, codec="mp2"))
    video = media.load_video(join(tmp_path / "joined.ts", [part] * 9 + [last]), load_audio=True)
    assert len(video.frames) == 120
    assert heard_spans(video.waveform)[-1][0] == pytest.approx(9 * 0.5 + 0.25, abs=0.08)


@pytest.mark.parametrize(
    "starts",
    [(0, 24 * 500), (24 * 500, 0), (0, 24 * 3600 * 10, 24 * 7), (0, 5)],
    ids=["ahead", "back", "to and fro", "overlap"],
)
@pytest.mark.filterwarnings("ignore:The clock of")
def test_clocks_that_jump(tmp_path, starts):
    sounds = [Sound(seconds=0.5, start=start / 24 + 0.25) for start in starts]
    parts = [
        write_part(tmp_path / f"{part}.ts", 100 * part, sound=sound, start=start)
        for part, (start, sound) in enumerate(zip(starts, sounds))
    ]
    video = media.load_video(join(tmp_path / "joined.ts", parts), load_audio=True)
    assert read_numbers(video.frames) == [100 * part + number for part in range(len(parts)) for number in range(24)]
    assert video.metadata.timestamps == pytest.approx(np.arange(len(video.frames)) / 24, abs=0.01)
    assert [start for start, _ in heard_spans(video.waveform)] == pytest.approx(np.arange(len(parts)) + 0.25, abs=0.06)


def test_a_jump_ahead_is_told(tmp_path):
    parts = [write_part(tmp_path / f"{start}.ts", start, start=24 * start) for start in (0, 100)]
    with pytest.warns(UserWarning, match=r"joined.ts' jumps ahead by 9\d.\d+ s"):
        media.load_video(join(tmp_path / "joined.ts", parts))


@pytest.mark.parametrize("length", [24, 30, 31, 33])
@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_long_pause_is_no_jump_where_sound_goes_on_or_files_are_no_broadcasts(tmp_path, suffix, length):
    pts = [*range(length), *range(24 * 20, 24 * 20 + 48 - length)]
    sound = Sound(seconds=21.0, codec="mp2") if suffix == "ts" else None
    path = write_video(tmp_path / f"pause.{suffix}", 48, pts=pts, sound=sound, **OPTIONS[suffix])
    video = media.load_video(path)
    assert read_numbers(video.frames) == list(range(48))
    assert video.metadata.timestamps == pytest.approx(np.array(pts) / 24, abs=0.01)
    assert video.metadata.duration == pytest.approx((pts[-1] + 1) / 24, abs=0.05)


def test_clock_that_wraps_round(tmp_path):
    begin = 2**33 - 90_000
    path = write_video(
        tmp_path / "wrap.ts",
        pts=[begin + 3750 * number for number in range(72)],
        time_base=Fraction(1, 90_000),
        sound=Sound(seconds=2.0, start=begin / 90_000 + 0.5),
        format="mpegts",
    )
    video = media.load_video(path, load_audio=True)
    assert read_numbers(video.frames) == list(range(72))
    assert video.metadata.timestamps == pytest.approx(np.arange(72) / 24, abs=0.01)
    assert heard_spans(video.waveform)[0][0] == pytest.approx(0.5, abs=0.06)


def test_hls_with_a_discontinuity(tmp_path):
    for name, first in (("a.ts", 0), ("b.ts", 100)):
        write_part(tmp_path / name, first)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1.0,", "a.ts", "#EXT-X-DISCONTINUITY", "#EXTINF:1.0,"]
    (tmp_path / "list.m3u8").write_text("\n".join([*lines, "b.ts", "#EXT-X-ENDLIST", ""]))
    frames = media.load_video(tmp_path / "list.m3u8").frames
    assert read_numbers(frames) == [*range(24), *range(100, 124)]


def test_frames_of_the_same_time_are_all_there(tmp_path):
    path = write_video(tmp_path / "clip.mkv", 24, codec="mjpeg", pix_fmt="yuvj420p", options={})

    def repeat(packet):
        packet.pts = packet.dts = packet.pts // 100 * 100
        return True

    video = media.load_video(remux(path, tmp_path / "coarse.mkv", repeat))
    assert read_numbers(video.frames) == list(range(24))
    assert video.metadata.timestamps == pytest.approx(np.arange(24) / 24, abs=0.1)


def test_one_wrong_time_does_not_part_a_file(tmp_path):
    path = write_video(tmp_path / "clip.mkv", options={"preset": "veryfast", "g": "12", "bf": "0"})

    def delay(packet):
        packet.pts += 3000 * (packet.pts == 1000)
        return True

    video = media.load_video(remux(path, tmp_path / "wrong.mkv", delay))
    assert read_numbers(video.frames) == [*range(24), *range(25, 72), 24]
    assert video.metadata.timestamps[24] == pytest.approx(25 / 24, abs=0.01)


@pytest.mark.parametrize("seconds", [500, 80_000])
def test_a_packet_far_off_is_put_where_it_stands(tmp_path, seconds):
    options = {"preset": "veryfast", "g": "12", "bf": "0"}
    path = write_video(tmp_path / "clip.ts", format="mpegts", options=options, sound=Sound(codec="mp2"))

    def delay(packet):
        packet.pts += seconds * 90_000 * (packet.stream.type == "video" and packet.pts // 3750 == 30)
        return True

    video = media.load_video(remux(path, tmp_path / "wrong.ts", delay), load_audio=True)
    assert read_numbers(video.frames) == list(range(72))
    assert video.metadata.timestamps == pytest.approx(np.arange(72) / 24, abs=0.05)
    assert len(video.waveform) == pytest.approx(3 * RATE, abs=0.06 * RATE)


# ------------------------------------------------------------------------------------------------------ variable rates

SLOW_AND_FAST = [*range(0, 10_000, 1000), *range(10_000, 20_000, 50)]
SPURTS = [1000 * second + 40 * number for second in (0, 3, 4, 9) for number in range(12)]


@pytest.mark.parametrize("pts", [SLOW_AND_FAST, SPURTS], ids=["slow and fast", "spurts"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("fps, max_frames", [(1.0, None), (2.5, None), (4.0, 9)])
def test_sampling_by_rate_goes_by_real_times(processor, tmp_path, suffix, pts, fps, max_frames):
    options = {"pts": pts, "time_base": Fraction(1, 1000), "size": (64, 48)}
    path = write_video(tmp_path / f"clip.{suffix}", len(pts), **options)
    (video,) = processor.video_processor.load_videos([path], fps=fps, max_frames=max_frames, do_resize=False)
    times = np.array(pts) / 1000
    wanted = np.arange(len(video.frames)) / fps if max_frames is None else np.linspace(0, times[-1], max_frames)
    nearest = [float(np.abs(times - second).min()) for second in wanted]
    assert np.abs(np.array(video.metadata.timestamps) - wanted).tolist() == pytest.approx(nearest, abs=2e-3)
    assert video.metadata.timestamps[-1] == pytest.approx(times[-1], abs=1 / fps)
    probed = processor.video_processor.probe_video(path, fps=fps, max_frames=max_frames)
    assert probed.frames_indices == video.metadata.frames_indices


def test_given_frames_with_times_are_sampled_by_them(processor):
    frames = np.stack([render_frame(number, 64, 48) for number in range(13)])
    times = [0.0, 5.0, *np.linspace(9, 10, 11)]
    metadata = {"fps": 1.3, "total_num_frames": 13, "duration": 10.1, "frame_times": times}
    (video,) = processor.video_processor.load_videos(
        [frames], video_metadata=[metadata], fps=0.5, num_frames=None, do_resize=False
    )
    assert read_numbers(video.frames) == [0, 0, 1, 1, 2]
    assert video.metadata.timestamps == pytest.approx([0, 0, 5, 5, 9])


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"fps": 24.0, "total_num_frames": 90}, "frames_indices"),
        ({"fps": -1.0}, "`fps=-1.0`"),
        ({"fps": float("nan")}, "`fps=nan`"),
        ({"fps": 24.0, "duration": float("inf")}, "`duration=inf`"),
        ({"fps": 24.0, "total_num_frames": 10, "frames_indices": [0, 1, 2**62]}, "frames_indices"),
        ({"fps": 24.0, "total_num_frames": 10, "frames_indices": [-1, 1, 2]}, "frames_indices"),
        ({"fps": 24.0, "frame_times": [0.0, 2.0, 1.0]}, "frame_times"),
        ({"fps": 24.0, "frame_times": [0.0, 1.0]}, "3 frames but 2"),
        ({"fps": 24.0, "frame_times": [0.0, 1e12, 2e12]}, "frame_times"),
    ],
)
def test_metadata_that_cannot_be_true(processor, metadata, words):
    frames = np.stack([render_frame(number, 64, 48) for number in range(3)])
    with pytest.raises(ValueError, match=words):
        processor.video_processor([frames], video_metadata=[metadata])


@pytest.mark.parametrize("metadata", [{"fps": 1e-9, "duration": 1e12}, {"fps": 24.0, "total_num_frames": 2**60}])
def test_centuries_of_given_frames_are_refused(processor, metadata):
    frames = np.stack([render_frame(number, 64, 48) for number in range(3)])
    metadata = {"frames_indices": [0, 1, 2], "total_num_frames": 3} | metadata
    arguments = {"text": "<vila/video>", "videos": [frames], "video_metadata": [metadata], "audio": [np.ones(16_000)]}
    options = {"load_audio_from_video": True, "audio_from_video_indices": [0]}
    for call in (processor, processor.count_tokens):
        with pytest.raises(ValueError, match="groups of"):
            call(**arguments, **options)


# ----------------------------------------------------------------------------------------------------------------- AVI

AVI = {
    "mpeg4": {"codec": "mpeg4", "options": {"g": "12"}},
    "mpeg4 with B-frames": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}},
    "h264": {"options": {"preset": "veryfast", "g": "12", "bf": "2"}},
    "huffyuv": {"codec": "huffyuv", "pix_fmt": "yuv422p", "options": {}},
}


@pytest.mark.parametrize("name", AVI)
def test_empty_packets_of_avi_keep_time(tmp_path, name):
    kept = [number for number in range(96) if not 24 <= number < 48 and number not in (60, 61)]
    pictures = [render_frame(number) for number in kept]
    path = write_video(tmp_path / "gap.avi", len(kept), pictures=pictures, pts=kept, **AVI[name])
    video = media.load_video(path)
    assert read_numbers(video.frames) == kept
    assert video.metadata.duration == pytest.approx(4, abs=0.05)
    if name == "h264" and not hasattr(av.VideoCodecContext, "reorder_depth"):
        return  # before PyAV 17 nothing tells by how many frames the gaps are late
    assert video.metadata.timestamps == pytest.approx(np.array(kept) / 24, abs=1e-3)
    part = media.load_video(path, video_start=2.5, video_end=3.5)
    assert read_numbers(part.frames) == [number for number in kept if 60 - 1 <= number < 84]


@pytest.mark.parametrize("name", AVI)
def test_avi_is_sought(tmp_path, monkeypatch, name):
    path = write_video(tmp_path / "long.avi", 600, size=(64, 48), **AVI[name])
    fed = []
    decode_runs = media.frames._decode_runs
    monkeypatch.setattr(media.frames, "_decode_runs", lambda *args: fed.append(args[2]) or decode_runs(*args))
    video = media.load_video(path, sample_indices_fn=lambda metadata: [0, 299, 300, 599], num_threads=2)
    assert read_numbers(video.frames) == [0, 299, 300, 599]
    if name != "mpeg4 with B-frames":  # whose groups are open: frames before a key frame follow it in the file
        assert all(plan[0].key is not None for plan in fed)
        assert any(run.seek for plan in fed for run in plan)


def test_avi_without_an_index(tmp_path):
    content = write_video(tmp_path / "clip.avi", 240, size=(64, 48), **AVI["mjpeg"]).read_bytes()
    video = media.load_video(content[: content.rindex(b"idx1")], sample_indices_fn=lambda metadata: [3, 130, 239])
    assert read_numbers(video.frames) == [3, 130, 239]


# ---------------------------------------------------------------------------------------------------- animated images


@pytest.mark.parametrize("suffix, options", [("gif", {}), ("png", {}), ("webp", {"lossless": True})])
def test_short_delays_are_those_of_browsers(tmp_path, suffix, options):
    path = write_animation(tmp_path / f"fast.{suffix}", [10, 10, 20, 50, 0, 10], **options)
    assert media.load_video(path).metadata.timestamps == pytest.approx([0, 0.1, 0.2, 0.22, 0.27, 0.37])
    path = write_animation(tmp_path / f"even.{suffix}", [10] * 5, **options)
    assert math.isclose(media.probe_video(path).fps, 10)


@dataclass
class Tick:
    """As PyAV 19 tells it: neither a `Fraction`, nor what numpy multiplies."""

    numerator: int = 1
    denominator: int = 90_000


@dataclass
class Stream:
    time_base: Tick = field(default_factory=Tick)


def test_time_base_is_a_fraction_whatever_pyav_gives(tmp_path):
    assert time_base(Stream()) == Fraction(1, 90_000)
    with av.open(str(write_video(tmp_path / "clip.mp4"))) as container:
        tick = time_base(container.streams.video[0])
    assert isinstance(tick, Fraction) and 0 < tick < Fraction(1, 100)
