"""What is asked in reinforcement learning, and what is right: questions of JSONL, JSON and parquet files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

from ..evaluation.suites import read_questions
from ..training.data import BadSample, JsonLines, read_sample
from . import rewards

KINDS = ("letter", "number", "seconds", "set", "text")
"""How an answer is compared."""
INSTRUCTION = (
    "Think step by step between <think> and </think>, then give the answer alone between <answer> and </answer>."
)
"""What is written behind a question, unless it is told otherwise."""
CHOICES = ("choices", "options")


@dataclass(frozen=True)
class Problem:
    """
    A question with the right answer.

    Attributes:
        name (`str`): File and line, or its `id`.
        messages (`list[dict]`): The chat up to the question; files by absolute paths.
        answer (`str`, `float` or `list[str]`): What is right.
        kind (`str`): One of [`KINDS`].
        choices (`list[str]`): The options of a letter.
        tolerance (`float`, *optional*): How far numbers and seconds may be off. `None`: as the reward's default.
        row (`Mapping`): The row that it was read from.
    """

    name: str
    messages: list[dict]
    answer: str | float | list[str]
    kind: str
    choices: list[str] = field(default_factory=list)
    tolerance: float | None = None
    row: Mapping = field(default_factory=dict, repr=False)

    def accuracy(self, text: str) -> float:
        """What a text earns for being right, from 0 to 1, by the rule of its kind."""
        tolerance = {} if self.tolerance is None else {"tolerance": self.tolerance}
        if self.kind == "letter":
            return rewards.letter_reward(text, self.answer, self.choices)
        if self.kind == "number":
            return rewards.number_reward(text, self.answer, **tolerance)
        if self.kind == "seconds":
            return rewards.seconds_reward(text, self.answer, **tolerance)
        return rewards.set_reward(text, self.answer) if self.kind == "set" else rewards.text_reward(text, self.answer)

    @property
    def prompt(self) -> str:
        """Its name, and the chat in one line, as logs show it. No two problems have the same."""
        parts = [self.name]
        for message in self.messages:
            content = message["content"]
            items = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts = (item["text"] if item["type"] == "text" else f"<{item['type']}>" for item in items)
            parts.append(f"{message['role']}: {' '.join(texts)}")
        return " | ".join(parts)


def read_problems(path: str | Path, instruction: str = INSTRUCTION) -> list[Problem]:
    """
    Reads the problems of a file.

    Args:
        path (`str` or `Path`):
            JSONL with chats as [`read_sample`] takes them, and an `answer` beside `messages`; without it, the last
            message is the answer, so that data of `omnivinci train` and `omnivinci synthesize` will do. Beside
            it, `choices` make it a letter, and `answer_type` one of [`KINDS`], with a `tolerance`. Without
            `answer_type` a list is a set, a number is a number, and anything else a text. Or the multiple-choice
            questions of `omnivinci eval`: `question`, `options` and `answer`, see [`read_questions`].
        instruction (`str`, *optional*): What is written behind each question; "" for nothing.

    Raises:
        ValueError: a row has no answer, or one that cannot be right; the message has file and line.
        OSError: the file cannot be read. Media are not looked for yet.
    """
    path = Path(path)
    if path.suffix.lower() != ".jsonl":
        problems = _read_multiple_choice(path)
    else:
        rows = JsonLines(path)
        first = rows[0]
        is_question = isinstance(first, Mapping) and "question" in first and "messages" not in first
        problems = (
            _read_multiple_choice(path)
            if is_question
            else [_read_chat(rows[index], rows.name(index), rows.folder) for index in range(len(rows))]
        )
    problems = [_with_instruction(problem, instruction) for problem in problems]
    names = set()
    for problem in problems:
        if problem.name in names:
            raise ValueError(f"Two rows of {path} have the id {problem.name!r}: each needs its own, or none.")
        names.add(problem.name)
    return problems


def _read_multiple_choice(path: Path) -> list[Problem]:
    return [
        Problem(
            question.name,
            [{"role": "user", "content": question.content}],
            question.references[0],
            "letter",
            question.options,
            row=question.row,
        )
        for question in read_questions(path, "multiple-choice", prompt="{question}\n{options}")
    ]


def _read_chat(row, name: str, folder: Path | None) -> Problem:
    if isinstance(row, Mapping) and "answer" in row and isinstance(row.get("messages"), Sequence):
        messages = list(row["messages"])
        if messages and isinstance(messages[-1], Mapping) and messages[-1].get("role") == "assistant":
            raise BadSample(name, "it has an `answer` and a last message of role 'assistant': give one of them.")
        # As a chat that is answered, which is what the reader checks.
        sample = read_sample({**row, "messages": [*messages, {"role": "assistant", "content": "-"}]}, name, folder)
        answer = row["answer"]
    else:
        try:
            sample = read_sample(row, name, folder)
        except BadSample as error:
            raise BadSample(
                error.sample_id, f"{error.reason} Or give the right answer as `answer` beside `messages`."
            ) from None
        content = sample.messages[-1]["content"]
        answer = content if isinstance(content, str) else "".join(item.get("text", "") for item in content)
    if len(sample.messages) < 2 or sample.messages[-2]["role"] != "user":
        raise BadSample(sample.id, "no message of role 'user' precedes the answer, so that nothing is asked.")
    return _with_answer(sample.id, sample.messages[:-1], answer, row)


def _with_answer(name: str, messages: list[dict], answer, row: Mapping) -> Problem:
    choices = next((row[key] for key in CHOICES if row.get(key) is not None), [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices) or len(choices) > 26:
        raise BadSample(name, f"its choices are {choices!r:.80}: a list of at most 26 texts is accepted.")
    is_number = isinstance(answer, (int, float)) and not isinstance(answer, bool)
    guessed = "letter" if choices else "set" if isinstance(answer, list) else "number" if is_number else "text"
    kind, tolerance = row.get("answer_type", guessed), row.get("tolerance")
    if kind not in KINDS:
        raise BadSample(name, f"its `answer_type` is {kind!r}: {', '.join(map(repr, KINDS))} are accepted.")
    if kind in ("number", "seconds"):
        try:
            answer = float(answer) if not isinstance(answer, bool) else math.nan
        except (TypeError, ValueError):
            answer = math.nan
        if not math.isfinite(answer):
            raise BadSample(
                name, f"its answer is {row.get('answer')!r:.80}, but for {kind} a finite number is accepted."
            )
    elif kind == "set":
        if not isinstance(answer, list) or not any(isinstance(one, str) and one.strip() for one in answer):
            raise BadSample(name, f"its answer is {answer!r:.80}, but for a set a list of texts is accepted.")
    elif not isinstance(answer, str) or not answer.strip():
        raise BadSample(name, f"its answer is {answer!r:.80}, but for a {kind} text that is not empty is accepted.")
    if kind == "letter":
        if not choices:
            raise BadSample(name, "its answer is a letter, but it has no `choices`: a list of texts is needed.")
        answer = answer.strip()
        letters = ascii_uppercase[: len(choices)]
        answer = letters[choices.index(answer)] if choices.count(answer) == 1 else answer
        if answer not in letters or len(answer) != 1:
            raise BadSample(
                name,
                f"its answer {answer!r:.80} is outside of its choices: a letter from A to {letters[-1]}, or the text "
                "of one, is accepted.",
            )
    is_tolerance = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if tolerance is not None and not (is_tolerance and 0 <= tolerance < math.inf):
        raise BadSample(name, f"its tolerance is {tolerance!r:.80}: a number from 0 on is accepted.")
    return Problem(name, messages, answer, kind, choices, tolerance, row)


def _with_instruction(problem: Problem, instruction: str) -> Problem:
    if not instruction:
        return problem
    *before, last = problem.messages
    if isinstance(last["content"], str):
        content = f"{last['content']}\n{instruction}"
    else:
        content = [*last["content"], {"type": "text", "text": f"\n{instruction}"}]
    return Problem(**{**vars(problem), "messages": [*before, {**last, "content": content}]})
