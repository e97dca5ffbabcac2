"""
WebDataset shards: tar files of a bounded size in which `KEY.json`, `KEY.mp4` and `KEY.wav` are a sample.

Readers want all samples of a shard to have the same members, so that there is a series of shards for each set of them:
`mp4-000000.tar` has the segments, each with all chats about it that are written; `mp4-wav-000000.tar` the chats whose
question is spoken. A shard appears when it is whole. One that is there and has what it would have is kept.
"""

import io
import json
import os
import secrets
import tarfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ...synthetic.clips import replaced
from ..columns import Segment
from .segment_cuts import SegmentCut
from .segment_index import is_abandoned

BLOCK = 512
INDEX = "shards.json"


@dataclass
class ShardSample:
    """
    A sample of a shard.

    Attributes:
        key (`str`): Its name, without dots.
        content (`bytes`): Its JSON.
        media (`dict[str, tuple[int, Callable]]`): By suffix without a dot: the bytes of a medium, and what gives them.
    """

    key: str
    content: bytes
    media: dict[str, tuple[int, Callable[[], bytes]]]

    @property
    def size(self) -> int:
        """Bytes that it takes in a shard."""
        sizes = [len(self.content), *(size for size, _ in self.media.values())]
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)

    @property
    def facts(self) -> tuple:
        """What tells whether a shard has it."""
        return self.key, self.content, {suffix: size for suffix, (size, _) in self.media.items()}


class WebShards:
    """
    Writes all series of shards.

    Args:
        folder (`Path`): Made if it is missing. What else of shards it has is removed in the end.
        limit (`float`): The most bytes of a shard, unless a single sample has more.
    """

    def __init__(self, folder: Path, limit: float):
        self.folder, self.limit = folder, limit
        self._series: dict[str, Series] = {}
        folder.mkdir(exist_ok=True)
        for path in filter(is_abandoned, folder.iterdir()):
            path.unlink()

    def __enter__(self) -> "WebShards":
        return self

    def __exit__(self, kind, *error) -> None:
        try:
            if kind is not None:
                return
            for series in self._series.values():
                series.finish()
        finally:
            for series in self._series.values():
                series.abandon()
        names = {name for series in self._series.values() for name in series.shards}
        for path in self.folder.glob("*.tar"):
            if path.name not in names:
                path.unlink()
        shards = [{"url": name, **facts} for series in self._series.values() for name, facts in series.shards.items()]
        index = {"wids_version": 1, "shardlist": sorted(shards, key=lambda one: one["url"])}
        with replaced(self.folder / INDEX) as part:
            part.write_text(json.dumps(index, indent=1) + "\n")

    def add(self, segment: Segment, cut: SegmentCut, chats: list[dict], sounds: list[Path | None]) -> None:
        """
        Adds a segment.

        Args:
            segment ([`Segment`]): The segment.
            cut ([`SegmentCut`]): Its video.
            chats (`list[dict]`): About it, see [`without_media`].
            sounds (`list[Path | None]`): The spoken question of each chat.
        """
        video = {cut.suffix[1:]: (cut.size, lambda: cut.content)}
        written = [chat for chat, sound in zip(chats, sounds) if sound is None]
        if written:
            facts = {
                "id": segment.id,
                "start": segment.start,
                "end": segment.end,
                "chats": list(map(_uniform, written)),
            }
            self._add(ShardSample(segment.id, _json(facts), video))
        for chat, sound in zip(chats, sounds):
            if sound is not None:
                speech = {"wav": (sound.stat().st_size, sound.read_bytes)}
                self._add(ShardSample(chat["id"], _json(_uniform(chat)), video | speech))

    def _add(self, sample: ShardSample) -> None:
        name = "-".join(sample.media)
        if name not in self._series:
            self._series[name] = Series(self.folder, name, self.limit)
        self._series[name].add(sample)


class Series:
    """
    Shards of one kind, one after another.

    Attributes:
        shards (`dict[str, dict]`): Those that are whole, by name: `nsamples` and `filesize`.
    """

    def __init__(self, folder: Path, name: str, limit: float):
        self.folder, self.name, self.limit = folder, name, limit
        self.shards: dict[str, dict] = {}
        self._begin()

    def _begin(self) -> None:
        self._path = self.folder / f"{self.name}-{len(self.shards):06d}.tar"
        self._size, self._held, self._archive = 0, [], None
        # What an earlier run wrote, as long as it is what this one would write.
        self._there = _facts_of(self._path) if self._path.is_file() else None

    def add(self, sample: ShardSample) -> None:
        """Adds a sample to the shard that is being written, or to the next."""
        if self._held and self._size + sample.size + tarfile.RECORDSIZE > self.limit:
            self._close()
            self._begin()
        if self._there is not None and (
            len(self._held) >= len(self._there) or self._there[len(self._held)] != sample.facts
        ):
            self._there = None
            for held in self._held:
                self._write(held)
        if self._there is None:
            self._write(sample)
        # Of samples that are written, nothing but their number is of interest.
        self._held.append(sample if self._there is not None else None)
        self._size += sample.size

    def finish(self) -> None:
        """Ends the last shard."""
        if self._held:
            self._close()

    def abandon(self) -> None:
        """Removes the shard that is being written."""
        if self._archive is not None:
            with suppress(OSError):  # the disk may be full
                self._open.close()
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._there is not None and len(self._there) > len(self._held):
            self._there = None
            for held in self._held:
                self._write(held)
        if self._archive is not None:
            self._open.close()
            os.replace(self._part, self._path)
            self._archive = None
        self.shards[self._path.name] = {"nsamples": len(self._held), "filesize": self._path.stat().st_size}

    def _write(self, sample: ShardSample) -> None:
        members = [("json", sample.content), *((suffix, read()) for suffix, (_, read) in sample.media.items())]
        if self._archive is None:
            self._part = self._path.with_name(f".{self._path.stem}.{secrets.token_hex(4)}.incomplete.tar")
            with ExitStack() as stack:
                self._archive = stack.enter_context(tarfile.open(self._part, "w", format=tarfile.GNU_FORMAT))
                self._open = stack.pop_all()
        for suffix, content in members:
            member = tarfile.TarInfo(f"{sample.key}.{suffix}")
            member.size, member.mode = len(content), 0o644
            self._archive.addfile(member, io.BytesIO(content))


def _facts_of(path: Path) -> list[tuple] | None:
    """What the samples of a shard have, see [`ShardSample.facts`]; `None` if it is none of ours, or damaged."""
    found: dict[str, list] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                facts = found.setdefault(key, [key, b"", {}])
                if suffix == "json":
                    facts[1] = archive.extractfile(member).read()
                else:
                    facts[2][suffix] = member.size
    except (tarfile.TarError, OSError):
        return None
    return [tuple(facts) for facts in found.values()]


def _uniform(chat: dict) -> dict:
    """A chat with the same entries in each sample, since readers take those of the first for all."""
    names = ("type", "text", "video_start", "video_end")
    messages = [
        message | {"content": [{name: item.get(name) for name in names} for item in message["content"]]}
        for message in chat["messages"]
    ]
    return chat | {"messages": messages, "marks": ", ".join(chat.get("marks", []))}


def _json(content: dict) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
