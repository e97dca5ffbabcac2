"""How fast a run is, stage by stage: told while it works, and written down when it ends."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from .stage import REJECTED

TOOK = "took"
"""The column of the seconds that a segment took in each stage. It ends with the run: no file of segments has it."""
FIRST_SECONDS = 1.0
"""Before so many, a rate would tell of the start alone."""


class _Stage(Protocol):
    name: str

    def __call__(self, rows: Sequence[dict]) -> list[dict]: ...


def timed(stage: _Stage, rows: Sequence[dict]) -> list[dict]:
    """
    Rows after a stage, with the seconds that each of them took there in the column `TOOK`: of a batch, an equal share.

    Args:
        stage ([`Stage`] or [`Split`]): Gets the rows.
        rows (`Sequence[dict]`): What it works on.
    """
    start = time.perf_counter()
    rows = stage(rows)
    # What an earlier stage rejected only passes through.
    done = [row for row in rows if row.get(REJECTED, {}).get("stage", stage.name) == stage.name]
    share = (time.perf_counter() - start) / max(1, len(done))
    for row in done:
        row[TOOK] = {**row.get(TOOK, {}), stage.name: share}
    return rows


@dataclass
class StageTally:
    """
    What a stage did.

    Attributes:
        segments (`int`): How many left it.
        seconds (`float`): Of all its workers together: reading media, and waiting for its back end.
    """

    segments: int = 0
    seconds: float = 0.0

    @property
    def per_segment(self) -> float:
        """Seconds a segment."""
        return self.seconds / self.segments if self.segments else 0.0


@dataclass
class Throughput:
    """
    What a run did in which time.

    Attributes:
        segments (`int`): Segments that are through, those that were rejected on their way included.
        media_seconds (`float`): Of the videos, which these segments are long.
        stages (`dict[str, StageTally]`): By the names of stages, in their order.
    """

    segments: int = 0
    media_seconds: float = 0.0
    stages: dict[str, StageTally] = field(default_factory=dict)
    _start: float = field(default_factory=time.monotonic, repr=False)
    _end: float | None = field(default=None, repr=False)

    def count(self, row: dict, took: dict[str, float]) -> None:
        """
        Counts a row that is through.

        Args:
            row (`dict`): With `start` and `end`, but for a source that could not be split.
            took (`dict[str, float]`): Its column `TOOK`.
        """
        if "start" in row:
            self.segments += 1
            self.media_seconds += row["end"] - row["start"]
        for stage, seconds in took.items():
            tally = self.stages.setdefault(stage, StageTally())
            tally.segments += 1
            tally.seconds += seconds

    def stop(self) -> None:
        """Ends the time of the run."""
        self._end = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return (time.monotonic() if self._end is None else self._end) - self._start

    @property
    def segments_per_minute(self) -> float:
        """Segments that come through in a minute."""
        return 60 * self.segments / max(self.seconds, FIRST_SECONDS)

    @property
    def hours_per_hour(self) -> float:
        """Hours of video that come through in an hour."""
        return self.media_seconds / max(self.seconds, FIRST_SECONDS)

    def line(self) -> str:
        """One line for a terminal: what is done, how fast, and the seconds a segment takes in each stage."""
        stages = ", ".join(f"{name} {tally.per_segment:.2g}" for name, tally in self.stages.items())
        return (
            f"{self.segments} segments ({self.media_seconds / 3600:.2f} h), {self.segments_per_minute:.1f} a minute "
            f"({self.hours_per_hour:.1f} h an hour)" + (f"; seconds each: {stages}" if stages else "")
        )

    def summary(self) -> dict:
        """All of it as JSON has it."""
        return {
            "segments": self.segments,
            "hours": round(self.media_seconds / 3600, 4),
            "seconds": round(self.seconds, 3),
            "segments a minute": round(self.segments_per_minute, 3),
            "hours of video an hour": round(self.hours_per_hour, 3),
            "stages": {
                name: {**asdict(tally), "seconds": round(tally.seconds, 3), "seconds a segment": tally.per_segment}
                for name, tally in self.stages.items()
            },
        }
