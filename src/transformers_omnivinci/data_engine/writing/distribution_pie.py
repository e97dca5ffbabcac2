"""Draws what the data are made of, as figure 5 of the paper does for its training data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ...synthetic.clips import replaced
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
        axes = figure.add_axes((place / len(pies), 0.02, 1 / len(pies), 0.84))
        _draw(axes, name, {label: number for label, number in shares.items() if number})
    with replaced(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _draw(axes: Axes, name: str, shares: dict[str, int]) -> None:
    total = sum(shares.values())
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(shares))]
    wedges, _ = axes.pie(
        shares.values(),
        colors=colours,
        startangle=90,
        counterclock=False,
        radius=0.8,
        wedgeprops={"width": 0.36, "edgecolor": "white", "linewidth": 1.5},
    )
    axes.text(0, 0, f"{total:,}", ha="center", va="center", fontsize=15, fontweight="bold", color=INK)
    axes.text(0, 1.12, name, ha="center", va="center", fontsize=10.5, color=GREY)
    axes.set(xlim=(-1.75, 1.75), ylim=(-1.25, 1.25))
    _label(axes, wedges, shares, total)


def _label(axes: Axes, wedges, shares: dict[str, int], total: int) -> None:
    """Names and shares beside the wedges, moved apart where they would touch."""
    from math import cos, radians, sin

    sides: dict[bool, list] = {True: [], False: []}
    for wedge, (label, number) in zip(wedges, shares.items()):
        angle = radians((wedge.theta1 + wedge.theta2) / 2)
        sides[cos(angle) >= 0].append([sin(angle) * 0.95, angle, f"{label}\n{number / total:.1%}"])
    for is_right, labels in sides.items():
        labels.sort(key=lambda one: one[0])
        gap = 0.27
        for before, after in zip(labels, labels[1:]):
            after[0] = max(after[0], before[0] + gap)
        excess = labels[-1][0] - 1.1 if labels else 0
        if excess > 0:
            for one in labels:
                one[0] -= excess
        for height, angle, text in labels:
            side = 1 if is_right else -1
            axes.annotate(
                text,
                xy=(0.8 * cos(angle), 0.8 * sin(angle)),
                xytext=(side * 1.0, height),
                ha="left" if is_right else "right",
                va="center",
                fontsize=9,
                color=INK,
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7},
            )
