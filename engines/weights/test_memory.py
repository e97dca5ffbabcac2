"""What `benchmarks.memory` computes of weights is what quantized checkpoints hold, byte by byte."""

import copy

import pytest
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from safetensors.torch import load_file
from transformers import AutoModel

from benchmarks.memory import RECIPES, count_weights
from transformers_omnivinci import NANO, OmniVinciConfig

from .conftest import QUANTIZERS

NANO_GROUPS = 32  # of 128 weights, rows of nano are no multiple


def compress(quantization):
    """Nano with weights rounded to the nearest, as compressed-tensors stores them."""
    model = AutoModel.from_pretrained(NANO)
    apply_quantization_config(model, QuantizationConfig.model_validate({**quantization, "format": "dense"}))
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data.copy_(module.weight.data.abs().max() / 7)
    ModelCompressor.from_pretrained_model(model).compress_model(model)
    return model


def quantization_of(recipe):
    quantization = copy.deepcopy(RECIPES[recipe])
    for group in quantization["config_groups"].values():
        if "group_size" in group["weights"]:
            group["weights"]["group_size"] = NANO_GROUPS
    return quantization


def check(folder, quantization):
    (path,) = folder.glob("*.safetensors")
    held = sum(tensor.nbytes for tensor in load_file(path).values())
    computed = sum(count_weights(OmniVinciConfig.from_pretrained(NANO), quantization).values())
    assert computed == pytest.approx(held, rel=0.001)
    assert computed == pytest.approx(path.stat().st_size, rel=0.03)  # with the names of tensors


@pytest.mark.parametrize("recipe", [name for name, value in RECIPES.items() if value and "config_groups" in value])
def test_compressed_tensors(recipe, tmp_path):
    quantization = quantization_of(recipe)
    compress(quantization).save_pretrained(tmp_path)
    check(tmp_path, quantization)


def test_bitsandbytes(tmp_path):
    model = AutoModel.from_pretrained(NANO, quantization_config=QUANTIZERS["bnb-nf4"]())
    model.save_pretrained(tmp_path)
    # Its file has a JSON of about 80 bytes for each layer besides.
    check(tmp_path, model.config.quantization_config.to_dict())


def test_full_precision(tmp_path):
    AutoModel.from_pretrained(NANO, dtype=torch.bfloat16).save_pretrained(tmp_path)
    check(tmp_path, None)
