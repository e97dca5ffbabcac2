"""What may be fed to a live clip, and what of it is settled: plain integers and seconds, without tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..planning import Layout, MediumFacts, MediumPlan
from .positions import Positions

JITTER = 0.02
"""Seconds by which the start of samples may differ from the end of those before them: clocks are rounded."""
MAX_SILENCE = 86_400.0
"""The most seconds of silence before samples: beyond, their start is wrong."""


def to_number(value, name: str) -> float:
    """
    A number of Python, or one of numpy or torch.

    Raises:
        TypeError: it is none; `name` is what the message calls it.
    """
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        raise TypeError(f"{name} is a number, got {type(value).__name__} {value!r:.40}.")
    return float(plain)


@dataclass(frozen=True)
class Clock:
    """
    How far a live clip has come.

    Attributes:
        timestamps (`tuple[float, ...]`): Seconds of the frames that are used.
        shown (`float`): Second of the last frame that was fed, used or not; -1 before the first.
        num_shown (`int`): Frames that were fed, used or not.
        source_fps (`float`, *optional*): Frames per second of what these were taken from. `None`: they are all.
        num_samples (`int`): Samples of sound.
        end (`float`): Seconds up to which the clip is known to last.
    """

    timestamps: tuple[float, ...] = ()
    shown: float = -1.0
    num_samples: int = 0
    end: float = 0.0
    num_shown: int = 0
    source_fps: float | None = None

    def show(self, timestamps: Sequence[float], fps: float | None) -> tuple["Clock", list[int]]:
        """
        The clock after further frames, and which of these are used: with `fps`, one is left out that comes less than
        1/fps seconds behind the last one that is used.

        Raises:
            ValueError: their seconds do not ascend from those before on, or are none.
        """
        used, chosen, last = list(self.timestamps), [], self.shown
        for index, second in enumerate(timestamps):
            if not math.isfinite(second) or second < 0:
                raise ValueError(f"A frame at {second} s is not accepted: seconds from 0 on are.")
            if second <= last:
                raise ValueError(
                    f"A frame at {second:g} s was fed behind one at {last:g} s: seconds must ascend. For another clip "
                    "make another session, or add the jump to its seconds."
                )
            last = second
            # A share of a millionth is for seconds that were rounded.
            if fps is None or not used or (second - used[-1]) * fps >= 1 - 1e-6:
                used.append(second)
                chosen.append(index)
        num_shown = self.num_shown + len(timestamps)
        clock = replace(self, timestamps=tuple(used), shown=last, end=max(self.end, last), num_shown=num_shown)
        return clock, chosen

    def hear(self, num_samples: int, start: float | None, rate: int) -> tuple["Clock", int]:
        """
        The clock after further samples, and how many samples of silence stand before these. `start`: second of the
        first one; `None`: they follow those before.

        Raises:
            ValueError: they overlap those before.
        """
        silence = 0
        if start is not None:
            if not math.isfinite(start) or start < 0:
                raise ValueError(f"Sound from {start} s on is not accepted: seconds from 0 on are.")
            silence = round(start * rate) - self.num_samples
            if silence < -JITTER * rate:
                raise ValueError(
                    f"Sound from {start:g} s on overlaps what was fed up to {self.num_samples / rate:g} s: each "
                    "second is heard once."
                )
            if silence > MAX_SILENCE * rate:
                raise ValueError(
                    f"Sound from {start:g} s on follows {self.num_samples / rate:g} s: at most {MAX_SILENCE:g} s of "
                    "silence between are accepted."
                )
            silence = silence if silence > JITTER * rate else 0
        total = self.num_samples + silence + num_samples
        return replace(self, num_samples=total, end=max(self.end, total / rate)), silence

    def last_until(self, end: float | None) -> "Clock":
        """The clock of a clip that is known to last up to a second."""
        if end is None:
            return self
        if not math.isfinite(end) or end < self.end:
            raise ValueError(f"`end={end}` is not accepted: the clip lasts {self.end:g} s already.")
        return replace(self, end=float(end))

    @property
    def rate(self) -> float:
        """Frames per second that there were to see, used or not; 0 of a single one."""
        if self.source_fps is not None:
            return self.source_fps
        return (self.num_shown - 1) / (self.shown - self.timestamps[0]) if self.num_shown > 1 else 0.0

    @property
    def num_frames(self) -> int:
        """Frames that there were to see, used or not."""
        return max(self.num_shown, 0 if self.source_fps is None else round(self.source_fps * self.end))

    @property
    def facts(self) -> MediumFacts:
        """What its plan needs to know. It counts in seconds, as if there were one frame per second."""
        if not self.timestamps:
            return MediumFacts("audio", num_samples=self.num_samples)
        return MediumFacts("video", (1, 1), self.timestamps, self.timestamps, 1.0, self.end, self.num_samples)


def count_settled(
    clock: Clock, plan: MediumPlan, positions: Positions, layout: Layout, staying: dict[str, int]
) -> int:
    """
    How many of the first positions of a live clip most probably stay as they are, whatever comes: those of the groups
    that both picture and sound have left, and the frames of the next one.

    Args:
        clock ([`Clock`]), plan ([`MediumPlan`]), positions ([`Positions`]): Of the clip.
        layout ([`Layout`]): That of the processor.
        staying (`dict[str, int]`): How many of its first `"video"` and `"audio"` embeddings stay.
    """
    token_ids = layout.token_ids
    is_audio, is_video = (positions.ids == token_ids[name] for name in ("audio", "video"))
    settled = min(clock.shown, clock.num_samples / layout.sampling_rate)
    closed = [group.end <= settled for group in plan.groups[:-1]]
    first_open = closed.index(False) if False in closed else len(closed)
    grows = is_video if plan.modality == "video" else is_audio
    stays = (positions.parts < first_open) | ((positions.parts == first_open) & grows)
    for name, mask in (("audio", is_audio), ("video", is_video)):
        stays &= ~mask | (np.cumsum(mask) <= staying[name])
    embeddings = np.flatnonzero(is_audio | is_video)
    stays[: embeddings[0] if len(embeddings) else 0] = True
    return len(stays) if stays.all() else int(stays.argmin())
