"""The model card of a checkpoint that was put together from pretrained parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import ModelCard

from ..version import __version__
from .card import describe_weights

TEMPLATE = Path(__file__).with_name("assembled_card.md")


@dataclass(frozen=True)
class PartOrigin:
    """
    Where a part of a model comes from.

    Attributes:
        part (`str`): As in "audio encoder".
        source (`str`, *optional*): A repository, or the name of a folder or file. `None`: its weights are new.
        revision (`str`, *optional*): The commit of the repository. `None`: it is a folder or file.
        model_type (`str`, *optional*): The type of the model that the part is from.
        num_parameters (`int`): How many parameters were taken.
        changes (`Sequence[str]`): What was changed of it.
    """

    part: str
    source: str | None
    revision: str | None
    model_type: str | None
    num_parameters: int
    changes: Sequence[str]

    @property
    def told(self) -> str:
        """Its source in Markdown."""
        if self.source is None:
            return "new"
        if self.revision is None:
            return f"`{self.source}` ({self.model_type})"
        link = f"[{self.source}](https://huggingface.co/{self.source})"
        return f"{link} ({self.model_type}), revision `{self.revision}`"


def build_assembled_card(origins: Sequence[PartOrigin], num_parameters: int, dtype: torch.dtype) -> ModelCard:
    """
    The model card of a checkpoint made of parts. The same arguments give the same text.

    Args:
        origins (`Sequence[PartOrigin]`): Of each part.
        num_parameters (`int`): How many parameters the checkpoint holds.
        dtype (`torch.dtype`): In which dtype it holds them.
    """
    template = ModelCard.load(TEMPLATE)
    data = template.data
    data.base_model = [origin.source for origin in origins if origin.revision is not None] or None
    return ModelCard.from_template(
        data,
        template_str=f"---\n{{{{ card_data }}}}\n---\n{template.text}\n",
        origins=origins,
        version=__version__,
        weights=describe_weights(num_parameters, dtype),
    )
