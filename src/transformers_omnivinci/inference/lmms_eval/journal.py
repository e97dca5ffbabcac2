"""Answers on disk while they are given, so that an interrupted run goes on where it stopped."""

import hashlib
import json
from pathlib import Path

from ...evaluation.asking import Answer


class Journal:
    """
    The answers of a run and of those before it.

    lmms-eval keeps answers of its own accord (`--use_cache`), but only when a model has answered all questions of a
    call: this is for what happens before. A line is written for each answer. A line that was cut off is read over, and
    its question asked again.

    Args:
        folder (`str` or `Path`): Created if missing. What other processes have written there is read, too.
        rank (`int`): The number of this process, which writes a file of its own.
        settings (`dict`): What answers depend on beside the question: the checkpoint, options.

    Raises:
        OSError: the folder cannot be read or written.
    """

    def __init__(self, folder: str | Path, rank: int, settings: dict):
        self.settings, self.answers = settings, {}
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("answers-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)
        self.path = folder / f"answers-{rank}.jsonl"
        if self.path.is_file() and not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def key(self, **question) -> str:
        """What stands for a question: any values that JSON can write."""
        words = json.dumps([self.settings, question], sort_keys=True, default=str)
        return hashlib.sha256(words.encode()).hexdigest()

    def put(self, key: str, answer: Answer) -> None:
        """Writes an answer down at once."""
        line = json.dumps({"key": key, "answer": [answer.text, answer.num_prompt_tokens, answer.num_tokens]})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self.answers[key] = answer

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.answers[entry["key"]] = Answer(*entry["answer"])
        except (ValueError, TypeError, KeyError):
            return
