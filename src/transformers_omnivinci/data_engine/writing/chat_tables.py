"""Chats as JSON lines and as parquet."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...synthetic.clips import replaced

ROW_GROUP = 256
"""Rows that parquet keeps together, and that reading one of them reads."""
GROUP_BYTES = 64_000_000
"""With media in them, they are cut off after so many bytes."""


@contextmanager
def json_lines(path: Path) -> Iterator:
    """A function that writes a row as a line of a file, which appears when the block ends."""
    with replaced(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def parquet(path: Path, schema) -> Iterator:
    """A function that writes a row, and maybe how many bytes of media it has, to a file that appears in the end."""
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    held, size = [], 0
    with replaced(path) as part, part.open("wb") as file, ParquetWriter(file, schema, compression="zstd") as table:

        def flush() -> None:
            nonlocal size
            if held:
                table.write_table(Table.from_pylist(held, schema=schema), row_group_size=ROW_GROUP)
                held.clear()
                size = 0

        def write(row: dict, num_bytes: int = 0) -> None:
            nonlocal size
            held.append(row)
            size += num_bytes
            if len(held) >= ROW_GROUP or size >= GROUP_BYTES:
                flush()

        yield write
        flush()


def chat_schema(**media):
    """
    The columns of chats in parquet.

    Args:
        media (`pyarrow.DataType`): Further columns, which come first.
    """
    import pyarrow as pa

    text, second = pa.string(), pa.float64()
    item = {"type": text, "text": text, "path": text, "url": text, "video_start": second, "video_end": second}
    message = {"role": text, "content": pa.list_(_struct(item))}
    stage = dict.fromkeys(("stage", "backend", "model", "prompt"), text)
    provenance = {"source": text, "start": second, "end": second, "seed": pa.int64()}
    return pa.schema(
        {
            "id": text,
            **media,
            "messages": pa.list_(_struct(message)),
            "category": text,
            "marks": pa.list_(text),
            "provenance": _struct(provenance | {"stages": pa.list_(_struct(stage))}),
        }
    )


def _struct(fields: dict):
    import pyarrow as pa

    return pa.struct(list(fields.items()))
