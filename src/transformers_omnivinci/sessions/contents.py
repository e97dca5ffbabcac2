"""What a session holds of media: their positions, and the embeddings that stand there."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from ..planning import MediumPlan
from ..processing import OmniVinciProcessor
from ..processing.batch import MediaInputs, OmniVinciBatchFeature
from .positions import Positions, spread

FIRST_KEY = -2
"""The keys of embeddings go down from here. Those of tokens are their ids; -1 is padding in [`CachedPrompt`]."""


class Keys:
    """Gives every embedding a number of its own, by which what stands at two positions is compared."""

    def __init__(self, used: int = 0):
        self.used = used

    def take(self, number: int) -> np.ndarray:
        """As many keys that were never taken, of shape `(number,)`."""
        first, self.used = self.used, self.used + number
        return FIRST_KEY - np.arange(first, self.used)


@dataclass(frozen=True)
class Block:
    """
    Embeddings that were encoded together.

    Attributes:
        keys (`np.ndarray` of shape `(num_embeddings,)`): From [`Keys`].
        embeddings (`torch.Tensor` of shape `(num_embeddings, hidden_size)`): As they stand in the sequence.
        seconds (`np.ndarray` of shape `(num_embeddings,)`, *optional*): When they are, where that is asked for.
    """

    keys: np.ndarray
    embeddings: torch.Tensor
    seconds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, kept: np.ndarray) -> "Block":
        """Those of a mask of shape `(num_embeddings,)`, in memory of their own."""
        places = torch.from_numpy(np.flatnonzero(kept)).to(self.embeddings.device)
        seconds = None if self.seconds is None else self.seconds[kept]
        return Block(self.keys[kept], self.embeddings.index_select(0, places), seconds)


@dataclass(frozen=True)
class Content:
    """
    A medium as it stands in a prompt.

    Attributes:
        positions ([`Positions`]): What stands where.
        blocks (`Mapping[int, Sequence[Block]]`): By placeholder, the embeddings that stand at it, in order.
        is_whole (`bool`): Whether this is all of it.
    """

    positions: Positions
    blocks: Mapping[int, Sequence[Block]]
    is_whole: bool = True
    _ends: dict = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, kept: np.ndarray) -> "Content":
        """What a mask of shape `(length,)` leaves of it."""
        left = {}
        for token, blocks in self.blocks.items():
            masks = np.split(kept[self.positions.ids == token], np.cumsum([len(block) for block in blocks])[:-1])
            chosen = [block.select(mask) for block, mask in zip(blocks, masks, strict=True)]
            left[token] = [block for block in chosen if len(block)]
        return Content(self.positions.select(kept), left, self.is_whole)

    def keys(self) -> np.ndarray:
        """Of each position what stands there: a token id, or the key of an embedding; of shape `(length,)`."""
        keys = self.positions.ids.copy()
        for token, blocks in self.blocks.items():
            if blocks:
                keys[self.positions.ids == token] = np.concatenate([block.keys for block in blocks])
        return keys

    def embeddings(self, token: int, start: int, stop: int) -> list[torch.Tensor]:
        """The embeddings at a placeholder whose numbers among those of it are from `start` up to `stop`."""
        blocks = self.blocks.get(token, ())
        if token not in self._ends:
            self._ends[token] = list(accumulate(map(len, blocks)))
        ends, found = self._ends[token], []
        place = bisect_right(ends, start)
        while start < stop:
            first = ends[place] - len(blocks[place])
            end = min(stop, ends[place])
            found.append(blocks[place].embeddings[start - first : end - first])
            start, place = end, place + 1
        return found


def encode(model, processor: OmniVinciProcessor, plan: MediumPlan, inputs: MediaInputs, keys: Keys) -> Content:
    """
    Encodes a medium that was read.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): What encodes.
        plan ([`MediumPlan`]), inputs ([`MediaInputs`]): From [`read_medium`].
        keys ([`Keys`]): Those of the session.
    """
    inputs = OmniVinciBatchFeature(dict(inputs)).to(model.device, model.dtype)
    with torch.no_grad():
        encoded = model.encode_media(**inputs)
    return content_of(processor, plan, encoded, keys)


def content_of(processor: OmniVinciProcessor, plan: MediumPlan, encoded: Mapping[str, Any], keys: Keys) -> Content:
    """
    A medium that was encoded.

    Args:
        processor ([`OmniVinciProcessor`]): By which it was read.
        plan ([`MediumPlan`]), encoded (`dict`): From [`read_medium`] with a `media_encoder`.
        keys ([`Keys`]): Those of the session.
    """
    token_ids, blocks = processor.layout.token_ids, {}
    for modality, output in encoded.items():
        [embeddings] = output.pooler_output
        blocks[token_ids[modality]] = [Block(keys.take(len(embeddings)), embeddings)]
    return Content(spread(plan, processor.layout), blocks)
