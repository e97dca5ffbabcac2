"""Training: chats with media, the paper's recipes, and a [`~transformers.Trainer`] for them."""

from .collator import OmniVinciCollator
from .data import BadSample, Sample
from .data_sources import DataSource
from .dataset import ChatDataset
from .encoding import SampleEncoder
from .recipes import RECIPES, Recipe, get_recipe
from .trainer import OmniVinciTrainer

__all__ = [
    "RECIPES",
    "BadSample",
    "ChatDataset",
    "DataSource",
    "OmniVinciCollator",
    "OmniVinciTrainer",
    "Recipe",
    "Sample",
    "SampleEncoder",
    "get_recipe",
]
