"""
Equal numbers of passes where weights are sharded.

FSDP and ZeRO-3 gather the weights of a module each time that it is called, in all processes at once. Processes encode
different numbers of tiles, frames and windows, or none: those that have fewer run zeros through the same modules, so
that all of them make the same calls in the same order, forwards and backwards.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Passes:
    """
    How often the modules of a modality are run.

    Attributes:
        chunks (`int`): Chunks that the encoder takes.
        media (`int`): Images, videos or clips of sound.
    """

    chunks: int = 0
    media: int = 0


def is_sharded(model: nn.Module) -> bool:
    """Whether several processes hold a part of the weights each, and gather them to run a module."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    is_zero3 = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    return is_zero3 or any(isinstance(module, (FSDPModule, FullyShardedDataParallel)) for module in model.modules())


def agree(passes: dict[str, Passes]) -> dict[str, Passes]:
    """The most passes of any process, by modality. Every process makes the call, with the same modalities."""
    gathered: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, {name: astuple(counts) for name, counts in passes.items()})
    return {name: Passes(*map(max, zip(*(counts[name] for counts in gathered), strict=True))) for name in passes}


def with_idle(embeddings: list[torch.Tensor], idle: Iterable[torch.Tensor]) -> list[torch.Tensor] | torch.Tensor:
    """
    Embeddings of media, `(num_embeddings, hidden_size)` each, and behind the last of them nothing of what zeros
    became: the values are the same, but the backward pass runs through both. Without media, (0, hidden_size).
    """
    idle = list(idle)
    if not idle:
        return embeddings
    nothing = torch.cat(idle)[:0]
    return [*embeddings[:-1], torch.cat((embeddings[-1], nothing))] if embeddings else nothing
