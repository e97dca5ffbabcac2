"""
The nine classes of charts of figure 13 as definitions, from which charts are generated.

A chart has 60 values of a process in units of its standard deviation, with mean 0: in control they are normally
distributed. The paper names its classes and does not define them; the definitions here are this recipe's own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

LENGTH = 60
NUM_BANDS = 5
HELD_OUT = (1, 3)
"""Bands of each strength and period that training never sees, of `NUM_BANDS` equal ones; tests have these alone."""
PLACES = ("early", "middle", "late")


@dataclass(frozen=True)
class Chart:
    """
    A chart with what is true of it.

    Attributes:
        kind (`str`): A key of `KINDS`, or `"in control"`.
        values (`np.ndarray` of shape `(60,)`): In standard deviations; NaN is missing.
        facts (`dict[str, str]`): What an explanation tells, such as `{"side": "up", "place": "late"}`.
    """

    kind: str
    values: np.ndarray
    facts: dict[str, str] = field(default_factory=dict)


class Draw:
    """Random parameters: those that say how strong or long something is come from bands, see `HELD_OUT`."""

    def __init__(self, rng: np.random.Generator, is_test: bool):
        self.rng = rng
        self.bands = [band for band in range(NUM_BANDS) if (band in HELD_OUT) == is_test]

    def between(self, low: float, high: float) -> float:
        """A strength or period of one of the bands between two ends."""
        return low + (high - low) * (self.rng.choice(self.bands) + self.rng.random()) / NUM_BANDS

    def side(self) -> tuple[str, int]:
        """A direction, with its sign."""
        return [("up", 1), ("down", -1)][self.rng.integers(2)]

    def span(self, low: float, high: float) -> tuple[str, slice]:
        """A stretch of values of a length between two ends, and the third of the chart in which its middle lies."""
        length = round(self.between(low, high))
        start = int(self.rng.integers(2, LENGTH - length - 1))
        return PLACES[int(3 * (start + length / 2) / LENGTH)], slice(start, start + length)


def _cluster(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """4 to 9 values in a row lie around 3 to 5.5 standard deviations away, on one side, and close together."""
    (side, sign), (place, span) = draw.side(), draw.span(4, 9)
    values[span] = sign * draw.between(3, 5.5) + 0.4 * values[span]
    return {"side": side, "place": place}


def _constant(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """12 to 30 values in a row are exactly the same, as of a sensor that hangs."""
    place, span = draw.span(12, 30)
    values[span] = values[span.start]
    return {"place": place}


def _cycling(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """A sine of 8 to 20 values a cycle, with an amplitude of 1.5 to 3.5, is added to all of the chart."""
    period = draw.between(8, 20)
    values += draw.between(1.5, 3.5) * np.sin(2 * np.pi * (np.arange(LENGTH) / period + draw.rng.random()))
    return {"count": str(round(LENGTH / period))}


def _missing(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """5 to 18 values in a row are missing, as in an outage."""
    place, span = draw.span(5, 18)
    values[span] = np.nan
    return {"place": place}


def _period_trending(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """Every 12 to 25 values, a linear drift of 3 to 7 begins anew, as of a tool that wears and is replaced."""
    (side, sign), period = draw.side(), draw.between(12, 25)
    values += sign * draw.between(3, 7) * (np.arange(LENGTH) % period / period - 0.5)
    return {"side": side, "count": str(int(np.ceil(LENGTH / period)))}


def _periodic_patterns(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """Every 9 to 18 values, a peak of two values and of 3.5 to 6 stands out on one side."""
    (side, sign), period = draw.side(), draw.between(9, 18)
    starts = np.arange(draw.rng.integers(1, 6), LENGTH - 2, period).astype(int)
    height = draw.between(3.5, 6)
    for start in starts:
        values[start : start + 2] += sign * height
    return {"side": side, "count": str(len(starts))}


def _shift(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """From a value between 15 and 45 on, the mean is 1.5 to 4 higher or lower."""
    (side, sign), start = draw.side(), int(draw.rng.integers(15, 46))
    values[start:] += sign * draw.between(1.5, 4)
    return {"side": side, "place": PLACES[int(3 * start / LENGTH)]}


def _trending(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """A linear drift of 4 to 9 over all of the chart."""
    side, sign = draw.side()
    values += sign * draw.between(4, 9) * (np.arange(LENGTH) / (LENGTH - 1) - 0.5)
    return {"side": side}


def _uneven(draw: Draw, values: np.ndarray) -> dict[str, str]:
    """For 15 to 30 values in a row, the standard deviation is 2.5 to 4 times as large."""
    place, span = draw.span(15, 30)
    values[span] *= draw.between(2.5, 4)
    return {"place": place}


KINDS: dict[str, Callable[[Draw, np.ndarray], dict[str, str]]] = {
    "cluster": _cluster,
    "constant": _constant,
    "cycling": _cycling,
    "missing": _missing,
    "period_trending": _period_trending,
    "periodic_patterns": _periodic_patterns,
    "shift": _shift,
    "trending": _trending,
    "uneven": _uneven,
}
"""Each class: what changes values in control, and returns the facts."""


def make_chart(kind: str, rng: np.random.Generator, is_test: bool = False) -> Chart:
    """
    Generates a chart.

    Args:
        kind (`str`): A key of `KINDS`, or `"in control"`.
        rng (`np.random.Generator`): Decides everything.
        is_test (`bool`, *optional*, defaults to `False`): Whether parameters are those of tests, see `HELD_OUT`.

    Raises:
        ValueError: there is no such class.
    """
    values = rng.normal(size=LENGTH)
    if kind == "in control":
        return Chart(kind, values)
    if kind not in KINDS:
        raise ValueError(f"There is no class {kind!r}: {', '.join(KINDS)} are accepted.")
    return Chart(kind, values, KINDS[kind](Draw(rng, is_test), values))
