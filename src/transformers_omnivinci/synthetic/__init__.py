"""
A synthetic world: short clips whose events are known exactly, and questions about them.

- `config`: size and difficulty.
- `scenes`: what is seen and heard, and when; which combinations are held out.
- `rendering`: scenes as arrays.
- `clips`: scenes as files.
- `candidates`: what each form of question can ask about a scene.
- `questions`: types, forms, wordings and right answers, and what can be asked about each modality.
- `dataset`: balanced data sets, generated on access or written to a folder.
- `unrolled`: chats in which contexts are written down before the answer.
- `claims`: captions read back as events, and counted against the truth.
- `reels`: films of several scenes, with the list of their events.

None of these modules imports torch.
"""

from .claims import CaptionCount, claims_of, count_claims
from .clips import Clip, render, write_clip
from .config import WorldConfig
from .dataset import Sample, SyntheticDataset, write_dataset
from .questions import (
    ABSENT_FORMS,
    CLOSED_TYPES,
    MODALITIES,
    QUESTION_FORMS,
    QUESTION_TYPES,
    Modality,
    Question,
    ask,
    split_words,
    vocabulary,
)
from .reels import Event, events_of, read_events, write_reel, write_reels
from .scenes import COLOURS, FORMS, MOTIONS, SOUNDS, SPLITS, Scene, held_out, plan_scene
from .unrolled import contexts_of, unrolled_rows

__all__ = [
    "ABSENT_FORMS",
    "CLOSED_TYPES",
    "COLOURS",
    "FORMS",
    "MODALITIES",
    "MOTIONS",
    "QUESTION_FORMS",
    "QUESTION_TYPES",
    "SOUNDS",
    "SPLITS",
    "CaptionCount",
    "Clip",
    "Event",
    "Modality",
    "Question",
    "Sample",
    "Scene",
    "SyntheticDataset",
    "WorldConfig",
    "ask",
    "claims_of",
    "count_claims",
    "contexts_of",
    "events_of",
    "held_out",
    "plan_scene",
    "read_events",
    "render",
    "split_words",
    "unrolled_rows",
    "vocabulary",
    "write_clip",
    "write_dataset",
    "write_reel",
    "write_reels",
]
