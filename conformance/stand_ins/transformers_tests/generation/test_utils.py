"""Stands in for a file that the source distribution lacks."""


class GenerationTesterMixin:
    """Without tests: those of transformers are in its repository alone; `test_generation_omnivinci.py` has ours."""
