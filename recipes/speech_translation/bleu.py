"""BLEU of the answers that `omnivinci eval --answers` has kept, by sacrebleu."""

import re
from collections.abc import Sequence
from pathlib import Path

from transformers_omnivinci.evaluation import read_answers, read_questions

TOKENIZERS = {"Chinese": "zh", "Japanese": "char"}
"""How sacrebleu splits a target language, where that is not by words. CoVoST 2 itself counts characters of both."""


def tokenizer_of(question: str) -> str:
    """The tokenizer for the target language that a question names: "Translate the English speech to German."."""
    found = re.search(r" to (\w+)\.$", question)
    return TOKENIZERS.get(found[1] if found else "", "13a")


def pair(test: Path, answers: Path, senses: str = "both") -> tuple[list[str], list[str]]:
    """
    The answers and the right translations, in the order of the questions.

    Args:
        test (`Path`): The questions, `test.jsonl`.
        answers (`Path`): What was answered.
        senses (`str`): How they were asked, see [`read_answers`].

    Raises:
        ValueError: a question was not answered, or a file is not what it should be.
        OSError: a file is missing.
    """
    questions, given = read_questions(test, "short-answer"), read_answers(answers, senses)
    missing = [question.name for question in questions if question.name not in given]
    if missing:
        raise ValueError(f"{answers} lacks {len(missing)} answers, that to {missing[0]} for one: ask these first.")
    return [given[question.name] for question in questions], [question.references[0] for question in questions]


def bleu(answers: Sequence[str], references: Sequence[str], tokenize: str) -> dict:
    """
    BLEU of a corpus.

    Args:
        answers, references (`Sequence[str]`): One for each sentence.
        tokenize (`str`): As sacrebleu names it, such as `"13a"` for languages with spaces.

    Returns:
        `dict`: `bleu` and `chrf`, from 0 to 100, and the `signature` of the former.

    Raises:
        ImportError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ImportError(f"BLEU needs sacrebleu: pip install sacrebleu ({error}).") from error
    metric = BLEU(tokenize=tokenize)
    score = metric.corpus_score(list(answers), [list(references)])
    chrf = CHRF().corpus_score(list(answers), [list(references)])
    return {"bleu": score.score, "chrf": chrf.score, "signature": str(metric.get_signature())}
