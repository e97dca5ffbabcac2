"""Questions with reasoning traces, which a reasoning model writes from omni captions (section 3.2)."""

import random
from dataclasses import dataclass, field, replace

from .asking_stage import AskingStage
from .backends.protocol import Request
from .chat_rows import LETTERS
from .columns import (
    Category,
    OmniCaption,
    QuestionAnswer,
    Questions,
    Segment,
    UnusableQuestion,
    UnusableQuestions,
)
from .stage import Failed, seed_of
from .typed import json_schema


@dataclass(frozen=True)
class WrittenQuestion:
    """A question as the model writes it."""

    category: Category
    question: str = field(metadata={"description": "Without its options."})
    answer: str = field(metadata={"description": "The right one."})
    wrong_options: list[str] = field(
        metadata={"description": "The others of a multiple choice, without letters; empty for an open question."}
    )
    reasoning: str = field(metadata={"description": "From what is seen and heard, with seconds, to the answer."})


@dataclass(frozen=True)
class WrittenQuestions:
    """What the model writes."""

    questions: list[WrittenQuestion]


class QuestionAnswering(AskingStage):
    """
    Writes open questions and multiple choices about a segment from its omni caption. Among the multiple choices of a
    segment, each letter is right equally often, as far as their number allows. Questions that make no sense are listed
    with the reason; only if all are so, the model is asked again.
    """

    name = "questions"
    takes, gives = (Segment, OmniCaption), (Questions, UnusableQuestions)

    def process(self, rows):
        config = self.config
        requests = [[self._request(segment, caption)] for segment, caption in rows]
        results = []
        for (segment, _), (asked,) in zip(rows, self.ask_all(requests, WrittenQuestions, self._check)):
            if asked.error:
                results.append(Failed(asked.error, self.account([asked])))
                continue
            rng = random.Random(seed_of(self.bench.config.seed, "letters", segment.label))
            good, bad = sort_out(asked.value.questions, config.categories)
            results.append((Questions(balance(good, rng)), UnusableQuestions(bad), self.account([asked])))
        return results

    def _request(self, segment: Segment, caption: OmniCaption) -> Request:
        config = self.config
        fields = {
            "caption": caption.omni_caption,
            "seconds": round(segment.end - segment.start, 3),
            "categories": config.categories,
            "multiple_choice": config.multiple_choice,
            "open": config.open,
            "num_options": config.num_options,
        }
        schema = json_schema(WrittenQuestions)
        questions = schema["properties"]["questions"]
        questions["maxItems"] = config.multiple_choice + config.open
        one = questions["items"]["properties"]
        one["category"]["enum"], one["wrong_options"]["maxItems"] = config.categories, config.num_options - 1
        return replace(self.request(segment.label, fields), schema=schema)

    def _check(self, request: Request, written: WrittenQuestions) -> None:
        good, bad = sort_out(written.questions, self.config.categories)
        if bad and not good:
            raise ValueError(f"none of its questions can be used: {bad[0].reason}")


def sort_out(
    written: list[WrittenQuestion], categories: list[str]
) -> tuple[list[WrittenQuestion], list[UnusableQuestion]]:
    """The questions that can be used, without spaces around their texts, and the others with the reason."""
    good, bad = [], []
    for one in written:
        wrong = [text.strip() for text in one.wrong_options]
        one = replace(one, question=one.question.strip(), answer=one.answer.strip(), wrong_options=wrong)
        options = [one.answer, *wrong]
        if not one.question or not one.answer:
            reason = "It has no text, or no answer."
        elif one.category not in categories:
            reason = f"It is of the category {one.category!r}, which was not asked for."
        elif not all(options) or len({text.lower() for text in options}) != len(options):
            reason = f"Its options are not different ones: {options}."
        elif len(options) > len(LETTERS):
            reason = f"It has {len(options)} options: {len(LETTERS)} are accepted."
        else:
            good.append(one)
            continue
        bad.append(UnusableQuestion(one.question, reason))
    return good, bad


def balance(written: list[WrittenQuestion], rng: random.Random) -> list[QuestionAnswer]:
    """The questions with their options in random order, the right ones at each place in turn."""
    questions: list[QuestionAnswer] = []
    places: dict[int, list[int]] = {}  # by the number of options, those that have not had their turn
    for one in written:
        options = list(one.wrong_options)
        if options:
            rng.shuffle(options)
            number = len(options) + 1
            left = places.get(number) or rng.sample(range(number), number)
            options.insert(left[-1], one.answer)
            places[number] = left[:-1]
        questions.append(QuestionAnswer(one.category, one.question, options, one.answer, one.reasoning))
    return questions
