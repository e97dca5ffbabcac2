"""Chats as JSON lines and as parquet."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...new_file import new_file

ROW_GROUP = 256
"""Rows that parquet keeps together, and that reading one of them reads."""


@contextmanager
def json_lines(path: Path) -> Iterator:
    """A function that writes a row as a line of a file, which appears when the block ends."""
    with new_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def parquet(path: Path) -> Iterator:
    """A function that writes a chat as a row of a parquet file, which appears when the block ends."""
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    held, schema = [], chat_schema()
    with new_file(path) as part, part.open("wb") as file, ParquetWriter(file, schema, compression="zstd") as table:

        def flush() -> None:
            table.write_table(Table.from_pylist(held, schema=schema))
            held.clear()

        def write(row: dict) -> None:
            held.append(row)
            if len(held) >= ROW_GROUP:
                flush()

        yield write
        if held:
            flush()


def chat_schema():
    """The columns of chats, as pyarrow has them."""
    import pyarrow as pa

    text = pa.string()
    columns = {"id": text, "messages": message_type(), "category": text, "marks": pa.list_(text)}
    return pa.schema(columns | {"provenance": provenance_type()})


def message_type():
    """Messages whose content is a list of items."""
    import pyarrow as pa

    text, second = pa.string(), pa.float64()
    item = {"type": text, "text": text, "path": text, "url": text, "video_start": second, "video_end": second}
    return pa.list_(struct({"role": text, "content": pa.list_(struct(item))}))


def provenance_type():
    """The provenance of chats."""
    import pyarrow as pa

    text, second = pa.string(), pa.float64()
    stage = struct(dict.fromkeys(("stage", "backend", "model", "prompt"), text))
    return struct({"source": text, "start": second, "end": second, "seed": pa.int64(), "stages": pa.list_(stage)})


def struct(fields: dict):
    """A type with named fields."""
    import pyarrow as pa

    return pa.struct(list(fields.items()))
