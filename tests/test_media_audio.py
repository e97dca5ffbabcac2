"""The sound of videos and audio files: what is heard, and when."""

import wave

import numpy as np
import pytest

from transformers_omnivinci import media

from .media_clips import RATE, onset, pick, seconds_heard
from .media_files import PADDING, Sound, read_number, remux, render_sound, write_audio, write_video

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("no_leftovers")]


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
    with pytest.warns(UserWarning, match="clip.mp4' does not reach into the part"):
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
