"""The text side of what the processor returns: planned prompts cut, padded, and with what else is asked for."""

from collections.abc import Sequence

from transformers.utils import logging

from ..planning import PromptPlan
from .prompts import TOKENS
from .tokenization import TokenizedPrompt, place_media

logger = logging.get_logger(__name__)

PADDING_OPTIONS = ("padding", "max_length", "pad_to_multiple_of", "padding_side", "return_attention_mask")


def make_text_inputs(
    processor, prompts: Sequence[TokenizedPrompt], plans: Sequence[PromptPlan], options: dict
) -> dict:
    """
    The token ids of a batch of prompts with their media.

    Returns:
        `dict`: `input_ids` and `attention_mask`, lists of (batch, sequence), and where the options of the call ask for
        them `mm_token_type_ids`, `offset_mapping` and `text_replacement_offsets`.

    Raises:
        ValueError: truncation would cut media off, or an option is not supported beside media.
    """
    tokenizer = processor.tokenizer
    ignored = ("return_tensors", "verbose", "add_special_tokens")
    text_options = {name: value for name, value in options["text_kwargs"].items() if name not in ignored}
    with_offsets = text_options.pop("return_offsets_mapping", None)
    with_replacements = options["return_text_replacement_offsets"]
    rows = [plan.ids() for plan in plans]
    kept = _truncate(processor, rows, text_options)
    rows = [row[kept] for row in rows]
    _warn_if_too_long(max(map(len, rows)), tokenizer.model_max_length)
    padding = {name: text_options.pop(name) for name in PADDING_OPTIONS if name in text_options}
    refused = sorted(name for name, value in text_options.items() if value)
    if refused:
        raise ValueError(f"The options {refused} of the tokenizer are not supported beside media.")
    encoded = tokenizer.pad({"input_ids": rows}, **padding)
    if options["return_mm_token_type_ids"]:
        encoded["mm_token_type_ids"] = processor.create_mm_token_type_ids(encoded["input_ids"])
    if with_offsets or with_replacements:
        placed = [place_media(tokenizer, prompt, plan) for prompt, plan in zip(prompts, plans, strict=True)]
        if with_offsets:
            on_left = padding.get("padding_side", tokenizer.padding_side) == "left"
            encoded["offset_mapping"] = [
                _pad(offsets[kept], len(row), on_left) for row, (offsets, _) in zip(encoded["input_ids"], placed)
            ]
        if with_replacements:
            encoded["text_replacement_offsets"] = [replacements for _, replacements in placed]
    return dict(encoded)


def _truncate(processor, rows: list[list[int]], text_options: dict) -> slice:
    """Which tokens of each row are kept: at most `max_length` where `truncation` is asked for."""
    truncation = text_options.pop("truncation", None)
    limit = text_options.get("max_length") or processor.tokenizer.model_max_length
    if truncation in (None, False, "do_not_truncate") or max(map(len, rows)) <= limit:
        return slice(None)
    kept = slice(limit) if processor.tokenizer.truncation_side == "right" else slice(-limit, None)
    for modality in TOKENS:
        token_id = processor.layout.token_ids[modality]
        whole, left = [row.count(token_id) for row in rows], [row[kept].count(token_id) for row in rows]
        if whole != left:
            raise ValueError(
                f"Mismatch in `{modality}` token count: {left} of {whole} placeholders would be left after truncation "
                f"to {limit} tokens. Disable `truncation`, or raise `max_length`."
            )
    return kept


def _warn_if_too_long(length: int, limit: int) -> None:
    if length > limit:
        logger.warning(
            f"The prompt has {length} tokens, more than the {limit} positions of the model: answers will degrade. "
            "Take fewer frames (`num_frames`), less sound or a part of the clip (`video_start`, `video_end`)."
        )


def _pad(offsets: list[tuple[int, int]], length: int, on_left: bool) -> list[tuple[int, int]]:
    padding = [(0, 0)] * (length - len(offsets))
    return padding + offsets if on_left else offsets + padding
