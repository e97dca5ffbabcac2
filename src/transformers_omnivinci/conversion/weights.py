"""Weights in safetensors files: opened without being read, and named as either layout names them."""

import math
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.modeling_utils import set_zero3_state

from ..configuration_omnivinci import OmniVinciConfig
from .published_layout import COMPONENTS, read_json

INDEX = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
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

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The dtypes that weights may have, by their name in safetensors."""


@dataclass(frozen=True)
class TensorHeader:
    """
    What the header of a safetensors file tells of a tensor.

    Attributes:
        path (`Path`): The file.
        key (`str`): Its name there.
        shape (`tuple[int]`): Its shape.
        stored_dtype (`str`): Its dtype, as safetensors names it.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    stored_dtype: str

    @property
    def dtype(self) -> torch.dtype:
        return FLOATS[self.stored_dtype]

    @property
    def num_parameters(self) -> int:
        return math.prod(self.shape)

    def num_bytes(self, dtype: torch.dtype | None = None) -> int:
        """Its size in `dtype`; `None`: as stored."""
        return self.num_parameters * (dtype or self.dtype).itemsize


@dataclass(frozen=True)
class StoredTensor(TensorHeader):
    """A tensor of an open file, which is read when it is asked for: `slice[...]` a part, `read()` the whole."""

    slice: object

    def read(self) -> torch.Tensor:
        """Its values, memory-mapped: pages of the file are read as they are touched."""
        return self.slice[...]


def open_published(folder: Path, config: OmniVinciConfig) -> dict[str, StoredTensor]:
    """
    The weights of a checkpoint in the published layout, by the names of [`OmniVinciForConditionalGeneration`].

    Raises:
        OSError: a file is missing or damaged, or there are only pickled weights.
    """
    return by_model_names({component: open_folder(folder / component) for component in COMPONENTS}, config)


def by_model_names(components: dict[str, dict], config: OmniVinciConfig) -> dict[str, TensorHeader]:
    """Tensors by component and key, under the names of the model; without those that nothing reads."""
    named = {}
    for component, tensors in components.items():
        for key, tensor in tensors.items():
            name = _from_published(component, key, config)
            if name is not None:
                named[name] = tensor
    return named


def open_folder(folder: Path) -> dict[str, StoredTensor]:
    """
    The weights of the safetensors files of one folder, by their names there.

    Raises:
        OSError: as [`open_published`].
    """
    tensors, index = {}, folder / INDEX
    for path in _weight_files(folder):
        try:
            file = safe_open(path, framework="pt", device="cpu")
            keys = file.keys()
        except (SafetensorError, OSError) as error:
            raise OSError(f"{path} cannot be read as safetensors: {error}.") from error
        for key in keys:
            stored = file.get_slice(key)
            tensors[key] = StoredTensor(path, key, tuple(stored.get_shape()), stored.get_dtype(), stored)
    if index.is_file():
        absent = sorted(read_json(index)["weight_map"].keys() - tensors.keys())
        if absent:
            raise OSError(f"{index} names weights that no file holds: {', '.join(absent)}.")
    return tensors


def check_files(folder: Path, use_safetensors: bool | None) -> None:
    """
    Refuses, before transformers reads them, files of weights that are damaged or elsewhere, and pickled ones.

    Raises:
        OSError: as [`open_published`].
        ValueError: pickled weights are asked for.
    """
    if use_safetensors is False:
        raise ValueError("`use_safetensors=False` asks for pickled weights, which are not loaded: they can run code.")
    has_own = (folder / INDEX).is_file() or (folder / WEIGHTS_FILE).is_file()
    if has_own or (_pickled(folder) and not any(folder.glob("*.safetensors"))):
        open_folder(folder)


def _pickled(folder: Path) -> list[str]:
    return [path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in sorted(folder.glob(pattern))]


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise OSError(f"{index} has no `weight_map` of file names.")
        names = sorted(set(weight_map.values()))
        paths = [folder / name for name in names]
        outside = [name for name, path in zip(names, paths, strict=True) if path.parent != folder]
        if outside:
            raise OSError(f"{index} names files outside its folder: {outside}.")
    elif (folder / WEIGHTS_FILE).is_file():
        paths = [folder / WEIGHTS_FILE]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        pickled = ", ".join(_pickled(folder))
        hint = f" Pickled weights ({pickled}) are not loaded: they can run code." if pickled else ""
        raise OSError(f"{folder} lacks {', '.join(missing) or 'safetensors'}.{hint}")
    return paths


def _from_published(component: str, key: str, config: OmniVinciConfig) -> str | None:
    """The model's name of a weight; `None` for one that nothing reads."""
    prefix, target = next(
        ((old, new) for old, new in PREFIXES[component].items() if key.startswith(old)), (None, None)
    )
    if prefix is None:
        return f"{component}/{key}"  # reported as unexpected
    rest = key[len(prefix) :]
    if component == "vision_tower":
        layer = rest.split(".")[2] if rest.startswith("encoder.layers.") else "0"
        if rest.startswith(("head.", "post_layernorm.")) or rest == "embeddings.position_ids":
            return None
        if layer.isdigit() and int(layer) >= config.num_vision_layers:
            return None
    if rest.endswith("rotary_emb.inv_freq") or (key == "lm_head.weight" and config.tie_word_embeddings):
        return None
    return target + rest


def to_published(name: str) -> tuple[str, str]:
    """
    The component and the key under which the published layout has a weight of [`OmniVinciForConditionalGeneration`].

    Raises:
        ValueError: it has no place for it.
    """
    for component, prefixes in PREFIXES.items():
        for old, new in prefixes.items():
            if name.startswith(new):
                return component, old + name[len(new) :]
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

    Raises:
        OSError: the content is not that of the Hub.
    """
    expected = path.resolve().name
    if not re.fullmatch("[0-9a-f]{64}", expected):
        return
    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise OSError(
            f"{path} is damaged: its SHA-256 is {digest.hexdigest()}, that of the Hub is {expected}. Delete "
            f"{path.resolve()} and download it again."
        )
