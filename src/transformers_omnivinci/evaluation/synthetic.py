"""
The suite `synthetic`: questions about clips of the synthetic world, answered from mp4 files through the whole
processor. The same questions are also asked without the sound, without the picture, and without both.
"""

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..synthetic import CLOSED_TYPES, CaptionCount, SyntheticDataset, WorldConfig, count_claims, write_dataset
from .answers import AnswerFile
from .asking import SENSES, answer, check_senses, perceived
from .evaluate import answer_questions
from .scoring import Mark
from .suites import Question

__all__ = [
    "ASKED_TYPES",
    "SENSES",
    "SyntheticScore",
    "answer",
    "answer_rows",
    "chat_of",
    "evaluate_synthetic",
    "read_rows",
    "score_answers",
    "write_rows",
]

MAX_NEW_TOKENS, CAPTION_TOKENS = 16, 256
ASKED_TYPES = (*CLOSED_TYPES, "absent", "chat", "caption")
"""Types that can be asked. Of a chat, its second question is scored, which follows the model's answer to the first."""
CHATS = "chats"
"""The folder of the clips of chats, beside those of other questions."""


@dataclass(frozen=True)
class SyntheticScore:
    """
    The score of one type of question.

    Attributes:
        type (`str`): One of `ASKED_TYPES`.
        senses (`str`): One of `SENSES`.
        num_questions (`int`): Number of questions.
        accuracy (`float`): Share of answers that match the right one exactly.
        chance (`float`): Mean of 1 / `num_candidates`, see [`Question`]; 0 for captions.
        median_error (`float`, *optional*):
            For `"time"`, the median absolute error in seconds. An answer without a number counts as infinite.
        precision (`float`, *optional*), recall (`float`, *optional*), invention (`float`, *optional*):
            For `"caption"`, of all events that are told: see [`CaptionCount`].
    """

    type: str
    senses: str
    num_questions: int
    accuracy: float
    chance: float
    median_error: float | None = None
    precision: float | None = None
    recall: float | None = None
    invention: float | None = None


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
        types (`Iterable[str]`, *optional*): Types of questions, some of `ASKED_TYPES`. Default: `CLOSED_TYPES`.
        batch_size (`int`, *optional*, defaults to 16): Number of questions in a batch.
        config ([`WorldConfig`], *optional*): The world's config.
        num_workers (`int`, *optional*, defaults to 1): Number of processes that render clips.
        on_answers (`Callable`, *optional*): Called after each batch with the number of its questions.
        answers ([`AnswerFile`], *optional*): Has answers of an earlier run, and takes the further ones.
        options: `max_new_tokens` (default: 16; captions have 256 at least), and options of the processor, such as
            `num_frames` and `fps`.

    Returns:
        `list[SyntheticScore]`: one for each of the senses and each type.

    Raises:
        ValueError: an argument is out of range, or the folder holds other clips.
        OSError: the clips cannot be written or read.
    """
    senses, types = check_senses(tuple(senses)), tuple(types)
    world = {"clips_per_type": clips_per_type, "split": split, "seed": seed, "config": config}
    folder, rows = Path(folder), write_rows(folder, types, num_workers=num_workers, **world)
    scores = []
    for name in senses:
        given = answer_rows(model, processor, rows, folder, name, batch_size, on_answers, answers, **options)
        scores += score_answers(rows, given, name)
    return scores


def write_rows(
    folder: str | Path,
    types: Sequence[str] = CLOSED_TYPES,
    *,
    clips_per_type: int = 200,
    split: str = "test",
    seed: int = 0,
    config: WorldConfig | None = None,
    num_workers: int = 1,
) -> list[dict]:
    """
    Renders the clips that [`evaluate_synthetic`] asks about. Arguments and errors are its.

    Returns:
        `list[dict]`: a row for each question, see [`Sample.rows`]; paths are relative to the folder.
    """
    types = tuple(types)
    if not types or not set(types) <= set(ASKED_TYPES):
        raise ValueError(f"Types {list(types)}: some of {list(ASKED_TYPES)} are accepted.")
    folder, rows = Path(folder), []
    single = tuple(type for type in types if type != "chat")
    if single:
        dataset = SyntheticDataset(split, len(single) * clips_per_type, seed, config, single)
        rows += read_rows(write_dataset(folder, dataset, num_workers=num_workers))
    if "chat" in types:
        dataset = SyntheticDataset(split, clips_per_type, seed, config, (*CLOSED_TYPES, "absent"), 2)
        rows += join_turns(read_rows(write_dataset(folder / CHATS, dataset, num_workers=num_workers)))
    return rows


def read_rows(path: Path) -> list[dict]:
    """The rows of the JSONL file `path` that [`write_dataset`] wrote, see [`Sample.rows`]."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def join_turns(rows: list[dict]) -> list[dict]:
    """Rows with two questions about a clip as chats of two turns, whose clips are in the folder `CHATS`."""
    joined = []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        medium, question = first["messages"][0]["content"]
        opening = {"role": "user", "content": [{**medium, "path": f"{CHATS}/{medium['path']}"}, question]}
        following = {"role": "user", "content": second["messages"][0]["content"][1:]}
        messages = [opening, first["messages"][1], following, second["messages"][1]]
        joined.append({**second, "id": f"{second['id']}-chat", "messages": messages, "question_type": "chat"})
    return joined


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

    limits = {"max_new_tokens": MAX_NEW_TOKENS, **options}

    def ask(questions: list[Question], told: Callable | None = on_answers, **further) -> list[str]:
        return answer_questions(
            model,
            processor,
            questions,
            lambda question, given: Mark(float(given == question.references[0])),
            senses,
            batch_size=batch_size,
            answers=answers,
            on_answers=told,
            **{**limits, **further},
        )

    by_type = {"caption": [], "chat": []}
    for row in rows:
        by_type.setdefault(row["question_type"], []).append(row)
    captions, chats = by_type.pop("caption"), by_type.pop("chat")
    others = [row for row in rows if row["question_type"] in by_type]
    given = dict(zip(map(_id, others), ask([_question(row, folder) for row in others]), strict=True))
    if captions:
        length = max(limits["max_new_tokens"], CAPTION_TOKENS)
        texts = ask([_question(row, folder) for row in captions], max_new_tokens=length)
        given |= zip(map(_id, captions), texts, strict=True)
    if chats:
        firsts = ask([_question({**row, "id": f"{row['id']}-first"}, folder, 1) for row in chats], told=None)
        texts = ask([_question(row, folder, 3, first) for row, first in zip(chats, firsts, strict=True)])
        given |= zip(map(_id, chats), texts, strict=True)
    return [given[row["id"]] for row in rows]


def _question(row: dict, folder: Path, place: int = -1, before: str | None = None) -> Question:
    """The question whose answer is the message at `place`; `before`: what was answered to the one before it."""
    turns = []
    if before is not None:
        turns = [{"role": "assistant", "content": [{"type": "text", "text": before}]}, row["messages"][2]]
    return Question(row["id"], _content(row, folder), [_answer_of(row, place)], row=row, turns=turns)


def score_answers(rows: list[dict], answers: list[str], senses: str = "both") -> list[SyntheticScore]:
    """
    Scores answers by comparing them with the right ones, type by type.

    Args:
        rows (`list[dict]`): As [`read_rows`] returns them.
        answers (`list[str]`): An answer for each row.
        senses (`str`, *optional*, defaults to `"both"`): How the questions were asked, noted in the scores.

    Returns:
        `list[SyntheticScore]`: one for each type of `ASKED_TYPES` that the rows have.
    """
    scores = []
    for type in ASKED_TYPES:
        chosen = [(row, given) for row, given in zip(rows, answers, strict=True) if row["question_type"] == type]
        if not chosen:
            continue
        pairs = [(_answer_of(row), given) for row, given in chosen]
        accuracy = sum(right == given for right, given in pairs) / len(pairs)
        chance = sum(1 / row["num_candidates"] for row, _ in chosen if row["num_candidates"]) / len(pairs)
        found = {}
        if type == "time":
            errors = (abs(_seconds(right) - _seconds(given)) for right, given in pairs)
            found = {"median_error": statistics.median(errors)}
        elif type == "caption":
            count = sum((count_claims(given, right) for right, given in pairs), CaptionCount())
            found = {name: getattr(count, name) for name in ("precision", "recall", "invention")}
        scores.append(SyntheticScore(type, senses, len(pairs), accuracy, chance, **found))
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


def _id(row: dict) -> str:
    return row["id"]


def _answer_of(row: dict, message: int = -1) -> str:
    return row["messages"][message]["content"][0]["text"]


def _content(row: dict, folder: Path) -> list[dict]:
    medium, question = row["messages"][0]["content"]
    return [{"type": medium["type"], medium["type"]: str(folder / medium["path"])}, question]
