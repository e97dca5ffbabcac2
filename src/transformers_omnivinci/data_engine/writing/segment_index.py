"""Finished segments in the order of their films, however they came back, with memory that does not grow with them."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ...new_file import incomplete
from ..segment_ledger import SegmentLedger

CACHE_KIB = 65_536
"""Of its database in memory."""


class SegmentIndex:
    """
    Where in the ledger each finished segment is: a database beside it, which is deleted in the end.

    Args:
        ledger ([`SegmentLedger`]): That of the run, in use.

    Attributes:
        database (`sqlite3.Connection`): For others to keep in it what memory would not hold.
    """

    def __init__(self, ledger: SegmentLedger):
        self.ledger = ledger
        self.path = incomplete(ledger.folder / "index.sqlite")

    def __enter__(self) -> "SegmentIndex":
        self.database = sqlite3.connect(self.path, isolation_level=None)
        try:
            self.database.execute("PRAGMA journal_mode = OFF")
            self.database.execute("PRAGMA synchronous = OFF")
            self.database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self.database.execute("BEGIN")
            self.database.execute("CREATE TABLE segments (source TEXT, start REAL, id TEXT, place INTEGER)")
            self.database.executemany(
                "INSERT INTO segments VALUES (?, ?, ?, ?)",
                ((row["source"], row["start"], row["id"], place) for place, row in self.ledger.places()),
            )
            self.database.execute("CREATE INDEX segments_in_order ON segments (source, start, id, place)")
            self.database.execute("CREATE TABLE rejects (source TEXT, start REAL, id TEXT, content TEXT)")
            self.database.executemany(
                "INSERT INTO rejects VALUES (?, ?, ?, ?)",
                ((row["source"], row.get("start"), row["id"], json.dumps(row)) for row in self.ledger.rejects()),
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.database.close()
        self.path.unlink(missing_ok=True)

    def rows(self) -> Iterator[dict]:
        """The rows of finished segments, by source and start."""
        places = self.database.execute("SELECT place FROM segments ORDER BY source, start, id")
        for (place,) in places:
            yield self.ledger.row_at(place)

    def rejects(self) -> Iterator[dict]:
        """The rows of what was rejected and not finished later, in the same order."""
        for (content,) in self.database.execute("SELECT content FROM rejects ORDER BY source, start, id"):
            yield json.loads(content)


def is_abandoned(path: Path) -> bool:
    """Whether a hidden file is what a run that was killed left behind."""
    return path.name.startswith(".") and ".incomplete" in path.name
