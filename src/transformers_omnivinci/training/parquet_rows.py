"""Chats to train on in parquet files, whose media are files or stand in the rows, as `datasets` writes them."""

from functools import cached_property
from pathlib import Path

import numpy as np

from .data import FileRows

HELD_GROUPS = 4
"""Row groups that a process holds: rows are shuffled, but those about the same media stand together."""


class ParquetRows(FileRows):
    """
    The rows of a parquet file. A process holds the row groups that it read last: with small ones it holds little.
    Rows count from 0. Arguments are those of [`FileRows`].

    Raises:
        ImportError: pyarrow is not installed.
        OSError: the file cannot be read, or has changed since it was opened.
        ValueError: it is not parquet, or has no rows.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        self._file, self._groups = None, {}
        self._ends = self._open_groups()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None, "_groups": {}}  # each process opens the file anew

    @cached_property
    def index(self) -> np.ndarray:
        """(rows, 2): the row group of each row, and its place there."""
        counts = np.diff(self._ends, prepend=0)
        groups = np.repeat(np.arange(len(counts)), counts)
        return np.stack([groups, np.arange(self._ends[-1]) - (self._ends - counts)[groups]], axis=1)

    def __getitem__(self, index: int) -> dict:
        group, place = map(int, self.index[index])
        if group not in self._groups:
            self.check_version()
            file = self._open()
            while len(self._groups) >= HELD_GROUPS:
                self._groups.pop(next(iter(self._groups)))
            self._groups[group] = file.read_row_group(group)
        self._groups[group] = table = self._groups.pop(group)  # the one that was used last stands last
        return table.slice(place, 1).to_pylist()[0]

    def name(self, index: int) -> str:
        return f"{self.path}:{range(len(self))[index]}"

    def _open_groups(self) -> np.ndarray:
        """Where the row groups end."""
        metadata = self._open().metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if not sum(counts):
            raise ValueError(f"The data file {self.path} has no rows: at least one chat is accepted.")
        return np.cumsum(counts)

    def _open(self):
        if self._file is None:
            try:
                from pyarrow import ArrowException
                from pyarrow.parquet import ParquetFile
            except ImportError as error:
                raise ImportError(
                    f"{self.path} is a parquet file, which needs pyarrow: pip install pyarrow."
                ) from error
            try:
                self._file = ParquetFile(self.path, memory_map=True)
            except ArrowException as error:
                raise ValueError(f"The data file {self.path} cannot be read as parquet: {error}.") from error
        return self._file
