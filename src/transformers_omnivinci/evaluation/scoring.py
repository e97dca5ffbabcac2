"""Scores of answers: together and by category, each with how sure it is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .letters import choice_letter
from .metrics import (
    anls,
    bootstrap_interval,
    english_normalizer,
    exact_match,
    relaxed_match,
    vqa_match,
    wilson_interval,
    word_errors,
)
from .suites import Question

MATCHES = {"exact": exact_match, "relaxed": relaxed_match, "anls": anls, "vqa": vqa_match}
SHARES = ("letter", "exact", "relaxed")
"""Metrics that say of an answer that it is right or wrong."""
ALL = "all"


@dataclass(frozen=True)
class Score:
    """
    The score of questions.

    Attributes:
        metric (`str`): `"letter"`, `"exact"`, `"relaxed"`, `"anls"`, `"vqa"` or `"wer"`.
        senses (`str`): How they were asked, one of `SENSES`.
        category (`str`): `"all"`, or a field and its value as `"task_type = Audio Counting"`.
        num_questions (`int`): How many.
        value (`float`, *optional*): Share of right answers, mean score, or word error rate. `None`: nothing was said.
        low, high (`float`, *optional*): Ends of the 95% interval: of Wilson for shares, else by bootstrap.
        num_unclear (`int`, *optional*): Of `"letter"`: answers that name no option, or several; they count as wrong.
        chance (`float`, *optional*): Of `"letter"`: what guessing gives.
    """

    metric: str
    senses: str
    category: str
    num_questions: int
    value: float | None
    low: float | None
    high: float | None
    num_unclear: int | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Mark:
    """
    What one answer counts: scores are `sum(value) / sum(weight)`.

    Attributes:
        value (`float`): Between 0 and 1; of `"wer"` the number of wrong words.
        weight (`int`): 1; of `"wer"` the number of words.
        letter (`str`, *optional*): Of `"letter"`, the option that the answer names, if any.
    """

    value: float
    weight: int = 1
    letter: str | None = None


def make_marker(metric: str, spellings: dict[str, str] | None = None) -> Callable[[Question, str], Mark]:
    """
    How an answer to a question is marked.

    Args:
        metric (`str`): See [`Score`].
        spellings (`dict[str, str]`, *optional*): Of `"wer"`, see [`english_normalizer`].
    """
    if metric == "letter":
        return _mark_letter
    if metric == "wer":
        normalize = english_normalizer(spellings)
        return lambda question, answer: Mark(*word_errors(answer, question.references[0], normalize))
    match = MATCHES[metric]
    return lambda question, answer: Mark(match(answer, question.references))


def score(
    questions: Sequence[Question], marks: Sequence[Mark], metric: str, senses: str = "both", by: Sequence[str] = ()
) -> list[Score]:
    """
    Scores marked answers.

    Args:
        questions (`Sequence[Question]`): The questions.
        marks (`Sequence[Mark]`): A mark of each answer.
        metric (`str`): See [`Score`].
        senses (`str`, *optional*, defaults to `"both"`): How the questions were asked, noted in the scores.
        by (`Sequence[str]`, *optional*): Fields of the rows, for each value of which there is a score. Where a row
            has a list in the field, it counts for each of its values.

    Returns:
        `list[Score]`: of all, then of each category, fields in the given order and values in that of the rows.
    """
    places: dict[str, list[int]] = {ALL: list(range(len(questions)))}
    for name in by:
        for index, question in enumerate(questions):
            for category in _categories(question.row[name]):
                places.setdefault(f"{name} = {category}", []).append(index)
    return [
        _score([questions[index] for index in chosen], [marks[index] for index in chosen], metric, senses, category)
        for category, chosen in places.items()
    ]


def _score(questions: list[Question], marks: list[Mark], metric: str, senses: str, category: str) -> Score:
    values, weights = [mark.value for mark in marks], [mark.weight for mark in marks]
    total, count, letters = sum(weights), len(marks), {}
    if not total:
        return Score(metric, senses, category, count, None, None, None)
    low, high = wilson_interval(sum(values), count) if metric in SHARES else bootstrap_interval(values, weights)
    if metric == "letter":
        letters["num_unclear"] = sum(mark.letter is None for mark in marks)
        letters["chance"] = sum(1 / len(question.options) for question in questions) / count
    return Score(metric, senses, category, count, sum(values) / total, low, high, **letters)


def _mark_letter(question: Question, answer: str) -> Mark:
    letter = choice_letter(answer, question.options)
    return Mark(float(letter == question.references[0]), letter=letter)


def _categories(value) -> Iterator[str]:
    yield from dict.fromkeys(map(str, value)) if isinstance(value, (list, tuple)) else [str(value)]
