"""Batches of unlike samples: text padded or flattened, media one after another."""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorWithFlattening

from ..labels import IGNORED
from ..processing.batch import join


@dataclass
class OmniVinciCollator:
    """
    Makes a batch of what [`SampleEncoder.encode`] gives.

    Args:
        pad_token_id (`int`): What fills up shorter samples.
        padding_side (`str`, *optional*, defaults to `"right"`): `"right"` or `"left"`.
        packing (`bool`, *optional*, defaults to `False`):
            Whether samples share one row, without padding: the positions start anew with each, from which
            transformers keeps their attention apart.

    Raises:
        ValueError: `padding_side` is neither.
    """

    pad_token_id: int
    padding_side: str = "right"
    packing: bool = False

    def __post_init__(self):
        if self.padding_side not in ("right", "left"):
            raise ValueError(f"`padding_side={self.padding_side!r}` is not known: 'right' and 'left' are.")

    def __call__(self, features: list[dict | list[dict]]) -> dict:
        """
        Args:
            features (`list`): Encoded samples; with `packing` also lists of them.

        Returns:
            `dict`: `input_ids` and `labels` (batch, sequence) with `attention_mask`, or `position_ids` (1, sequence)
            where samples are packed; the media of all samples; `sample_ids` and `skipped`, which are no inputs of the
            model. Where samples share media, `position_ids` (batch, sequence) and as `attention_mask` who attends to
            whom, (batch, 1, sequence, sequence).
        """
        samples = [sample for item in features for sample in (item if isinstance(item, list) else [item])]
        if any("segment_ids" in sample for sample in samples):
            batch = self._share([samples] if self.packing else [[sample] for sample in samples])
        elif self.packing:
            text = [{name: sample[name] for name in ("input_ids", "labels")} for sample in samples]
            batch = dict(DataCollatorWithFlattening(separator_id=IGNORED)(text, return_tensors="pt"))
        else:
            batch = self._pad(samples)
        batch |= join(samples)
        batch["sample_ids"] = [name for sample in samples for name in sample["sample_ids"]]
        batch["skipped"] = [bad for sample in samples for bad in sample.get("skipped", ())]
        return batch

    def _pad(self, samples: list[dict]) -> dict:
        input_ids = [sample["input_ids"] for sample in samples]
        return {
            "input_ids": self._pad_rows(input_ids, self.pad_token_id),
            "attention_mask": self._pad_rows([torch.ones_like(ids) for ids in input_ids], 0),
            "labels": self._pad_rows([sample["labels"] for sample in samples], IGNORED),
        }

    def _share(self, rows: list[list[dict]]) -> dict:
        """Each token attends to those before it in its own segment, and in that which all of its item read."""
        rows = [[_text_of(sample, item) for item, sample in enumerate(row)] for row in rows]
        fill = {"input_ids": self.pad_token_id, "labels": IGNORED, "items": -1}  # padding belongs to no item
        padded = {
            name: self._pad_rows([torch.cat([sample[name] for sample in row]) for row in rows], fill.get(name, 0))
            for name in rows[0][0]
        }
        items, segments = padded.pop("items"), padded.pop("segment_ids")
        # (batch, sequence that attends, sequence that is attended to). Padding attends to padding: to something.
        same_item = items[:, :, None] == items[:, None, :]
        is_read = (segments[:, None, :] == 0) | (segments[:, :, None] == segments[:, None, :])
        return {**padded, "attention_mask": (same_item & is_read).tril()[:, None]}

    def _pad_rows(self, rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return pad_sequence(rows, True, value, self.padding_side)


def _text_of(sample: dict, item: int) -> dict[str, torch.Tensor]:
    """The columns of an item of a row. Its first token is not learnt: that would be from the item before."""
    length, device = len(sample["input_ids"]), sample["input_ids"].device
    return {
        "input_ids": sample["input_ids"],
        "labels": torch.cat([torch.tensor([IGNORED], device=device), sample["labels"][1:]]),
        "position_ids": sample.get("position_ids", torch.arange(length, device=device)),
        "segment_ids": sample.get("segment_ids", torch.zeros(length, dtype=torch.long, device=device)),
        "items": torch.full((length,), item, device=device),
    }
