"""
WebDataset shards: tar files in which `KEY.json`, `KEY.mp4` and `KEY.wav` are a sample.

Readers want all samples of a shard to have the same members, so that there is a series of shards for each set of them:
`mp4-000000.tar` has the segments, each with all chats about it that are written; `mp4-wav-000000.tar` the chats whose
question is spoken.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...new_file import new_file
from ..columns import Segment
from .segment_cuts import SegmentCut
from .shard_series import ShardFolder, ShardSample, digest_of

INDEX = "shards.json"


class TarForm:
    """Shards as tar files, see [`ShardForm`]."""

    suffix = ".tar"

    def size(self, sample: ShardSample) -> int:
        """With headers, in blocks."""
        sizes = [len(sample.text), *sample.sizes.values()]
        return sum(tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE)) for size in sizes)

    def digests(self, path: Path) -> list[str] | None:
        """From the members' headers and the JSON."""
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
            return [digest_of(*facts) for facts in found.values()]
        except (tarfile.TarError, OSError, UnicodeDecodeError):
            return None

    @contextmanager
    def open(self, path: Path) -> Iterator:
        """Members have no dates and no owners: the same samples give the same bytes."""
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:

            def put(sample: ShardSample) -> None:
                members = [("json", sample.text), *((name, read()) for name, (_, read) in sample.media.items())]
                for suffix, content in members:
                    member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                    member.size, member.mode = len(content), 0o644
                    archive.addfile(member, io.BytesIO(content))

            yield put


class WebShards(ShardFolder):
    """
    Writes all series of shards.

    Args:
        folder (`Path`): Of the shards.
        limit (`float`): The most bytes of a shard, unless a single sample has more.
    """

    def __init__(self, folder: Path, limit: float):
        super().__init__(folder, limit - tarfile.RECORDSIZE, TarForm())

    def __exit__(self, kind, *error) -> None:
        super().__exit__(kind, *error)
        if kind is None:
            shards = [{"url": name, **facts} for name, facts in sorted(self.shards.items())]
            with new_file(self.folder / INDEX) as part:
                part.write_text(json.dumps({"wids_version": 1, "shardlist": shards}, indent=1) + "\n")

    def pack(self, row: dict, segment: Segment, cut: SegmentCut, chats: list[dict], sounds: list[Path | None]) -> None:
        """
        Writes a segment.

        Args:
            row (`dict`), segment ([`Segment`]): The segment.
            cut ([`SegmentCut`]): Its video.
            chats (`list[dict]`): About it, see [`without_media`].
            sounds (`list[Path | None]`): The spoken question of each chat.
        """
        video = {cut.suffix[1:]: (cut.size, lambda: cut.content)}
        written = [_uniform(chat) for chat, sound in zip(chats, sounds) if sound is None]
        if written:
            facts = {"id": segment.id, "start": segment.start, "end": segment.end, "chats": written}
            self._put(ShardSample(segment.id, facts, video))
        for chat, sound in zip(chats, sounds):
            if sound is not None:
                media = video | {"wav": (sound.stat().st_size, sound.read_bytes)}
                self._put(ShardSample(chat["id"], _uniform(chat), media))

    def _put(self, sample: ShardSample) -> None:
        self.add("-".join(sample.media), sample)


def _uniform(chat: dict) -> dict:
    """A chat with the same entries in each sample, since readers take those of the first for all."""
    names = ("type", "text", "video_start", "video_end")
    messages = [
        message | {"content": [{name: item.get(name) for name in names} for item in message["content"]]}
        for message in chat["messages"]
    ]
    return chat | {"messages": messages, "marks": ", ".join(chat.get("marks", []))}
