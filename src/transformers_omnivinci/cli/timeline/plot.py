"""Draws the timeline of a clip with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...planning import Timeline, TimelineGroup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VIDEO_COLOUR, AUDIO_COLOUR, BOUNDARY_COLOUR = "#2f6db3", "#e0812f", "#9aa3af"
INK, GREY, FAINT, BAND = "#23272e", "#5b6470", "#9aa3af", "#f1f4f8"
WIDTH, DPI = 14.0, 150
MARGIN = 0.055
"""The margins on both sides, as a fraction of the figure's width."""
MOST_BORDERS = 24
"""With more groups than this, only shading separates them."""


def format_seconds(second: float, digits: int = 1) -> str:
    """Formats a time as `"7.5 s"`, or from two minutes on as `"2:05"` or `"1:02:05"`."""
    if second < 120:
        return f"{second:.{digits}f} s"
    minutes, rest = divmod(round(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plot_timeline(
    timeline: Timeline,
    frames,
    waveform: np.ndarray | None = None,
    sampling_rate: int = 16_000,
    aspect_ratio: float | None = None,
    title: str = "",
) -> Figure:
    """
    Draws a clip as the model reads it: the sampled frames at their times, the sound below them, and the place of each
    group in the sequence.

    Args:
        timeline ([`Timeline`]): The groups of the clip and the times of its sampled frames.
        frames (`torch.Tensor` or `np.ndarray` of shape `(num_frames, 3, height, width)`): uint8 RGB.
        waveform (`np.ndarray` of shape `(num_samples,)`, *optional*): Mono samples in [-1, 1]. `None`: no sound.
        sampling_rate (`int`, *optional*, defaults to 16000): Of the waveform, in Hz.
        aspect_ratio (`float`, *optional*): Width divided by height of the clip. `None`: that of the frames.
        title (`str`, *optional*): Title of the figure, such as the name of the clip.

    Returns:
        `matplotlib.figure.Figure`: 14 inches wide.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the number of frames is not that of the times.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Drawing the timeline needs matplotlib: pip install "transformers-omnivinci[plot]".'
        ) from error
    groups, timestamps = timeline.groups, timeline.timestamps
    if len(frames) != len(timestamps):
        raise ValueError(f"Got {len(frames)} frames but {len(timestamps)} timestamps: one for each is accepted.")
    pictures = np.moveaxis(np.asarray(frames), 1, -1)
    if aspect_ratio is None:
        aspect_ratio = pictures.shape[2] / pictures.shape[1]
    start, end = groups[0].start, groups[-1].end
    span = max(end - start, 1e-3)

    # Heights of the rows in inches, from the top.
    inner = WIDTH * (1 - 2 * MARGIN)
    shown, thumbnail = _choose_thumbnails(timestamps, span)  # its width in seconds
    pad = max(start + thumbnail / 2 - timestamps[shown[0]], timestamps[shown[-1]] + thumbnail / 2 - end, 0.0)
    seconds_per_inch = (span + 2 * pad) / inner
    film_height = min(3.0, thumbnail / seconds_per_inch / aspect_ratio)
    thumbnail = film_height * aspect_ratio * seconds_per_inch
    wave = 0.28 if waveform is None else 1.25
    heights = {"head": 0.95, "film": film_height + 0.62, "wave": wave, "links": 0.75, "tokens": 0.5, "foot": 0.85}
    height = sum(heights.values())
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    axes, top = {}, 1.0
    for name, inches in heights.items():
        top -= inches / height
        axes[name] = figure.add_axes((MARGIN, top, 1 - 2 * MARGIN, inches / height))
        axes[name].set(xticks=[], yticks=[])
        axes[name].patch.set_alpha(0)
        axes[name].spines[:].set_visible(False)
        axes[name].tick_params(colors=INK, labelsize=9)

    limits = (start - pad, end + pad)
    for name in ("film", "wave"):
        axes[name].set_xlim(*limits)
        axes[name].set_ylim(0, 1)
        _draw_groups(axes[name], groups)
    _draw_head(axes["head"], timeline, title)
    _draw_film(axes["film"], pictures, timestamps, shown, thumbnail, film_height / heights["film"])
    _draw_waveform(axes["wave"], groups, waveform, sampling_rate)
    _draw_links(axes["links"], groups, limits)
    _draw_tokens(axes["tokens"], axes["foot"], groups)
    return figure


def _choose_thumbnails(timestamps: Sequence[float], span: float) -> tuple[list[int], float]:
    """The indices of the frames that are shown without overlap, and their width in seconds."""
    gap = float(np.diff(timestamps).min()) if len(timestamps) > 1 else span
    width = min(max(gap * 0.95, span / 12), span / 5)
    shown: list[int] = []
    for index, second in enumerate(timestamps):
        if not shown or second - timestamps[shown[-1]] >= width * 1.03:
            shown.append(index)
    return shown, width


def _draw_groups(axes: Axes, groups: Sequence[TimelineGroup]) -> None:
    for index, group in enumerate(groups):
        if index % 2 == 0:
            axes.axvspan(group.start, group.end, color=BAND, linewidth=0, zorder=0)
        if group.start > groups[0].start and len(groups) <= MOST_BORDERS:
            axes.axvline(group.start, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def _draw_head(axes: Axes, timeline: Timeline, title: str) -> None:
    groups, numbers = timeline.groups, timeline.num_tokens
    parts = ", ".join(f"{number:,} {kind}" for kind, number in numbers.items() if number)
    num_groups = sum(group.name.startswith("group") for group in groups)
    facts = [
        format_seconds(groups[-1].end - groups[0].start),
        _plural(len(timeline.timestamps), "frame"),
        _plural(num_groups, "temporal group") if num_groups else "no temporal groups",
        f"{_plural(sum(numbers.values()), 'token')}: {parts}",
    ]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0, 0.62, title, fontsize=15, fontweight="bold", color=INK, va="center")
    axes.text(0, 0.26 if title else 0.5, "   ·   ".join(facts), fontsize=10, color=GREY, va="center")


def _draw_film(
    axes: Axes, pictures: np.ndarray, timestamps: Sequence[float], shown: Sequence[int], width: float, height: float
) -> None:
    bottom = 1 - height
    axes.vlines(timestamps, 0, 0.1, color=VIDEO_COLOUR, linewidth=0.9, alpha=0.75, zorder=3)
    for index in shown:
        second = timestamps[index]
        left, right = second - width / 2, second + width / 2
        axes.imshow(pictures[index], extent=(left, right, bottom, 1), aspect="auto", interpolation="lanczos", zorder=4)
        axes.vlines(second, 0.1, 0.14, color=VIDEO_COLOUR, linewidth=1.4, zorder=3)
        axes.vlines(second, bottom - 0.06, bottom, color=VIDEO_COLOUR, linewidth=1.4, zorder=3)
        label = {"fontsize": 9, "color": INK, "ha": "center", "va": "center"}
        clear = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}  # of the borders of groups
        axes.text(second, bottom / 2 + 0.04, format_seconds(second), bbox=clear, **label)


def _draw_waveform(
    axes: Axes, groups: Sequence[TimelineGroup], waveform: np.ndarray | None, sampling_rate: int
) -> None:
    start, end = groups[0].start, groups[-1].end
    axes.set_xticks(_round_seconds(start, end))
    axes.tick_params(axis="x", length=3, pad=2)
    axes.spines["bottom"].set(visible=True, color=FAINT)
    axes.spines["bottom"].set_bounds(start, end)
    digits = 0 if end - start > 5 else 1
    axes.xaxis.set_major_formatter(lambda second, _: format_seconds(second, digits))
    if waveform is None:
        return
    heard = waveform[: max(1, round((end - start) * sampling_rate))]
    bins = [part for part in np.array_split(heard, 1400) if len(part)]
    low, high = np.array([part.min() for part in bins]), np.array([part.max() for part in bins])
    rms = np.array([np.sqrt(np.mean(np.square(part))) for part in bins])
    scale = 0.44 / max(float(np.abs([low, high]).max()), 1e-3)
    seconds = start + (np.arange(len(bins)) + 0.5) * len(heard) / sampling_rate / len(bins)
    style = {"color": AUDIO_COLOUR, "linewidth": 0, "zorder": 3}
    for bottom, top, alpha in ((low, high, 0.45), (-rms, rms, 1.0)):
        axes.fill_between(seconds, 0.5 + bottom * scale, 0.5 + top * scale, alpha=alpha, **style)
    axes.hlines(0.5, start, end, color=AUDIO_COLOUR, linewidth=0.6, zorder=2)


def _draw_links(axes: Axes, groups: Sequence[TimelineGroup], limits: tuple[float, float]) -> None:
    """Connects the time span of each group with its place in the sequence."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    total = sum(group.num_tokens for group in groups)
    position, last_label = 0, -1.0
    for index, group in enumerate(groups):
        left, right = ((second - limits[0]) / (limits[1] - limits[0]) for second in (group.start, group.end))
        first, last = position / total, (position + group.num_tokens) / total
        position += group.num_tokens
        # The upper part is left to the tick labels of the axis above.
        corners = [(left, 0.66), (right, 0.66), (last, 0), (first, 0)]
        axes.fill(*zip(*corners), color="#dfe5ee" if index % 2 == 0 else BAND, linewidth=0)
        centre = (left + right + first + last) / 4
        if centre - last_label > 0.055:
            axes.text(centre, 0.33, group.name, fontsize=9, color=GREY, ha="center", va="center")
            last_label = centre


def _draw_tokens(axes: Axes, foot: Axes, groups: Sequence[TimelineGroup]) -> None:
    total = sum(group.num_tokens for group in groups)
    axes.set(xlim=(0, total), ylim=(0, 1))
    foot.set(xlim=(0, total), ylim=(0, 1))
    position, last_label = 0, -total
    for group in groups:
        parts = (("video", group.num_video_tokens, VIDEO_COLOUR), ("audio", group.num_audio_tokens, AUDIO_COLOUR))
        for name, number, colour in parts:
            axes.barh(0.5, number, left=position, height=1, color=colour, linewidth=0)
            centre, share = position + number / 2, number / total
            if share > 0.075:
                axes.text(centre, 0.5, f"{name} {number:,}", fontsize=9, color="white", ha="center", va="center")
            elif share > 0.028:
                axes.text(centre, 0.5, f"{number:,}", fontsize=9, color="white", ha="center", va="center")
            elif number and centre - last_label > 0.045 * total:
                side = "right" if centre > 0.97 * total else "center"
                foot.vlines(centre, 0.82, 1, color=colour, linewidth=1)
                foot.text(centre, 0.78, f"{number:,}", fontsize=9, color=colour, ha=side, va="top")
                last_label = centre
            position += number
        axes.barh(0.5, group.num_boundary_tokens, left=position, height=1, color=BOUNDARY_COLOUR, linewidth=0)
        position += group.num_boundary_tokens
    place = {"va": "center", "transform": foot.transAxes}
    names = {
        "video": ("picture", VIDEO_COLOUR),
        "audio": ("sound", AUDIO_COLOUR),
        "boundary": ("boundary", BOUNDARY_COLOUR),
    }
    legend = [names[kind] for kind in names if any(getattr(group, f"num_{kind}_tokens") for group in groups)]
    for index, (name, colour) in enumerate(legend):
        foot.text(0.09 * index, 0.3, f"■ {name}", fontsize=10, color=colour, ha="left", **place)
    caption = f"position in the sequence of {total:,} tokens →"
    foot.text(1, 0.3, caption, fontsize=9, color=GREY, ha="right", **place)


def _round_seconds(start: float, end: float) -> list[float]:
    """About ten round times between `start` and `end`, in seconds."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600)
    step = next((step for step in steps if (end - start) / step <= 14), 7200)
    return [float(second) for second in np.arange(np.ceil(start / step) * step, end + step * 1e-6, step)]


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
