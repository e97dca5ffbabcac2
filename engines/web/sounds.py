"""Sounds for the microphone and for uploads."""

from pathlib import Path

import numpy as np

from transformers_omnivinci.synthetic import Clip, write_clip


def write_sound(path: Path, seconds: float) -> Path:
    """A WAV file of a tone of one second, and silence."""
    samples = np.zeros(round(16_000 * seconds), dtype=np.float32)
    samples[:16_000] = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) / 2
    write_clip(path, Clip(None, samples, 8, 16_000))
    return path
