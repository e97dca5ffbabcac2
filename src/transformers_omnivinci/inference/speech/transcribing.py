"""Sound of any length, window by window."""

from collections.abc import Iterator

import numpy as np

from ...media import SampleFile, load_audio
from .recognisers import HEARING_RATE, Recogniser
from .transcripts import Segment
from .windows import STEP, plan_windows

SPAN = 600
"""Seconds of sound whose levels are measured at a time."""


def load_speech(source) -> np.ndarray | SampleFile:
    """The sound of a file or its bytes, float32 at `HEARING_RATE`; from some minutes on it is not held in memory."""
    return load_audio(source, sampling_rate=HEARING_RATE, in_file=True)


def measure_levels(samples: np.ndarray | SampleFile) -> np.ndarray:
    """The level of each `STEP` in dB of full scale, of shape (num_steps,); -200 where there is nothing."""
    step, levels = round(STEP * HEARING_RATE), []
    for start in range(0, len(samples), SPAN * HEARING_RATE):
        part = samples[start : start + SPAN * HEARING_RATE]
        padded = np.pad(part, (0, -len(part) % step)).reshape(-1, step)
        levels.append(20 * np.log10(np.maximum(np.sqrt((padded.astype(np.float64) ** 2).mean(1)), 1e-10)))
    return np.concatenate(levels) if levels else np.empty(0)


def transcribe(
    samples: np.ndarray | SampleFile, recogniser: Recogniser, least: float = 5.0, most: float = 30.0
) -> Iterator[Segment]:
    """
    Yields what is said in sound, a segment for each window in which anything is, see [`plan_windows`].

    Args:
        samples (`np.ndarray` or [`SampleFile`]): float32 mono samples of shape (num_samples,) at `HEARING_RATE`.
        recogniser ([`Recogniser`]): What writes it down.
        least (`float`, defaults to 5.0), most (`float`, defaults to 30.0): Seconds of a window.

    Raises:
        ValueError: the window has no length.
    """
    if not 0 < least <= most:
        raise ValueError(f"Windows of {least:g} to {most:g} s are not accepted: the latter must be the longer ones.")
    seconds = len(samples) / HEARING_RATE
    for start, end in plan_windows(measure_levels(samples).tolist(), least, most):
        end = min(end, seconds)
        text = recogniser.transcribe(samples[round(start * HEARING_RATE) : round(end * HEARING_RATE)], start)
        if text:
            yield Segment(start, end, text)
