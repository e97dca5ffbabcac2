"""The chats with media that a model is calibrated with: chosen, checked from headers, and encoded one at a time."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from ..processing.batch import OmniVinciBatchFeature
from ..training.data import Sample
from ..training.data_sources import DataSource
from ..training.encoding import SampleEncoder
from .recipes import QuantizationRecipe

NO_INPUTS = ("labels", "sample_ids")
"""What an encoded sample has besides inputs of the model."""


def choose_chats(file: str | Path, max_chats: int) -> list[Sample]:
    """
    The chats of a JSONL file, as training reads them; of more than `max_chats` as many, evenly spread over the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, or a line is no chat.
    """
    rows = DataSource(file).open()
    count = min(max_chats, len(rows))
    return [rows.sample(index * len(rows) // count) for index in range(count)]


def check_chats(chats: Sequence[Sample], encoder: SampleEncoder, recipe: QuantizationRecipe, file: str | Path) -> None:
    """
    Checks, from the headers of media alone, that chats make every part of a recipe run.

    Raises:
        ValueError: a part would see nothing, a chat is too long, or a medium cannot be read.
    """
    found = frozenset().union(*(encoder.measure(chat).modalities for chat in chats))
    for treatment in recipe.treatments:
        part = treatment.part
        if part.seen_with and not part.seen_with & found:
            raise ValueError(
                f"The recipe {recipe.name!r} quantizes the {part.name}, but none of the {len(chats)} chats of {file} "
                f"that are taken has {' or '.join(sorted(part.seen_with))}: calibrate with chats that have."
            )


class ChatInputs(Dataset):
    """
    The inputs of a model for chats, batches of one: nothing is padded. They are encoded whenever they are asked for.

    Args:
        chats (`Sequence[Sample]`): The chats, answers included.
        encoder ([`SampleEncoder`]): What makes tensors of them.
        dtype (`torch.dtype`): Of the media.
    """

    def __init__(self, chats: Sequence[Sample], encoder: SampleEncoder, dtype: torch.dtype):
        self.chats, self.encoder, self.dtype = chats, encoder, dtype

    def __len__(self) -> int:
        return len(self.chats)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`input_ids` (1, sequence) and media, see [`MediaInputs`]."""
        encoded = self.encoder.encode(self.chats[index])
        inputs = {name: value for name, value in encoded.items() if name not in NO_INPUTS}
        inputs["input_ids"] = inputs["input_ids"][None]
        return dict(OmniVinciBatchFeature(inputs).to(self.dtype))


class PromptEmbeddings(Dataset):
    """
    What the language model of a model reads for chats: text and media as embeddings, made by the model itself, with
    its encoders as they are at the time.

    Args:
        inputs ([`ChatInputs`]): The inputs.
        model ([`OmniVinciForConditionalGeneration`]): The model.
    """

    def __init__(self, inputs: ChatInputs, model: nn.Module):
        self.inputs, self.model = inputs, model

    def __len__(self) -> int:
        return len(self.inputs)

    @torch.no_grad()
    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`inputs_embeds` (1, sequence, hidden_size)."""
        inputs = {name: value.to(self.model.device) for name, value in self.inputs[index].items()}
        return {"inputs_embeds": self.model.model.get_inputs_embeds(**inputs)}


class SeenLayers:
    """
    Notes which layers of a model are run while it is watched.

    Args:
        model (`nn.Module`): The model.
        names (`Sequence[str]`): The layers that are to be run.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]):
        self.unseen = dict.fromkeys(names)
        self._hooks = [model.get_submodule(name).register_forward_hook(self._note(name)) for name in names]

    def _note(self, name: str):
        return lambda *_: self.unseen.pop(name, None)

    def check(self) -> None:
        """Ends watching. Raises a `ValueError` that names the layers that were not run."""
        for hook in self._hooks:
            hook.remove()
        if self.unseen:
            names = ", ".join(list(self.unseen)[:3]) + (", ..." if len(self.unseen) > 3 else "")
            raise ValueError(
                f"{len(self.unseen)} layers that are quantized were not run by any of the chats: {names}. Calibrate "
                "with more kinds of media."
            )
