"""Chats to train on, as the ecosystem writes them."""

import json
import mmap
import os
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..processing.conversation import read_item, source_keys

ROLES = {"human": "user", "gpt": "assistant"}
COLUMNS = {
    "image": ("image", "images", "image_file_name"),
    "video": ("video", "videos", "video_file_name"),
    "audio": ("audio", "audios", "sound", "audio_file_name"),
}
LEGACY_PLACEHOLDER = re.compile(r"<(image|video|audio|sound|vila/video)>\n?")
LEGACY_KINDS = {"sound": "audio", "vila/video": "video"}


class BadSample(ValueError):
    """
    A sample that cannot be trained on.

    Attributes:
        sample_id (`str`): Which one.
        reason (`str`): What is wrong with it.
    """

    # torch makes exceptions of worker processes anew, with their message as the only argument.
    def __init__(self, sample_id: str, reason: str | None = None):
        super().__init__(sample_id, reason)
        self.sample_id, self.reason = sample_id, reason

    def __str__(self) -> str:
        return self.sample_id if self.reason is None else f"Sample {self.sample_id}: {self.reason}"


@dataclass(frozen=True)
class Sample:
    """
    A chat to learn.

    Attributes:
        id (`str`): Its `id`, or file and line.
        messages (`list[dict]`): As [`OmniVinciProcessor.apply_chat_template`] takes them; files by absolute paths.
    """

    id: str
    messages: list[dict]


class Rows:
    """Rows in memory, or wherever a sequence has them; `label` is how they are called in messages."""

    folder: Path | None = None

    def __init__(self, rows: Sequence[dict], label: str):
        self._rows, self._label = rows, label

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        return self._rows[index]

    def name(self, index: int) -> str:
        """What a row without an `id` is called."""
        return f"{self._label}:{index}"

    def sample(self, index: int) -> Sample:
        """The chat in a row, see [`read_sample`]."""
        return read_sample(self[index], self.name(index), self.folder)


class FileRows(Rows):
    """
    Base of the rows of a file.

    Args:
        path (`Path`): The file.

    Attributes:
        folder (`Path`): Where the relative paths of its rows start.
        version (`list[int]`): Size in bytes and time of the last change in nanoseconds, which tell whether the file
            is still the same.
        index (`np.ndarray` of shape `(rows, 2)`): Where each row is. Found when it is first asked for.

    Raises:
        OSError: it cannot be read, or has changed since it was opened.
        ValueError: it has no rows.
    """

    index: np.ndarray

    def __init__(self, path: Path):
        self.path = path
        try:
            self.version = file_version(path)
            if not path.is_file():
                raise OSError("it is not a regular file")
            path.open("rb").close()
        except OSError as error:
            raise OSError(f"The data file {path} cannot be read: {error.strerror or error}.") from error
        self.folder = path.resolve().parent

    def __len__(self) -> int:
        return len(self.index)

    def check_version(self, has_changed: bool = False) -> None:
        """An OSError if the file has changed since it was opened."""
        if has_changed or file_version(self.path) != self.version:
            raise OSError(f"The data file {self.path} has changed while it was in use: start again with the new one.")


class JsonLines(FileRows):
    """
    The rows of a JSONL file. The file is mapped into memory, which all processes of a machine share, and a row is
    parsed when it is asked for. Blank lines are passed over; line numbers count from 1. Arguments and errors are those
    of [`FileRows`].
    """

    def __init__(self, path: Path):
        super().__init__(path)
        self._content: mmap.mmap | None = None

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_content": None}  # each process maps the file anew

    @cached_property
    def index(self) -> np.ndarray:
        """(rows, 2): the byte at which each row begins, and the number of its line. Found by reading the file once."""
        rows, end = array("q"), 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.extend((end, number))
                end += len(line)
        if not rows:
            raise ValueError(f"The data file {self.path} is empty: one JSON object a line is accepted.")
        return np.array(rows).reshape(-1, 2)

    def __getitem__(self, index: int) -> dict:
        start = int(self.index[index, 0])
        content = self._open()
        end = content.find(b"\n", start)
        try:
            return json.loads(content[start : end if end >= 0 else len(content)])
        except ValueError as error:
            raise BadSample(self.name(index), f"the line is not JSON: {error}.") from error

    def name(self, index: int) -> str:
        return f"{self.path}:{self.index[index, 1]}"

    def _open(self) -> mmap.mmap:
        if self._content is None:
            with self.path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.check_version()
            self._content = content
        # To read beyond a new end would kill the process.
        if self._content.size() != self.version[0]:
            self._content = None
            self.check_version(has_changed=True)
        return self._content


def file_version(path: str | Path) -> list[int]:
    """Size in bytes and time of the last change in nanoseconds of a file."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def read_sample(row, default_id: str, folder: Path | None = None) -> Sample:
    """
    Reads one row of data.

    Args:
        row (`dict`):
            `messages`, each a role and a content, a text or items such as `{"type": "video", "path": "clip.mp4"}`; or
            LLaVA's `conversations` of `from` and `value`. Media may also stand in columns such as `images`, in the
            order of their places: paths, URLs, or objects of `bytes` and `path` as `datasets` has them.
        default_id (`str`): What it is called without an `id`.
        folder (`Path`, *optional*): Where relative paths start.

    Raises:
        BadSample: it is no chat, or nothing in it is answered.
    """
    if not isinstance(row, Mapping):
        raise BadSample(default_id, f"a row is {type(row).__name__}, but an object with `messages` is accepted.")
    sample_id = str(row["id"]) if row.get("id") is not None else default_id
    messages = row.get("messages")
    if messages is None and row.get("conversations") is not None:
        messages = [_modern_message(message, sample_id) for message in row["conversations"]]
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise BadSample(sample_id, "it has no `messages`: a list of at least one question and one answer is accepted.")
    columns = {kind: _column(row, names) for kind, names in COLUMNS.items()}
    messages = [_read_message(message, sample_id, folder, columns) for message in messages]
    items = [{"type": kind, kind: _resolve(one, folder)} for kind, left in columns.items() for one in left]
    if items:
        _put_first(messages, items, sample_id)
    role, content = messages[-1]["role"], messages[-1]["content"]
    text = content if isinstance(content, str) else "".join(item.get("text", "") for item in content)
    if role != "assistant" or not text.strip():
        raise BadSample(sample_id, "its last message is no answer: a message of role 'assistant' with text is needed.")
    return Sample(sample_id, messages)


def _column(row: Mapping, names: tuple[str, ...]) -> list:
    value = next((row[name] for name in names if row.get(name) is not None), [])
    return [_source_of(one) for one in (value if isinstance(value, (list, tuple)) else [value])]


def _source_of(value):
    """A medium of a column; `datasets` has content and path of files in an object."""
    if isinstance(value, Mapping) and {*value} <= {"bytes", "path"}:
        return value.get("path") if value.get("bytes") is None else value["bytes"]
    return value


def _modern_message(message, sample_id: str) -> dict:
    """A message of LLaVA's `conversations`."""
    if not isinstance(message, Mapping) or not isinstance(message.get("value"), str):
        raise BadSample(sample_id, "a message of `conversations` has no text in `value`.")
    items, end = [], 0
    for match in LEGACY_PLACEHOLDER.finditer(message["value"]):
        items.append({"type": "text", "text": message["value"][end : match.start()]})
        items.append({"type": LEGACY_KINDS.get(match.group(1), match.group(1))})
        end = match.end()
    items.append({"type": "text", "text": message["value"][end:]})
    role = message.get("from")
    return {"role": ROLES.get(role, role), "content": [item for item in items if item.get("text") != ""]}


def _read_message(message, sample_id: str, folder: Path | None, columns: dict[str, list]) -> dict:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise BadSample(sample_id, "a message has no `role`: 'system', 'user' and 'assistant' are accepted.")
    content = message.get("content")
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    if not isinstance(content, Sequence):
        raise BadSample(
            sample_id, f"the content of a message is {type(content).__name__}: text or items are accepted."
        )
    return {"role": message["role"], "content": [_read_item(item, sample_id, folder, columns) for item in content]}


def _read_item(item, sample_id: str, folder: Path | None, columns: dict[str, list]) -> dict:
    try:
        item = read_item(item)
    except (TypeError, ValueError) as error:
        raise BadSample(sample_id, f"an item of content is {item!r:.80}: {error}") from error
    kind = item["type"]
    if kind == "text":
        return item
    if kind not in item:
        if not columns[kind]:
            raise BadSample(sample_id, f"an item of type {kind!r} has no source: give one of {source_keys(kind)}.")
        item[kind] = columns[kind].pop(0)
    return {**item, kind: _resolve(item[kind], folder)}


def _resolve(source, folder: Path | None):
    if folder is None:
        return source
    if isinstance(source, list):
        return [_resolve(frame, folder) for frame in source]
    if not isinstance(source, str) or re.match(r"[A-Za-z][\w+.-]+:", source):
        return source
    return str(folder / source)


def _put_first(messages: list[dict], items: list[dict], sample_id: str) -> None:
    """Media without a place stand before the first question."""
    question = next((message for message in messages if message["role"] == "user"), None)
    if question is None:
        raise BadSample(sample_id, "it has media but no message of role 'user' that they could stand in.")
    content = question["content"]
    question["content"] = items + ([{"type": "text", "text": content}] if isinstance(content, str) else content)
