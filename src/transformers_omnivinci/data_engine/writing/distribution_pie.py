"""Draws what the data are made of, as figure 5 of the paper does for its training data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ...new_file import new_file
from .written_counts import NEEDS, WrittenCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2f6db3", "#e0812f", "#4a9a6a", "#8a63b8", "#c94f5d", "#5fa8c4", "#b8a03a", "#9aa3af")
INK, GREY = "#23272e", "#5b6470"


def draw_distribution(counts: WrittenCounts, title: str, path: Path) -> None:
    """
    Draws the chats by category and, where the filter asked without senses, the questions by what their answers need.

    Args:
        counts ([`WrittenCounts`]): With at least one chat.
        title (`str`): Of the figure.
        path (`Path`): A PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    written = counts.chats - counts.spoken
    parts: Counter = Counter()
    for category, number in counts.chats.most_common():
        parts[category] = number
    pies = [("by category", dict(parts))]
    if counts.needs:
        pies.append(("questions, by what an answer needs", {name: counts.needs[name] for name in NEEDS}))
    if counts.spoken.total():
        spoken = {"written": written.total(), "spoken": counts.spoken.total()}
        pies.append(("prompts", spoken))
    figure = Figure(figsize=(5.2 * len(pies), 4.6), dpi=150, facecolor="white")
    figure.text(0.5, 0.95, title, ha="center", va="top", fontsize=14, fontweight="bold", color=INK)
    for place, (name, shares) in enumerate(pies):
        axes = figure.add_axes((place / len(pies), 0.26, 1 / len(pies), 0.58))
        _draw(axes, name, {label: number for label, number in shares.items() if number})
    with new_file(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _draw(axes: Axes, name: str, shares: dict[str, int]) -> None:
    total = sum(shares.values())
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(shares))]
    wedges, _ = axes.pie(
        shares.values(),
        colors=colours,
        startangle=90,
        counterclock=False,
        radius=1.0,
        wedgeprops={"width": 0.45, "edgecolor": "white", "linewidth": 1.5},
    )
    axes.text(0, 0, f"{total:,}", ha="center", va="center", fontsize=15, fontweight="bold", color=INK)
    axes.set_title(name, fontsize=10.5, color=GREY, pad=2)
    labels = [f"{label}  {number / total:.1%}" for label, number in shares.items()]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.02), "ncols": 2}
    axes.legend(wedges, labels, frameon=False, fontsize=9, labelcolor=INK, handlelength=1, handleheight=1, **place)
