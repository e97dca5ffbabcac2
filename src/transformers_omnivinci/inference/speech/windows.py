"""Where long sound is cut into windows, in plain seconds: between words, as far as there are pauses."""

import math
from collections.abc import Sequence

STEP = 0.05
"""Seconds of which the level is measured at a time."""
SILENCE = -60.0
"""Level in dB of full scale below which there is nothing to hear."""
BELOW_SPEECH = 25.0
"""By how many dB a pause is quieter than the loudest step near it."""
SHORTEST_PAUSE = 0.3
"""Seconds of a pause."""


def plan_windows(levels: Sequence[float], least: float = 5.0, most: float = 30.0) -> list[tuple[float, float]]:
    """
    The stretches of a sound that are transcribed one by one, as (start, end) in seconds, without silence around them.

    A window ends in the middle of the first pause after `least` seconds; if there is none within `most` seconds, where
    it is quietest in the second half.

    Args:
        levels (`Sequence[float]`): The level of each `STEP`, in dB of full scale.
        least (`float`, defaults to 5.0), most (`float`, defaults to 30.0): Seconds of a window.
    """
    fewest, longest = max(1, round(least / STEP)), max(1, round(most / STEP))
    windows, start = [], 0
    while start < len(levels):
        near = levels[start : start + longest]
        quiet = max(near) - BELOW_SPEECH
        if max(near) <= SILENCE:
            start += len(near)
            continue
        first = next(place for place, level in enumerate(near) if level > max(quiet, SILENCE))
        if first:  # it begins with the sound
            start += first
            continue
        end = _first_pause(near, fewest, quiet)
        if end is None:
            end = len(near)
            if start + end < len(levels):
                end = min(range(len(near) // 2, len(near)), key=lambda place: near[place]) or len(near)
        last = max(place for place in range(end) if near[place] > max(quiet, SILENCE))
        # The sound of a word goes on below that level, but not into the next window.
        windows.append((start * STEP, min(last + 4, end) * STEP + start * STEP))
        start += end
    return [(round(begin, 3), round(end, 3)) for begin, end in windows]


def _first_pause(levels: Sequence[float], fewest: int, quiet: float) -> int | None:
    """The middle of the first pause after the `fewest` steps."""
    run, needed = 0, math.ceil(SHORTEST_PAUSE / STEP)
    for place, level in enumerate(levels):
        if level <= quiet:
            run += 1
            continue
        if run >= needed and place - run // 2 >= fewest:
            return place - run // 2
        run = 0
    return None
