"""Chats to train on in parquet files and WebDataset shards: the same as in JSON lines."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transformers_omnivinci.training import BadSample, ChatDataset, DataSource

from .chats import chat, write
from .conftest import CLIP
from .media_samples import image

CLIP_BYTES = Path(CLIP).read_bytes()
SPAN = {"video_start": 1.0, "video_end": 3.0}


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def parquet(path: Path, rows: list[dict], **options) -> Path:
    """Columns have one type: contents are lists, and what a row lacks is null."""
    names = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in names} for row in rows]
    for row in rows:
        row["messages"] = [
            one
            | {
                "content": [{"type": "text", "text": one["content"]}]
                if isinstance(one["content"], str)
                else one["content"]
            }
            for one in row["messages"]
        ]
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def jpeg() -> bytes:
    file = io.BytesIO()
    image(height=60, width=60).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def chats(tmp_path):
    """Rows whose media are files beside them, as JSON lines."""
    (tmp_path / "clip.mp4").write_bytes(CLIP_BYTES)
    (tmp_path / "a.jpg").write_bytes(jpeg())
    clip = {"type": "video", "path": "clip.mp4", **SPAN}
    return [
        chat("A square.", clip, id="one"),
        chat("Red.", clip, question="Its colour?"),
        chat("Yes.", {"type": "image", "path": "a.jpg"}, id="picture"),
    ]


def encoded(data: ChatDataset) -> list:
    return [(measure, data[index]["input_ids"].tolist()) for index, measure in enumerate(data.measures)]


@pytest.mark.parametrize("row_group_size", [1, 100])
def test_parquet_is_read_as_json_lines_are(row_group_size, chats, tmp_path, encoder):
    parquet(tmp_path / "rows.parquet", chats, row_group_size=row_group_size)
    expected = ChatDataset([DataSource(write(tmp_path / "rows.jsonl", *chats))], encoder)
    data = ChatDataset([DataSource(str(tmp_path / "rows.parquet"))], encoder)
    assert encoded(data) == encoded(expected)
    assert data.samples(0)[0].messages[0] == expected.samples(0)[0].messages[0]
    assert data.samples(1)[0].id == f"{tmp_path / 'rows.parquet'}:1"
    assert encoded(pickle.loads(pickle.dumps(data))) == encoded(expected)
    assert [path.name for path in tmp_path.glob(".rows.parquet.*.measures")]
    assert encoded(ChatDataset([DataSource(tmp_path / "rows.parquet")], encoder)) == encoded(expected)


def test_media_may_stand_in_rows_of_parquet_as_datasets_writes_them(chats, tmp_path, encoder):
    places = [{"type": "video", **SPAN}], [{"type": "video", **SPAN}], [{"type": "image"}]
    rows = [
        chat("A square.", *places[0], id="one") | {"video": {"bytes": CLIP_BYTES, "path": "x.mp4"}},
        chat("Red.", *places[1], question="Its colour?") | {"video_file_name": "clip.mp4"},
        chat("Yes.", *places[2], id="picture") | {"images": [{"bytes": jpeg(), "path": None}]},
    ]
    parquet(tmp_path / "rows.parquet", rows)
    expected = ChatDataset([DataSource(write(tmp_path / "rows.jsonl", *chats))], encoder)
    assert encoded(ChatDataset([DataSource(tmp_path / "rows.parquet")], encoder)) == encoded(expected)


@pytest.mark.parametrize("share_media", [False, True])
def test_shards_are_read_as_json_lines_are(share_media, chats, tmp_path, encoder):
    place = {"type": "video", **SPAN}
    both = [chat("A square.", place, id="one"), chat("Red.", place, question="Its colour?")]
    (tmp_path / "shards").mkdir()
    tar(
        tmp_path / "shards" / "a-0.tar",
        {"x/first.json": json.dumps({"chats": both}).encode(), "x/first.mp4": CLIP_BYTES},
    )
    picture = json.dumps(chat("Yes.", {"type": "image"}, id="picture")).encode()
    tar(tmp_path / "shards" / "a-1.tar", {"second.jpg": jpeg(), "second.json": picture, "third.txt": b"no chat"})
    expected = ChatDataset([DataSource(write(tmp_path / "rows.jsonl", *chats))], encoder, share_media=share_media)
    data = ChatDataset([DataSource(str(tmp_path / "shards"))], encoder, share_media=share_media)
    assert len(data) == (2 if share_media else 3)
    assert data.measures == expected.measures
    for index in range(len(data)):
        assert data[index]["input_ids"].tolist() == expected[index]["input_ids"].tolist()
    assert encoded(pickle.loads(pickle.dumps(data))) == encoded(expected)
    one = ChatDataset([DataSource(tmp_path / "shards" / "a-1.tar")], encoder)
    assert [sample.id for sample in one.samples(0)] == ["picture"]
    rows = DataSource(tmp_path / "shards").open()
    names = ["a-0.tar:x/first:0", "a-0.tar:x/first:1", "a-1.tar:second"]
    assert [rows.name(number) for number in range(3)] == [f"{tmp_path}/shards/{name}" for name in names]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.parquet", b"no parquet", ValueError, "cannot be read as parquet"),
        ("a.tar", b"no archive" * 100, ValueError, "cannot be read as a tar archive"),
        ("none.parquet", None, OSError, "cannot be read: No such file"),
        ("none.tar", None, OSError, "cannot be read: No such file"),
    ],
)
def test_what_is_not_of_its_format_is_one_sentence(name, content, error, message, tmp_path, encoder):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        ChatDataset([DataSource(tmp_path / name)], encoder)


def test_files_without_chats_are_refused(tmp_path, encoder):
    pq.write_table(pa.table({"messages": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet has no rows"):
        DataSource(tmp_path / "a.parquet").open()
    with pytest.raises(ValueError, match="a.tar has no chats"):
        len(DataSource(tar(tmp_path / "a.tar", {"a.txt": b""})).open())
    with pytest.raises(BadSample, match="a.tar:a: its JSON cannot be read"):
        ChatDataset([DataSource(tar(tmp_path / "a.tar", {"a.json": b"{"}))], encoder)


def test_files_that_change_while_they_are_in_use_are_an_error(chats, tmp_path):
    parquet(tmp_path / "a.parquet", chats, row_group_size=1)
    rows = DataSource(tmp_path / "a.parquet").open()
    shard = DataSource(tar(tmp_path / "a.tar", {"a.json": json.dumps(chat("Yes.")).encode()})).open()
    assert rows[0]["id"] == "one" and len(shard) == 1
    for path in (tmp_path / "a.parquet", tmp_path / "a.tar"):
        os.utime(path, (1, 1))
    for one in (lambda: rows[1], lambda: shard[0]):
        with pytest.raises(OSError, match="has changed while it was in use"):
            one()
