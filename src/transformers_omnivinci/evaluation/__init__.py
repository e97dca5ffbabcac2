"""
Evaluation of models: suites of questions, and how their answers are scored. `letters` and `metrics` compare texts
without a model.
"""

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
from .synthetic import SENSES, SyntheticScore, evaluate_synthetic, score_answers

__all__ = [
    "SENSES",
    "SyntheticScore",
    "anls",
    "bootstrap_interval",
    "choice_letter",
    "edit_distance",
    "english_normalizer",
    "evaluate_synthetic",
    "exact_match",
    "relaxed_match",
    "score_answers",
    "strip_letters",
    "vqa_match",
    "wilson_interval",
    "word_errors",
]
