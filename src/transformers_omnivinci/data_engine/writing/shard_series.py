"""
Files of a bounded size, one after another, that have samples with their media. A file appears when it is whole; one
that is there and has what it would have is kept, so that a run that was killed goes on where it stopped.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...new_file import incomplete
from .segment_index import is_abandoned


@dataclass
class ShardSample:
    """
    A sample of a shard.

    Attributes:
        key (`str`): Its name, without dots.
        content (`dict`): What JSON can write of it.
        media (`dict[str, tuple[int, Callable]]`): By name: the bytes of a medium, and what gives them.
    """

    key: str
    content: dict
    media: dict[str, tuple[int, Callable[[], bytes]]]

    @property
    def text(self) -> bytes:
        """The content as JSON."""
        return json.dumps(self.content, ensure_ascii=False).encode()

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each medium."""
        return {name: size for name, (size, _) in self.media.items()}


def digest_of(key: str, text: bytes, sizes: dict[str, int]) -> str:
    """What tells whether a shard has a sample, see [`ShardSample`]."""
    return hashlib.sha256(json.dumps([key, text.decode(), list(sizes.items())]).encode()).hexdigest()


class ShardForm(Protocol):
    """How a shard is written and read."""

    suffix: str

    def size(self, sample: ShardSample) -> int:
        """About how many bytes a sample takes."""

    def digests(self, path: Path) -> list[str] | None:
        """[`digest_of`] the samples of a file; `None` if it is damaged, or not one of this form."""

    def open(self, path: Path) -> AbstractContextManager[Callable[[ShardSample], None]]:
        """What writes samples to a new file, which is whole when the block ends."""


class ShardSeries:
    """
    Shards of one form and name, one after another.

    Args:
        folder (`Path`): Of the shards.
        name (`str`): With which their names begin.
        limit (`float`): The most bytes of a shard, unless a single sample has more.
        form ([`ShardForm`]): How they are written.

    Attributes:
        shards (`dict[str, dict]`): Those that are whole, by name: `nsamples` and `filesize`.
    """

    def __init__(self, folder: Path, name: str, limit: float, form: ShardForm):
        self.folder, self.name, self.limit, self.form = folder, name, limit, form
        self.shards: dict[str, dict] = {}
        self._open: ExitStack | None = None
        self._begin()

    def add(self, sample: ShardSample) -> None:
        """Adds a sample to the shard that is being written, or to the next."""
        size, digest = self.form.size(sample), digest_of(sample.key, sample.text, sample.sizes)
        if self._count and self._size + size > self.limit:
            self._end()
            self._begin()
        if self._there is not None and self._there[self._count : self._count + 1] != [digest]:
            self._write_held()
        if self._there is None:
            self._write(sample)
        else:
            self._held.append(sample)
        self._count += 1
        self._size += size

    def finish(self) -> None:
        """Ends the last shard."""
        if self._count:
            self._end()

    def abandon(self) -> None:
        """Removes the shard that is being written, if there is one."""
        if self._open is not None:
            with suppress(Exception):  # the disk may be full
                self._open.close()
            self._part.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._path = self.folder / f"{self.name}-{len(self.shards):06d}{self.form.suffix}"
        self._count, self._size, self._held = 0, 0, []
        # What an earlier run wrote, as long as it is what this one would write.
        self._there = self.form.digests(self._path) if self._path.is_file() else None

    def _write_held(self) -> None:
        """What is there is not what is wanted: writes it anew."""
        self._there = None
        for sample in self._held:
            self._write(sample)
        self._held = []

    def _write(self, sample: ShardSample) -> None:
        if self._open is None:
            self._part = incomplete(self._path)
            self._open = ExitStack()
            self._put = self._open.enter_context(self.form.open(self._part))
        self._put(sample)

    def _end(self) -> None:
        if self._there is not None and len(self._there) != self._count:
            self._write_held()
        if self._open is not None:
            self._open.close()
            os.replace(self._part, self._path)
            self._open = None
        self.shards[self._path.name] = {"nsamples": self._count, "filesize": self._path.stat().st_size}


class ShardFolder:
    """
    Series of shards in a folder, which is made if it is missing. In the end, other files of this form are removed.

    Args:
        folder (`Path`), limit (`float`), form ([`ShardForm`]): As of [`ShardSeries`].
    """

    def __init__(self, folder: Path, limit: float, form: ShardForm):
        self.folder, self.limit, self.form = folder, limit, form
        self._series: dict[str, ShardSeries] = {}

    def __enter__(self) -> "ShardFolder":
        self.folder.mkdir(exist_ok=True)
        for path in filter(is_abandoned, list(self.folder.iterdir())):
            path.unlink()
        return self

    def __exit__(self, kind, *error) -> None:
        try:
            if kind is None:
                for series in self._series.values():
                    series.finish()
                for path in self.folder.glob(f"*{self.form.suffix}"):
                    if path.name not in self.shards:
                        path.unlink()
        finally:
            for series in self._series.values():
                series.abandon()

    @property
    def shards(self) -> dict[str, dict]:
        """The shards that are whole, see [`ShardSeries`]."""
        return {name: facts for series in self._series.values() for name, facts in series.shards.items()}

    def add(self, series: str, sample: ShardSample) -> None:
        """Adds a sample to a series."""
        if series not in self._series:
            self._series[series] = ShardSeries(self.folder, series, self.limit, self.form)
        self._series[series].add(sample)
