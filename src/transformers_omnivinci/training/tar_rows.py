"""
Chats to train on in WebDataset shards: `.tar` files whose members belong together if they have the same name up to its
first dot. `KEY.json` is a chat, or has several about the same media under `chats`; `KEY.mp4`, `KEY.wav` and so on are
their media, in the order of their places. Shards are not unpacked: what a row needs is read from where it is.
"""

import json
import mimetypes
import tarfile
from collections.abc import Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from ..processing.conversation import MODALITIES
from .data import BadSample, Rows, file_version

UNLISTED = {"mkv": "video", "webm": "video", "flac": "audio", "opus": "audio", "webp": "image"}
"""Kinds of suffixes that not every list of media types has."""


class Member(NamedTuple):
    """A file in a shard: the kind of medium, or `"json"`; where its content begins, and how many bytes it has."""

    kind: str
    offset: int
    size: int


class TarSample(NamedTuple):
    """Members that belong together: which shard, the key, the `json`, and the media."""

    shard: int
    key: str
    json: Member
    media: tuple[Member, ...]


class TarRows(Rows):
    """
    The rows of a shard, or of all shards of a folder in the order of their names.

    Args:
        path (`Path`): A `.tar` file, not compressed, or a folder that has some.

    Raises:
        OSError: a file cannot be read, or has changed since it was opened.
        ValueError: a file is no such archive, or there is no row.
    """

    def __init__(self, path: Path):
        self.path = path
        self.shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        try:
            self.versions = [file_version(shard) for shard in self.shards]
        except OSError as error:
            raise OSError(f"The data file {path} cannot be read: {error.strerror or error}.") from error
        self._last: tuple[int, dict[str, list[bytes]]] | None = None

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_last": None}

    @cached_property
    def _samples(self) -> list[TarSample]:
        samples = [sample for number, shard in enumerate(self.shards) for sample in _samples_of(number, shard)]
        if not samples:
            raise ValueError(
                f"{self.path} has no chats: a shard with members such as KEY.json and KEY.mp4 is accepted."
            )
        return samples

    @cached_property
    def _rows(self) -> list[tuple[int, int | None]]:
        """Of each row its sample, and its place among the chats of that; `None` if the sample is the chat."""
        rows = []
        for number, sample in enumerate(self._samples):
            chats = self._chats(sample)
            rows += [(number, None)] if chats is None else [(number, place) for place in range(len(chats))]
        if not rows:
            raise ValueError(f"{self.path} has no chats: its samples list none.")
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        number, place = self._rows[index]
        sample = self._samples[number]
        try:
            row = json.loads(self._read(sample, sample.json))
        except ValueError as error:
            raise BadSample(self.name(index), f"its JSON cannot be read: {error}.") from error
        if place is not None:
            row = row["chats"][place]
        if not isinstance(row, dict):
            return row
        if self._last is None or self._last[0] != number:  # chats about the same media follow each other
            media: dict[str, list[bytes]] = {}
            for member in sample.media:
                media.setdefault(member.kind, []).append(self._read(sample, member))
            self._last = number, media
        return row | {kind: list(contents) for kind, contents in self._last[1].items()}

    def name(self, index: int) -> str:
        number, place = self._rows[index]
        sample = self._samples[number]
        return f"{self.shards[sample.shard]}:{sample.key}" + ("" if place is None else f":{place}")

    def _chats(self, sample: TarSample) -> list | None:
        try:
            content = json.loads(self._read(sample, sample.json))
        except ValueError:
            return None  # which is told when the row is read
        chats = content.get("chats") if isinstance(content, dict) else None
        return chats if isinstance(chats, list) else None

    def _read(self, sample: TarSample, member: Member) -> bytes:
        shard = self.shards[sample.shard]
        if file_version(shard) != self.versions[sample.shard]:
            raise OSError(f"The data file {shard} has changed while it was in use: start again with the new one.")
        with shard.open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)


def _samples_of(number: int, shard: Path) -> Iterator[TarSample]:
    try:
        with tarfile.open(shard, "r:") as archive:
            files = [(one.name, one.offset_data, one.size) for one in archive if one.isfile()]
    except (tarfile.TarError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"The data file {shard} cannot be read as a tar archive: {error}.") from error
    for key, members in groupby(files, key=lambda file: _split(file[0])[0]):
        named = [Member(_kind_of(_split(name)[1]), offset, size) for name, offset, size in members]
        chat = next((one for one in named if one.kind == "json"), None)
        if chat is not None:
            yield TarSample(number, key, chat, tuple(one for one in named if one.kind in MODALITIES))


def _split(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return f"{folder}{slash}{key}", suffix


def _kind_of(suffix: str) -> str:
    last = suffix.rpartition(".")[2].lower()
    if last == "json":
        return last
    return UNLISTED.get(last) or (mimetypes.guess_type(f"x.{last}")[0] or "").partition("/")[0]
