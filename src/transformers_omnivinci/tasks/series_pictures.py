"""Time series as line plots, which a model that sees can read (paper, appendix B.5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class SeriesStyle:
    """
    How line plots look. Models are asked about pictures of the style that they were trained on.

    Attributes:
        width, height (`int`): Size of the picture in pixels.
        line_width (`float`): In pixels.
        marker (`float`): Diameter of a dot at each value, in pixels; 0: none.
        colours (`tuple[str, ...]`): Of the channels, in turn.
        level_colour (`str`): Of horizontal lines such as control limits.
        background (`str`): Behind them.
        margin (`float`): Free space on each side, as a share of the picture.
    """

    width: int = 64
    height: int = 64
    line_width: float = 1.5
    marker: float = 0.0
    colours: tuple[str, ...] = ("#2f6db3", "#e0812f", "#4a9a6a", "#8a63b8", "#c94f5d", "#b8a03a")
    level_colour: str = "#9aa3af"
    background: str = "white"
    margin: float = 0.05

    def __post_init__(self):
        if min(self.width, self.height) < 8:
            raise ValueError(f"A picture of {self.width} x {self.height} pixels: at least 8 each way are accepted.")
        if not 0 <= self.margin < 0.5 or self.line_width <= 0 or self.marker < 0 or not self.colours:
            raise ValueError(
                f"{self}: a margin from 0 to less than 0.5, a positive line width, a marker of at least 0 and a "
                "colour are accepted."
            )


def draw_series(
    series: np.ndarray | Sequence,
    style: SeriesStyle | None = None,
    limits: tuple[float, float] | None = None,
    levels: Sequence[float] = (),
) -> Image.Image:
    """
    Draws a time series as a line plot without axes, titles or grid.

    Args:
        series (`np.ndarray` of shape `(length,)` or `(channels, length)`):
            The values at equal distances of time, a line for each channel. NaN is a missing value, which leaves a gap;
            a value between two gaps is a dot.
        style ([`SeriesStyle`], *optional*): How it looks. Default: that of [`SeriesStyle`].
        limits (`tuple[float, float]`, *optional*):
            Values at the lower and upper edge; lines are cut there. Default: the least and the greatest drawn.
        levels (`Sequence[float]`, *optional*): Values at which horizontal dashed lines are drawn, below the series.

    Returns:
        `PIL.Image.Image`: RGB, `style.width` x `style.height`.

    Raises:
        ValueError: there is nothing to draw, a value is infinite, or the limits are not in order.
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.transforms import IdentityTransform
    except ImportError as error:
        raise ImportError('Drawing a series needs matplotlib: pip install "transformers-omnivinci[plot]".') from error
    style = style or SeriesStyle()
    values = np.asarray(series, dtype=float)
    if values.ndim not in (1, 2) or not values.size or np.isnan(values).all() or np.isinf(values).any():
        raise ValueError(
            f"A series of shape {values.shape}: finite values or NaN of shape (length,) or (channels, length) are "
            "accepted, not all of them NaN."
        )
    values = np.atleast_2d(values)
    low, high = limits or (
        min(np.nanmin(values), *levels, np.inf),
        max(np.nanmax(values), *levels, -np.inf),
    )
    if not low <= high:
        raise ValueError(f"The limits {low} and {high} are not in order: the lower one comes first.")
    if low == high:
        low, high = low - 1, high + 1
    # At one dot an inch, an inch is a pixel, and sizes in points are 72 to a pixel. Axes would take most of the time.
    figure = Figure(figsize=(style.width, style.height), dpi=1, facecolor=style.background)
    canvas = FigureCanvasAgg(figure)
    room, length = 1 - 2 * style.margin, values.shape[1]
    across = style.width * (
        style.margin + room * (np.arange(length) / (length - 1) if length > 1 else np.full(1, 0.5))
    )

    def draw(x, y, **look) -> None:
        heights = style.height * (style.margin + room * (np.asarray(y, dtype=float) - low) / (high - low))
        figure.add_artist(Line2D(x, heights, transform=IdentityTransform(), **look))

    for level in levels:
        look = {"color": style.level_colour, "linewidth": 72 * min(1.0, style.line_width), "linestyle": "--"}
        draw([0, style.width], [level, level], **look)
    for place, line in enumerate(values):
        colour = style.colours[place % len(style.colours)]
        draw(across, line, color=colour, linewidth=72 * style.line_width, solid_capstyle="round")
        dots = np.arange(length) if style.marker else _alone(line)
        if dots.size:
            size = style.marker or 1.5 * style.line_width
            draw(
                across[dots],
                line[dots],
                color=colour,
                linestyle="",
                marker="o",
                markersize=72 * size,
                markeredgewidth=0,
            )
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _alone(line: np.ndarray) -> np.ndarray:
    """Where values have none beside them, so that no line leads to them."""
    there = np.pad(~np.isnan(line), 1)
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:])
