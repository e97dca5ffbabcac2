"""Answers on disk: an interrupted run goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..version import __version__

HEADER = "settings"


class AnswerFile:
    """
    A JSONL file with the settings of a run in its first line, and an answer in each further one. What it has is not
    asked again. A last line that was cut off while it was written is asked again.

    Args:
        path (`Path`): The file; made with the first answer if it is not there.
        settings (`dict`): What decides about the answers; values that JSON has.

    Attributes:
        known (`dict[tuple[str, str], str]`): The answers, by the senses and the name of the question.

    Raises:
        ValueError: the file holds answers of other settings, or something else.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, settings: dict):
        self.path, self.known = path, {}
        self._settings = settings = json.loads(json.dumps(settings))
        if not path.parent.is_dir():
            raise OSError(f"{path} cannot be written: there is no folder {path.parent}.")
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        self._has_header = bool(lines)
        if not lines:
            if content and not content.startswith(b'{"' + HEADER.encode()):
                raise ValueError(self._other("it does not begin with the settings of a run"))
            return
        self._check(self._read(lines[0], 1), settings)
        for number, line in enumerate(lines[1:], start=2):
            row = self._read(line, number)
            if not all(isinstance(row.get(name), str) for name in ("question", "senses", "answer")):
                raise ValueError(self._other(f"line {number} is no answer"))
            self.known[row["senses"], row["question"]] = row["answer"]
        if len(whole) < len(content):
            os.truncate(path, len(whole))

    def add(self, rows: Iterable[dict]) -> None:
        """Writes answers: each with `question`, `senses` and `answer`, and whatever else is worth reading."""
        if not self._has_header:
            self.path.write_text(json.dumps({HEADER: self._settings, "version": __version__}) + "\n", encoding="utf-8")
            self._has_header = True
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def _read(self, line: bytes, number: int) -> dict:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(self._other(f"line {number} is no JSON object"))
        return row

    def _check(self, header: dict, settings: dict) -> None:
        found = header.get(HEADER)
        if not isinstance(found, dict):
            raise ValueError(self._other("it does not begin with the settings of a run"))
        for name in {**found, **settings}:
            if found.get(name) != settings.get(name):
                raise ValueError(
                    f"{self.path} holds answers of a run with {name} = {found.get(name)!r:.80}, not "
                    f"{settings.get(name)!r:.80}: name another file, or ask with the same settings."
                )

    def _other(self, reason: str) -> str:
        return f"{self.path} is no file of answers, as {reason}: name another file."


def read_answers(path: Path, senses: str = "both") -> dict[str, str]:
    """
    The answers that `omnivinci eval --answers` kept, whatever the settings of their run were.

    Args:
        path (`Path`): The file.
        senses (`str`, *optional*, defaults to `"both"`): How the questions were asked, a key of `SENSES`.

    Returns:
        `dict[str, str]`: by the name of the question, see [`read_questions`].

    Raises:
        ValueError: it is no file of answers, or has none with these senses.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        first = file.readline()
    try:
        settings = json.loads(first)[HEADER]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} is no file of answers, as it does not begin with the settings of a run.") from None
    known = AnswerFile(path, settings).known
    answers = {name: answer for (asked, name), answer in known.items() if asked == senses}
    if not answers:
        found = sorted({asked for asked, _ in known})
        raise ValueError(f"{path} has no answers with the senses {senses!r}: {found} are there.")
    return answers


def digest_file(path: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_version(model: str) -> str | int:
    """What changes when the weights in a folder are written anew; a repository of the Hub is told by its name."""
    if not os.path.isdir(model):
        return model
    weights = [path for path in Path(model).rglob("*.safetensors") if path.is_file()]
    return max((path.stat().st_mtime_ns for path in weights), default=0)
