"""
Control limits and the rules of Western Electric (Statistical Quality Control Handbook, 1956), and what they tell of a
chart's class.
"""

import numpy as np
from sklearn.tree import DecisionTreeClassifier

RULES = (
    "a point beyond three sigma",
    "two of three points beyond two sigma",
    "four of five points beyond one sigma",
    "eight points on one side",
)


def western_electric(values: np.ndarray) -> np.ndarray:
    """
    Where each rule is violated.

    Args:
        values (`np.ndarray` of shape `(length,)`): In standard deviations from the mean. A missing value violates none
            and interrupts nothing but the windows that it stands in, where it counts as in control.

    Returns:
        `np.ndarray` of shape `(2, 4, length)`, bool: for values above and below the mean, and each of `RULES`, whether
        it is violated by the values up to each place.
    """
    found = np.zeros((2, len(RULES), len(values)), dtype=bool)
    for side, sign in enumerate((1, -1)):
        signed = np.where(np.isnan(values), -np.inf, sign * values)
        for rule, (limit, needed, window) in enumerate(((3, 1, 1), (2, 2, 3), (1, 4, 5), (0, 8, 8))):
            beyond = (signed > limit).astype(int)
            total = np.convolve(beyond, np.ones(window, dtype=int))[: len(values)]
            found[side, rule] = (total >= needed) & (beyond == 1)
    return found


def is_out_of_control(values: np.ndarray) -> bool:
    """Whether any rule is violated."""
    return bool(western_electric(values).any())


def features(values: np.ndarray) -> np.ndarray:
    """(10,): how often each rule is violated above and below, missing values, and the longest run of equal ones."""
    same = run = 0
    for one, next_one in zip(values, values[1:]):
        run = run + 1 if one == next_one else 0
        same = max(same, run)
    return np.array([*western_electric(values).sum(axis=2).ravel(), np.isnan(values).sum(), same])


def rule_classes(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """The class of each chart of `x_test` (number, length) by a decision tree on how often the rules are violated."""
    tree = DecisionTreeClassifier(min_samples_leaf=10, random_state=0)
    tree.fit(np.array([features(values) for values in x_train]), y_train)
    return tree.predict(np.array([features(values) for values in x_test]))
