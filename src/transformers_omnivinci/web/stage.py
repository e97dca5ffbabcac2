"""A clip as HTML: its player and its timeline, on which one sees what is seen and heard at which second."""

import json
from collections.abc import Iterator, Sequence
from html import escape

from .overview import NUM_PEAKS, Overview

MOST_NAMED = 16
"""With more groups than this, only shades tell them apart."""


READOUT = "Point at the timeline to read what is seen and heard at a second."


def show_stage(overview: Overview, url: str) -> str:
    """
    The HTML of a clip.

    Args:
        overview ([`Overview`]): What is shown of it.
        url (`str`): Where a browser gets the file.
    """
    parts = [
        f'<header><h2 title="{escape(overview.name)}">{escape(overview.name)}</h2>'
        f"<p>{' · '.join(map(escape, list_facts(overview)))}</p></header>",
        f'<div class="ov-player">{_player(overview, url)}</div>',
    ]
    if overview.timeline is not None:
        parts += [f'<div class="ov-scroll">{_track(overview)}</div>', f'<p class="ov-readout">{READOUT}</p>']
    return f'<section class="ov-clip ov-{overview.kind}" aria-label="Clip">{"".join(parts)}</section>'


def list_facts(overview: Overview) -> list[str]:
    """What is said of a medium: its length and size, what of it is seen and heard, and its tokens."""
    evidence, facts = overview.evidence, []
    if overview.kind != "image":
        facts.append(format_second(evidence.duration))
    if overview.size is not None:
        facts.append("{} × {}".format(*overview.size))
    if overview.kind == "image":
        rows, columns = evidence.tiles
        facts.append("seen as one tile" if rows * columns == 1 else f"seen in {rows} × {columns} tiles")
    if overview.kind == "video":
        whole = evidence.frames + evidence.left_out.frames
        facts.append(f"{evidence.frames:,} of {_plural(whole, 'frame')} seen")
    if overview.kind != "image":
        spans = [f"{format_second(start)} – {format_second(end)}" for start, end in evidence.heard]
        facts.append(f"heard {', '.join(spans)}" if spans else "no sound heard")
    num_groups = sum(group.name.startswith("group") for group in overview.timeline.groups) if overview.timeline else 0
    if num_groups:
        facts.append(_plural(num_groups, "group"))
    return [*facts, _plural(overview.num_tokens, "token")]


def format_second(second: float) -> str:
    """A time as `"7.5 s"`, or from two minutes on as `"2:05"` or `"1:02:05"`."""
    if second < 120:
        return f"{second:.1f} s"
    minutes, rest = divmod(round(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _player(overview: Overview, url: str) -> str:
    if overview.kind == "image":
        return f'<img src="{overview.pictures[0][1]}" alt="{escape(overview.name)}">'
    untold = '<p class="ov-unplayable" hidden>The browser cannot play this format; it was watched all the same.</p>'
    if overview.kind == "audio":
        return f'<audio controls preload="metadata" src="{escape(url)}"></audio>{untold}'
    poster = f' poster="{overview.pictures[0][1]}"' if overview.pictures else ""
    return f'<video controls playsinline preload="metadata"{poster} src="{escape(url)}"></video>{untold}'


def _track(overview: Overview) -> str:
    duration = overview.duration
    rows = []
    if overview.pictures:
        rows.append(f'<div class="ov-film">{"".join(_film(overview.pictures, duration))}</div>')
        rows.append(f'<div class="ov-frames">{"".join(_marks(overview.frames, duration))}</div>')
    if overview.peaks:
        rows.append(_waveform(overview.peaks))
    rows.append(f'<div class="ov-groups">{"".join(_groups(overview))}</div>')
    rows.append(f'<div class="ov-axis">{"".join(_axis(duration))}</div>')
    told = {
        "duration": duration,
        "frames": [round(second, 3) for second in overview.frames],
        "heard": [[round(start, 3), round(end, 3)] for start, end in overview.evidence.heard],
        "groups": [
            [group.name, round(group.start, 3), round(group.end, 3), group.num_tokens]
            for group in overview.timeline.groups
        ],
    }
    return (
        f'<div class="ov-track" role="slider" tabindex="0" aria-label="Second of the clip" aria-valuemin="0" '
        f'aria-valuemax="{duration:.2f}" aria-valuenow="0" data-clip="{escape(json.dumps(told))}">'
        f'{"".join(rows)}<div class="ov-cursor" hidden></div></div>'
    )


def _film(pictures: Sequence[tuple[float, str]], duration: float) -> Iterator[str]:
    """Each picture from its own second on, up to that of the next one."""
    for (second, url), end in zip(pictures, [*(second for second, _ in pictures[1:]), duration], strict=True):
        place = f"left:{_percent(second, duration)};width:{_percent(max(0.0, end - second), duration)}"
        yield f'<img style="{place}" src="{url}" alt="Frame at {format_second(second)}" draggable="false">'


def _marks(seconds: Sequence[float], duration: float) -> Iterator[str]:
    for second in seconds:
        yield f'<i style="left:{_percent(second, duration)}"></i>'


def _waveform(peaks: Sequence[float]) -> str:
    upper = " ".join(f"{index + 0.5:g},{-peak:g}" for index, peak in enumerate(peaks))
    lower = " ".join(f"{index + 0.5:g},{peak:g}" for index, peak in reversed([*enumerate(peaks)]))
    return (
        f'<svg class="ov-wave" viewBox="0 -1.05 {NUM_PEAKS} 2.1" preserveAspectRatio="none" role="img" '
        f'aria-label="Sound"><polygon points="{upper} {lower}"></polygon></svg>'
    )


def _groups(overview: Overview) -> Iterator[str]:
    groups = overview.timeline.groups
    for group in groups:
        seconds = sorted({overview.timeline.timestamps[index] for index in group.frames})
        parts = [f"{group.name}: {format_second(group.start)} to {format_second(group.end)}"]
        if seconds:
            parts.append(f"{_plural(len(seconds), 'frame')}, {group.num_video_tokens:,} tokens")
        if group.num_audio_tokens:
            parts.append(f"sound, {_plural(group.num_audio_tokens, 'token')}")
        place = (
            f"left:{_percent(group.start, overview.duration)};"
            f"width:{_percent(group.end - group.start, overview.duration)}"
        )
        label = group.name.removeprefix("group ") if len(groups) <= MOST_NAMED else ""
        yield f'<span style="{place}" title="{escape("; ".join(parts))}">{escape(label)}</span>'


def _axis(duration: float) -> Iterator[str]:
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
    step = next((step for step in steps if duration / step <= 9), 7200)
    for index in range(int(duration / step + 1e-6) + 1):
        second = index * step
        label = format_second(second).replace(".0 s", " s")
        # The label at the very end would stick out.
        side = ' class="ov-last"' if second > 0.96 * duration else ""
        yield f'<span{side} style="left:{_percent(second, duration)}">{label}</span>'


def _percent(second: float, duration: float) -> str:
    return f"{100 * second / duration:.3f}%"
