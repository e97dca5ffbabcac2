"""What models of transformers in this process share: when they are loaded, and what becomes of their errors."""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from ...hub_options import may_be_repository
from ...nano import NANO
from .protocol import Reply, Request

OWN = "nano"
"""What configs call the small model that comes with the package."""


class ProcessModel:
    """
    Base of the back ends around a model that is loaded with the first request, by default a pipeline of transformers.
    Requests are answered one after another.

    Args:
        options: With `model` (a folder, a repository of the Hub, or `"nano"`), `device` and `dtype`.
    """

    fails_to: ClassVar[str]
    """What errors say that the model cannot do."""

    def __init__(self, options):
        self.options, self.model = options, options.model

    @property
    def task(self) -> str:
        """The pipeline's name in transformers."""
        raise NotImplementedError

    def answer(self, request: Request) -> Reply:
        """The reply to a request. Import, OS, runtime, type and value errors become one of a reply."""
        raise NotImplementedError

    @cached_property
    def pipeline(self):
        """The pipeline, loaded."""
        from transformers import pipeline

        options = self.options
        path = NANO if options.model == OWN else options.model
        return pipeline(self.task, model=path, device=options.device, dtype=options.dtype)

    def check(self) -> None:
        """A ValueError if there is no such folder, and the name cannot be that of a repository of the Hub."""
        name = self.model
        if name != OWN and not os.path.isdir(name) and not may_be_repository(name):
            accepted = "a folder, or a repository such as owner/name, is accepted."
            raise ValueError(f"There is no folder {name!r}: {accepted}")

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to each request."""
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Reply:
        try:
            return self.answer(request)
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            return Reply(error=f"The model {self.model} cannot {self.fails_to}: {' '.join(str(error).split())}")
