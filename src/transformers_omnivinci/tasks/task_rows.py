"""
Questions with right answers as rows that `omnivinci train` and `omnivinci eval` both read: the chat in `messages`, and
the question, its options, answer and media in fields of their own.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

from ..evaluation.suites import MEDIA, SUITES
from ..new_file import new_file

CHOICE_PROMPT = SUITES["multiple-choice"].prompt
"""That of `omnivinci eval --suite multiple-choice`."""


@dataclass(frozen=True)
class Choice:
    """
    A multiple-choice question whose options are not in order yet.

    Attributes:
        name (`str`): Its `id`.
        media (`Sequence[Mapping]`): As of [`task_row`].
        question (`str`): Without options.
        answer (`str`): The text of the right option.
        others (`Sequence[str]`): Those of the wrong ones, 1 to 25.
        fields (`Mapping`): Further fields of the row, such as a category.
    """

    name: str
    media: Sequence[Mapping]
    question: str
    answer: str
    others: Sequence[str]
    fields: Mapping = field(default_factory=dict)

    def __post_init__(self):
        options = [self.answer, *self.others]
        if not 2 <= len(options) <= len(ascii_uppercase) or len(set(options)) < len(options):
            raise ValueError(f"{self.name}: the options {options!r:.80} are not accepted: 2 to 26 different ones are.")


def task_row(
    name: str,
    media: Sequence[Mapping],
    question: str,
    answer: str,
    fields: Mapping | None = None,
    prompt: str = "{question}",
) -> dict:
    """
    A question with its right answer, to be trained on or asked (`omnivinci eval --suite short-answer --prompt`
    with the same prompt).

    Args:
        name (`str`): Its `id`.
        media (`Sequence[Mapping]`):
            Items of a chat, `{"type": "image", "path": "plot.png"}`; relative paths start in the folder of the file.
            Images come before videos, and these before sounds, as in questions of files.
        question (`str`): What is asked.
        answer (`str`): What is right.
        fields (`Mapping`, *optional*): Further fields, such as a category for `omnivinci eval --by`.
        prompt (`str`, *optional*, defaults to `"{question}"`): The text of the chat.

    Returns:
        `dict`: `id`, `messages`, `question`, `answer`, `image_path` and its like, and the further fields.

    Raises:
        ValueError: an item is no medium, or a further field has a name that is taken.
    """
    paths = defaultdict(list)
    for item in media:
        if item.get("type") not in MEDIA or not item.get("path"):
            raise ValueError(f"{name}: {dict(item)!r:.80} is no medium: an object of `type` and `path` is accepted.")
        paths[item["type"]].append(item["path"])
    items = [dict(item) for item in sorted(media, key=lambda item: MEDIA.index(item["type"]))]
    asked = {"type": "text", "text": prompt.replace("{question}", question)}
    row = {
        "id": name,
        "messages": [
            {"role": "user", "content": [*items, asked]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
        "question": question,
        "answer": answer,
    }
    row |= {f"{kind}_path": found[0] if len(found) == 1 else found for kind, found in paths.items()}
    if taken := sorted(row.keys() & (fields or {}).keys()):
        raise ValueError(f"{name}: a further field is called {taken[0]!r}, a name that is taken.")
    return row | dict(fields or {})


def choice_rows(choices: Iterable[Choice], seed: int = 0, prompt: str = CHOICE_PROMPT) -> list[dict]:
    """
    Multiple-choice questions as rows: options are shuffled, and among questions with as many options each letter is
    right equally often, but for a remainder.

    Args:
        choices (`Iterable[Choice]`): The questions.
        seed (`int`, *optional*, defaults to 0): Of the order of options.
        prompt (`str`, *optional*): The text of the chat; `{question}` and `{options}` stand for those of a question.
            Default: that of `omnivinci eval --suite multiple-choice`, which else needs the same `--prompt`.

    Returns:
        `list[dict]`: as of [`task_row`], with the right letter as answer, and `options` without letters.
    """
    rng, waiting, rows = random.Random(seed), defaultdict(list), []
    for choice in choices:
        number = 1 + len(choice.others)
        if not waiting[number]:
            waiting[number] = rng.sample(range(number), number)
        place = waiting[number].pop()
        options = rng.sample(list(choice.others), len(choice.others))
        options.insert(place, choice.answer)
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options))
        text = prompt.replace("{options}", listed)
        rows.append(
            task_row(
                choice.name,
                choice.media,
                choice.question,
                ascii_uppercase[place],
                {"options": options, **choice.fields},
                text,
            )
        )
    return rows


def write_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """
    Writes rows as JSONL. The file appears whole or not at all.

    Args:
        path (`Path`): Its folder is made where there is none.
        rows (`Iterable[Mapping]`): Of values that JSON has.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
