"""Truncated and overwritten files."""

import time
import warnings

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformers_omnivinci import media

from .media_clips import RATE, pick
from .media_files import Sound, read_numbers, write_audio, write_video, zero_media_data

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("no_leftovers")]


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
