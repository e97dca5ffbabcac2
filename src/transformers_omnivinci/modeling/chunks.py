"""Encoding a few inputs at a time, which bounds the activation memory."""

from collections.abc import Callable

import torch
from transformers.modeling_outputs import BaseModelOutput


def count_chunks(num_inputs: int, chunk_size: int | None) -> int:
    """How many chunks [`split`] makes of inputs."""
    return -(-num_inputs // (chunk_size or max(num_inputs, 1)))


def split(inputs: torch.Tensor, chunk_size: int | None, num_chunks: int | None = None) -> list[torch.Tensor]:
    """
    Inputs, (num_inputs, ...), in chunks of `chunk_size`, or all at once. Where that makes fewer than `num_chunks`,
    zeros follow, one input each; [`join`] leaves out what becomes of them.
    """
    chunks = list(inputs.split(chunk_size or len(inputs))) if len(inputs) else []
    return chunks + [idle_input(inputs) for _ in range((num_chunks or 0) - len(chunks))]


def idle_input(inputs: torch.Tensor) -> torch.Tensor:
    """One input of zeros, (1, ...), in the place of `inputs`, (n, ...): gradients of zero go through it to them."""
    return torch.cat((inputs[:0], inputs.new_zeros(1, *inputs.shape[1:])))


def join(outputs: list[torch.Tensor], num_inputs: int) -> torch.Tensor:
    """What became of the chunks of [`split`], (num_inputs, ...). Weights that only saw zeros get zero gradients."""
    if len(outputs) == 1 and num_inputs:
        return outputs[0]
    left, kept = num_inputs, []
    for output in outputs:
        kept.append(output if left else output[:0])
        left -= len(kept[-1])
    return torch.cat(kept)


def encode_in_chunks(
    encode: Callable, inputs: torch.Tensor, chunk_size: int | None, num_passes: int | None = None, **kwargs
) -> BaseModelOutput:
    """What `encode` gives for all of `inputs`, `chunk_size` of them at a time and in at least `num_passes` passes."""
    kwargs["return_dict"] = True
    outputs = [encode(chunk, **kwargs) for chunk in split(inputs, chunk_size, num_passes)]

    def join_layers(name: str) -> tuple[torch.Tensor, ...] | None:
        layers = [output.get(name) for output in outputs]
        if layers[0] is None:
            return None
        return tuple(join(list(chunks), len(inputs)) for chunks in zip(*layers, strict=True))

    return BaseModelOutput(
        last_hidden_state=join([output.last_hidden_state for output in outputs], len(inputs)),
        hidden_states=join_layers("hidden_states"),
        attentions=join_layers("attentions"),
    )
