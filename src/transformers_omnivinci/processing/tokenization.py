"""Prompts as token ids: control tokens, text with placeholders, and where media stand in it."""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ..planning import PromptPlan

CUT = "\ufdd0"
"""
Where a control token in the user's text is cut in two, so that it is read as text. A noncharacter of Unicode, which is
reserved for such internal use and stands in no text.
"""


def control_tokens(tokenizer, chat_template: str) -> list[str]:
    """What `sanitize_control_tokens` reads as text in the user's words: special tokens and those of the template."""
    tokens = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 1 and (token.special or token.content in chat_template)
    }
    return sorted(tokens, key=lambda token: (-len(token), token))


def cut_control_tokens(value, tokens: Sequence[str]):
    """
    Cuts the control tokens in a string, or in those that a list or dictionary holds, such as messages or tools. So
    that two strings do not become one together, what a token may begin with is cut off at the end, too.

    Args:
        value: What the user gave; not changed.
        tokens (`Sequence[str]`): From [`control_tokens`].
    """
    if isinstance(value, Mapping):
        return {key: cut_control_tokens(item, tokens) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [cut_control_tokens(item, tokens) for item in value]
    if not isinstance(value, str) or not tokens:
        return value
    pattern = re.compile("|".join(map(re.escape, tokens)))

    def cut(match: re.Match) -> str:
        return match[0][0] + CUT + pattern.sub(cut, match[0][1:])

    text = pattern.sub(cut, value.replace(CUT, ""))
    begins = any(text.endswith(token[:length]) for token in tokens for length in range(1, len(token)))
    return text + CUT if begins else text


@dataclass(frozen=True)
class TokenizedPrompt:
    """
    A prompt as tokens, before media stand in it.

    Attributes:
        text (`str`): The prompt, with one placeholder for each medium.
        ids (`list[int]`): Its tokens. A placeholder is a token of its own, whatever stands around it.
        offsets (`list[tuple[int, int]]`): Between which characters of the text each token stands, on request.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]


def tokenize_prompt(
    tokenizer, prompt: str, add_special_tokens: bool = True, with_offsets: bool = False
) -> TokenizedPrompt:
    """
    Tokenizes a prompt with one placeholder for each medium.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): It knows the placeholders.
        prompt (`str`): What [`cut_control_tokens`] has cut is read as text; cuts are not counted in offsets.
        add_special_tokens (`bool`, *optional*, defaults to `True`): As of the tokenizer.
        with_offsets (`bool`, *optional*, defaults to `False`): Whether to tell where in the text tokens stand.
    """
    pieces, ids, offsets, start = prompt.split(CUT), [], [], 0
    for piece in pieces:
        options = {"return_offsets_mapping": True} if with_offsets else {}
        encoded = tokenizer(piece, add_special_tokens=add_special_tokens and len(pieces) == 1, **options)
        ids += encoded["input_ids"]
        if with_offsets:
            offsets += [(start + first, start + last) for first, last in encoded["offset_mapping"]]
        start += len(piece)
    return TokenizedPrompt("".join(pieces), ids, offsets)


def place_media(tokenizer, prompt: TokenizedPrompt, plan: PromptPlan) -> tuple[list[tuple[int, int]], list[dict]]:
    """
    Where everything stands in the text that a prompt would be, were its media written in it token by token.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): What writes tokens.
        prompt ([`TokenizedPrompt`]): With offsets.
        plan ([`PromptPlan`]): Of this prompt.

    Returns:
        `tuple[list[tuple[int, int]], list[dict]]`: between which characters each token of the plan stands; and, as in
        transformers, where each placeholder stood (`span`) and what stands in its place (`new_span`, `replacement`).
    """
    write = cache(lambda token: tokenizer.decode([token]))
    offsets, replacements, gained, position = [], [], 0, 0
    for slot, medium in [*zip(plan.slots, plan.media, strict=True), (len(prompt.ids), None)]:
        offsets += [(start + gained, end + gained) for start, end in prompt.offsets[position:slot]]
        position = slot + 1
        if medium is None:
            break
        start, end = prompt.offsets[slot]
        place, written = start + gained, []
        for token, length in medium.runs:
            text = write(token)
            offsets += [(place + step * len(text), place + (step + 1) * len(text)) for step in range(length)]
            place += length * len(text)
            written.append(text * length)
        replacements.append(
            {
                "type": medium.modality,
                "span": (start, end),
                "new_span": (start + gained, place),
                "text": prompt.text[start:end],
                "replacement": "".join(written),
            }
        )
        gained = place - end
    return offsets, replacements


def mark_spans(encoded_offsets: Sequence[tuple[int, int]], replacements: Sequence[dict], spans) -> list[int]:
    """
    Which tokens stand within spans of the prompt, such as the answers that `return_assistant_tokens_mask` asks for.

    Args:
        encoded_offsets, replacements: As of [`place_media`], and (0, 0) for padding.
        spans (`Iterable[tuple[int, int]]`): Characters of the prompt as it was before media stood in it.

    Returns:
        `list[int]`: 1 for each token that a span touches, else 0.
    """
    ends = [replacement["span"][1] for replacement in replacements]
    gains = [0, *(replacement["new_span"][1] - replacement["span"][1] for replacement in replacements)]
    moved = [tuple(place + gains[bisect_right(ends, place)] for place in span) for span in spans]
    return [int(any(start < last and end > first for first, last in moved)) for start, end in encoded_offsets]
