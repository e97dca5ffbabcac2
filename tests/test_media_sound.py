"""Sound that is missing, damaged, too long, or given in another form than a file."""

import io
import types
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from transformers_omnivinci import NANO, media
from transformers_omnivinci.processing.reading import load_clip

from .conftest import PARITY
from .media_files import Sound, read_second, remux, render_sound, write_audio, write_video

RATE = 16_000


@pytest.fixture(scope="module", params=[NANO, PARITY / "published-tiny"], ids=["nano", "tiny"])
def ask(request):
    """The inputs of a chat about one medium, and how many tokens were counted."""
    processor = AutoProcessor.from_pretrained(request.param)

    def call(item, **options):
        chat = [{"role": "user", "content": [item, {"type": "text", "text": "What?"}]}]
        options = {"add_generation_prompt": True} | options
        inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt", **options)
        assert processor.count_tokens(chat, **options) == inputs["input_ids"].shape[1]
        return inputs

    call.processor = processor
    return call


def damage(path, target, kind: str = "audio", first: int = 0):
    """Zeros in place of the packets of a track from one on."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(getattr(container.streams, kind)[0]) if packet.size]
    for packet in packets[first:]:
        content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    target.write_bytes(content)
    return target


def rename_codec(path, target):
    """The same of a codec that nobody knows."""
    content = path.read_bytes()
    name = {".mov": b"sowt", ".mkv": b"A_AAC"}[path.suffix]
    assert content.count(name) == 1
    target.write_bytes(content.replace(name, {".mov": b"xyzw", ".mkv": b"A_XYZ"}[path.suffix]))
    return target


def drop_sound(path, target):
    return remux(path, target, lambda packet: packet.stream.type == "video")


@pytest.mark.slow
@pytest.mark.parametrize(
    "suffix, codec, make",
    [
        ("mp4", "aac", damage),
        ("mkv", "aac", damage),
        ("avi", "mp2", damage),
        ("mkv", "aac", drop_sound),
        ("avi", "mp2", drop_sound),
        ("mov", "pcm_s16le", rename_codec),
        ("mkv", "aac", rename_codec),
    ],
)
def test_picture_is_used_where_its_sound_cannot_be(tmp_path, ask, suffix, codec, make):
    options = {"codec": "mpeg4"} if suffix == "avi" else {}
    path = write_video(tmp_path / f"good.{suffix}", sound=Sound(codec=codec), **options)
    path = make(path, tmp_path / f"bad.{suffix}")
    with pytest.warns(UserWarning, match=f"bad.{suffix}' cannot be decoded: the picture is used without it"):
        inputs = ask({"type": "video", "path": str(path)}, load_audio_from_video=True)
    assert inputs["video_has_audio"].tolist() == [False] and "input_features" not in inputs
    with pytest.raises(ValueError, match=f"bad.{suffix}"):
        media.load_audio(path)
    for count in (ask, ask.processor.count_tokens):
        with pytest.raises(ValueError, match=f"bad.{suffix}"):
            ask({"type": "audio", "path": str(path)}) if count is ask else count("<sound>", audio=str(path))


@pytest.mark.parametrize("suffix, codec", [("mkv", "aac"), ("ts", "mp2")])
@pytest.mark.parametrize("start, is_heard", [(1.0, True), (4.0, False)])
def test_part_after_the_sound(tmp_path, ask, suffix, codec, start, is_heard):
    path = write_video(tmp_path / f"short.{suffix}", 120, sound=Sound(seconds=2.0, codec=codec))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inputs = ask({"type": "video", "path": str(path)}, load_audio_from_video=True, video_start=start)
    assert inputs["video_has_audio"].tolist() == [is_heard]
    said = [str(warning.message) for warning in caught if "does not reach" in str(warning.message)]
    assert len(said) == (not is_heard) and all(f"short.{suffix}" in text for text in said)


def test_damaged_end_of_sound_is_silence(tmp_path, ask):
    path = damage(write_video(tmp_path / "good.mp4", sound=Sound()), tmp_path / "bad.mp4", first=60)
    with pytest.warns(UserWarning, match=r"last 1.\d s of the sound of .*bad.mp4' cannot be decoded: silence"):
        video = media.load_video(path, load_audio=True)
    assert len(video.waveform) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert not video.waveform[-RATE:].any() and video.waveform[:RATE].any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask({"type": "video", "path": str(path)}, load_audio_from_video=True)


@pytest.mark.slow
@pytest.mark.parametrize("num_frames, seconds, lost", [(24, 5.0, 4), (72, 4.5, 1.5), (72, 3.2, None)])
def test_sound_that_outlasts_the_picture_is_told(tmp_path, ask, num_frames, seconds, lost):
    path = write_video(tmp_path / "long.mkv", num_frames, sound=Sound(seconds=seconds))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask({"type": "video", "path": str(path)}, load_audio_from_video=True)
        ask({"type": "video", "path": str(path), "num_frames": 4}, load_audio_from_video=True)
        ask({"type": "video", "path": str(path)}, load_audio_from_video=True, video_end=num_frames / 24)
    said = [str(warning.message) for warning in caught]
    assert [f"long.mkv' lasts {lost:.1f} s longer" in text for text in said] == ([] if lost is None else [True] * 2)


def test_gaps_and_wrong_clocks_of_sound_are_counted_as_they_are_heard(tmp_path, ask):
    path = write_video(tmp_path / "clip.mp4", sound=Sound())

    def delay(packet):
        late = round(1e5 / packet.time_base) * (packet.stream.type == "audio" and packet.pts * packet.time_base > 1.5)
        packet.pts, packet.dts = packet.pts + late, packet.dts + late
        return True

    late = remux(path, tmp_path / "late.mkv", delay)
    video = media.load_video(late, load_audio=True)
    assert len(video.waveform) == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert media.probe_video(late).audio_duration == pytest.approx(3, abs=0.06)
    ask({"type": "video", "path": str(late)}, load_audio_from_video=True)
    ask({"type": "audio", "path": str(late)})


# --------------------------------------------------------------------------------------------------- forms of a clip

SAMPLES = render_sound(2, 44_100, 2)
DECODER = types.SimpleNamespace(
    get_all_samples=lambda: types.SimpleNamespace(data=torch.from_numpy(SAMPLES), sample_rate=44_100)
)
CLIPS = {
    "(samples, rate)": (SAMPLES, 44_100),
    "(rate, samples)": (44_100, SAMPLES.T),
    "16-bit": (44_100, (SAMPLES.T * 32_767).astype(np.int16)),
    "tensor": (torch.from_numpy(SAMPLES[0]), 44_100.0),
    "list": (render_sound(2, RATE)[0].tolist(), RATE),
    "datasets": {"path": "nowhere.wav", "array": SAMPLES[0], "sampling_rate": 44_100},
    "torchcodec": DECODER,
    "half": (torch.from_numpy(SAMPLES).bfloat16(), 44_100),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clips_with_a_rate_of_their_own(ask, name):
    processor, clip = ask.processor, CLIPS[name]
    waveform = load_clip(processor, clip, {})
    assert waveform.dtype == np.float32 and len(waveform) == 2 * RATE
    assert [read_second(waveform[4000:12_000]), read_second(waveform[20_000:28_000])] == [0, 1]
    assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.02)
    ask({"type": "audio", "audio": clip})
    both = processor(text="<sound><sound>", audio=[clip, clip], return_tensors="pt")
    assert len(both["audio_num_windows"]) == 2
    assert processor.count_tokens("<sound><sound>", audio=[clip, clip]) == both["input_ids"].shape[1]
    assert processor.probe_audio(clip) == pytest.approx(2)


@pytest.mark.slow
def test_clips_that_are_files_of_data_sets(tmp_path, ask):
    path = write_audio(tmp_path / "sound.wav", Sound(seconds=2.0, codec="pcm_s16le"))
    for clip in ({"bytes": path.read_bytes(), "path": None}, {"bytes": None, "path": str(path)}):
        assert len(load_clip(ask.processor, clip, {})) == 2 * RATE
        ask({"type": "audio", "audio": clip})
    assert len(load_clip(ask.processor, io.BytesIO(path.read_bytes()), {})) == 2 * RATE


def test_samples_in_bfloat16(ask):
    samples = torch.from_numpy(render_sound(1, RATE)[0])
    assert np.abs(load_clip(ask.processor, samples.bfloat16(), {}) - samples.numpy()).max() < 0.01


@pytest.mark.parametrize(
    "clip, error, words",
    [
        ((SAMPLES, 1), ValueError, "1 Hz is not accepted"),
        ((SAMPLES, -44_100), ValueError, "-44100 Hz"),
        ((np.zeros((100, 100, 2)), RATE), ValueError, r"\(100, 100, 2\)"),
        ((np.zeros(0), RATE), ValueError, "no samples"),
        ({"array": SAMPLES}, ValueError, "sampling_rate"),
        ({"samples": SAMPLES}, ValueError, "'samples'"),
        (SAMPLES, ValueError, "not mono"),
    ],
)
def test_clips_that_are_none(ask, clip, error, words):
    with pytest.raises(error, match=words):
        ask.processor(text="<sound>", audio=[clip])


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000, 96_000])
def test_resampling_is_that_of_files(tmp_path, rate):
    samples = render_sound(1.5, rate)[0]
    path = write_audio(tmp_path / "sound.wav", Sound(rate=rate, layout="mono", codec="pcm_f32le"), samples[None])
    ours, theirs = media.resample(samples, rate, RATE), media.load_audio(path)
    assert len(ours) == round(Fraction(len(samples) * RATE, rate)) and abs(len(theirs) - len(ours)) <= 1
    assert np.abs(ours[100:20_000] - theirs[100:20_000]).max() < 1e-3
