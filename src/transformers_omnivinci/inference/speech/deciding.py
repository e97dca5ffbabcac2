"""The second opinion that a model decides about, window by window (paper, appendix D.3.3, figure 16 b)."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .decisions import apply_decision, check_number
from .recognisers import Recogniser, write_prompt


class Hearing(Protocol):
    """A model that hears and decides, such as a [`ModelHearing`]."""

    def __call__(self, samples: np.ndarray, prompt: str) -> str:
        """The answer to a question about samples of shape (num_samples,) at `HEARING_RATE`."""

    def decide(self, samples: np.ndarray, internal: str, candidates: Sequence[str]) -> str:
        """A decision, and what follows from it: see [`apply_decision`]."""


class DecidingRecogniser:
    """
    OmniVinci, which writes down each window by itself, and then decides whether it keeps that or corrects it by what
    other recognisers heard.

    Args:
        hearing ([`Hearing`]): The model.
        externals (`Sequence[Recogniser]`): From one to five others.

    Attributes:
        counts (`Counter`): How often each decision was taken.

    Raises:
        ValueError: there are no others, or too many.
    """

    name = "model"

    def __init__(self, hearing: Hearing, externals: Sequence[Recogniser]):
        check_number(len(externals))
        self.hearing, self.externals, self.counts = hearing, list(externals), Counter()

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """As in [`Recogniser`]."""
        internal = self.hearing(samples, write_prompt()).strip()
        candidates = [external.transcribe(samples, start) for external in self.externals]
        decision, text = apply_decision(self.hearing.decide(samples, internal, candidates), internal)
        self.counts[decision] += 1
        return text
