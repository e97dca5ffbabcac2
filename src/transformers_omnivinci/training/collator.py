"""Batches of unlike samples: text padded or flattened, media one after another."""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorWithFlattening

from ..modeling.modeling_omnivinci import MEDIA_INPUTS
from .encoding import IGNORED

NO_TIME = -1.0
"""What fills up rows of seconds."""


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
            model.
        """
        samples = [sample for item in features for sample in (item if isinstance(item, list) else [item])]
        batch = self._flatten(samples) if self.packing else self._pad(samples)
        for name in MEDIA_INPUTS:
            parts = [sample[name] for sample in samples if name in sample]
            if parts:
                batch[name] = _stack_seconds(parts) if name.endswith("_timestamps") else torch.cat(parts)
        batch["sample_ids"] = [sample["sample_id"] for sample in samples]
        batch["skipped"] = [bad for sample in samples for bad in sample.get("skipped", ())]
        return batch

    def _pad(self, samples: list[dict]) -> dict:
        def pad(name: str, value: int) -> torch.Tensor:
            return pad_sequence([sample[name] for sample in samples], True, value, self.padding_side)

        lengths = [torch.ones(len(sample["input_ids"]), dtype=torch.long) for sample in samples]
        return {
            "input_ids": pad("input_ids", self.pad_token_id),
            "attention_mask": pad_sequence(lengths, True, 0, self.padding_side),
            "labels": pad("labels", IGNORED),
        }

    @staticmethod
    def _flatten(samples: list[dict]) -> dict:
        text = [{name: sample[name] for name in ("input_ids", "labels")} for sample in samples]
        return dict(DataCollatorWithFlattening(separator_id=IGNORED)(text, return_tensors="pt"))


def _stack_seconds(rows: list[torch.Tensor]) -> torch.Tensor:
    """(clips, most vectors) of all samples, filled up."""
    return pad_sequence([clip for clips in rows for clip in clips], batch_first=True, padding_value=NO_TIME)
