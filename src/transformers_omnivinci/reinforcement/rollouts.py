"""Completions that are sampled from a policy: media encoded, and the prompt read, once for all of a prompt."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import DynamicCache, GenerationConfig

from ..compat import CACHE
from ..modeling.cached_prompt import ATTRIBUTE, describe
from ..modeling.sharding import is_sharded
from .held_prompts import HeldPrompt, encode, gather

CALL = "call_gathered"
"""The method that is given to a sharded model."""


@torch.no_grad()
def sample_completions(
    model,
    prompts: Sequence[HeldPrompt],
    generation_config: GenerationConfig,
    batch_size: int | None = None,
    root: nn.Module | None = None,
    still: Collection[str] = (),
) -> list[list[int]]:
    """
    Samples a completion for each prompt; one that is given G times gets G of them.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The policy, in eval mode, so that it keeps a cache.
        prompts (`Sequence[HeldPrompt]`): The prompts. Their embeddings are kept in them, for who scores completions.
        generation_config ([`~transformers.GenerationConfig`]): How it is sampled, with `pad_token_id`.
        batch_size (`int`, *optional*): The most completions at a time. `None`: all.
        root (`nn.Module`, *optional*):
            What FSDP2 has sharded, such as the policy in its adapters. All processes sample equally many completions.
            `None`: the policy.
        still (`Collection[str]`, *optional*): Modalities whose encoder is run once, see [`encode`].

    Returns:
        `list[list[int]]`: their tokens, up to and with the first that ends them, if there is any.
    """
    size, root = batch_size or len(prompts), model if root is None else root
    completions = []
    for start in range(0, len(prompts), size):
        completions += _sample(model, prompts[start : start + size], generation_config, root, still)
    return completions


def _sample(
    model, prompts: Sequence[HeldPrompt], config: GenerationConfig, root: nn.Module, still: Collection[str]
) -> list[list[int]]:
    unique = list(dict.fromkeys(prompts))
    new = [prompt for prompt in unique if prompt.embeddings is None]
    ids, mask = _pad_left([prompt.input_ids for prompt in unique], config.pad_token_id, model.device)
    # All but the last position: a generation reads that one itself.
    cache, length = DynamicCache(config=model.config), ids.shape[1] - 1

    def read() -> None:
        for prompt, embeddings in zip(new, encode(model.model, new, still), strict=True):
            prompt.embeddings = embeddings
        if length:
            model.model(
                ids[:, :length],
                attention_mask=mask[:, :length],
                mm_encoder_outputs=gather(prompt.embeddings for prompt in unique),
                use_cache=True,
                **{CACHE: cache},
            )

    _call_gathered(root, read)
    rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=ids.device)
    cache.batch_select_indices(rows)
    ids, mask = ids[rows], mask[rows]
    setattr(cache, ATTRIBUTE, describe(model.config, ids, mask, {}).first(length))
    sequences = model.generate(
        input_ids=ids,
        attention_mask=mask,
        mm_encoder_outputs={},
        generation_config=config,
        synced_gpus=is_sharded(model),
        **{CACHE: cache},
    )
    ends = config.eos_token_id
    ends = set(ends if isinstance(ends, (list, tuple)) else [ends])
    return [_until(ends, row) for row in sequences[:, ids.shape[1] :].tolist()]


def _call_gathered(root: nn.Module, function: Callable[[], None]) -> None:
    """Calls what uses weights of a model that FSDP2 may have sharded, as if it were its forward pass."""
    if isinstance(root, FSDPModule):
        if not hasattr(root, CALL):
            setattr(root, CALL, _call)
            register_fsdp_forward_method(root, CALL)
        getattr(root, CALL)(function)
    else:
        function()


def _call(function: Callable[[], None]) -> None:
    function()


def _until(ends: set[int], tokens: list[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]


def _pad_left(rows: Sequence[torch.Tensor], value: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """(num_rows, most tokens of one): the tokens, and where they are."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), value)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, length - len(tokens) :] = tokens
        mask[row, length - len(tokens) :] = 1
    return ids.to(device), mask.to(device)
