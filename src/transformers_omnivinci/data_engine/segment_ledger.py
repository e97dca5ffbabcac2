"""What a run has finished, on disk: a killed run goes on where it stopped, and no segment is done twice."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..version import __version__
from .stage import REJECTED

HEADER = "settings"
FILE, LOCK = "segments.jsonl", ".lock"


def key_of(segment: str) -> int:
    """A number that stands for the id of a segment, in a fraction of its memory."""
    return int.from_bytes(hashlib.sha256(segment.encode()).digest()[:8], "big")


class SegmentLedger:
    """
    The file `segments.jsonl` of an output folder: the settings of the run in its first line, then a line for each
    segment that is finished or rejected. A line is written whole, or taken back; one that was cut off by a kill is
    dropped. Only one process has the folder at a time, from `with` to its end.

    Args:
        folder (`Path`): Made if it is missing.
        settings (`dict[str, object]`): What decides about results; values that JSON has.

    Attributes:
        done (`set[int]`): The [`key_of`] of finished segments. Rejected ones are tried again by the next run.

    Raises:
        ValueError: the folder holds results of other settings, or something else.
        OSError: it cannot be read or written, or another run has it.
    """

    def __init__(self, folder: str | Path, settings: dict):
        self.folder, self.settings = Path(folder), json.loads(json.dumps(settings))
        self.path, self.done = self.folder / FILE, set()
        self._lock = FileLock(self.folder / LOCK, blocking=False)

    def __enter__(self) -> "SegmentLedger":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise OSError(f"Another run is writing to {self.folder}: give another folder, or wait for it.") from error
        except OSError as error:
            raise OSError(f"{self.folder} cannot be written: {error.strerror or error}.") from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error) -> None:
        self._lock.release()

    def add(self, row: dict) -> None:
        """Writes the row of a segment down. An OSError if that fails, of which nothing is left in the file."""
        if key_of(row["id"]) in self.done:
            return
        self._append(row)
        if not row.get(REJECTED):
            self.done.add(key_of(row["id"]))

    def rows(self) -> Iterator[dict]:
        """The rows of finished segments, read from the file one by one."""
        return (row for row in self._read() if not row.get(REJECTED))

    def places(self) -> Iterator[tuple[int, dict]]:
        """The rows of finished segments, each with the byte of the file at which it begins, for [`row_at`]."""
        return ((place, row) for place, row in self._placed() if not row.get(REJECTED))

    def row_at(self, place: int) -> dict:
        """The row that begins at a byte of the file."""
        with self.path.open("rb") as file:
            file.seek(place)
            return json.loads(file.readline())

    def rejects(self) -> Iterator[dict]:
        """The rows of what was rejected and not finished later; of several attempts at one, the last."""
        last = {row["id"]: number for number, row in enumerate(self._read()) if row.get(REJECTED)}
        for number, row in enumerate(self._read()):
            if last.get(row["id"]) == number and key_of(row["id"]) not in self.done:
                yield row

    def _open(self) -> None:
        if not self.path.exists():
            if any(path.name not in (LOCK,) for path in self.folder.iterdir()):
                raise ValueError(f"{self.folder} is not empty, and has no {FILE}: give a new folder or that of a run.")
            self._append({HEADER: self.settings, "version": __version__})
            return
        with self.path.open("rb") as file:
            whole = 0
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                row = self._parse(line, number)
                if number == 0:
                    self._check(row)
                elif not row.get(REJECTED):
                    self.done.add(key_of(row["id"]))
                whole += len(line)
        if whole == 0:
            self.path.unlink()
            self._open()
        elif whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def _read(self) -> Iterator[dict]:
        return (row for _, row in self._placed())

    def _placed(self) -> Iterator[tuple[int, dict]]:
        place = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                row = self._parse(line, number)
                if number:
                    yield place, row
                place += len(line)

    def _parse(self, line: bytes, number: int) -> dict:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("id" if number else HEADER), str if number else dict):
            raise ValueError(f"{self.path} is damaged in line {number + 1}: give a new folder, or take the line out.")
        return row

    def _check(self, header: dict) -> None:
        found = header[HEADER]
        for name in {**found, **self.settings}:
            if found.get(name) != self.settings.get(name):
                raise ValueError(
                    f"{self.folder} holds results of a run with {name} = {found.get(name)!r:.80}, not "
                    f"{self.settings.get(name)!r:.80}: give another folder, or the same settings."
                )

    def _append(self, row: dict) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                written = file.write(line)
                if written != len(line):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
        except OSError as error:
            if self.path.exists() and self.path.stat().st_size > size:
                os.truncate(self.path, size)
            raise OSError(f"{self.path} cannot be written: {error.strerror or error}. What it has is kept.") from error
