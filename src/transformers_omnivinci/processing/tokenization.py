"""Prompts as token ids, with the runs of each medium in the place of its placeholder."""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CUT = "\ufdd0"
"""
Where a control token in the user's text is cut in two, so that it is read as text. A noncharacter of Unicode, which is
reserved for such internal use and stands in no text.
"""


# ------------------------------------------------------------------------------------------------- control tokens


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


# ------------------------------------------------------------------------------------------------- token ids


@dataclass(frozen=True)
class Replacement:
    """
    What stands in the place of a placeholder.

    Attributes:
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        placeholder (`str`): Its text.
        ids (`list[int]`): Placeholders of embeddings, and boundary tokens.
    """

    modality: str
    placeholder: str
    ids: list[int]


@dataclass
class EncodedPrompt:
    """
    Attributes:
        ids (`list[int]`): Tokens, those of media included.
        offsets (`list[tuple[int, int]]`): Between which characters of the expanded text each token stands, on request.
        replacements (`list[dict]`):
            On request, where each placeholder stood in the prompt (`span`) and what stands in its place in the
            expanded text (`new_span`, `replacement`), as in transformers.
    """

    ids: list[int]
    offsets: list[tuple[int, int]] = field(default_factory=list)
    replacements: list[dict] = field(default_factory=list)


def encode_prompt(
    tokenizer,
    prompt: str,
    replacements: Sequence[Replacement],
    add_special_tokens: bool = True,
    with_offsets: bool = False,
) -> EncodedPrompt:
    """
    Tokenizes a prompt with one placeholder for each medium, and puts ids in the place of the placeholders. A
    placeholder is a token of its own, so that the text around it is read alike, whatever stands there.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): It knows the placeholders.
        prompt (`str`): What [`cut_control_tokens`] has cut is read as text.
        replacements (`Sequence[Replacement]`): In the order of the placeholders.
        add_special_tokens (`bool`, *optional*, defaults to `True`): As of the tokenizer.
        with_offsets (`bool`, *optional*, defaults to `False`): Whether to tell where in the text tokens stand.

    Raises:
        ValueError: a control token in the user's text cannot be read as text.
    """
    read, offsets = _read(tokenizer, prompt, add_special_tokens, with_offsets)
    placeholders = {replacement.placeholder for replacement in replacements}
    placeholder_ids = {tokenizer.convert_tokens_to_ids(placeholder) for placeholder in placeholders}
    encoded, waiting, gained = EncodedPrompt([]), iter(replacements), 0
    for position, token in enumerate(read):
        start, end = offsets[position] if with_offsets else (0, 0)
        if token not in placeholder_ids:
            encoded.ids.append(token)
            encoded.offsets.append((start + gained, end + gained))
            continue
        replacement = next(waiting)
        encoded.ids += replacement.ids
        if not with_offsets:
            continue
        written = {one: tokenizer.decode([one]) for one in set(replacement.ids)}
        place = start + gained
        for one in replacement.ids:
            encoded.offsets.append((place, place + len(written[one])))
            place += len(written[one])
        encoded.replacements.append(
            {
                "type": replacement.modality,
                "span": (start, end),
                "new_span": (start + gained, place),
                "text": replacement.placeholder,
                "replacement": "".join(written[one] for one in replacement.ids),
            }
        )
        gained = place - end
    if not with_offsets:
        encoded.offsets.clear()
    return encoded


def _read(
    tokenizer, prompt: str, add_special_tokens: bool, with_offsets: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids, and between which characters of the prompt each stands, cuts not counted."""
    pieces, ids, offsets, start = prompt.split(CUT), [], [], 0
    for piece in pieces:
        options = {"return_offsets_mapping": True} if with_offsets else {}
        encoded = tokenizer(piece, add_special_tokens=add_special_tokens and len(pieces) == 1, **options)
        ids += encoded["input_ids"]
        if with_offsets:
            offsets += [(start + first, start + last) for first, last in encoded["offset_mapping"]]
        start += len(piece)
    return ids, offsets


def mark_spans(encoded_offsets: Sequence[tuple[int, int]], replacements: Sequence[dict], spans) -> list[int]:
    """
    Which tokens stand within spans of the prompt, such as the answers that `return_assistant_tokens_mask` asks for.

    Args:
        encoded_offsets, replacements: Those of an [`EncodedPrompt`], and (0, 0) for padding.
        spans (`Iterable[tuple[int, int]]`): Characters of the prompt as it was before media stood in it.

    Returns:
        `list[int]`: 1 for each token that a span touches, else 0.
    """
    ends = [replacement["span"][1] for replacement in replacements]
    gains = [0, *(replacement["new_span"][1] - replacement["span"][1] for replacement in replacements)]
    moved = [tuple(place + gains[bisect_right(ends, place)] for place in span) for span in spans]
    return [int(any(start < last and end > first for first, last in moved)) for start, end in encoded_offsets]
