"""
Answers to questions about films of the synthetic world, for tests: it knows what happens in them, but only of what
it is shown or played, and guesses otherwise.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...synthetic import read_events
from ..world_claims import cut_to
from ..world_questions import answer
from .protocol import Reply, Request
from .world_captioner import SENSES


@dataclass(frozen=True)
class WorldAnswererOptions:
    """It has none."""


class WorldAnswerer:
    """A [`Backend`] that answers the questions of the stage `filter`."""

    model = "test-answerer"

    def __init__(self, options: WorldAnswererOptions):
        self.options = options

    def check(self) -> None:
        """Always passes."""

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Reply:
        events = []
        try:
            for medium in request.media:
                told = cut_to(read_events(medium.source), medium.start, medium.end)
                events += [event for event in told if event.sense in SENSES[medium.senses]]
        except (OSError, ValueError) as error:
            return Reply(error=str(error))
        known, options = answer(request.fields["question"], events), request.fields["options"]
        if known is None or (options and known not in options):
            known = random.Random(request.seed).choice(options) if options else "unknown"
        text = known
        if options:
            text = "ABCDEFGHIJ"[options.index(known)]
        return Reply(text, len(request.text.split()), 1)
