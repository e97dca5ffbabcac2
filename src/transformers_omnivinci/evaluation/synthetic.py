"""
The suite `synthetic`: questions about clips of the synthetic world, answered from the mp4 files through the whole
processor; and the same questions to the model when it is blind, deaf, or given the question alone.
"""

import json
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..synthetic import CLOSED_TYPES, SyntheticDataset, WorldConfig, write_dataset

SENSES = {
    "both": ("video", "sound"),
    "deaf": ("video",),
    "blind": ("sound",),
    "text only": (),
}
"""What of a clip the model is given: `"blind"` gets the sound as a clip of its own, `"deaf"` the silent video."""


@dataclass(frozen=True)
class SyntheticScore:
    """
    How the questions of one type were answered.

    Attributes:
        type (`str`): Of the questions.
        senses (`str`): One of `SENSES`.
        num_questions (`int`): How many.
        accuracy (`float`): The share of answers that are the right one, word for word.
        chance (`float`): The mean of one in so many candidates, see [`Question`].
        median_error (`float`, *optional*):
            For `"time"`: the median distance to the right second. An answer without a number is infinitely far.
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
) -> list[SyntheticScore]:
    """
    Asks a model one question about each clip.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): Who answers.
        folder (`str` or `Path`): Where the clips are written as mp4; those of an earlier call are taken.
        clips_per_type (`int`, *optional*, defaults to 200): How many clips each type of question gets.
        split (`str`, *optional*, defaults to `"test"`): Of the synthetic world.
        seed (`int`, *optional*, defaults to 0): Of the clips.
        senses (`Iterable[str]`, *optional*): Keys of `SENSES`. Default: all.
        types (`Iterable[str]`, *optional*): Of questions, some of `CLOSED_TYPES`. Default: all.
        batch_size (`int`, *optional*, defaults to 16): Questions that are answered together.
        config ([`WorldConfig`], *optional*): The world.
        num_workers (`int`, *optional*, defaults to 1): Processes that render the clips.
        on_answers (`Callable`, *optional*): Called with the number of questions that were just answered.

    Returns:
        `list[SyntheticScore]`: one for each type and each of the senses.

    Raises:
        ValueError: an argument is not accepted.
        OSError: the clips cannot be written or read.
    """
    senses = tuple(senses)
    unknown = [name for name in senses if name not in SENSES]
    if unknown or not senses:
        raise ValueError(f"Unknown senses {unknown}: some of {list(SENSES)} are accepted.")
    types = tuple(types)
    if not types or not set(types) <= set(CLOSED_TYPES):
        raise ValueError(f"Types {list(types)}: some of {list(CLOSED_TYPES)} are accepted.")
    dataset = SyntheticDataset(split, len(types) * clips_per_type, seed, config, types)
    path = write_dataset(folder, dataset, num_workers=num_workers)
    rows = read_rows(path)
    scores = []
    for name in senses:
        answers = answer_rows(model, processor, rows, path.parent, name, batch_size, on_answers)
        scores += score_answers(rows, answers, name)
    return scores


def read_rows(path: Path) -> list[dict]:
    """The rows that [`write_dataset`] wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer_rows(
    model,
    processor,
    rows: list[dict],
    folder: Path,
    senses: str = "both",
    batch_size: int = 16,
    on_answers: Callable[[int], object] | None = None,
) -> list[str]:
    """
    The answers to the questions of rows.

    Args:
        model ([`OmniVinciForConditionalGeneration`]), processor ([`OmniVinciProcessor`]): Who answers.
        rows (`list[dict]`): Of [`read_rows`].
        folder (`Path`): That their paths begin in.
        senses (`str`, *optional*, defaults to `"both"`): One of `SENSES`.
        batch_size (`int`, *optional*, defaults to 16): Questions that are answered together.
        on_answers (`Callable`, *optional*): Called with the number of questions that were just answered.
    """
    answers = []
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        chats = [chat_of(row, folder, senses) for row in batch]
        answers += answer(model, processor, chats, load_audio_from_video="sound" in SENSES[senses])
        if on_answers is not None:
            on_answers(len(batch))
    return answers


@torch.no_grad()
def answer(
    model, processor, chats: list[list[dict]], max_new_tokens: int = 16, load_audio_from_video: bool = True
) -> list[str]:
    """The answers to a batch of chats, greedily chosen."""
    inputs = processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        load_audio_from_video=load_audio_from_video,
        return_tensors="pt",
    ).to(model.device, model.dtype)
    ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    texts = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def score_answers(rows: list[dict], answers: list[str], senses: str = "both") -> list[SyntheticScore]:
    """Compares answers with those of the rows, type by type."""
    scores = []
    for type in CLOSED_TYPES:
        chosen = [(row, given) for row, given in zip(rows, answers, strict=True) if row["question_type"] == type]
        if not chosen:
            continue
        pairs = [(row["messages"][-1]["content"][0]["text"], given) for row, given in chosen]
        scores.append(
            SyntheticScore(
                type=type,
                senses=senses,
                num_questions=len(pairs),
                accuracy=sum(right == given for right, given in pairs) / len(pairs),
                chance=sum(1 / row["num_candidates"] for row, _ in chosen) / len(pairs),
                median_error=(
                    statistics.median(abs(_seconds(right) - _seconds(given)) for right, given in pairs)
                    if type == "time"
                    else None
                ),
            )
        )
    return scores


def _seconds(text: str) -> float:
    number = re.search(r"\d+(\.\d+)?", text)
    return float(number[0]) if number else float("inf")


def chat_of(row: dict, folder: Path, senses: str = "both") -> list[dict]:
    """
    The question of a row as a chat about what the senses get of its clip.

    Args:
        row (`dict`): Of those of [`Sample`].
        folder (`Path`): That its paths begin in.
        senses (`str`, *optional*, defaults to `"both"`): One of `SENSES`.
    """
    video, question = row["messages"][0]["content"]
    path, given = str(folder / video["path"]), SENSES[senses]
    media = []
    if "video" in given:
        media = [{"type": "video", "path": path}]
    elif "sound" in given:
        media = [{"type": "audio", "path": path}]
    return [{"role": "user", "content": [*media, question]}]
