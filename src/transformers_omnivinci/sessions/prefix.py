"""Prompts of a session, and the language model's cache of what they begin with."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.cache_utils import Cache

from ..compat import CACHE
from ..modeling.cached_prompt import ATTRIBUTE, CachedPrompt, RestOfMedia, count_agreed, cut_back
from ..processing.batch import MEDIA_INPUTS
from .caches import CacheKind
from .contents import Content

CHUNK = 4096
"""The most positions that are read at a time."""
MASK_SIZE, MASK_SIZE_ON_CPU = 2**26, 2**24
"""The most elements of the mask of a pass: positions times all they attend to. On a CPU it is made in floats, too."""
RESERVED = {*MEDIA_INPUTS, "inputs", "input_ids", "attention_mask", "inputs_embeds", "mm_encoder_outputs"}
RESERVED |= {"past_key_values", "cache", "use_cache", "num_return_sequences", "return_dict_in_generate"}
"""Arguments of `generate` that a session gives itself."""
ASSISTANTS = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")
"""Options of `generate` that have another part guess the next tokens."""


def positions_at_once(device: torch.device, length: int) -> int:
    """How many positions of a prompt of `length` the language model reads at a time, which bounds the memory."""
    return max(1, min(CHUNK, (MASK_SIZE_ON_CPU if device.type == "cpu" else MASK_SIZE) // max(length, 1)))


@dataclass(frozen=True)
class Prompt:
    """
    What the language model is to read.

    Attributes:
        ids (`np.ndarray` of shape `(length,)`): Tokens and placeholders.
        keys (`np.ndarray` of shape `(length,)`): What stands at each position, see [`Content.keys`].
        starts (`Sequence[int]`): Where each medium begins.
        contents (`Sequence[Content]`): The media.
        token_ids (`dict[str, int]`): The placeholder of each modality.
    """

    ids: np.ndarray
    keys: np.ndarray
    starts: Sequence[int]
    contents: Sequence[Content]
    token_ids: dict[str, int]

    @classmethod
    def of(cls, text_ids: Sequence[int], contents: Sequence[Content], modalities: Sequence[str], token_ids: dict):
        """
        Puts media in the place of their placeholders.

        Args:
            text_ids (`Sequence[int]`): The tokens of a chat, with one placeholder for each medium.
            contents (`Sequence[Content]`), modalities (`Sequence[str]`):
                The media and what they are, those of each modality in order.
            token_ids (`dict[str, int]`): The placeholder of each modality.

        Raises:
            ValueError: the chat template writes other placeholders.
        """
        waiting = {token: [] for token in token_ids.values()}
        for content, modality in zip(contents, modalities, strict=True):
            waiting[token_ids[modality]].append(content)
        ids, keys, starts, placed, end, length = [], [], [], [], 0, 0
        text = np.asarray(text_ids, dtype=np.int64)
        for slot in np.flatnonzero(np.isin(text, list(waiting))):
            if not waiting[text[slot]]:
                break
            content = waiting[text[slot]].pop(0)
            ids += [text[end:slot], content.positions.ids]
            keys += [text[end:slot], content.keys()]
            starts.append(length + slot - end)
            length, end = starts[-1] + len(content), slot + 1
            placed.append(content)
        if any(waiting.values()) or np.isin(text[end:], list(waiting)).any():
            raise ValueError("The chat template of the processor does not write one placeholder for each medium.")
        ids, keys = np.concatenate([*ids, text[end:]]), np.concatenate([*keys, text[end:]])
        return cls(ids, keys, starts, placed, dict(token_ids))

    @property
    def settled(self) -> int:
        """Where the last medium ends, or the first one of which only the beginning is here; 0 without media."""
        end = 0
        for start, content in zip(self.starts, self.contents, strict=True):
            end = start + len(content)
            if not content.is_whole:
                break
        return end

    def media(self, start: int, stop: int | None = None) -> dict[str, RestOfMedia]:
        """The embeddings that stand from position `start` up to `stop`, or to the end, as `mm_encoder_outputs`."""
        stop, found = len(self.ids) if stop is None else stop, {}
        for first, content in zip(self.starts, self.contents, strict=True):
            before, end = max(start - first, 0), min(stop - first, len(content))
            if before >= end:
                continue
            ids = content.positions.ids
            for modality, token in self.token_ids.items():
                skipped, within = (int((part == token).sum()) for part in (ids[:before], ids[before:end]))
                if within:
                    found.setdefault(modality, []).extend(content.embeddings(token, skipped, skipped + within))
        return {
            modality: RestOfMedia(pooler_output=rows, per_prompt=[sum(map(len, rows))])
            for modality, rows in found.items()
        }

    def noted(self, length: int | None = None) -> CachedPrompt:
        """The first `length` positions, as a cache notes what it holds."""
        ids, keys = (torch.from_numpy(part[:length])[None] for part in (self.ids, self.keys))
        return CachedPrompt(ids, keys)


class Prefix:
    """
    The cache of what the prompts of a session begin with. Its tensors are never written to: what is read further is
    concatenated, so that branches share all that they have in common.
    """

    def __init__(self, model, kind: CacheKind, cache: Cache | None = None):
        self.model, self.kind = model, kind
        self.cache = kind.make(model) if cache is None else cache

    def __len__(self) -> int:
        return int(self.cache.get_seq_length())

    def branch(self) -> "Prefix":
        """Another prefix that goes on from this one, which it leaves as it is. Nothing is copied."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return Prefix(self.model, self.kind, cache)

    def agrees(self, prompt: Prompt) -> int:
        """How many of the first positions of a prompt are held."""
        known = getattr(self.cache, ATTRIBUTE, None)
        return count_agreed(prompt.noted(), known, len(self)) if len(self) else 0

    def cut(self, length: int) -> None:
        """
        Leaves the first positions; none of a sliding window, which may have lost what goes before them, and none of a
        cache that cannot be cut.
        """
        if length >= len(self):
            return
        if length and self.kind.can_be_cut and not any(layer.is_sliding for layer in self.cache.layers):
            cut_back(self.cache, length)
        else:
            self.cache = self.kind.make(self.model)

    def note(self, prompt: CachedPrompt) -> None:
        """Writes down what the cache holds."""
        setattr(self.cache, ATTRIBUTE, prompt.first(len(self)))

    def read(self, prompt: Prompt, stop: int) -> None:
        """Makes this the cache of the first `stop` positions of a prompt; what it holds of them is not read again."""
        start = min(self.agrees(prompt), stop)
        if start == stop and len(self) == stop:
            return
        self.cut(start)
        step = positions_at_once(self.model.device, stop)
        for start in range(len(self), stop, step):
            end = min(start + step, stop)
            ids = torch.from_numpy(prompt.ids[start:end])[None].to(self.model.device)
            media = prompt.media(start, end)
            with torch.no_grad():
                self.model.model(ids, mm_encoder_outputs=media, use_cache=True, **{CACHE: self.cache})
        self.note(prompt.noted())
