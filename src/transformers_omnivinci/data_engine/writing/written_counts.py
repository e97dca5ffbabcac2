"""What was written, counted while it is written."""

import re
from collections import Counter
from dataclasses import dataclass, field

from ..chat_rows import LETTERS, kept_questions
from ..columns import QuestionAnswer, Segment

MOST_REASONS = 50
"""Different reasons that are counted apart; the rest are counted together."""
NEEDS = ("both senses", "the picture", "the sound", "either sense", "no video")


@dataclass
class Choices:
    """
    Multiple choices of one number of options.

    Attributes:
        letters (`Counter`): How often each letter is right.
        longest (`int`): How often the right option is longer than all others.
    """

    letters: Counter = field(default_factory=Counter)
    longest: int = 0

    @property
    def total(self) -> int:
        """How many there are."""
        return self.letters.total()


@dataclass
class StageCounts:
    """What a stage took in all segments: back ends with their models, prompts, calls, tokens, cost and seconds."""

    models: Counter = field(default_factory=Counter)
    prompts: Counter = field(default_factory=Counter)
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    repairs: int = 0
    cost: float = 0.0
    seconds: float = 0.0


@dataclass
class WrittenCounts:
    """
    Counts of a whole output.

    Attributes:
        sources (`int`), segments (`int`), seconds (`float`): That were finished.
        chats (`Counter`), spoken (`Counter`): That were written, by category; those of them whose question is spoken.
        marks (`Counter`), dropped (`Counter`): Questions with each mark; those that were left out for it.
        repeated_captions (`int`), repeated_questions (`int`): That were left out as repetitions.
        rejected_statements (`Counter`): Of captions of one sense, by sense.
        needs (`Counter`): Written questions, by what an answer needs as far as the filter found out, see `NEEDS`.
        choices (`dict[int, Choices]`): Written multiple choices, by their number of options.
        stages (`dict[str, StageCounts]`): By name.
        rejects (`Counter`): Sources and segments that were not used, by stage and reason; numbers in it are left open.
    """

    sources: int = 0
    segments: int = 0
    seconds: float = 0.0
    chats: Counter = field(default_factory=Counter)
    spoken: Counter = field(default_factory=Counter)
    marks: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    repeated_captions: int = 0
    repeated_questions: int = 0
    rejected_statements: Counter = field(default_factory=Counter)
    needs: Counter = field(default_factory=Counter)
    choices: dict[int, Choices] = field(default_factory=dict)
    stages: dict[str, StageCounts] = field(default_factory=dict)
    rejects: Counter = field(default_factory=Counter)
    _source: str | None = None

    def add(self, row: dict, segment: Segment, chats: list[dict], config, left_out: set, senses: list[str]) -> None:
        """
        Counts a segment; those of a source follow each other.

        Args:
            row (`dict`), segment ([`Segment`]): The segment.
            chats (`list[dict]`): Of it, that are written.
            config ([`WriteConfig`]): What is wanted.
            left_out (`set`): Numbers of questions, and `"caption"`, that repeat others.
            senses (`list[str]`): With which senses alone the filter asked.
        """
        self.sources += segment.source != self._source
        self._source = segment.source
        self.segments += 1
        self.seconds += segment.end - segment.start
        self.rejected_statements.update(one["sense"] for one in row.get("rejected_statements", []))
        for question in row.get("questions", []):
            self.marks.update(question["marks"])
            reason = next((mark for mark in config.drop if mark in question["marks"]), None)
            self.dropped.update([reason] if reason else [])
        self.repeated_captions += "caption" in left_out
        self.repeated_questions += len(left_out - {"caption"})
        for chat in chats:
            self.chats[chat["category"]] += 1
            self.spoken[chat["category"]] += any(item["type"] == "audio" for item in chat["messages"][0]["content"])
        for number, question in kept_questions(row, config):
            if number not in left_out:
                self._count_question(question, senses)
        for one in row.get("provenance", []):
            stage = self.stages.setdefault(one["stage"], StageCounts())
            stage.models[f"{one['backend']}: {one['model']}"] += 1
            stage.prompts[one["prompt"]] += 1
            for name in ("calls", "prompt_tokens", "completion_tokens", "repairs", "cost", "seconds"):
                setattr(stage, name, getattr(stage, name) + one[name])

    def reject(self, stage: str, reason: str) -> None:
        """Counts what was not used."""
        key = stage, re.sub(r"(?<!\w)(/\S+|\w+://\S+)", "…", re.sub(r"\d+(\.\d+)?", "…", reason))
        if key not in self.rejects and len(self.rejects) >= MOST_REASONS:
            key = "others", "Other reasons, see rejects.jsonl."
        self.rejects[key] += 1

    def _count_question(self, question: QuestionAnswer, senses: list[str]) -> None:
        if {"deaf", "blind"} <= {*senses}:
            text, deaf, blind = (mark in question.marks for mark in ("text only", "deaf", "blind"))
            self.needs[NEEDS[4 if text else 3 if deaf and blind else 1 if deaf else 2 if blind else 0]] += 1
        if question.options:
            choices = self.choices.setdefault(len(question.options), Choices())
            choices.letters[LETTERS[question.options.index(question.answer)]] += 1
            others = [len(one) for one in question.options if one != question.answer]
            choices.longest += len(question.answer) > max(others)
