"""
A folder that `datasets.load_dataset` opens and the Hub shows: `metadata.parquet` has a row for each chat, with the
name of its video, which stands beside it once for all chats about it, and its spoken question.

It is of the kind that `datasets` calls VideoFolder, where `video_file_name` becomes a column `video`; of the column
`audio`, the schema says that it holds sounds.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..columns import Segment
from .chat_tables import chat_schema, parquet
from .segment_cuts import SegmentCut

METADATA, VIDEOS = "metadata.parquet", "videos"
_FEATURES = {"info": {"features": {"audio": {"_type": "Audio"}}}}


@contextmanager
def dataset_folder(folder: Path) -> Iterator:
    """A function that writes the chats of a segment to the folder; its metadata appear when the block ends."""
    with parquet(folder / METADATA, _schema()) as write:

        def add(segment: Segment, cut: SegmentCut, chats: list[dict], sounds: list[Path | None]) -> None:
            for chat, sound in zip(chats, sounds):
                audio = sound and {"bytes": sound.read_bytes(), "path": sound.name}
                row = {"video_file_name": f"{VIDEOS}/{cut.name}", "audio": audio, "marks": []}
                write(row | chat, len(audio["bytes"]) if audio else 0)

        yield add


def hub_features() -> list[dict]:
    """The columns that `datasets` finds, as the front matter of a card lists them."""
    columns = [_feature(field.name, field.type) for field in _schema()]
    video, audio = {"name": "video", "dtype": "video"}, {"name": "audio", "dtype": "audio"}
    media = {"video_file_name": video, "audio": audio}
    return [media.get(column["name"], column) for column in columns]


def _schema():
    import pyarrow as pa

    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = chat_schema(video_file_name=pa.string(), audio=audio)
    return schema.with_metadata({"huggingface": json.dumps(_FEATURES)})


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
