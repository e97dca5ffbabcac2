"""The config: defaults, validation, round trips, both layouts."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, AutoTokenizer

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciProcessor

from .conftest import PARITY

pytestmark = pytest.mark.compat


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"audio_pooling": "median"}, ValueError, ["audio_pooling", "median", "conv"]),
        ({"video_time_embedding": "rope"}, ValueError, ["video_time_embedding", "rope", "crte"]),
        ({"audio_time_period": "medium"}, ValueError, ["audio_time_period", "medium", "longest"]),
        ({"audio_max_time": 0}, ValueError, ["audio_max_time", "0", "positive"]),
        ({"video_max_time": float("nan")}, ValueError, ["video_max_time", "nan"]),
        ({"video_time_rotated_size": 3}, ValueError, ["video_time_rotated_size", "3", "even"]),
        ({"video_time_rotated_size": 9000}, ValueError, ["video_time_rotated_size", "9000", "3584"]),
        ({"audio_time_theta": 0.5}, ValueError, ["audio_time_theta", "0.5"]),
        ({"s2_scales": [448, 900]}, ValueError, ["s2_scales", "900", "multiples"]),
        ({"s2_scales": []}, ValueError, ["s2_scales"]),
        ({"s2_scales": [336, 672]}, ValueError, ["s2_scales", "336", "448"]),
        ({"s2_output_scale_index": 3}, ValueError, ["s2_output_scale_index", "3"]),
        ({"vision_feature_layer": -30}, ValueError, ["vision_feature_layer", "-30", "27"]),
        ({"vision_chunk_size": 0}, ValueError, ["vision_chunk_size", "0"]),
        ({"audio_chunk_size": -1}, ValueError, ["audio_chunk_size", "-1"]),
        ({"video_pool_sizes": [[1, 2]]}, ValueError, ["video_pool_sizes", "triples"]),
        ({"projector_hidden_act": "gulu"}, ValueError, ["projector_hidden_act", "gulu", "gelu"]),
        ({"image_token_id": 151650}, ValueError, ["image_token_id", "151650", "different"]),
        ({"align_loss_weight": -0.1}, ValueError, ["align_loss_weight", "-0.1", "from 0 on"]),
        ({"align_attention": "words"}, ValueError, ["align_attention", "words", "batch", "clip"]),
        ({"align_num_layers": 0}, ValueError, ["align_num_layers", "0", "positive"]),
        ({"align_temperature": 0.0}, ValueError, ["align_temperature", "0.0", "positive"]),
        (
            {"align_loss_weight": 0.2, "text_config": {"hidden_size": 30, "num_attention_heads": 32, "head_dim": 8}},
            ValueError,
            ["align_loss_weight", "32 heads", "30"],
        ),
        ({"vision_chunk_size": "x"}, TypeError, ["vision_chunk_size", "x"]),
        ({"vision_config": {"image_size": 450}}, ValueError, ["image_size", "450", "patch_size"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_computed_is_refused(values, error, words, tmp_path):
    OmniVinciConfig().save_pretrained(tmp_path)
    for make in (OmniVinciConfig, partial(OmniVinciConfig.from_pretrained, tmp_path)):
        with pytest.raises(error) as raised:
            make(**values)
        for word in words:
            assert word in str(raised.value)


def test_round_trip(tmp_path):
    config = OmniVinciConfig(audio_pooling="conv", s2_output_scale_index=0, video_pool_sizes=[[2, 1, 1]])
    config.save_pretrained(tmp_path)
    for loaded in (OmniVinciConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is OmniVinciConfig
        assert loaded.to_diff_dict() == config.to_diff_dict() | {"transformers_version": loaded.transformers_version}


def test_sub_configs():
    config = OmniVinciConfig()
    assert config.text_config.model_type == "qwen2" and config.text_config.num_hidden_layers == 28
    assert config.vision_config.model_type == "siglip_vision_model" and config.vision_config.image_size == 448
    assert config.audio_config.model_type == "qwen2_audio_encoder" and config.audio_config.encoder_layers == 32
    assert config.num_vision_layers == 26
    assert config.get_text_config() is config.text_config


def test_tied_embeddings_are_one_fact():
    for config in (
        OmniVinciConfig(tie_word_embeddings=True),
        OmniVinciConfig(text_config={"model_type": "qwen2", "tie_word_embeddings": True}),
    ):
        assert config.tie_word_embeddings and config.text_config.tie_word_embeddings


@pytest.mark.parametrize("load", [OmniVinciConfig.from_pretrained, AutoConfig.from_pretrained])
def test_options_of_a_published_checkpoint(load):
    options = {"vision_chunk_size": 7, "nothing": 1, "revision": "main", "token": "hf_none"}
    config, unused = load(PARITY / "published-tiny", return_unused_kwargs=True, **options)
    assert config.vision_chunk_size == 7 and unused == {"nothing": 1}


def test_a_component_of_a_published_checkpoint():
    assert AutoConfig.from_pretrained(PARITY / "published-tiny", subfolder="llm").model_type == "qwen2"
    assert len(AutoTokenizer.from_pretrained(PARITY / "published-tiny", subfolder="llm")) > 400
    with pytest.raises(OSError, match="config.json' is not a checkpoint in the published layout"):
        AutoConfig.from_pretrained(PARITY / "published-tiny" / "config.json")


@pytest.mark.parametrize("load", [OmniVinciConfig.from_pretrained, AutoConfig.from_pretrained])
def test_published_layout(load):
    config = load(PARITY / "published-tiny-short-groups")
    assert type(config) is OmniVinciConfig
    assert (config.image_token_id, config.video_token_id, config.audio_token_id) == (387, 388, 390)
    assert config.s2_scales == [56, 112, 168] and not hasattr(config, "group_duration")
    assert config.video_time_embedding == config.audio_time_embedding == "crte"
    assert config.video_time_rotated_size == 32 and config.video_max_time == 3600
    assert config.text_config.rope_parameters["rope_theta"] == 1_000_000
    assert not hasattr(config.text_config, "channel_order_list")
    assert load(PARITY / "published-tiny-maxpool").audio_pooling == "max"


def test_keyword_arguments_override_the_published_settings():
    config = OmniVinciConfig.from_pretrained(PARITY / "published-tiny", vision_chunk_size=3)
    assert config.vision_chunk_size == 3
    config, unused = AutoConfig.from_pretrained(PARITY / "published-tiny", unknown=1, return_unused_kwargs=True)
    assert unused == {"unknown": 1}


def test_options_act_as_arguments_of_the_constructor():
    published = OmniVinciConfig.from_pretrained(PARITY / "published-tiny")
    for folder in (NANO, PARITY / "published-tiny"):
        config = OmniVinciConfig.from_pretrained(folder, tie_word_embeddings=True, video_pool_sizes=((2, 1, 1),))
        assert config.text_config.tie_word_embeddings and config.video_pool_sizes == [[2, 1, 1]]
    untied = OmniVinciConfig.from_pretrained(NANO, tie_word_embeddings=False)
    assert not untied.tie_word_embeddings and not untied.text_config.tie_word_embeddings
    tiles = OmniVinciConfig.from_pretrained(NANO, vision_config={"image_size": 32}, s2_scales=[32, 64])
    assert tiles.vision_config.image_size == 32 and tiles.vision_config.hidden_size == 128
    again = AutoConfig.from_pretrained(PARITY / "published-tiny", text_config={"rms_norm_eps": 1e-3})
    assert again.text_config.rms_norm_eps == 1e-3
    assert again.text_config.hidden_size == published.text_config.hidden_size


# ----------------------------------------------------------------------------------- settings that the processor reads

OF_PROCESSOR = {
    "audio_end_tokens": "\n",
    "audio_start_tokens": None,
    "group_duration": 1.0,
    "image_end_tokens": "\n",
    "image_start_tokens": None,
    "interleave_audio_in_video": True,
    "video_end_tokens": None,
    "video_separator_tokens": None,
    "video_start_tokens": None,
}
"""What nano's `config.json` said of them before they were the processor's alone."""


def test_a_file_that_was_saved_before_loads(tmp_path):
    shutil.copytree(NANO, tmp_path, dirs_exist_ok=True)
    now = json.loads((Path(NANO) / "config.json").read_text())
    assert not now.keys() & OF_PROCESSOR.keys()
    (tmp_path / "config.json").write_text(json.dumps(now | OF_PROCESSOR))
    expected = OmniVinciConfig.from_pretrained(NANO).to_dict()
    for config in (
        OmniVinciConfig.from_pretrained(tmp_path),
        AutoConfig.from_pretrained(tmp_path),
        OmniVinciConfig.from_json_file(tmp_path / "config.json"),
        OmniVinciConfig.from_dict(now | OF_PROCESSOR),
        OmniVinciForConditionalGeneration.from_pretrained(tmp_path).config,
    ):
        assert {**config.to_dict(), "_name_or_path": None} == {**expected, "_name_or_path": None}
    config.save_pretrained(tmp_path)
    assert not json.loads((tmp_path / "config.json").read_text()).keys() & OF_PROCESSOR.keys()
    processor = OmniVinciProcessor.from_pretrained(tmp_path)
    assert {name: getattr(processor, name) for name in OF_PROCESSOR} == OF_PROCESSOR


@pytest.mark.parametrize("folder", [NANO, PARITY / "published-tiny"], ids=["transformers", "published"])
@pytest.mark.parametrize("cls", [OmniVinciConfig, AutoConfig, OmniVinciForConditionalGeneration, AutoModel])
def test_the_model_does_not_take_them(folder, cls):
    for name, value in OF_PROCESSOR.items():
        with pytest.raises(ValueError, match=f"`{name}`.*OmniVinciProcessor.from_pretrained"):
            cls.from_pretrained(folder, **{name: value})


def test_the_constructor_does_not_take_them():
    with pytest.raises(ValueError, match="`group_duration`, `audio_end_tokens`.*OmniVinciProcessor"):
        OmniVinciConfig(group_duration=30.0, audio_end_tokens=None)
