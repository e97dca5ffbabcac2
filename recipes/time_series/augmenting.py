"""Further series to train on, which are like those that are there."""

import numpy as np

from .readers import Series


def augment(series: Series, rng: np.random.Generator, strength: float = 1.0, mix: float = 0.5) -> Series:
    """
    Changes each series a little, in this order: a share `mix` of them is mixed with another of the same class (with a
    weight up to one half); the time is stretched here and shrunk there, by 5% of the length; a slow wave (three knots,
    10% of the standard deviation) and noise (5% of it) are added.

    Args:
        series ([`Series`]): Without missing values.
        rng (`np.random.Generator`): Decides everything.
        strength (`float`, *optional*, defaults to 1.0): A factor of these percentages.
        mix (`float`, *optional*, defaults to 0.5): The share that is mixed.

    Returns:
        [`Series`]: as many, with the same classes.
    """
    values, labels = series.values.copy(), series.labels
    number, channels, length = values.shape
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        others = series.values[rng.choice(places, len(places))]
        weights = rng.uniform(0, 0.5, (len(places), 1, 1)) * (rng.random((len(places), 1, 1)) < mix)
        values[places] = (1 - weights) * series.values[places] + weights * others
    deviation = values.std(axis=(1, 2), keepdims=True)
    knots, times = np.linspace(0, length - 1, 5), np.arange(length)
    bends = np.zeros((number, 5))
    bends[:, 1:-1] = rng.normal(0, 0.05 * strength * length / 2, (number, 3))
    waves = rng.normal(0, 0.1 * strength, (number, channels, 5))
    for place in range(number):
        warped = np.clip(times + np.interp(times, knots, bends[place]), 0, length - 1)
        for channel in range(channels):
            values[place, channel] = np.interp(warped, times, values[place, channel])
            values[place, channel] += deviation[place, 0] * np.interp(times, knots, waves[place, channel])
    values += 0.05 * strength * deviation * rng.normal(size=values.shape)
    return Series(values, labels)
