"""What cannot be used is refused at once, in a sentence: what was given, what is wrong, what is accepted."""

import time
import wave

import numpy as np
import PIL.Image
import pytest
import torch

from .conftest import CLIP
from .media_samples import audio_item, image, image_item, render, sound, user, video


def prepare(processor, conversation, **kwargs):
    return processor.apply_chat_template(conversation, tokenize=True, return_dict=True, return_tensors="pt", **kwargs)


def watch(processor, source, **kwargs):
    return prepare(processor, user({"type": "video", "path": str(source)}, "?"), **kwargs)


def write_silence(path, num_samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * num_samples))
    return path


@pytest.fixture(autouse=True)
def _quickly():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 20


# Files


def test_missing_files(processor):
    with pytest.raises(OSError, match="nowhere.mp4"):
        watch(processor, "nowhere.mp4")
    with pytest.raises(OSError, match="nowhere.wav"):
        prepare(processor, user({"type": "audio", "path": "nowhere.wav"}))
    with pytest.raises(OSError, match="nowhere.png"):
        prepare(processor, user({"type": "image", "path": "nowhere.png"}))


@pytest.mark.parametrize("content", [b"", b"This is not a video.\n" * 50], ids=["empty", "text"])
def test_files_that_are_no_media(processor, tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match="clip.mp4"):
        watch(processor, path)
    with pytest.raises((ValueError, OSError), match="clip.mp4"):
        prepare(processor, user({"type": "audio", "path": str(path)}))
    with pytest.raises((ValueError, OSError), match="clip.mp4"):
        prepare(processor, user({"type": "image", "path": str(path)}))


def test_truncated_mp4(processor, tmp_path):
    path = tmp_path / "clip.mp4"
    with open(CLIP, "rb") as file:
        path.write_bytes(file.read()[:3000])
    with pytest.raises((ValueError, OSError), match="clip.mp4"):
        watch(processor, path)


def test_sound_without_picture_as_video(processor, tmp_path):
    path = write_silence(tmp_path / "sound.wav", num_samples=1600)
    with pytest.raises(ValueError, match="sound.wav"):
        watch(processor, path)


def test_zero_length_sound(processor, tmp_path):
    path = write_silence(tmp_path / "nothing.wav", num_samples=0)
    with pytest.raises((ValueError, OSError), match="nothing.wav"):
        prepare(processor, user({"type": "audio", "path": str(path)}))


# Messages


@pytest.mark.parametrize(
    ("item", "words"), [({"type": "smell"}, "type 'smell'"), ({"type": "text"}, "has no text but None")]
)
def test_content_items_are_refused_when_counted_too(processor, item, words):
    with pytest.raises(ValueError, match=words):
        prepare(processor, user(item))
    with pytest.raises(ValueError, match=words):
        processor.count_tokens(user(item))


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_frames": -3}, "num_frames=-3"),
        ({"fps": 0}, "fps"),
        ({"fps": 2, "num_frames": 2}, "`num_frames=2` and `fps=2`"),
        ({"fps": 2, "max_frames": 0}, "max_frames=0"),
        ({"video_start": -1.0}, "video_start"),
        ({"video_start": 5.0, "video_end": 4.0}, "video_"),
        ({"video_start": 100.0}, "100.0"),
        ({"video_end": float("nan")}, "video_end"),
        ({"video_backend": "mplayer"}, "mplayer.*pyav"),
        ({"video_backend": "torchcodec"}, "'torchcodec': 'pyav', 'decord' are"),
        ({"audio_backend": "mplayer", "load_audio_from_video": True}, "mplayer.*pyav"),
        ({"audio_backend": "torchcodec", "load_audio_from_video": True}, "'torchcodec': 'pyav', 'decord', 'librosa'"),
    ],
    ids=str,
)
def test_options_that_mean_nothing(processor, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        watch(processor, CLIP, **options)


# Arrays


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (np.zeros((2, 16_000), np.float32), ValueError, r"\(2, 16000\)"),
        (np.array([0.0, np.nan, 0.5], np.float32), ValueError, "NaN"),
        (np.array([0.0, np.inf], np.float32), ValueError, "infinite"),
        (np.zeros(0, np.float32), ValueError, "no samples"),
        (np.array(["a", "b"]), TypeError, "<U1"),
        (np.zeros(8, np.complex64), TypeError, "complex64"),
    ],
    ids=["2-D", "NaN", "inf", "empty", "text", "complex"],
)
def test_waveforms(processor, samples, error, words):
    with pytest.raises(error, match=words):
        processor(text="<sound>", audio=[samples])


def test_waveforms_of_another_rate(processor):
    with pytest.raises(ValueError, match="8000.*16000"):
        processor(text="<sound>", audio=[sound()], sampling_rate=8000)


@pytest.mark.parametrize(
    ("picture", "error", "words"),
    [
        (np.zeros((0, 10, 3), np.uint8), ValueError, r"\(0, 10, 3\)"),
        (PIL.Image.new("RGB", (0, 5)), ValueError, "0 x 5"),
        (np.zeros((10, 10, 7), np.uint8), ValueError, r"\(10, 10, 7\)"),
        (np.zeros(10, np.uint8), ValueError, r"\(10,\)"),
        (torch.zeros(3, 0, 4), ValueError, r"\(3, 0, 4\)"),
        (3.5, TypeError, "float"),
    ],
    ids=["empty array", "empty image", "channels", "1-D", "empty tensor", "number"],
)
def test_images(processor, picture, error, words):
    with pytest.raises(error, match=words):
        processor(text="<image>", images=[picture])


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (np.zeros((0, 10, 10, 3), np.uint8), {}, r"\(0, 10, 10, 3\)"),
        (video()[0], {"video_metadata": [{"fps": 2.0}, {"fps": 2.0}]}, "1 videos but 2"),
        (video()[0], {"video_metadata": [{"fps": 2.0, "frames_indices": [0, 1]}]}, "6 frames but 2"),
        (video()[0], {"video_metadata": [{"fps": 2.0, "rate": 3}]}, "rate"),
        (video()[0], {"video_metadata": [{"fps": 2.0, "total_num_frames": 90}], "num_frames": 3}, "frames_indices"),
        (video()[0], {"video_start": 1.0}, "video_start"),
    ],
    ids=["empty", "metadata", "indices", "unknown", "unsampled", "part"],
)
def test_frames(processor, frames, options, words):
    with pytest.raises(ValueError, match=words):
        processor(text="<vila/video>", videos=[frames], **options)


# Prompts


@pytest.mark.parametrize(
    ("text", "media", "words"),
    [
        ("<image><image>", {"images": [image()]}, "2 <image> placeholders, but 1"),
        ("none", {"images": [image()]}, "0 <image> placeholders, but 1"),
        ("<image>", {}, "1 <image> placeholders, but 0"),
        ("<sound>", {"audio": [sound(), sound()]}, "1 <sound> placeholders, but 2"),
        ("<vila/video><vila/video>", {"videos": [video()]}, "2 <vila/video> placeholders, but 1"),
        (
            "<sound><vila/video>",
            {"videos": [CLIP], "load_audio_from_video": False},
            "1 <sound> placeholders, but 0.*load_audio_from_video=True",
        ),
        (["<image>", "<image>"], {"images": [[image(), image()], []]}, "Prompt 0 has 1 .* 2 images were given"),
        ([], {}, "prompt"),
        (None, {"images": [image()]}, "prompt"),
        ([1, 2], {}, "prompt"),
    ],
    ids=[f"case {index}" for index in range(10)],
)
def test_unlike_numbers_of_media_and_placeholders(processor, text, media, words):
    with pytest.raises(ValueError, match=words):
        processor(text=text, **media)


@pytest.mark.parametrize(
    ("links", "num_audio", "words"),
    [
        (None, 1, "audio_from_video_indices"),
        ([0, None, None], 1, "2 slots for clips of their own and 1 for tracks, but 1"),
        ([1, None], 1, "each of the 1 videos"),
        ([0, 0], 2, "at most once"),
    ],
)
def test_links_of_sounds_and_videos(processor, links, num_audio, words):
    with pytest.raises(ValueError, match=words):
        processor(
            text="<vila/video><sound>",
            videos=[CLIP],
            audio=[sound()] * num_audio,
            audio_from_video_indices=links,
            load_audio_from_video=True,
        )


def test_a_placeholder_smuggled_into_user_text(processor):
    for token in ("<image>", "<sound>", "<vila/video>"):
        with pytest.raises(ValueError, match=token):
            prepare(processor, user(image_item(), audio_item(), f"What does {token} mean?"))


def test_unknown_content_types(processor):
    for tokenize in (True, False):
        with pytest.raises(ValueError, match="'smell'.*'video'"):
            processor.apply_chat_template(user({"type": "smell", "smell": "rose"}), tokenize=tokenize)
    with pytest.raises(ValueError, match="'audio' has no source"):
        prepare(processor, user({"type": "audio"}))
    with pytest.raises(ValueError, match="conversation"):
        processor.apply_chat_template([])


def test_truncation_of_placeholders(processor):
    with pytest.raises(ValueError, match="image"):
        processor(text="<image>?", images=[image()], truncation=True, max_length=5)


def test_frames_that_fail_are_left_out_and_counted(processor, tmp_path):
    path = tmp_path / "damaged.mp4"
    render(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    third = (len(data) - start) // 3
    data[start + third : start + 2 * third] = b"\xff" * third
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=r"\d+ of 60 frames") as caught:
        inputs = watch(processor, path, num_frames=60)
    lost = next(int(str(warning.message).split()[0]) for warning in caught if "of 60" in str(warning.message))
    assert 0 < lost < 60
    assert inputs["pixel_values_videos"].shape[0] == 60 - lost
    seconds = inputs["video_timestamps"][0].tolist()
    assert len(seconds) == 60 - lost and seconds == sorted(set(seconds))
    assert seconds[0] == 0 and seconds[-1] == pytest.approx(5.9)


def test_a_clip_whose_every_frame_fails(processor, tmp_path):
    path = tmp_path / "damaged.mp4"
    render(path)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = b"\xff" * (end - start)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="60 frames.*can be decoded"):
        watch(processor, path, num_frames=60)
