"""Encoding a few inputs at a time, which bounds the activation memory."""

from collections.abc import Callable

import torch
from transformers.modeling_outputs import BaseModelOutput


def encode_in_chunks(encode: Callable, inputs: torch.Tensor, chunk_size: int | None, **kwargs) -> BaseModelOutput:
    """
    What `encode` gives for all of `inputs`, from `chunk_size` of them at a time.

    Returns:
        [`BaseModelOutput`] with `last_hidden_state` and, where asked for, `hidden_states` and `attentions`.
    """
    kwargs["return_dict"] = True
    outputs = [encode(chunk, **kwargs) for chunk in inputs.split(chunk_size or len(inputs))]

    def join(name: str) -> tuple[torch.Tensor, ...] | None:
        layers = [output.get(name) for output in outputs]
        return None if layers[0] is None else tuple(map(torch.cat, zip(*layers, strict=True)))

    if len(outputs) == 1:
        return outputs[0]
    return BaseModelOutput(
        last_hidden_state=torch.cat([output.last_hidden_state for output in outputs]),
        hidden_states=join("hidden_states"),
        attentions=join("attentions"),
    )
