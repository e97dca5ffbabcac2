"""Checkpoints on disk: read, and changed for a test."""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file

from transformers_omnivinci import NANO
from transformers_omnivinci.quantization.recipes import LANGUAGE_MODEL, get_quantization_recipe


def edit(path, **changes):
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def edit_encoder(checkpoint, key, **changes):
    config = json.loads((checkpoint / "config.json").read_text())
    settings = json.loads(config[key]) | changes
    edit(checkpoint / "config.json", **{key: json.dumps(settings)})


def edit_weights(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def tensors_of(folder):
    return {key: tensor for path in sorted(folder.glob("*.safetensors")) for key, tensor in load_file(path).items()}


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quantized_nano(folder):
    """nano with the config of a quantized one, and two weights stored as those are."""
    shutil.copytree(NANO, folder)
    edit(
        folder / "config.json", quantization_config=get_quantization_recipe("paper").config({LANGUAGE_MODEL.name: 32})
    )

    def store(tensors):
        name = "model.language_model.layers.0.mlp.up_proj"
        del tensors[f"{name}.weight"]
        tensors[f"{name}.weight_packed"] = torch.zeros(480, 24, dtype=torch.int32)
        tensors[f"{name}.weight_scale"] = torch.ones(480, 6)
        tensors[f"{name}.weight_shape"] = torch.tensor([480, 192])
        tensors[f"{name}.weight_zero_point"] = torch.zeros(60, 6, dtype=torch.int32)
        for kind in ("packed", "scale", "shape", "zero_point"):
            tensors[f"{name.replace('0', '1')}.weight_{kind}"] = tensors[f"{name}.weight_{kind}"].clone()
        del tensors[f"{name.replace('0', '1')}.weight"]
        name = "model.vision_tower.encoder.layers.0.mlp.fc1"
        tensors[f"{name}.weight"] = torch.zeros(512, 128, dtype=torch.int8)
        tensors[f"{name}.weight_scale"] = torch.ones(512, 1)

    edit_weights(folder / "model.safetensors", store)
    return folder
