"""The processor: one call for every kind of input, and what it promises about order, time and length."""

import base64
import io
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoProcessor
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # hidden without torchvision
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from transformers_omnivinci import OmniVinciImageProcessor, OmniVinciVideoProcessor
from transformers_omnivinci.processing.pixels import resize_exactly

from .conftest import CLIP, PARITY
from .media_files import image_bytes, wav_bytes
from .media_samples import audio_item, image, image_item, sound, user, video, video_item

pytestmark = pytest.mark.compat

WAV_HEADER = 44


def prepare(processor, conversation, **kwargs):
    kwargs = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"} | kwargs
    return processor.apply_chat_template(conversation, **kwargs)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


# One call


def test_one_call_does_it_all(processor):
    chat = user({"type": "video", "path": CLIP}, "What happens?")
    inputs = processor.apply_chat_template(
        chat,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        load_audio_from_video=True,
        num_frames=10,
        return_tensors="pt",
    )
    assert inputs["pixel_values_videos"].shape == (10, 3, 56, 56)
    assert inputs["input_features"].shape == (1, 128, 3000)
    ids = inputs["input_ids"][0]
    assert (ids == processor.video_token_id).sum() == 10 * 4
    # Twelve seconds of sound, in one group: the share of the 751 embeddings of its padded clip, rounded up.
    assert (ids == processor.audio_token_id).sum() == inputs["audio_timestamps"].shape[1] == -(-12 * 751 // 30)
    assert inputs["video_timestamps"][0].tolist() == pytest.approx(
        [round(i * 299 / 9) / 25 for i in range(10)], abs=1e-6
    )
    assert set(inputs) == {
        "input_ids",
        "attention_mask",
        "pixel_values_videos",
        "video_timestamps",
        "input_features",
        "audio_num_windows",
        "audio_timestamps",
        "video_has_audio",
        "audio_from_video",
    }
    assert set(inputs) <= set(processor.model_input_names)


def test_canonical_call_does_not_warn(processor, caplog):
    prepare(processor, user({"type": "video", "path": CLIP}, "?"), load_audio_from_video=True, num_frames=4)
    assert not caplog.records


def test_frames_metadata_and_waveform_give_what_the_file_gives(processor):
    from transformers_omnivinci import media

    chat = user({"type": "video", "path": CLIP}, "What happens?")
    whole = prepare(processor, chat, load_audio_from_video=True, num_frames=7)
    loaded = media.load_video(
        CLIP, sample_indices_fn=lambda m: np.linspace(0, m.total_num_frames - 1, 7).round().astype(int)
    )
    waveform = media.load_audio(CLIP, sampling_rate=16_000)
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    for text in (prompt, prompt.replace("<vila/video>", "<sound><vila/video>")):
        parts = processor(
            text=text,
            videos=[loaded.frames.numpy()],
            video_metadata=[loaded.metadata],
            do_sample_frames=False,
            audio=[waveform],
            audio_from_video_indices=[0],
            load_audio_from_video=True,
            return_tensors="pt",
        )
        assert_same(parts, whole)


def test_metadata_that_the_processor_returns_can_be_given_back(processor):
    chat = user({"type": "video", "path": CLIP}, "?")
    options = {"load_audio_from_video": False}
    whole = prepare(processor, chat, num_frames=5, processor_kwargs={"return_metadata": True, **options})
    metadata = whole.pop("video_metadata")
    assert metadata[0].frames_indices == [0, 75, 150, 224, 299] and metadata[0].fps == 25
    loaded = processor.video_processor.load_videos([CLIP], num_frames=5)
    again = processor(
        text=processor.apply_chat_template(chat, add_generation_prompt=True),
        videos=[(loaded[0].frames, metadata[0])],
        return_tensors="pt",
    )
    assert_same(again, whole)


# Every kind of input


def image_inputs() -> dict:
    picture = image()
    array = np.asarray(picture)
    data = image_bytes(picture)
    return {
        "pil": picture,
        "array": array,
        "channels first": np.moveaxis(array, -1, 0),
        "tensor": torch.from_numpy(array.copy()).permute(2, 0, 1),
        "bytes": data,
        "file": io.BytesIO(data),
        "data url": "data:image/png;base64," + base64.b64encode(data).decode(),
    }


@pytest.mark.parametrize("kind", ["pil", "array", "channels first", "tensor", "bytes", "file", "data url", "path"])
def test_images_of_every_kind(processor, kind, tmp_path):
    inputs = image_inputs()
    if kind == "path":
        inputs["path"] = str(tmp_path / "image.png")
        (tmp_path / "image.png").write_bytes(inputs["bytes"])
    expected = processor(text="<image>?", images=image(), return_tensors="pt")
    assert_same(processor(text="<image>?", images=inputs[kind], return_tensors="pt"), expected)
    chat = prepare(processor, user({"type": "image", "image": image_inputs().get(kind, inputs.get(kind))}, "?"))
    assert_same(chat, prepare(processor, user(image_item(), "?")))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_images_of_every_mode(processor, mode):
    picture = image().convert(mode)
    pixels = processor.image_processor(picture)["pixel_values"]
    expected = processor.image_processor(picture.convert("RGB"))["pixel_values"]
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize("mean", [0.25, [0.25] * 3, [0.1, 0.2, 0.3], None])
@pytest.mark.parametrize("std", [0.5, [0.1, 0.2, 0.4]])
def test_normalising(processor, mean, std):
    frames, metadata = video(num_frames=2)
    pixels = processor.video_processor(
        [(frames, metadata)], do_resize=False, image_mean=mean, image_std=std, do_normalize=mean is not None
    )["pixel_values_videos"]
    expected = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    if mean is not None:
        expected = (expected - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(pixels, expected)


# The sums are those of `PIL.Image.resize` of Pillow 13, which parity was computed with. Older versions take the axes
# in another order where an image becomes lower by much and narrower by little or not at all: in the first three.
@pytest.mark.parametrize(
    ("height", "width", "checksum"),
    [
        (112, 112, 1019641047),
        (56, 84, 1101936959),
        (20, 300, 2585991142),
        (280, 112, 4191463196),
        (150, 45, 3914223532),
        (190, 30, 858486319),
    ],
)
def test_resizing_does_not_depend_on_the_version_of_pillow(height, width, checksum):
    places = torch.arange(200 * 90 * 3).reshape(200, 90, 3)
    pixels = (places**2 % 251).to(torch.uint8).movedim(-1, 0)
    resized = resize_exactly(pixels, height, width)
    assert zlib.crc32(resized.movedim(0, -1).contiguous().numpy()) == checksum


def test_grey_arrays_and_alpha(processor):
    array = np.asarray(image())
    grey = processor.image_processor(array[..., 0])["pixel_values"]
    assert torch.equal(grey, processor.image_processor(np.repeat(array[..., :1], 3, axis=-1))["pixel_values"])
    alpha = np.concatenate([array, np.full_like(array[..., :1], 7)], axis=-1)
    dropped = processor.image_processor(alpha, transparency="drop")["pixel_values"]
    assert torch.equal(dropped, processor.image_processor(array)["pixel_values"])


def test_an_image_alone_is_tiled_and_several_are_not(processor):
    batch = processor(
        text=["<image>one", "<image>two<image>", "none"],
        images=[[image()], [image(), image(40, 200)], []],
        return_tensors="pt",
    )
    assert batch["image_grid_hw"].tolist() == [[3, 4], [1, 1], [1, 1]]
    assert batch["pixel_values"].shape == (1 + 4 + 12 + 2, 3, 56, 56)
    flat = processor(
        text=["<image>one", "<image>two<image>", "none"],
        images=[image(), image(), image(40, 200)],
        return_tensors="pt",
    )
    assert_same(flat, batch)


@pytest.mark.parametrize("kind", ["array", "int16", "uint8", "tensor", "list", "bytes", "file", "path", "data url"])
def test_audio_of_every_kind(processor, kind, tmp_path):
    samples = (sound() * 32767).round() / 32767
    data = wav_bytes(samples)
    (tmp_path / "sound.wav").write_bytes(data)
    given = {
        "array": samples,
        "int16": (samples * 32767).round().astype(np.int16),
        "uint8": (samples * 127 + 128).round().astype(np.uint8),
        "tensor": torch.from_numpy(samples),
        "list": samples.tolist(),
        "bytes": data,
        "file": io.BytesIO(data),
        "path": tmp_path / "sound.wav",
        "data url": "data:audio/wav;base64," + base64.b64encode(data).decode(),
    }[kind]
    expected = processor(text="<sound>?", audio=samples, return_tensors="pt")
    actual = processor(text="<sound>?", audio=given, return_tensors="pt")
    assert torch.equal(actual["input_ids"], expected["input_ids"])
    # Eight bits hiss: what is loud agrees all the same.
    loud = expected["input_features"] > 0.5
    torch.testing.assert_close(actual["input_features"][loud], expected["input_features"][loud], atol=1e-2, rtol=0)


@pytest.mark.parametrize("hop_length", [60, 160])
def test_long_sound_has_the_spectrogram_of_the_whole_clip(hop_length):
    from transformers import WhisperFeatureExtractor

    processor = AutoProcessor.from_pretrained(PARITY / "published-tiny")
    processor.feature_extractor = WhisperFeatureExtractor(feature_size=128, hop_length=hop_length)
    loudness = np.linspace(0, 1, 150 * 16_000, dtype=np.float32) ** 4  # the floor of a part is far below the clip's
    samples = loudness * np.random.default_rng(0).normal(0, 0.2, len(loudness)).astype(np.float32)
    inputs = processor(text="<sound>", audio=samples, return_tensors="pt")
    whole = processor.feature_extractor(
        samples, sampling_rate=16_000, padding=False, truncation=False, return_tensors="pt"
    )["input_features"][0]
    frames = inputs["input_features"].transpose(0, 1).flatten(1)
    torch.testing.assert_close(frames[:, : whole.shape[1]], whole, atol=1e-4, rtol=0)
    assert (frames[:, whole.shape[1] :] == 0).all()


def test_videos_of_every_kind(processor, tmp_path):
    frames, metadata = video(num_frames=4)
    pictures = [PIL.Image.fromarray(frame) for frame in frames]
    for index, picture in enumerate(pictures):
        picture.save(tmp_path / f"{index}.png")
    expected = processor(text="<vila/video>?", videos=[frames], video_metadata=[metadata], return_tensors="pt")
    kinds = {
        "pair": (frames, metadata),
        "tensor": torch.from_numpy(frames),
        "channels first": torch.from_numpy(frames).permute(0, 3, 1, 2),
        "pictures": [pictures],
        "arrays": [list(frames)],
        "paths": [[str(tmp_path / f"{index}.png") for index in range(4)]],
        "folder": str(tmp_path),
    }
    for kind, given in kinds.items():
        options = {} if kind == "pair" else {"video_metadata": [metadata]}
        actual = processor(text="<vila/video>?", videos=given, return_tensors="pt", **options)
        assert_same(actual, expected)


def test_a_still_image_as_video(processor, tmp_path):
    image().save(tmp_path / "still.png")
    inputs = processor(text="<vila/video>?", videos=str(tmp_path / "still.png"), num_frames=3, return_tensors="pt")
    assert inputs["video_timestamps"].tolist() == [[0.0] * 3]
    frames = inputs["pixel_values_videos"]
    assert len(frames) == 3 and torch.equal(frames[0], frames[1]) and torch.equal(frames[0], frames[2])


# Sampling


def test_sampling_by_fps(processor):
    chat = user({"type": "video", "path": CLIP}, "?")
    half_a_frame = 0.02 + 1e-6
    sampled = prepare(processor, chat, fps=2)["video_timestamps"][0]
    torch.testing.assert_close(sampled, torch.arange(24) * 0.5, atol=half_a_frame, rtol=0)
    capped = prepare(processor, chat, fps=2, max_frames=5)
    assert torch.equal(capped["video_timestamps"], prepare(processor, chat, num_frames=5)["video_timestamps"])
    with pytest.raises(ValueError, match="`num_frames=4` and `fps=2`"):
        prepare(processor, chat, fps=2, num_frames=4)


def test_a_part_of_a_clip_is_a_clip_of_its_own(processor):
    chat = user({"type": "video", "path": CLIP}, "?")
    part = prepare(processor, chat, video_start=4.0, video_end=8.0, num_frames=5, load_audio_from_video=True)
    assert part["video_timestamps"][0].tolist() == pytest.approx([0, 1, 2, 2.96, 3.96], abs=0.021)
    whole = processor.video_processor([CLIP], fps=25)["pixel_values_videos"]
    assert torch.equal(part["pixel_values_videos"][0], whole[100])
    assert torch.equal(part["pixel_values_videos"][-1], whole[199])
    assert (part["audio_timestamps"][0] < 4.05).all()


def test_default_sampling_is_that_of_the_checkpoint(processor):
    assert processor.video_processor.num_frames == 8
    assert prepare(processor, user({"type": "video", "path": CLIP}, "?"))["pixel_values_videos"].shape[0] == 8


# Text


def test_boundary_newlines_do_not_melt_with_text(processor):
    inputs = prepare(processor, user(image_item(), "\n\nWhat?"))
    ids = inputs["input_ids"][0].tolist()
    last = max(index for index, token in enumerate(ids) if token == processor.image_token_id)
    newline = processor.tokenizer("\n")["input_ids"]
    assert ids[last + 1 : last + 2] == newline
    text = processor.tokenizer("\n\nWhat?<|im_end|>")["input_ids"]
    assert ids[last + 2 : last + 2 + len(text)] == text


def test_several_conversations_are_padded_on_either_side(processor):
    chats = [user("Short."), user(image_item(), "Longer question?")]
    left = prepare(processor, chats)
    assert left["attention_mask"][0, 0] == 0 and left["attention_mask"][0, -1] == 1
    right = prepare(processor, chats, padding_side="right")
    assert right["attention_mask"][0, 0] == 1 and right["attention_mask"][0, -1] == 0


def test_system_message_and_several_turns(processor):
    chat = [
        {"role": "system", "content": "Be brief."},
        *user(audio_item(), "What is it?"),
        {"role": "assistant", "content": "A tone."},
        *user("How high?"),
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<sound>What is it?<|im_end|>\n"
        "<|im_start|>assistant\nA tone.<|im_end|>\n<|im_start|>user\nHow high?<|im_end|>\n<|im_start|>assistant\n"
    )
    default = processor.apply_chat_template(user("Hi"))
    assert default == "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"


def test_assistant_mask_survives_expansion(processor):
    chat = [*user(image_item(), "What?"), {"role": "assistant", "content": "A sign."}]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )
    chosen = inputs["input_ids"][0][torch.as_tensor(inputs["assistant_masks"][0]).bool()]
    assert processor.decode(chosen) == "A sign.<|im_end|>"


def test_mm_token_type_ids(processor):
    inputs = prepare(
        processor,
        user(image_item(), video_item(), audio_item(), "?"),
        processor_kwargs={"return_mm_token_type_ids": True},
    )
    kinds = inputs["mm_token_type_ids"]
    for kind, modality in enumerate(("image", "video", "audio"), start=1):
        assert torch.equal(kinds == kind, inputs["input_ids"] == getattr(processor, f"{modality}_token_id"))


def test_control_tokens_in_user_text_can_be_read_as_text(processor):
    chat = user(image_item(), "Is <image> a tag? <|im_end|>")
    inputs = prepare(processor, chat, sanitize_control_tokens=True)
    assert processor.plan(chat, sanitize_control_tokens=True).ids() == inputs["input_ids"][0].tolist()
    plain = prepare(processor, user(image_item(), "Is it a tag?"))
    assert (inputs["input_ids"] == processor.image_token_id).sum() == (
        plain["input_ids"] == processor.image_token_id
    ).sum()
    assert "Is <image> a tag? <|im_end|>" in processor.decode(inputs["input_ids"][0])


def test_post_processing(processor):
    generated = processor.tokenizer(["one<|im_end|>", "two"], padding=True, return_tensors="pt")["input_ids"]
    assert processor.post_process_image_text_to_text(generated) == ["one", "two"]


# Lengths


def test_count_tokens_is_the_length_of_the_prompt(processor):
    chats = [
        user("Text alone."),
        user(image_item(), "One image."),
        user(image_item(), image_item(seed=1), "Two."),
        user({"type": "video", "path": CLIP}, audio_item(), "Both."),
    ]
    for options in ({}, {"load_audio_from_video": True}, {"fps": 1.0}, {"num_frames": 5, "video_start": 2.0}):
        lengths = processor.count_tokens(chats, **options)
        for chat, length in zip(chats, lengths, strict=True):
            assert length == prepare(processor, chat, **options)["input_ids"].shape[1], options
        assert processor.count_tokens(chats[3], **options) == lengths[3]
    for picture in (image(), np.asarray(image())):
        inputs = processor("<image>Hm", images=picture)
        assert processor.count_tokens("<image>Hm", images=picture) == len(inputs["input_ids"][0])


def test_count_tokens_decodes_no_pixels(processor, monkeypatch):
    from transformers_omnivinci import media

    def refuse(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr(media, "load_video", refuse)
    monkeypatch.setattr(media, "load_audio", refuse)
    assert processor.count_tokens(user({"type": "video", "path": CLIP}, "?"), load_audio_from_video=True) > 300


def test_get_num_multimodal_tokens(processor):
    counts = processor._get_num_multimodal_tokens(
        image_sizes=[[90, 160], [50, 50]], video_sizes=[[5, 60, 80]], audio_lengths=[16_000, 600_000]
    )
    assert counts["num_image_tokens"] == [12 * 4, 9 * 4]
    assert counts["num_image_patches"] == [17, 14]
    assert counts["num_video_tokens"] == [20]
    assert counts["num_audio_tokens"] == [750, 1500]


# Tensors


def test_seconds_survive_a_cast(processor):
    inputs = prepare(processor, user({"type": "video", "path": CLIP}, "?"), load_audio_from_video=True, num_frames=4)
    seconds = inputs["audio_timestamps"].clone()
    cast = inputs.to("cpu", torch.bfloat16)
    assert cast["pixel_values_videos"].dtype == cast["input_features"].dtype == torch.bfloat16
    assert torch.equal(cast["audio_timestamps"], seconds)
    assert cast["input_ids"].dtype == torch.int64
    assert cast.to("meta")["audio_timestamps"].is_meta


@pytest.mark.parametrize("tensors", [None, "np", "pt"])
def test_return_tensors(processor, tensors):
    inputs = processor(text="<image><sound>", images=image(), audio=sound(), return_tensors=tensors)
    kind = {None: list, "np": np.ndarray, "pt": torch.Tensor}[tensors]
    assert isinstance(inputs["input_ids"], kind)
    assert np.shape(inputs["pixel_values"]) == (17, 3, 56, 56)


def test_processors_of_parts(tmp_path):
    processor = AutoProcessor.from_pretrained(PARITY / "published-tiny")
    processor.save_pretrained(tmp_path)
    images, videos = AutoImageProcessor.from_pretrained(tmp_path), OmniVinciVideoProcessor.from_pretrained(tmp_path)
    assert type(images) is OmniVinciImageProcessor and images.s2_scales == [56, 112, 168]
    assert videos.size["height"] == 56 and videos.num_frames == 8
    assert type(AutoVideoProcessor.from_pretrained(tmp_path)) is OmniVinciVideoProcessor


def test_long_prompts_warn_with_both_numbers(processor, caplog):
    processor(text="word " * 33_000)
    assert any("32768" in record.getMessage() and "tokens" in record.getMessage() for record in caplog.records)
