"""What is said in a reading, by voices that are found on the machine (docs/speech.md)."""

import numpy as np

from transformers_omnivinci.inference.speech import AUTO, SPEECH_RATE, make_voice, speak_all
from transformers_omnivinci.media import resample

WORDS = ("left", "middle", "right", "benign", "urgent", "stable")
"""The vocabulary of the narration: three sides and three assessments."""
SPEEDS = (0.95, 1.05, 1.15)
LOUDNESS = (0.5, 0.9)
QUIET = 0.02


class Narrator:
    """
    Says the words of [`WORDS`]. Each is spoken once for each voice and speed, and kept.

    Args:
        voices (`tuple[str, ...]`, *optional*): Names as of [`make_voice`]; each word is said by any of them.

    Raises:
        OSError: a voice is not installed, or none is; the message says how to get one.
    """

    def __init__(self, voices: tuple[str, ...] = (AUTO,)):
        self._voices = [make_voice(name, speed) for name in voices for speed in SPEEDS]
        self._spoken: dict[tuple[int, str, int], np.ndarray] = {}

    @property
    def names(self) -> list[str]:
        """The voices that speak."""
        return sorted({voice.name for voice in self._voices})

    def say(self, word: str, seed: int, rate: int) -> np.ndarray:
        """
        The sound of a word, without silence around it, at a loudness and speed that follow from the seed.

        Returns:
            `np.ndarray` of shape `(num_samples,)`: float32 in [-1, 1] at `rate` Hz.
        """
        rng = np.random.default_rng(seed)
        number, loudness = int(rng.integers(len(self._voices))), rng.uniform(*LOUDNESS)
        if (number, word, rate) not in self._spoken:
            samples = resample(speak_all(self._voices[number], f"{word}."), SPEECH_RATE, rate)
            samples /= max(float(np.abs(samples).max()), 1e-6)
            loud = np.flatnonzero(np.abs(samples) > QUIET)
            self._spoken[number, word, rate] = samples[loud[0] : loud[-1] + 1]
        return (loudness * self._spoken[number, word, rate]).astype(np.float32)
