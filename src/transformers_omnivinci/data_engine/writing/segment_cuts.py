"""The videos of segments on their own, for outputs that take them along: cut, not encoded anew."""

import sqlite3
from pathlib import Path

from ...media import cut_video
from ..columns import Segment

CUTS = ".cuts.sqlite"
"""What is known of cuts from one time that results are written to the next."""


class NoCut(ValueError):
    """A segment cannot be cut out of its source. Its text is one sentence."""


class SegmentCuts:
    """
    Cuts segments out of their sources, and keeps what is known of cuts, so that what has them already need not be
    written again.

    Args:
        output (`Path`): The folder of the run.
    """

    def __init__(self, output: Path):
        self.path = output / CUTS

    def __enter__(self) -> "SegmentCuts":
        try:
            self._open()
        except sqlite3.DatabaseError:  # damaged, which can be mended
            self._known.close()
            self.path.unlink()
            self._open()
        return self

    def __exit__(self, *error) -> None:
        self._known.close()

    def __call__(self, segment: Segment) -> "SegmentCut":
        """The cut of a segment. A [`NoCut`] if its source cannot be read, or not be cut without encoding it anew."""
        cut = SegmentCut(segment)
        known = self._known.execute("SELECT suffix, first, size FROM cuts WHERE id = ?", (segment.id,)).fetchone()
        if known is not None:
            cut.suffix, cut.first, cut.size = known
        else:
            _ = cut.content
            facts = (segment.id, cut.suffix, cut.first, cut.size)
            self._known.execute("INSERT INTO cuts VALUES (?, ?, ?, ?)", facts)
        return cut

    def _open(self) -> None:
        self._known = sqlite3.connect(self.path, isolation_level=None)
        self._known.execute("PRAGMA synchronous = OFF")
        self._known.execute(
            "CREATE TABLE IF NOT EXISTS cuts (id TEXT PRIMARY KEY, suffix TEXT, first REAL, size INTEGER)"
        )


class SegmentCut:
    """
    A segment as a file of its own.

    Attributes:
        suffix (`str`): Such as `".mp4"`.
        first (`float`): At which second of the file the segment begins, as cuts begin with a key frame.
        size (`int`): In bytes.
    """

    suffix: str
    first: float
    size: int

    def __init__(self, segment: Segment):
        self.segment, self._content = segment, None

    @property
    def span(self) -> dict[str, float]:
        """Which seconds of the file the segment is, as an item of a chat tells them."""
        seconds = self.segment.end - self.segment.start
        return {"video_start": round(self.first, 3), "video_end": round(self.first + seconds, 3)}

    @property
    def content(self) -> bytes:
        """The file. A [`NoCut`] if it cannot be made."""
        if self._content is None:
            segment = self.segment
            try:
                self._content, self.suffix, self.first = cut_video(segment.source, segment.start, segment.end)
            except (OSError, ValueError) as error:
                raise NoCut(" ".join(str(error).split())) from error
            self.size = len(self._content)
        return self._content
