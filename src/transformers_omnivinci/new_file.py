"""A file that appears whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def incomplete(path: Path) -> Path:
    """A hidden path beside `path`, of the same suffix, for what is being written."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.incomplete{path.suffix}")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """
    Yields a hidden path beside `path` to write to. The file there replaces `path` when the block ends, and is deleted
    if the block fails.
    """
    part = incomplete(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
