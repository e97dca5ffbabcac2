"""Weights in safetensors files: opened without being read. Pickled weights are not loaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .checkpoint_formats import read_json

INDEX = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The dtypes that weights may have, by their name in safetensors."""
COMPRESSED_TENSORS = "compressed-tensors"
"""The `quant_method` of the format of compressed-tensors."""


@dataclass(frozen=True)
class TensorHeader:
    """What the header of a safetensors file tells of a tensor: the file, its name there, its shape and its dtype."""

    path: Path
    key: str
    shape: tuple[int, ...]
    stored_dtype: str  # as safetensors names it

    @property
    def dtype(self) -> torch.dtype:
        """As which it is stored."""
        return FLOATS[self.stored_dtype]

    @property
    def num_parameters(self) -> int:
        """How many numbers it holds."""
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


def open_folder(folder: Path) -> dict[str, StoredTensor]:
    """
    The weights of the safetensors files of one folder, by their names there. Raises an `OSError` if a file is missing
    or damaged, or if there are only pickled weights.
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
    Refuses, before transformers reads them, files of weights that are damaged or elsewhere, as [`open_folder`] does,
    and with a `ValueError` pickled ones.
    """
    if use_safetensors is False:
        raise ValueError("`use_safetensors=False` asks for pickled weights, which are not loaded: they can run code.")
    has_own = (folder / INDEX).is_file() or (folder / WEIGHTS_FILE).is_file()
    if has_own or (_pickled(folder) and not any(folder.glob("*.safetensors"))):
        tensors = open_folder(folder)
        _check_scales(folder, tensors)


def quantization_of(folder: Path) -> str | None:
    """The `quant_method` in the config of a folder; `None` if its weights are not quantized."""
    config_file = Path(folder) / "config.json"
    settings = read_json(config_file).get("quantization_config") if config_file.is_file() else None
    return settings.get("quant_method", "unknown") if isinstance(settings, dict) else None


def _check_scales(folder: Path, tensors: dict[str, TensorHeader]) -> None:
    """Refuses quantized weights without what they are multiplied by, which transformers would draw at random."""
    method = quantization_of(folder)
    if method is None:
        return
    # All weights of compressed-tensors have a zero point, or none.
    kinds = {name.rpartition(".")[2] for name in tensors}
    unpacking = {"weight_scale", "weight_shape"} | (kinds & {"weight_zero_point"})
    for name, tensor in tensors.items():
        for other in _companions(method, name, tensor.stored_dtype, sorted(unpacking)):
            if other.endswith(".weight_packed") and other.removesuffix("_packed") in tensors:
                continue  # unpacked again before it was saved
            # bitsandbytes writes the kind of its weights behind a name.
            if other not in tensors and not any(key.startswith(f"{other}.bitsandbytes__") for key in tensors):
                raise OSError(f"{folder} is quantized, but has no {other} to go with {name} in {tensor.path.name}.")


def _companions(method: str | None, name: str, stored_dtype: str, unpacking: Sequence[str]) -> list[str]:
    """
    What a stored tensor needs beside it, by name, when it was quantized by `method`; `unpacking` is what weights need
    that compressed-tensors has packed.
    """
    layer, _, kind = name.rpartition(".")
    known = {
        COMPRESSED_TENSORS: {
            ("weight_packed", "I32"): tuple(f"{layer}.{part}" for part in unpacking),
            ("weight", "I8"): (f"{layer}.weight_scale",),
            ("weight", "F8_E4M3"): (f"{layer}.weight_scale",),
            # What a layer has that lost its packed weights.
            ("weight_shape", stored_dtype): (f"{layer}.weight_packed",),
        },
        "bitsandbytes": {
            ("weight", "I8"): (f"{layer}.SCB",),
            ("weight", "U8"): tuple(f"{name}.{part}" for part in ("absmax", "quant_map", "quant_state")),
        },
        "torchao": {("_weight_qdata", stored_dtype): (f"{layer}._weight_scale",)},
    }
    return [*known.get(method, {}).get((kind, stored_dtype), ())]


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
        if outside := [name for name in names if (folder / name).parent != folder]:
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
