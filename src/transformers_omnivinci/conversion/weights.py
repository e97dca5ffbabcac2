"""The weights of the published layout: what either layout calls them, and whether they are those of a model."""

import re
from hashlib import file_digest
from pathlib import Path

import torch
from transformers.modeling_utils import set_zero3_state

from ..configuration_omnivinci import OmniVinciConfig
from ..weight_files import FLOATS, StoredTensor, TensorHeader, open_folder
from .published_layout import COMPONENTS

PREFIXES = {
    "llm": {"model.": "model.language_model.", "lm_head.": "lm_head."},
    "vision_tower": {"vision_model.": "model.vision_tower.", "": "model.vision_tower."},
    "sound_tower": {"": "model.audio_tower."},
    "mm_projector": {
        "layers.1.": "model.vision_projector.norm.",
        "layers.2.": "model.vision_projector.linear_1.",
        "layers.4.": "model.vision_projector.linear_2.",
    },
    "sound_mm_projector": {
        "layers.0.": "model.audio_projector.linear_1.",
        "layers.2.": "model.audio_projector.linear_2.",
        "downsample_block.conv1.": "model.audio_compression.conv.",
    },
}
"""How the keys of each folder begin, and how those of [`OmniVinciForConditionalGeneration`] do; first match wins."""


def open_published(folder: Path, config: OmniVinciConfig) -> dict[str, StoredTensor]:
    """As [`open_folder`], for the published layout: by the names of [`OmniVinciForConditionalGeneration`]."""
    return by_model_names({component: open_folder(folder / component) for component in COMPONENTS}, config)


def by_model_names(components: dict[str, dict], config: OmniVinciConfig) -> dict[str, TensorHeader]:
    """Tensors by component and key, under the names of the model; without those that nothing reads."""
    named = {}
    for component, tensors in components.items():
        for key, tensor in tensors.items():
            name = from_published(component, key, config)
            if name is not None:
                named[name] = tensor
    return named


def from_published(component: str, key: str, config: OmniVinciConfig) -> str | None:
    """
    The name in [`OmniVinciForConditionalGeneration`] of a weight, given by its component and key; `None` for one that
    nothing reads.
    """
    prefix = next((prefix for prefix in PREFIXES[component] if key.startswith(prefix)), None)
    if prefix is None:
        return f"{component}/{key}"  # reported as unexpected
    rest = key.removeprefix(prefix)
    if component == "vision_tower":
        layer = rest.split(".")[2] if rest.startswith("encoder.layers.") else "0"
        if rest.startswith(("head.", "post_layernorm.")) or rest == "embeddings.position_ids":
            return None
        if layer.isdigit() and int(layer) >= config.num_vision_layers:
            return None
    if rest.endswith("rotary_emb.inv_freq") or (key == "lm_head.weight" and config.tie_word_embeddings):
        return None
    return PREFIXES[component][prefix] + rest


def to_published(name: str) -> tuple[str, str]:
    """The component and the key of a weight, given by its name in [`OmniVinciForConditionalGeneration`]."""
    for component, prefixes in PREFIXES.items():
        for old, new in prefixes.items():
            if name.startswith(new):
                return component, old + name.removeprefix(new)
    raise ValueError(f"The published layout has no place for the weight {name}.")


def check_weights(
    model_class: type, config: OmniVinciConfig, weights: dict[str, StoredTensor], may_lack: tuple[str, ...] = ()
) -> dict:
    """
    The weights under the names of `model_class` and in its order, checked against it.

    Args:
        model_class (`type`): [`OmniVinciForConditionalGeneration`] or [`OmniVinciModel`].
        config (`OmniVinciConfig`): Of the model.
        weights (`dict[str, StoredTensor]`): By the names of [`OmniVinciForConditionalGeneration`].
        may_lack (`tuple[str]`, *optional*): Modules of [`OmniVinciModel`] that may be missing, to be trained anew.

    Raises:
        ValueError: weights are missing, unexpected, of another shape or no floats; the message lists them.
    """
    # With ZeRO-3, transformers would hand the weights of parts to DeepSpeed as they are made, which takes real ones.
    with torch.device("meta"), set_zero3_state():
        model = model_class(config)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if not any(name.startswith("model.") for name in expected):  # without the head
        weights = {name.removeprefix("model."): weight for name, weight in weights.items() if name != "lm_head.weight"}
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    new = {name for name in expected if name.removeprefix("model.").split(".")[0] in may_lack}
    problems = {
        "missing": sorted(expected.keys() - weights.keys() - tied - new),
        "unexpected": sorted(weights.keys() - expected.keys()),
        f"of another dtype than {', '.join(FLOATS)}": [
            f"{name} {tensor.stored_dtype}" for name, tensor in weights.items() if tensor.stored_dtype not in FLOATS
        ],
        "of another shape": [
            f"{name} {list(weights[name].shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in weights and weights[name].shape != shape
        ],
    }
    found = [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"The weights do not fit {model_class.__name__}. {'; '.join(found)}.")
    return {name: weights[name] for name in expected if name in weights}


def check_checksum(path: Path) -> None:
    """
    Compares a large file in the cache of the Hub with its checksum, which is its name there. Other files have none.
    Raises an `OSError` if the content is not that of the Hub.
    """
    expected = path.resolve().name
    if not re.fullmatch("[0-9a-f]{64}", expected):
        return
    with open(path, "rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise OSError(
            f"{path} is damaged: its SHA-256 is {digest}, that of the Hub is {expected}. Delete {path.resolve()} and "
            "download it again."
        )
