"""Stands in for a file that the source distribution lacks."""


class ExportTesterMixin:
    """Without tests: those of transformers are in its repository alone."""
