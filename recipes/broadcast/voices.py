"""The umpire's calls, spoken by the voices of this machine."""

from collections.abc import Sequence

import numpy as np

from transformers_omnivinci.inference.speech import AUTO, SPEECH_RATE, find_programs, make_voice, speak_all
from transformers_omnivinci.media import resample

from .drawing import SAMPLING_RATE
from .rally import CALLS

VOICES = {
    "piper": ("piper",),
    "espeak-ng": ("espeak-ng:en-us", "espeak-ng:en-us+m3", "espeak-ng:en-us+f2"),
    "festival": ("festival",),
    "flite": ("flite:slt", "flite:rms"),
}
"""Which voices of a program are umpires, where it is installed."""
SPEEDS = (0.94, 1.06)
LONGEST = 1.5
"""Seconds that a call may take."""


def installed_voices() -> list[str]:
    """
    The names of the umpires that this machine has.

    Raises:
        OSError: nothing on this machine speaks.
    """
    found = [name for program in find_programs() for name in VOICES.get(program, ())]
    return found or [make_voice(AUTO).name]


def speak_calls(names: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """
    Has voices say all calls.

    Args:
        names (`Sequence[str]`): As [`make_voice`] takes them.

    Returns:
        `list[dict[str, np.ndarray]]`: for each voice its calls, float32 samples at `SAMPLING_RATE` with a peak of
        1 and without the silence around them.

    Raises:
        ValueError: a name is no voice, or a call takes longer than `LONGEST` seconds.
        OSError: a voice is not installed, or fails.
    """
    return [{text: _speak(make_voice(name), text) for text in CALLS} for name in names]


def _speak(voice, text: str) -> np.ndarray:
    samples = resample(speak_all(voice, text), SPEECH_RATE, SAMPLING_RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    if not len(loud):
        raise OSError(f"The voice {voice.name} says {text!r} without a sound: name another one with `--voice`.")
    samples = samples[loud[0] : loud[-1] + 1]
    if len(samples) > LONGEST * SAMPLING_RATE:
        seconds = len(samples) / SAMPLING_RATE
        raise ValueError(
            f"The voice {voice.name} takes {seconds:.1f} s to say {text!r}: up to {LONGEST} s are accepted."
        )
    return (samples / np.abs(samples).max()).astype(np.float32)


def vary(samples: np.ndarray, speed: float) -> np.ndarray:
    """The samples played faster or slower, and so higher or lower."""
    places = np.arange(0, len(samples) - 1, speed)
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
