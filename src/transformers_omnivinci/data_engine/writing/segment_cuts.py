"""The media of segments on their own, for outputs that take them along: cut, not encoded anew, and never twice."""

import hashlib
import sqlite3
from pathlib import Path

from ...media import cut_video
from ...synthetic.clips import replaced
from ..columns import Segment
from .segment_index import is_abandoned

CUTS = ".cuts.sqlite"
"""What is known of cuts from one time that results are written to the next."""


class NoCut(ValueError):
    """A segment cannot be cut out of its source. Its text is one sentence."""


class SegmentCuts:
    """
    Cuts segments out of their sources.

    Args:
        output (`Path`): The folder of the run, in which what is known of cuts is kept.
        folder (`Path`, *optional*): Where cuts are kept as files. `None`: they are not.
    """

    def __init__(self, output: Path, folder: Path | None = None):
        self.folder = folder
        self._known = sqlite3.connect(output / CUTS, isolation_level=None)
        try:
            self._create()
        except sqlite3.DatabaseError:  # of another version, or damaged: it can be had again
            self._known.close()
            (output / CUTS).unlink()
            self._known = sqlite3.connect(output / CUTS, isolation_level=None)
            self._create()

    def _create(self) -> None:
        self._known.execute(
            "CREATE TABLE IF NOT EXISTS cuts (id TEXT PRIMARY KEY, suffix TEXT, first REAL, size INTEGER)"
        )
        self._known.execute("SELECT id, suffix, first, size FROM cuts LIMIT 1").fetchone()

    def __enter__(self) -> "SegmentCuts":
        return self

    def __exit__(self, *error) -> None:
        self._known.close()

    def __call__(self, segment: Segment) -> "SegmentCut":
        """
        The cut of a segment.

        Raises:
            NoCut: its source cannot be read, or not be cut without encoding it anew.
            OSError: the cut cannot be written.
        """
        cut = SegmentCut(self, segment)
        known = self._known.execute("SELECT suffix, first, size FROM cuts WHERE id = ?", (segment.id,)).fetchone()
        if known is not None:
            cut.suffix, cut.first, cut.size = known
        if known is None or (self.folder is not None and not cut.is_kept()):
            cut.make()
            self._known.execute(
                "INSERT OR REPLACE INTO cuts VALUES (?, ?, ?, ?)", (segment.id, cut.suffix, cut.first, cut.size)
            )
        return cut

    def drop_others(self, database: sqlite3.Connection) -> None:
        """Removes files in the folder that are of no segment in the table `segments` of a database."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*/*")):
            found = database.execute("SELECT 1 FROM segments WHERE id = ? LIMIT 1", (path.stem,)).fetchone()
            if found is None or is_abandoned(path):
                path.unlink()


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

    def __init__(self, cuts: SegmentCuts, segment: Segment):
        self.segment, self._cuts, self._content = segment, cuts, None

    @property
    def name(self) -> str:
        """The path of its file, relative to the folder of cuts; no folder has too many."""
        shelf = hashlib.sha256(self.segment.id.encode()).hexdigest()[:2]
        return f"{shelf}/{self.segment.id}{self.suffix}"

    @property
    def span(self) -> dict[str, float]:
        """Which seconds of the file the segment is, as an item of a chat tells them."""
        seconds = self.segment.end - self.segment.start
        return {"video_start": round(self.first, 3), "video_end": round(self.first + seconds, 3)}

    @property
    def content(self) -> bytes:
        """The file. A [`NoCut`] if its source has gone."""
        if self._content is None:
            if self.is_kept():
                self._content = (self._cuts.folder / self.name).read_bytes()
            else:
                self._cut()
        return self._content

    def is_kept(self) -> bool:
        """Whether its file is there."""
        path = self._cuts.folder and self._cuts.folder / self.name
        return bool(path) and path.is_file() and path.stat().st_size == self.size

    def make(self) -> None:
        """Cuts it, and writes its file where cuts are kept."""
        self._cut()
        if self._cuts.folder is not None:
            path = self._cuts.folder / self.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as part:
                part.write_bytes(self._content)

    def _cut(self) -> None:
        segment = self.segment
        try:
            self._content, self.suffix, self.first = cut_video(segment.source, segment.start, segment.end)
        except (OSError, ValueError, TypeError) as error:
            raise NoCut(" ".join(str(error).split())) from error
        self.size = len(self._content)
