"""Evaluation of models: `synthetic` asks questions about clips of the synthetic world."""

from .synthetic import SENSES, SyntheticScore, evaluate_synthetic, score_answers

__all__ = ["SENSES", "SyntheticScore", "evaluate_synthetic", "score_answers"]
