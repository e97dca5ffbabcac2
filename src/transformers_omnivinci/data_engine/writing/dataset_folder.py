"""
A folder that `datasets.load_dataset` opens and the Hub shows: parquet with a row for each segment, in which its video
and its spoken questions stand, as `datasets` itself writes them. The schema says which columns are videos and sounds.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..columns import Segment
from .chat_tables import message_type, provenance_type, struct
from .segment_cuts import SegmentCut
from .shard_series import ShardFolder, ShardSample, digest_of

NAME = "train"
_FEATURES = {"video": {"_type": "Video"}, "audio": {"_type": "List", "feature": {"_type": "Audio"}}}
_DIGESTS = "omnivinci.samples"
GROUP_BYTES = 64_000_000
"""Rows are read in groups, which are cut off after so many bytes."""


class TableForm:
    """Shards as parquet, see [`ShardForm`]. `video` and `audio` of a row are the media of its sample."""

    suffix = ".parquet"

    def size(self, sample: ShardSample) -> int:
        """Media are not compressed."""
        return len(sample.text) + sum(sample.sizes.values())

    def digests(self, path: Path) -> list[str] | None:
        """As they were written down at the end of the file."""
        from pyarrow import ArrowException
        from pyarrow.parquet import read_metadata

        try:
            return json.loads((read_metadata(path).metadata or {}).get(_DIGESTS.encode(), b"null"))
        except (ArrowException, OSError, ValueError):
            return None

    @contextmanager
    def open(self, path: Path) -> Iterator:
        """Rows are written in groups."""
        from pyarrow import Table
        from pyarrow.parquet import ParquetWriter

        schema, held, digests, size = table_schema(), [], [], 0
        with path.open("wb") as file, ParquetWriter(file, schema, compression="zstd") as table:

            def flush() -> None:
                nonlocal size
                table.write_table(Table.from_pylist(held, schema=schema))
                held.clear()
                size = 0

            def put(sample: ShardSample) -> None:
                nonlocal size
                row, media = dict(sample.content), {name: read() for name, (_, read) in sample.media.items()}
                files = [{"bytes": content, "path": name} for name, content in media.items()]
                held.append(row | {"video": files[0], "audio": files[1:]})
                digests.append(digest_of(sample.key, sample.text, sample.sizes))
                size += self.size(sample)
                if size >= GROUP_BYTES:
                    flush()

            yield put
            if held:
                flush()
            table.add_key_value_metadata({_DIGESTS: json.dumps(digests)})


class DatasetFolder(ShardFolder):
    """
    Writes the folder.

    Args:
        folder (`Path`): Of the parquet files.
        limit (`float`): The most bytes of a file, unless a single segment has more.
    """

    def __init__(self, folder: Path, limit: float):
        super().__init__(folder, limit, TableForm())

    def pack(self, row: dict, segment: Segment, cut: SegmentCut, chats: list[dict], sounds: list[Path | None]) -> None:
        """Writes a segment; arguments are those of [`WebShards.pack`]."""
        media = {f"{segment.id}{cut.suffix}": (cut.size, lambda: cut.content)}
        told = []
        for chat, sound in zip(chats, sounds):
            speech = None
            if sound is not None:
                speech = len(media) - 1
                media[sound.name] = (sound.stat().st_size, sound.read_bytes)
            kept = {name: chat[name] for name in ("id", "messages", "category")}
            told.append(kept | {"marks": chat.get("marks", []), "speech": speech})
        facts = {"id": segment.id, "caption": row.get("omni_caption"), "chats": told}
        self.add(NAME, ShardSample(segment.id, facts | {"provenance": chats[0]["provenance"]}, media))


def table_schema():
    """The columns of the folder, as pyarrow has them."""
    import pyarrow as pa

    file = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    chat = {"id": pa.string(), "messages": message_type(), "category": pa.string(), "marks": pa.list_(pa.string())}
    columns = {
        "id": pa.string(),
        "video": file,
        "caption": pa.string(),
        "chats": pa.list_(struct(chat | {"speech": pa.int64()})),
        "audio": pa.list_(file),
        "provenance": provenance_type(),
    }
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})})


def hub_features() -> list[dict]:
    """The columns that `datasets` finds, as the front matter of a card lists them."""
    media = {"video": {"name": "video", "dtype": "video"}, "audio": {"name": "audio", "list": "audio"}}
    return [media.get(field.name) or _feature(field.name, field.type) for field in table_schema()]


def _feature(name: str, kind) -> dict:
    return {"name": name, **_described(kind)}


def _described(kind) -> dict:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"struct": [_feature(field.name, field.type) for field in kind]}
    if pa.types.is_list(kind):
        inner = _described(kind.value_type)
        return {"list": inner["struct"] if "struct" in inner else inner["dtype"]}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind))}
