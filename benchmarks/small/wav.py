"""Sound in files."""

import wave
from pathlib import Path

import numpy as np

from .rooms import RATE


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    """
    Writes sound in 16 bits.

    Args:
        path: The file.
        samples (`np.ndarray` of shape `(num_samples,)`): In [-1, 1]; what is beyond is cut off.
        rate: Samples for a second.
    """
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples.clip(-1, 1) * 32_767).round().astype("<i2").tobytes())
