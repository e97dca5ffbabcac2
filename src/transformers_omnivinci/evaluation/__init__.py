"""
Evaluation of models: suites of questions, how they are asked, and how answers are scored.

- `letters`, `metrics`: texts compared, without a model.
- `suites`: questions from files.
- `asking`, `evaluate`, `answers`: a model asked about them, and what it answered on disk.
- `scoring`, `confusion`: marks of answers, scores by category, and which class is taken for which.
- `synthetic`: questions about clips of the synthetic world.
"""

from .answers import AnswerFile, checkpoint_version, digest_file, read_answers
from .asking import SENSES, Asker, check_senses
from .confusion import ConfusionMatrix, confusion_matrix, draw_confusion
from .evaluate import answer_questions, check_questions
from .letters import choice_letter, strip_letters
from .metrics import (
    anls,
    bootstrap_interval,
    edit_distance,
    english_normalizer,
    exact_match,
    relaxed_match,
    vqa_match,
    wilson_interval,
    word_errors,
)
from .scoring import Mark, Score, make_marker, score
from .suites import SUITES, Question, read_questions
from .synthetic import SyntheticScore, evaluate_synthetic, score_answers

__all__ = [
    "SENSES",
    "SUITES",
    "AnswerFile",
    "Asker",
    "ConfusionMatrix",
    "Mark",
    "Question",
    "Score",
    "SyntheticScore",
    "anls",
    "answer_questions",
    "bootstrap_interval",
    "check_questions",
    "check_senses",
    "checkpoint_version",
    "choice_letter",
    "confusion_matrix",
    "digest_file",
    "draw_confusion",
    "edit_distance",
    "english_normalizer",
    "evaluate_synthetic",
    "exact_match",
    "make_marker",
    "read_answers",
    "read_questions",
    "relaxed_match",
    "score",
    "score_answers",
    "strip_letters",
    "vqa_match",
    "wilson_interval",
    "word_errors",
]
