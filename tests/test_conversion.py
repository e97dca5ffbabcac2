"""The published layout: what is read, what is refused, and that the transformers layout is the same model."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from transformers_omnivinci import OmniVinciForConditionalGeneration, OmniVinciProcessor

from .checkpoints import edit, edit_encoder, edit_weights
from .conftest import CLIP, PARITY
from .media_samples import audio_item, image_item, user, video_item

pytestmark = pytest.mark.compat


def chat():
    return user(image_item(), video_item(), audio_item(), "Compare.")


def embeds_of(checkpoint, **kwargs):
    model, processor = AutoModel.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    inputs = processor.apply_chat_template(chat(), tokenize=True, return_dict=True, return_tensors="pt", **kwargs)
    with torch.no_grad():
        return model.get_inputs_embeds(**inputs), inputs


@pytest.mark.parametrize("name", ["published-tiny", "published-tiny-maxpool", "published-tiny-short-groups"])
def test_the_transformers_layout_is_the_same_model(name, load_checkpoint, tmp_path):
    model, processor = load_checkpoint(name)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor_again = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert type(processor_again) is OmniVinciProcessor
    assert processor_again.to_dict() == processor.to_dict()
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, weight in again.state_dict().items():
        assert torch.equal(weight, model.state_dict()[key]), key
    kwargs = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    clip = user({"type": "video", "path": CLIP}, image_item(), "What?")
    inputs = processor.apply_chat_template(clip, load_audio_from_video=True, num_frames=4, **kwargs)
    inputs_again = processor_again.apply_chat_template(clip, load_audio_from_video=True, num_frames=4, **kwargs)
    for key in inputs:
        assert torch.equal(inputs[key], inputs_again[key]), key
    with torch.no_grad():
        assert torch.equal(again(**inputs_again).logits, model(**inputs).logits)
    assert again.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()


def test_settings_may_be_json_or_dicts(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    before = AutoConfig.from_pretrained(checkpoint).to_dict()
    edit(checkpoint / "config.json", video_encoder=json.loads(config["video_encoder"]), image_encoder=None)
    assert AutoConfig.from_pretrained(checkpoint).to_dict() == before


@pytest.mark.parametrize("where", ["preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize("named", [{}, {"processor_class": "VILAProcessor"}])
def test_a_root_that_names_the_releases_processor(checkpoint, where, named):
    auto_map = {"AutoProcessor": "auto_processor.VILAProcessor"}
    (checkpoint / where).write_text(json.dumps({"auto_map": auto_map, **named}))
    (checkpoint / "auto_processor.py").write_text("raise SystemExit('remote code was run')")
    assert type(AutoProcessor.from_pretrained(checkpoint)) is OmniVinciProcessor


def test_generation_config_of_the_root(checkpoint):
    (checkpoint / "generation_config.json").write_text(json.dumps({"temperature": 0.2, "do_sample": True}))
    model = AutoModel.from_pretrained(checkpoint)
    assert model.generation_config.temperature == 0.2 and model.generation_config.pad_token_id == 384


def test_defaults_of_absent_keys(checkpoint):
    absent = ["audio_sampling_rate", "audio_hop_length", "audio_chunk_length"]
    absent += ["interleaved_video_segment_duration", "interleaved_vis_aud_in_video"]
    edit(checkpoint / "config.json", **dict.fromkeys(absent))
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert processor.feature_extractor.sampling_rate == 16_000 and processor.feature_extractor.hop_length == 60
    assert processor.max_audio_duration == 120 and processor.fixed_audio_duration is None
    assert processor.group_duration == 30 and processor.interleave_audio_in_video


@pytest.mark.parametrize(
    ("value", "expected"), [("max", (None, None)), ("max_90", (90, None)), (7, (7, None)), ("fix_12", (None, 12))]
)
def test_audio_chunk_length(checkpoint, value, expected):
    edit(checkpoint / "config.json", audio_chunk_length=value)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert (processor.max_audio_duration, processor.fixed_audio_duration) == expected


@pytest.mark.parametrize(
    ("chunk", "hop", "seconds", "windows"),
    [(7, 160, 40, 1), ("max", 160, 40, 2), ("fix_45", 160, 40, 2), ("max", 60, 40, 6), ("fix_12", 60, 40, 2)],
)
def test_windows_of_other_hops_and_lengths(checkpoint, chunk, hop, seconds, windows):
    edit(checkpoint / "config.json", audio_chunk_length=chunk, audio_hop_length=hop)
    processor = AutoProcessor.from_pretrained(checkpoint)
    inputs = processor.apply_chat_template(
        user(audio_item(seconds=seconds), "?"), tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert inputs["input_features"].shape == (windows, 128, 3000)
    times = inputs["audio_timestamps"][0]
    padded = {7: 30, "max": 60, "fix_45": 45, "fix_12": 12}[chunk]
    assert len(times) == windows * 750
    torch.testing.assert_close(times, (torch.arange(windows * 750) + 0.5) * padded / (windows * 750))
    if windows * 3000 > padded * 16_000 // hop:
        assert (inputs["input_features"][-1, :, -1] == 0).all()


def test_tied_embeddings(checkpoint):
    edit(checkpoint / "llm" / "config.json", tie_word_embeddings=True)
    index = checkpoint / "llm" / "model.safetensors.index.json"
    entries = json.loads(index.read_text())
    del entries["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(entries))
    edit_weights(
        checkpoint / "llm" / "model-00002-of-00002.safetensors", lambda weights: weights.pop("lm_head.weight")
    )
    model = AutoModel.from_pretrained(checkpoint)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    untied = AutoModel.from_pretrained(PARITY / "published-tiny")
    assert torch.equal(model.lm_head.weight, untied.get_input_embeddings().weight)


def test_convolution_before_the_projector(checkpoint):
    edit(checkpoint / "config.json", sound_mm_projector="mlp_downsample")
    weights = {"downsample_block.conv1.weight": torch.randn(32, 32, 3), "downsample_block.conv1.bias": torch.randn(32)}
    edit_weights(checkpoint / "sound_mm_projector" / "model.safetensors", lambda stored: stored.update(weights))
    model = AutoModel.from_pretrained(checkpoint)
    assert torch.equal(model.model.audio_compression.conv.weight, weights["downsample_block.conv1.weight"])
    _, inputs = embeds_of(checkpoint)
    assert (inputs["input_ids"] == model.config.audio_token_id).sum() == 375


def test_media_brackets(checkpoint):
    plain, inputs = embeds_of(checkpoint)
    edit(checkpoint / "config.json", mm_use_bos_eos_tokens=True)
    processor = AutoProcessor.from_pretrained(checkpoint)
    bracketed = processor.apply_chat_template(chat(), tokenize=True, return_dict=True, return_tensors="pt")
    ids, brackets = bracketed["input_ids"][0].tolist(), set(range(391, 399))
    assert [token for token in ids if token not in brackets] == inputs["input_ids"][0].tolist()
    assert [token for token in ids if token in brackets] == [391, 392, 393, 394, 397, 398]


@pytest.mark.parametrize(
    ("encoder", "changes", "extra"),
    [
        ("image_encoder", {"start_tokens": "<|im_start|>", "end_tokens": "None"}, 0),
        ("video_encoder", {"start_tokens": "a\n", "sep_tokens": "\n"}, 2 * 6 + 1),
        ("sound_encoder", {"start_tokens": "\n", "end_tokens": "None"}, 0),
    ],
)
def test_boundary_tokens(checkpoint, encoder, changes, extra):
    before, _ = embeds_of(checkpoint)
    edit_encoder(checkpoint, encoder, **changes)
    after, _ = embeds_of(checkpoint)
    assert after.shape[1] - before.shape[1] == extra


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dynamic_s2", False),
        ("image_aspect_ratio", "pad"),
        ("mm_vision_select_feature", "patch"),
        ("sound_mm_projector", "conformer"),
        ("audio_chunk_length", "most"),
        ("s2_scales", "a,b"),
        ("s2_scales", "56,113"),
        ("mm_vision_select_layer", -9),
        ("interleaved_video_segment_duration", 0),
    ],
)
def test_unsupported_settings_are_named(checkpoint, key, value):
    edit(checkpoint / "config.json", **{key: value})
    with pytest.raises(ValueError, match=str(value).split(",")[0]):
        AutoConfig.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match="support"):
        AutoModel.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"_target_": "llava.model.encoders.OtherEncoder"}, "OtherEncoder"),
        ({"period_fix": "sometimes"}, "sometimes"),
        ({"time_embed_type": "cubic"}, "cubic"),
        ({"trope_dim": None}, "trope_dim"),
        ({"end_tokens": "\n"}, "video_end_tokens"),
        ({"pool_sizes": [[0, 1, 1]]}, "video_pool_sizes"),
    ],
)
def test_unsupported_encoder_settings_are_named(checkpoint, changes, named):
    edit_encoder(checkpoint, "video_encoder", **changes)
    with pytest.raises(ValueError, match=named):
        AutoConfig.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", ["llm", "vision_tower", "sound_tower", "mm_projector", "sound_mm_projector"])
def test_a_missing_component(checkpoint, name):
    shutil.rmtree(checkpoint / name)
    with pytest.raises(OSError, match=name):
        AutoModel.from_pretrained(checkpoint)


def test_missing_and_unexpected_weights_are_listed(checkpoint):
    def change(weights):
        weights["layers.9.weight"] = weights.pop("layers.4.weight")

    edit_weights(checkpoint / "mm_projector" / "model.safetensors", change)
    with pytest.raises(ValueError, match="missing: model.vision_projector.linear_2.weight.*layers.9.weight"):
        AutoModel.from_pretrained(checkpoint)


def test_a_weight_of_another_shape(checkpoint):
    def change(weights):
        weights["layers.0.weight"] = weights["layers.0.weight"][:, :-1].contiguous()

    edit_weights(checkpoint / "sound_mm_projector" / "model.safetensors", change)
    with pytest.raises(ValueError, match=r"audio_projector.linear_1.weight \[64, 31\] instead of \[64, 32\]"):
        AutoModel.from_pretrained(checkpoint)


def test_a_missing_shard_and_a_damaged_file(checkpoint):
    (checkpoint / "llm" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(OSError, match="model-00002-of-00002"):
        AutoModel.from_pretrained(checkpoint)
    (checkpoint / "llm" / "model-00002-of-00002.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(OSError, match="cannot be read as safetensors"):
        AutoModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("num_bytes", [4, 5_000, 90_000])
def test_a_truncated_shard(checkpoint, num_bytes):
    path = checkpoint / "vision_tower" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(OSError, match="vision_tower/model.safetensors cannot be read as safetensors"):
        AutoModel.from_pretrained(checkpoint)


def test_an_index_that_names_weights_of_no_file(checkpoint):
    index = checkpoint / "llm" / "model.safetensors.index.json"
    entries = json.loads(index.read_text())
    entries["weight_map"]["model.layers.7.input_layernorm.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(entries))
    with pytest.raises(OSError, match="no file holds: model.layers.7.input_layernorm.weight"):
        AutoModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {"lm_head.weight": 1}}', '{"weight_map": []}'])
def test_an_index_without_file_names(checkpoint, content):
    (checkpoint / "llm" / "model.safetensors.index.json").write_text(content)
    with pytest.raises(OSError, match="has no `weight_map` of file names"):
        AutoModel.from_pretrained(checkpoint)


def test_weights_that_are_no_floats(checkpoint):
    def change(weights):
        weights["layers.1.weight"] = weights["layers.1.weight"].to(torch.int8)

    edit_weights(checkpoint / "mm_projector" / "model.safetensors", change)
    with pytest.raises(ValueError, match="another dtype than F64, .*: model.vision_projector.norm.weight I8"):
        AutoModel.from_pretrained(checkpoint)


def test_pickled_weights_are_not_loaded(checkpoint):
    (checkpoint / "mm_projector" / "model.safetensors").rename(checkpoint / "mm_projector" / "pytorch_model.bin")
    with pytest.raises(OSError, match="pytorch_model.bin.*can run code"):
        AutoModel.from_pretrained(checkpoint)


def test_an_index_that_leaves_its_folder(checkpoint):
    index = checkpoint / "llm" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../mm_projector/model.safetensors"}}))
    with pytest.raises(OSError, match="outside its folder"):
        AutoModel.from_pretrained(checkpoint)


def test_a_tokenizer_without_media_tokens(checkpoint):
    for name in ("added_tokens.json", "tokenizer.json", "tokenizer_config.json"):
        path = checkpoint / "llm" / name
        path.write_text(path.read_text().replace("<sound>", "<noise>"))
    with pytest.raises(ValueError, match="<sound>"):
        AutoConfig.from_pretrained(checkpoint)


def test_weights_keep_the_dtype_they_are_stored_in(checkpoint):
    assert AutoModel.from_pretrained(checkpoint).dtype == torch.float32
    for path in checkpoint.glob("*/*.safetensors"):
        edit_weights(path, lambda weights: weights.update({k: v.bfloat16() for k, v in weights.items()}))
    assert AutoModel.from_pretrained(checkpoint).dtype == torch.bfloat16
    assert AutoModel.from_pretrained(checkpoint, dtype="float16").dtype == torch.float16


def test_keyword_arguments_override_settings_of_a_published_model():
    model = OmniVinciForConditionalGeneration.from_pretrained(
        PARITY / "published-tiny",
        vision_chunk_size=3,
        attn_implementation="eager",
        dtype="bfloat16",
    )
    assert model.config.vision_chunk_size == 3
    assert model.config.text_config._attn_implementation == "eager" and model.dtype == torch.bfloat16


def test_only_the_conversion_package_knows_the_published_layout():
    source = PARITY.parents[2] / "src" / "transformers_omnivinci"
    for path in source.rglob("*.py"):
        if "conversion" not in path.parts:
            for word in ("mm_projector", "sound_tower", "trope_dim", "period_fix", "s2_resize_output"):
                assert word not in path.read_text(), (path.name, word)
