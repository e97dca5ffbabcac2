"""Where vLLM finds the weights of a checkpoint, and what they are called in the model."""

from collections.abc import Iterable, Iterator

import torch
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from ...checkpoint_formats import loader_of
from ...configuration_omnivinci import OmniVinciConfig

STORED = (".weight", ".weight_packed", ".bias")
"""How the names of what every checkpoint stores end; vLLM's layers have further tensors of their own."""


def weight_sources(
    name_or_path: str, revision: str | None
) -> tuple[list[str] | None, list[DefaultModelLoader.Source]]:
    """
    What vLLM's loader reads of a checkpoint in a registered format, whose weights are in folders: files of the first
    folder, by a pattern, and the other folders, whose keys it puts behind the folder's name. `(None, [])` for a
    checkpoint of `save_pretrained`, which has its weights where the loader looks by itself.
    """
    loader = loader_of(name_or_path, revision=revision)
    if loader is None:
        return None, []
    first, *others = loader.weight_folders()
    sources = [
        DefaultModelLoader.Source(
            name_or_path,
            revision,
            subfolder=folder,
            prefix=f"{folder}/",
            fall_back_to_pt=False,
            allow_patterns_overrides=["*.safetensors"],
        )
        for folder in others
    ]
    return [f"{first}/*.safetensors"], sources


def by_model_names(
    weights: Iterable[tuple[str, torch.Tensor]], config: OmniVinciConfig, name_or_path: str, revision: str | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """
    Weights under the names of [`transformers_omnivinci.OmniVinciForConditionalGeneration`].

    Args:
        weights (`Iterable[tuple[str, torch.Tensor]]`): As vLLM's loader reads them from [`weight_sources`].
        config ([`OmniVinciConfig`]): Of the model.
        name_or_path (`str`), revision (`str`, *optional*): The checkpoint.
    """
    loader = loader_of(name_or_path, revision=revision)
    if loader is None:
        yield from weights
        return
    first = loader.weight_folders()[0]
    for name, tensor in weights:
        folder, _, key = name.rpartition("/")
        found = loader.weight_name(folder or first, key, config)
        if found is not None:
            yield found, tensor


def with_scales(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """
    The same weights.

    Raises:
        ValueError: at their end, if a quantized weight came without its scale.
    """
    quantized, scaled = set(), set()
    for name, tensor in weights:
        module, _, kind = name.rpartition(".")
        if kind == "weight_packed" or (kind == "weight" and tensor.element_size() == 1):
            quantized.add(module)
        elif kind == "weight_scale":
            scaled.add(module)
        yield name, tensor
    if lacking := sorted(quantized - scaled):
        raise ValueError(
            f"The checkpoint lacks the scales of {len(lacking)} quantized weights, {lacking[0]} among them: it is "
            "incomplete."
        )
