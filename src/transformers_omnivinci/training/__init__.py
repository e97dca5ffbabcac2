"""Training: chats with media, the paper's recipes, and a [`~transformers.Trainer`] for them."""

from .collator import OmniVinciCollator
from .data import BadSample, DataSource, Sample
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
