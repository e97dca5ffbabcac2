"""Tokens that a recipe adds to the vocabulary of a model."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.integrations import is_deepspeed_zero3_enabled

MULTIPLE = 64
"""Of this, the number of embeddings becomes a multiple where there are too few, so that it can be split."""


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    """Adds control tokens that a tokenizer lacks. Returns their ids, of those that are new alone."""
    known = len(tokenizer)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    return [number for number in tokenizer.convert_tokens_to_ids(list(tokens)) if number >= known]


def add_embeddings(model: nn.Module, tokenizer: PreTrainedTokenizerBase, new_ids: Sequence[int]) -> None:
    """
    Gives new tokens the mean of the others in the embeddings and in the head of a language model.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): Is enlarged where it has too few embeddings.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens already, behind all others.
        new_ids (`Sequence[int]`): Of [`add_tokens`].

    Raises:
        ValueError: the embeddings are split among processes (ZeRO-3).
    """
    if not new_ids:
        return
    if is_deepspeed_zero3_enabled():
        raise ValueError(
            "The recipe adds tokens to the model, whose embeddings ZeRO-3 splits: begin with a model that has them, "
            "such as that of a first step without it."
        )
    have = len(model.get_input_embeddings().weight)
    if len(tokenizer) > have:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=MULTIPLE, mean_resizing=False)
    with torch.no_grad():
        for matrix in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:  # one if tied
            rows = [*new_ids, *range(have, len(matrix))]  # those behind the last token, too
            matrix[rows] = matrix[: min(new_ids)].mean(0, dtype=torch.float32).to(matrix.dtype)
