"""Where chats to train on come from: files of several formats, or rows in memory."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .data import JsonLines, Rows
from .parquet_rows import ParquetRows
from .tar_rows import TarRows


@dataclass(frozen=True)
class DataSource:
    """
    Where chats come from, and how large their share is.

    Attributes:
        rows (`str`, `Path` or `Sequence[dict]`):
            A file of JSON lines or, by its suffix, parquet; a WebDataset shard (`.tar`) or a folder of such; a
            `datasets.Dataset` or any sequence of rows.
        weight (`float`, *optional*):
            Its share of what is trained on, relative to the other sources. `None`: each row once an epoch.
        name (`str`, *optional*): How its rows are called in messages. `None`: the file.
    """

    rows: str | Path | Sequence[dict]
    weight: float | None = None
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> "DataSource":
        """A source as the command takes it: `FILE` or `FILE:WEIGHT`."""
        path, colon, weight = text.rpartition(":")
        if not colon or not re.fullmatch(r"[\d.]+(e-?\d+)?", weight):
            return cls(text)
        try:
            return cls(path, float(weight))
        except ValueError:
            raise ValueError(f"The weight of `{text}` is no number: FILE.jsonl:0.7 is accepted.") from None

    def __post_init__(self):
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise ValueError(f"The weight of {self.label} is {self.weight}: a positive number is accepted.")

    @property
    def label(self) -> str:
        """What messages call the source."""
        return self.name or (str(self.rows) if isinstance(self.rows, (str, Path)) else "row")

    def open(self) -> Rows:
        """
        The rows.

        Raises:
            OSError: they are in a file that cannot be read.
            ValueError: the file has none, or is not of the format that its suffix names.
            ImportError: they are in a parquet file, and pyarrow is not installed.
        """
        if not isinstance(self.rows, (str, Path)):
            return Rows(self.rows, self.label)
        path = Path(self.rows)
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            return ParquetRows(path)
        return TarRows(path) if suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))) else JsonLines(path)
