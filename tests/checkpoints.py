"""Checkpoints on disk: read, and changed for a test."""

import json

from safetensors.torch import load_file, save_file


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
