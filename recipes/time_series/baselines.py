"""What is reached without pictures: the nearest neighbour by dynamic time warping, and a linear model."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def dtw_distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """
    Dynamic time warping without a window, with squared differences summed over channels (Sakoe and Chiba, 1978; UCR's
    `DTW (w=100)`).

    Args:
        one (`np.ndarray` of shape `(channels, length)`): A series.
        others (`np.ndarray` of shape `(number, channels, length)`): Others.

    Returns:
        `np.ndarray` of shape `(number,)`: the sum of squared differences along the best path to each.
    """
    length, others_length = one.shape[1], others.shape[2]
    # By diagonals: a cell at (i, j) needs those of the two diagonals before. Places are those of i, one later.
    before = np.full((length + 1, len(others)), np.inf)
    last = before.copy()
    before[0] = 0.0
    for diagonal in range(length + others_length - 1):
        i = np.arange(max(0, diagonal - others_length + 1), min(length, diagonal + 1))
        costs = ((one[:, i] - others[:, :, diagonal - i]) ** 2).sum(axis=1).T
        new = np.full_like(last, np.inf)
        new[i + 1] = costs + np.minimum(np.minimum(last[i], last[i + 1]), before[i])
        before, last = last, new
    return last[length]


def nearest_by_dtw(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """The class of the nearest series to train on, for each of `x_test` (number, channels, length)."""
    return np.array([y_train[np.argmin(dtw_distances(one, x_train))] for one in x_test])


def linear(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """The class by logistic regression on the standardized numbers, for each of `x_test`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(x_train.reshape(len(x_train), -1), y_train)
    return model.predict(x_test.reshape(len(x_test), -1))
