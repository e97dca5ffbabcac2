"""Tests of LLaMA-Factory."""

from pathlib import Path

STAND_INS = Path(__file__).parent / "stand_ins"
