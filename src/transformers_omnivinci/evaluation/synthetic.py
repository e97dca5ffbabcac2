"""
The suite `synthetic`: questions about clips of the synthetic world, answered from mp4 files through the whole
processor. The same questions are also asked without the sound, without the picture, and without both.
"""

import json
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..synthetic import CLOSED_TYPES, SyntheticDataset, WorldConfig, write_dataset
from .answers import AnswerFile
from .asking import SENSES, answer, check_senses, perceived
from .evaluate import answer_questions
from .scoring import Mark
from .suites import Question

__all__ = [
    "SENSES",
    "SyntheticScore",
    "answer",
    "answer_rows",
    "chat_of",
    "evaluate_synthetic",
    "read_rows",
    "score_answers",
]

MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class SyntheticScore:
    """
    The score of one type of question.

    Attributes:
        type (`str`): One of `CLOSED_TYPES`.
        senses (`str`): One of `SENSES`.
        num_questions (`int`): Number of questions.
        accuracy (`float`): Share of answers that match the right one exactly.
        chance (`float`): Mean of 1 / `num_candidates`, see [`Question`].
        median_error (`float`, *optional*):
            For `"time"`, the median absolute error in seconds. An answer without a number counts as infinite.
    """

    type: str
    senses: str
    num_questions: int
    accuracy: float
    chance: float
    median_error: float | None = None


def evaluate_synthetic(
    model,
    processor,
    folder: str | Path,
    *,
    clips_per_type: int = 200,
    split: str = "test",
    seed: int = 0,
    senses: Iterable[str] = tuple(SENSES),
    types: Iterable[str] = CLOSED_TYPES,
    batch_size: int = 16,
    config: WorldConfig | None = None,
    num_workers: int = 1,
    on_answers: Callable[[int], object] | None = None,
    answers: AnswerFile | None = None,
    **options,
) -> list[SyntheticScore]:
    """
    Renders clips, asks a model one question about each, and scores its answers.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The model.
        processor ([`OmniVinciProcessor`]): Its processor.
        folder (`str` or `Path`): Where the clips are written as mp4 files. Those of an earlier call are reused.
        clips_per_type (`int`, *optional*, defaults to 200): Number of clips for each type of question.
        split (`str`, *optional*, defaults to `"test"`): Split of the synthetic world.
        seed (`int`, *optional*, defaults to 0): Seed of the clips.
        senses (`Iterable[str]`, *optional*): Keys of `SENSES`. Default: all.
        types (`Iterable[str]`, *optional*): Types of questions, some of `CLOSED_TYPES`. Default: all.
        batch_size (`int`, *optional*, defaults to 16): Number of questions in a batch.
        config ([`WorldConfig`], *optional*): The world's config.
        num_workers (`int`, *optional*, defaults to 1): Number of processes that render clips.
        on_answers (`Callable`, *optional*): Called after each batch with the number of its questions.
        answers ([`AnswerFile`], *optional*): Has answers of an earlier run, and takes the further ones.
        options: `max_new_tokens` (default: 16), and options of the processor, such as `num_frames` and `fps`.

    Returns:
        `list[SyntheticScore]`: one for each of the senses and each type.

    Raises:
        ValueError: an argument is out of range, or the folder holds other clips.
        OSError: the clips cannot be written or read.
    """
    senses = check_senses(tuple(senses))
    types = tuple(types)
    if not types or not set(types) <= set(CLOSED_TYPES):
        raise ValueError(f"Types {list(types)}: some of {list(CLOSED_TYPES)} are accepted.")
    dataset = SyntheticDataset(split, len(types) * clips_per_type, seed, config, types)
    path = write_dataset(folder, dataset, num_workers=num_workers)
    rows = read_rows(path)
    scores = []
    for name in senses:
        given = answer_rows(model, processor, rows, path.parent, name, batch_size, on_answers, answers, **options)
        scores += score_answers(rows, given, name)
    return scores


def read_rows(path: Path) -> list[dict]:
    """The rows of the JSONL file `path` that [`write_dataset`] wrote, see [`Sample.rows`]."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer_rows(
    model,
    processor,
    rows: list[dict],
    folder: Path,
    senses: str = "both",
    batch_size: int = 16,
    on_answers: Callable[[int], object] | None = None,
    answers: AnswerFile | None = None,
    **options,
) -> list[str]:
    """
    Answers the questions of rows.

    Args:
        rows (`list[dict]`): As [`read_rows`] returns them.
        folder (`Path`): The folder that their paths are relative to.
        senses (`str`, *optional*, defaults to `"both"`): A key of `SENSES`.
        model, processor, batch_size, on_answers, answers, options: As in [`evaluate_synthetic`].

    Returns:
        `list[str]`: an answer for each row.
    """
    questions = [
        Question(row["id"], _content(row, folder), [row["messages"][-1]["content"][0]["text"]], row=row)
        for row in rows
    ]
    options = {"max_new_tokens": MAX_NEW_TOKENS, **options}
    return answer_questions(
        model,
        processor,
        questions,
        lambda question, given: Mark(float(given == question.references[0])),
        senses,
        batch_size=batch_size,
        answers=answers,
        on_answers=on_answers,
        **options,
    )


def score_answers(rows: list[dict], answers: list[str], senses: str = "both") -> list[SyntheticScore]:
    """
    Scores answers by comparing them with the right ones, type by type.

    Args:
        rows (`list[dict]`): As [`read_rows`] returns them.
        answers (`list[str]`): An answer for each row.
        senses (`str`, *optional*, defaults to `"both"`): How the questions were asked, noted in the scores.

    Returns:
        `list[SyntheticScore]`: one for each type of `CLOSED_TYPES` that the rows have.
    """
    scores = []
    for type in CLOSED_TYPES:
        chosen = [(row, given) for row, given in zip(rows, answers, strict=True) if row["question_type"] == type]
        if not chosen:
            continue
        pairs = [(row["messages"][-1]["content"][0]["text"], given) for row, given in chosen]
        accuracy = sum(right == given for right, given in pairs) / len(pairs)
        chance = sum(1 / row["num_candidates"] for row, _ in chosen) / len(pairs)
        error = None
        if type == "time":
            error = statistics.median(abs(_seconds(right) - _seconds(given)) for right, given in pairs)
        scores.append(SyntheticScore(type, senses, len(pairs), accuracy, chance, error))
    return scores


def _seconds(text: str) -> float:
    number = re.search(r"\d+(\.\d+)?", text)
    return float(number[0]) if number else float("inf")


def chat_of(row: dict, folder: Path, senses: str = "both") -> list[dict]:
    """
    Turns a row into a chat with its question and the part of its clip that the senses get.

    Args:
        row, folder, senses: As in [`answer_rows`].

    Returns:
        `list[dict]`: one message of the user, with the clip as a path.
    """
    return [{"role": "user", "content": perceived(_content(row, folder), senses)}]


def _content(row: dict, folder: Path) -> list[dict]:
    medium, question = row["messages"][0]["content"]
    return [{"type": medium["type"], medium["type"]: str(folder / medium["path"])}, question]
