"""Safetensors files that are written one after another, so that of large weights one file's are held in memory."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from huggingface_hub.utils import tqdm
from safetensors import SafetensorError
from safetensors.torch import save_file

from .checkpoint_formats import write_json
from .weight_files import INDEX, TensorHeader


@dataclass(frozen=True)
class Shard:
    """A safetensors file to be written: its path in the folder, its tensors by their names there, and their size."""

    name: str
    tensors: dict[str, TensorHeader]
    num_bytes: int


def plan_shards(
    tensors: dict[str, TensorHeader], dtype: torch.dtype | None, max_shard_size: int | str, subfolder: str = ""
) -> tuple[list[Shard], dict[str, dict]]:
    """
    The files that tensors are written to, and by its path the content of the index that several of them need.

    Args:
        tensors (`dict[str, TensorHeader]`): By their names in the files.
        dtype (`torch.dtype`, *optional*): Of the files. `None`: each as it is stored.
        max_shard_size (`int` or `str`): Bytes of the largest file, also as in `"5GB"`.
        subfolder (`str`, *optional*, defaults to `""`): Where in the folder the files stand.
    """
    split = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.num_bytes(dtype),
        get_storage_id=lambda tensor: None,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    shards = []
    for name, keys in split.filename_to_tensors.items():
        chosen = {key: tensors[key] for key in keys}
        num_bytes = sum(tensor.num_bytes(dtype) for tensor in chosen.values())
        shards.append(Shard(os.path.join(subfolder, name), chosen, num_bytes))
    if not split.is_sharded:
        return shards, {}
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    return shards, {os.path.join(subfolder, INDEX): index}


def write_shards(
    shards: Sequence[Shard],
    indices: Mapping[str, dict],
    folder: Path,
    dtype: torch.dtype | None,
    metadata: dict[str, str],
    doing: str,
) -> None:
    """
    Writes what [`plan_shards`] planned, one file after another, with a bar of progress.

    Args:
        shards, indices: The files, and the content of indices by their paths.
        folder, dtype, metadata: As of [`write_shard`], with its errors.
        doing (`str`): What the bar says, such as `"Converting"`.
    """
    num_bytes = sum(shard.num_bytes for shard in shards)
    with tqdm(total=num_bytes, unit="B", unit_scale=True, desc=doing, disable=None) as progress:
        for shard in shards:
            write_shard(shard, folder, dtype, metadata)
            progress.update(shard.num_bytes)
    for name, index in indices.items():
        write_json(folder / name, index)


def write_shard(shard: Shard, folder: Path, dtype: torch.dtype | None, metadata: dict[str, str]) -> None:
    """
    Reads the tensors of a shard and writes its file, the same bytes every time.

    Args:
        shard ([`Shard`]): Its tensors have a method `read`.
        folder (`Path`): The folder of the checkpoint.
        dtype (`torch.dtype`, *optional*): Of the file. `None`: each as it is stored.
        metadata (`dict[str, str]`): What the header of the file tells.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / shard.name
    path.parent.mkdir(exist_ok=True)
    tensors = {key: tensor.read().to(dtype) for key, tensor in shard.tensors.items()}
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{shard.name} cannot be written: {error}.") from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets nobody else read
    with open(path, "r+b") as file:  # and leaves the order of the metadata to chance
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(length))
