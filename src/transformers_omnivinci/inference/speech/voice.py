"""What speaks: a protocol, and what all voices have in common, which is to speak sentence by sentence."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .reading_out import read_out
from .sentences import split_sentences

SPEECH_RATE = 24_000
"""Samples per second of all that is spoken, in Hz: that of OpenAI's API, and of most neural voices."""


@dataclass(frozen=True)
class Spoken:
    """
    A sentence with its sound.

    Attributes:
        text (`str`): The sentence, as it was written.
        samples (`np.ndarray`): float32 mono samples in [-1, 1] of shape (num_samples,) at `SPEECH_RATE`.
    """

    text: str
    samples: np.ndarray

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / SPEECH_RATE


class Voice(Protocol):
    """
    Turns text into speech (paper, appendix D.4).

    Attributes:
        name (`str`): As [`make_voice`] takes it.
    """

    name: str

    def check(self) -> None:
        """An OSError or ImportError of one sentence if the voice cannot speak at all, such as without its program."""

    def synthesize(self, texts: Iterable[str]) -> Iterator[Spoken]:
        """
        Speaks a text whose pieces come one after another, sentence by sentence: the first sound can be heard before
        the text is complete. Stretches without letters and digits are not spoken.

        Raises:
            OSError: the program or the server fails; what was yielded before is complete.
        """


class SentenceVoice:
    """
    A [`Voice`] whose subclasses [`speak`] one sentence.

    Args:
        name (`str`): What it is called.
        language (`str`, defaults to `"en"`): By which numbers are read out.
        reads_out (`bool`, defaults to `True`):
            Whether numbers, units and abbreviations become words before they are spoken, see [`read_out`].
    """

    def __init__(self, name: str, language: str = "en", reads_out: bool = True):
        self.name, self.language, self.reads_out = name, language, reads_out

    def check(self) -> None:
        """As in [`Voice`]."""

    def speak(self, text: str) -> np.ndarray:
        """The samples of a sentence, float32 of shape (num_samples,) at `SPEECH_RATE`; an OSError if it fails."""
        raise NotImplementedError

    def synthesize(self, texts: Iterable[str]) -> Iterator[Spoken]:
        """As in [`Voice`]."""
        for sentence in split_sentences(texts):
            words = read_out(sentence, self.language) if self.reads_out else sentence
            if any(letter.isalnum() for letter in words):
                yield Spoken(sentence, self.speak(words))


def speak_all(voice: Voice, text: str) -> np.ndarray:
    """
    The speech of a whole text: float32 samples of shape (num_samples,) at `SPEECH_RATE`.

    Raises:
        ValueError: there is nothing to say in it.
        OSError: the voice fails.
    """
    return join_spoken(list(voice.synthesize([text])), text)


def join_spoken(spoken: Sequence[Spoken], text: str = "") -> np.ndarray:
    """The samples of sentences one after another; a ValueError that quotes `text` if there are none."""
    if not sum(len(one.samples) for one in spoken):
        raise ValueError(f"There is nothing to say in {text!r:.80}: a text with letters or digits is accepted.")
    return np.concatenate([one.samples for one in spoken])


def check_speed(speed: float) -> float:
    """The speed of a voice, 1 being its own; a ValueError unless it is from 0.25 to 4, as in OpenAI's API."""
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not math.isfinite(speed):
        raise ValueError(f"A speed of {speed!r:.40} is not accepted: a number from 0.25 to 4 is.")
    if not 0.25 <= speed <= 4:
        raise ValueError(f"A speed of {speed:g} is not accepted: a number from 0.25 to 4 is.")
    return float(speed)
