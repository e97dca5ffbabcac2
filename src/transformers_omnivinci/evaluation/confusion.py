"""Which class is taken for which: counts of a classification, and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .metrics import exact_match

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OTHER = "none of them"
"""The name of the last column in the picture."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """
    How often answers name each class.

    Attributes:
        labels (`tuple[str, ...]`): The classes.
        counts (`np.ndarray` of shape `(labels, labels + 1)`, int):
            A row for each right class and a column for each answered one; the last column counts answers that name
            none of them.
    """

    labels: tuple[str, ...]
    counts: np.ndarray

    @property
    def total(self) -> int:
        """The number of answers."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float(np.trace(self.counts) / self.total)

    @property
    def recalls(self) -> dict[str, float | None]:
        """Of each class, the share of its examples that are answered rightly; `None`: it has no examples."""
        sums, right = self.counts.sum(axis=1), np.diagonal(self.counts)
        return {label: float(r / s) if s else None for label, r, s in zip(self.labels, right, sums)}

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have examples."""
        return float(np.mean([one for one in self.recalls.values() if one is not None]))

    @property
    def num_other(self) -> int:
        """The number of answers that name none of the classes."""
        return int(self.counts[:, -1].sum())


def confusion_matrix(targets: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> ConfusionMatrix:
    """
    Counts which class is answered for which.

    Args:
        targets (`Sequence[str]`): The right classes, at least one.
        answers (`Sequence[str]`): What a model answered to each. It names a class as of [`exact_match`]: but for case,
            punctuation and spaces.
        labels (`Sequence[str]`): All classes, in the order of rows and columns.

    Raises:
        ValueError: there are not as many answers as targets, or none; a target is no label, or labels are alike.
    """
    if len(targets) != len(answers) or not targets:
        raise ValueError(f"Got {len(targets)} targets and {len(answers)} answers: as many, and at least one of each.")
    alike = [one for place, one in enumerate(labels) if exact_match(one, labels[:place])]
    if alike:
        raise ValueError(f"The label {alike[0]!r} is there twice (but for case and punctuation): each is named once.")
    places = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=int)
    for target, answer in zip(targets, answers):
        if target not in places:
            raise ValueError(f"The target {target!r:.60} is none of the labels: {', '.join(labels)} are accepted.")
        column = places.get(answer)
        if column is None:
            column = next((place for label, place in places.items() if exact_match(answer, [label])), len(labels))
        counts[places[target], column] += 1
    return ConfusionMatrix(tuple(labels), counts)


def draw_confusion(matrix: ConfusionMatrix, title: str = "", axes: Axes | None = None) -> Figure:
    """
    Draws a confusion matrix: shades are shares of each row, numbers are counts.

    Args:
        matrix ([`ConfusionMatrix`]): What is drawn. The column of answers that name no class is left out if
            it is empty.
        title (`str`, *optional*): Above it.
        axes (`matplotlib.axes.Axes`, *optional*): Where to draw. Default: in a figure of its own.

    Returns:
        `matplotlib.figure.Figure`: that with the axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    columns = [*matrix.labels, *([OTHER] if matrix.num_other else [])]
    counts = matrix.counts[:, : len(columns)]
    if axes is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                'Drawing a confusion matrix needs matplotlib: pip install "transformers-omnivinci[plot]".'
            ) from error
        size = 2.4 + 0.45 * len(columns)
        axes = Figure(figsize=(size, size), dpi=150, layout="constrained", facecolor="white").add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(matrix.labels)), matrix.labels, fontsize=8)
    for row, column in zip(*np.nonzero(counts)):
        ink = "white" if shares[row, column] > 0.6 else "#23272e"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=ink)
    axes.set_xlabel("answered")
    axes.set_ylabel("right")
    axes.set_title(title, fontsize=10)
    return axes.figure
