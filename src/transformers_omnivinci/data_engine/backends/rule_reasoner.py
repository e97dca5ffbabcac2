"""A corrector, writer of questions and judge for tests, by rules of the synthetic world: it reads no prompt."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...synthetic import claims_of
from ..typed import plain
from ..world_questions import answer, write_questions
from ..world_rules import correct
from .protocol import Reply, Request


@dataclass(frozen=True)
class RuleReasonerOptions:
    """
    How often it fails.

    Attributes:
        garbage (`float`): Share of the answers that are no JSON at the first attempt, from 0 to 1.
    """

    garbage: float = 0.0


class RuleReasoner:
    """A [`Backend`] that answers the stages `cross_modal_correction`, `questions` and `filter` by rules."""

    model = "test-reasoner"

    def __init__(self, options: RuleReasonerOptions):
        self.options = options

    def check(self) -> None:
        """Always passes."""

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Reply:
        rules = {"cross_modal_correction": self._correct, "questions": self._ask, "filter": self._judge}
        rule = rules.get(request.task)
        if rule is None:
            return Reply(error=f"A test-reasoner has no rules for the stage {request.task}.")
        if random.Random(request.seed).random() < self.options.garbage:
            return Reply("{broken", len(request.text.split()), 1)
        text = json.dumps(plain(rule(request)), ensure_ascii=False)
        return Reply(text, len(request.text.split()), len(text.split()))

    def _correct(self, request: Request) -> dict:
        caption, rejected = correct(request.fields["clips"])
        return {"omni_caption": caption, "rejected_statements": rejected}

    def _ask(self, request: Request) -> dict:
        fields, rng = request.fields, random.Random(request.seed)
        found = write_questions(claims_of(fields["caption"]), fields["categories"], rng)
        chosen = []
        for number, one in enumerate(found[: fields["multiple_choice"] + fields["open"]]):
            others = []
            if number < fields["multiple_choice"]:
                others = rng.sample(one["others"], min(fields["num_options"] - 1, len(one["others"])))
            asked = {name: one[name] for name in ("category", "question", "answer", "reasoning")}
            chosen.append({**asked, "wrong_options": others})
        return {"questions": chosen}

    def _judge(self, request: Request) -> dict:
        told = answer(request.fields["question"], claims_of(request.fields["caption"]))
        is_supported = told == request.fields["answer"]
        return {"supported": is_supported, "reason": f"By the caption, the answer is {told}."}
