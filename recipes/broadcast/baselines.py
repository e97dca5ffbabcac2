"""What can be had without a model: guesses, counted onsets, and what one sense alone could tell at best."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from transformers_omnivinci.media import load_audio

from .drawing import SAMPLING_RATE
from .questions import CATEGORIES

HOP, GAP = 0.01, 0.4
THRESHOLDS, OFFSETS = (4, 8, 15, 30, 60, 120), (-4, -3, -2, -1, 0)


def majority(train: Sequence[Mapping]) -> dict[str, list[str]]:
    """The answers of each category, the most frequent one first; rows are those of `train.jsonl`."""
    counts = {category: Counter() for category in CATEGORIES}
    for row in train:
        if row.get("category") in counts:
            counts[row["category"]][row["facts"][row["category"]]] += 1
    return {category: [answer for answer, _ in found.most_common()] for category, found in counts.items()}


def guess(order: Sequence[str], options: Sequence[str]) -> str:
    """The most frequent answer that is an option, or the first option where none is known."""
    return next((answer for answer in order if answer in options), options[0])


def onsets(samples: np.ndarray, threshold: float) -> int:
    """
    How often the sound rises suddenly.

    Args:
        samples (`np.ndarray`): float32 samples of shape (num_samples,) at `SAMPLING_RATE`.
        threshold (`float`): How many times louder 10 ms are than the 50 ms before, to count.
    """
    hop = round(HOP * SAMPLING_RATE)
    power = np.square(samples[: len(samples) // hop * hop]).reshape(-1, hop).mean(1) + 1e-7
    before = np.convolve(power, np.ones(5) / 5)[: len(power)]
    rises = np.flatnonzero(power[5:] > threshold * before[4:-1]) + 5
    count, last = 0, -np.inf
    for place in rises:
        if (place - last) * HOP >= GAP:
            count, last = count + 1, place
    return count


def count_table(paths: Sequence[Path]) -> np.ndarray:
    """The onsets of each clip for each of `THRESHOLDS`: integers of shape (num_clips, num_thresholds)."""
    sounds = (load_audio(path, sampling_rate=SAMPLING_RATE) for path in paths)
    return np.array([[onsets(samples, threshold) for threshold in THRESHOLDS] for samples in sounds])


def fit_counter(paths: Sequence[Path], shots: Sequence[int]) -> tuple[float, int]:
    """The threshold, and the onsets to take away as calls, that are right for the most of some training clips."""
    counted, right = count_table(paths), np.asarray(shots)
    scores = {
        (place, offset): np.mean(counted[:, place] + offset == right)
        for place, offset in product(range(len(THRESHOLDS)), OFFSETS)
    }
    place, offset = max(scores, key=scores.get)
    return THRESHOLDS[place], offset


def nearest(number: int, options: Sequence[str]) -> str:
    """The option that is nearest to a number."""
    return min(options, key=lambda option: (abs(int(option) - number), int(option)))


def seen_alone(category: str, facts: Mapping) -> float:
    """How often whoever sees everything, hears nothing, and calls every ball on a line out, is right."""
    misled = facts["is_close"] and facts["ending"] == "winner" and category in ("ending", "winner")
    return 0.0 if misled else 1.0


def heard_alone(category: str, facts: Mapping, options: Sequence[str]) -> float:
    """How often whoever hears everything and sees nothing is right, guessing between what sounds alike."""
    if category in ("server", "winner"):
        return 1 / len(options)
    if category == "shots":
        return 1.0
    ending = facts["ending"]
    alike = next((pair for pair in (("long", "wide"), ("winner", "net")) if ending in pair), (ending,))
    return 1 / len([one for one in alike if one in options])
