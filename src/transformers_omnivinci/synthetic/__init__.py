"""
A synthetic world of short clips in which it is known what is seen and heard when, and questions about them.

- `config`: size and difficulty.
- `scenes`: what is shown and heard when, and which combinations are held out.
- `pictures`, `sounds`: scenes as arrays.
- `clips`: those as files.
- `candidates`: what each form of question can ask about a scene.
- `questions`: types, forms, wordings and right answers.
- `modalities`: what of a scene a sample gives, and which forms it answers.
- `dataset`: balanced data sets in memory and in folders.

None of it imports torch, but for reading media files.
"""

from .clips import Clip, read_clip, render, write_clip
from .config import WorldConfig
from .dataset import Sample, SyntheticDataset, write_dataset
from .modalities import MODALITIES, Modality
from .questions import CLOSED_TYPES, QUESTION_FORMS, QUESTION_TYPES, Question, ask, split_words, vocabulary
from .scenes import COLOURS, FORMS, MOTIONS, SOUNDS, SPLITS, Scene, held_out, plan_scene

__all__ = [
    "CLOSED_TYPES",
    "COLOURS",
    "FORMS",
    "MODALITIES",
    "MOTIONS",
    "QUESTION_FORMS",
    "QUESTION_TYPES",
    "SOUNDS",
    "SPLITS",
    "Clip",
    "Modality",
    "Question",
    "Sample",
    "Scene",
    "SyntheticDataset",
    "WorldConfig",
    "ask",
    "held_out",
    "plan_scene",
    "read_clip",
    "render",
    "split_words",
    "vocabulary",
    "write_clip",
    "write_dataset",
]
