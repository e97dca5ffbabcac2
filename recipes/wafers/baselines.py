"""What simple methods reach: densities of failing dies by radius and angle for the pattern, a rule for its place."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .maps import BLANK, FAILING, clustered, polar, quadrant, ring

NUM_RINGS, NUM_SECTORS, NUM_WAVES = 8, 24, 5


def features(dies: np.ndarray) -> np.ndarray:
    """
    Densities of a map: of failing dies in 8 rings, of clustered ones (see [`clustered`]) in 8 rings, and how both
    change with the angle in the inner, middle and outer third, as magnitudes of their first 5 Fourier coefficients
    over 24 sectors, which do not depend on how the wafer is turned.

    Returns:
        `np.ndarray` of shape `(46,)`: float.
    """
    x, y, radius = polar(dies.shape)
    wafer = (dies != BLANK).astype(float)
    circle = np.minimum((radius * NUM_RINGS).astype(int), NUM_RINGS - 1)
    third = np.minimum((radius * 3).astype(int), 2)
    sector = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * NUM_SECTORS).astype(int) % NUM_SECTORS
    values = []
    for mask in (dies == FAILING, clustered(dies)):
        values.append(_density(mask, wafer, circle, NUM_RINGS))
        for one in range(3):
            around = _density(mask[third == one], wafer[third == one], sector[third == one], NUM_SECTORS)
            values.append(np.abs(np.fft.rfft(around))[1 : NUM_WAVES + 1] / NUM_SECTORS)
    return np.concatenate(values)


def _density(mask, wafer, places, number: int) -> np.ndarray:
    """The share of dies in each place that are in a mask; 0 where there are none."""
    dies = np.bincount(places.ravel(), wafer.ravel(), number)
    return np.bincount(places.ravel(), mask.ravel().astype(float), number) / np.maximum(dies, 1)


def classify(train: Sequence[np.ndarray], labels: Sequence[str], test: Sequence[np.ndarray]) -> dict[str, list[str]]:
    """
    What two classifiers on the [`features`] answer.

    Args:
        train, test (`Sequence[np.ndarray]`): Maps.
        labels (`Sequence[str]`): The patterns of those of the training.

    Returns:
        `dict[str, list[str]]`: of each method, its answers about the maps of the test.
    """
    known, asked = (np.array([features(dies) for dies in maps]) for maps in (train, test))
    methods = {
        "nearest centroid": make_pipeline(StandardScaler(), NearestCentroid()),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    }
    return {name: list(map(str, one.fit(known, labels).predict(asked))) for name, one in methods.items()}


def locate(about: str, dies: np.ndarray) -> str:
    """The quadrant or the third of the radius in which failing dies are clustered; `""` if none are."""
    find = {"quadrant": quadrant, "radius": ring}[about]
    return find(clustered(dies), margin=0) or ""
