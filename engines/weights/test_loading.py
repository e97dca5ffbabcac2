"""Checkpoints quantized while they are loaded: which layers, by every road, and saved and loaded again."""

import pytest
import torch
import transformers
from bitsandbytes.functional import has_avx512bf16
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchao.quantization import FqnToConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig
from transformers import AutoModel, AutoModelForImageTextToText, BitsAndBytesConfig, HqqConfig, TorchAoConfig, pipeline

from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration, OmniVinciModel

from .conftest import CLIP, QUANTIZERS, answer, linear_layers, logits_of, quantized_layers

TOWERS = ("model.vision_tower", "model.audio_tower")
FIELD = {"bnb": "llm_int8_skip_modules", "torchao": "modules_to_not_convert"}


def field_of(name):
    return FIELD[name.partition("-")[0]]


@pytest.mark.parametrize("road", ["nano", "published", "converted"])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_language_model_is_quantized_saved_and_loaded_again(roads, name, road, plain, ask, processor, tmp_path):
    config = QUANTIZERS[name]()
    before = config.to_dict()
    model = AutoModel.from_pretrained(roads[road], quantization_config=config)
    assert config.to_dict() == before
    assert quantized_layers(model) == linear_layers(plain, "model.language_model")
    model.save_pretrained(tmp_path)
    logits = logits_of(model, ask())
    again = AutoModel.from_pretrained(tmp_path)
    assert quantized_layers(again) == quantized_layers(model)
    torch.testing.assert_close(logits_of(again, ask()), logits, rtol=0, atol=0)
    assert answer(again, processor, ask()) == answer(model, processor, ask()) == "low tone"


@pytest.mark.parametrize("name", QUANTIZERS)
def test_numbers_stay_near_those_of_full_precision(name, plain, ask):
    model = AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]())
    expected, got = (logits_of(one, ask()).float().log_softmax(-1) for one in (plain, model))
    divergence = (expected.exp() * (expected - got)).sum(-1).mean()
    assert 0 < divergence < (0.02 if "8" in name else 0.2)


def test_every_way_to_the_weights_leaves_out_the_same(plain):
    expected = linear_layers(plain, "model.language_model")
    config = QUANTIZERS["bnb-nf4"]()
    asker = pipeline("video-text-to-text", NANO, model_kwargs={"quantization_config": config})
    models = {
        "class": OmniVinciForConditionalGeneration.from_pretrained(NANO, quantization_config=config),
        "by its name": transformers.OmniVinciForConditionalGeneration.from_pretrained(
            NANO, quantization_config=config
        ),
        "images": AutoModelForImageTextToText.from_pretrained(NANO, quantization_config=config),
        "dictionary": AutoModel.from_pretrained(NANO, quantization_config=config.to_dict()),
        "pipeline": asker.model,
        "info": AutoModel.from_pretrained(NANO, quantization_config=config, output_loading_info=True)[0],
    }
    assert {name: quantized_layers(model) for name, model in models.items()} == dict.fromkeys(models, expected)
    content = [{"type": "video", "path": CLIP}, {"type": "text", "text": "Which sound is heard first?"}]
    (result,) = asker(text=[{"role": "user", "content": content}], return_full_text=False, max_new_tokens=4)
    assert result["generated_text"].strip() == "low tone"


@pytest.mark.parametrize("name", ["bnb-nf4", "torchao-int8"])
def test_the_model_without_a_head_is_quantized_alike(name, plain):
    base = OmniVinciModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]())
    expected = {layer.removeprefix("model.") for layer in linear_layers(plain, "model.language_model")}
    assert quantized_layers(base) == expected


@pytest.mark.parametrize("name", ["bnb-nf4", "bnb-nf4-double", "bnb-int8"])
def test_the_model_without_a_head_loads_what_the_one_with_a_head_saved(name, plain, tmp_path):
    """Not of torchao, whose files name the weights as they were saved: transformers refuses."""
    whole = AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]())
    whole.save_pretrained(tmp_path)
    expected = {layer.removeprefix("model.") for layer in quantized_layers(whole)}
    assert quantized_layers(OmniVinciModel.from_pretrained(tmp_path)) == expected


@pytest.mark.parametrize("name", ["bnb-nf4", "bnb-int8", "torchao-int8"])
def test_modules_that_the_config_names_are_left_out_and_no_others(name, plain, ask, processor, tmp_path):
    config = QUANTIZERS[name](**{field_of(name): ["lm_head", "model.language_model"]})
    model = AutoModel.from_pretrained(NANO, quantization_config=config)
    assert quantized_layers(model) == linear_layers(plain) - linear_layers(plain, "lm_head", "model.language_model")
    model.save_pretrained(tmp_path)
    logits = logits_of(model, ask())
    again = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(again, ask()), logits, rtol=0, atol=0)
    assert answer(model, processor, ask())
    with pytest.raises(ValueError, match="cannot be fused: (`linear_1` is a Linear|a weight of `linear_1` is a)"):
        model.model.vision_projector.fuse()


def test_torchao_may_name_layers(plain):
    by_name = FqnToConfig({r"re:model\.audio_tower\..*fc1": Int8WeightOnlyConfig()})
    model = AutoModel.from_pretrained(NANO, quantization_config=TorchAoConfig(by_name))
    assert quantized_layers(model) == {layer for layer in linear_layers(plain, "model.audio_tower") if "fc1" in layer}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_projector_is_fused_as_in_full_precision(name, ask):
    model = AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]())
    logits = logits_of(model, ask())
    model.model.vision_projector.fuse()
    torch.testing.assert_close(logits_of(model, ask()), logits, rtol=0.05, atol=0.5)


# ------------------------------------------------------------------------------------------------------------ errors


def test_a_quantized_checkpoint_is_not_loaded_in_another_way(tmp_path):
    AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS["bnb-nf4"]()).save_pretrained(tmp_path)
    told = "is quantized as bitsandbytes nf4, and cannot be loaded as "
    for name, kind in (("bnb-int8", "bitsandbytes llm_int8"), ("bnb-fp4", "bitsandbytes fp4"), ("torchao-int8", "")):
        for load in (AutoModel, OmniVinciForConditionalGeneration):
            with pytest.raises(ValueError, match=told + kind):
                load.from_pretrained(tmp_path, quantization_config=QUANTIZERS[name]())
    same = AutoModel.from_pretrained(tmp_path, quantization_config=QUANTIZERS["bnb-nf4"]())
    assert quantized_layers(same)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("bnb-nf4", "absmax"), ("bnb-nf4-double", "absmax"), ("bnb-int8", "SCB"), ("torchao-int8", "_weight_scale")],
)
def test_a_missing_scale_is_told(name, scale, tmp_path):
    AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS[name]()).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    lost = next(key for key in tensors if key.endswith(f".{scale}"))
    save_file({key: tensors[key] for key in tensors if key != lost}, path, metadata=metadata)
    with pytest.raises(OSError, match=f"is quantized, but has no {lost} to go with"):
        AutoModel.from_pretrained(tmp_path)


def test_what_needs_a_gpu_is_refused_without_one():
    assert not torch.accelerator.is_available()
    with pytest.raises(ValueError, match="Int4WeightOnlyConfig packs weights for a GPU, and there is none: on a CPU"):
        AutoModel.from_pretrained(NANO, quantization_config=TorchAoConfig(Int4WeightOnlyConfig()))


def test_hqq_is_told_to_come_from_torchao():
    with pytest.raises(ValueError, match="has an HqqConfig, but cannot quantize by it: torchao can"):
        AutoModel.from_pretrained(NANO, quantization_config=HqqConfig())


def test_weights_that_bitsandbytes_has_packed_are_neither_saved_nor_trained(ask, tmp_path):
    """On CPUs that it packs weights for; on others nothing changes."""
    model = AutoModel.from_pretrained(NANO, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    logits_of(model, ask())
    if has_avx512bf16():
        with pytest.raises(ValueError, match="bitsandbytes has packed .* save the model before its first answer"):
            model.save_pretrained(tmp_path / "saved")
        assert not (tmp_path / "saved").exists()
        with pytest.raises(ValueError, match="bitsandbytes has packed .* call `train\\(\\)` before it answers"):
            model.train()
    else:
        model.train().save_pretrained(tmp_path / "saved")
