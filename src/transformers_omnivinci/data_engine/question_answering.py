"""Questions with reasoning traces, which a reasoning model writes from omni captions (section 3.2)."""

import random
from dataclasses import dataclass, field

from .asking_stage import AskingStage
from .columns import Category, OmniCaption, QuestionAnswer, Questions, Segment
from .stage import Failed, seed_of


@dataclass(frozen=True)
class WrittenQuestion:
    """A question as the model writes it."""

    category: Category
    question: str = field(metadata={"description": "Without its options."})
    options: list[str] = field(metadata={"description": "Without letters; empty for an open question."})
    answer: str = field(metadata={"description": "Of a multiple choice, one of the options word for word."})
    reasoning: str = field(metadata={"description": "From what is seen and heard, with seconds, to the answer."})


@dataclass(frozen=True)
class WrittenQuestions:
    """What the model writes."""

    questions: list[WrittenQuestion]


class QuestionAnswering(AskingStage):
    """
    Writes open questions and multiple choices about a segment from its omni caption. Among the multiple choices of a
    segment, each letter is right equally often, as far as their number allows.
    """

    name = "questions"
    takes, gives = (Segment, OmniCaption), (Questions,)

    def process(self, rows):
        config = self.config
        requests = [
            [
                self.request(
                    segment.label,
                    {
                        "caption": caption.omni_caption,
                        "seconds": round(segment.end - segment.start, 3),
                        "categories": config.categories,
                        "multiple_choice": config.multiple_choice,
                        "open": config.open,
                        "num_options": config.num_options,
                    },
                )
            ]
            for segment, caption in rows
        ]
        results = []
        for (segment, _), (asked,) in zip(rows, self.ask_all(requests, WrittenQuestions, _check)):
            if asked.error:
                results.append(Failed(asked.error, self.account([asked])))
                continue
            rng = random.Random(seed_of(self.bench.config.seed, "letters", segment.label))
            results.append((Questions(balance(asked.value.questions, rng)), self.account([asked])))
        return results


def balance(written: list[WrittenQuestion], rng: random.Random) -> list[QuestionAnswer]:
    """The questions with their options in random order, the right ones at each place in turn."""
    questions: list[QuestionAnswer] = []
    places: dict[int, list[int]] = {}  # by the number of options, those that have not had their turn
    for one in written:
        options = [text for text in one.options if text != one.answer]
        if one.options:
            rng.shuffle(options)
            number = len(one.options)
            left = places.get(number) or rng.sample(range(number), number)
            options.insert(left[-1], one.answer)
            places[number] = left[:-1]
        questions.append(QuestionAnswer(one.category, one.question.strip(), options, one.answer, one.reasoning))
    return questions


def _check(request, written: WrittenQuestions) -> None:
    for number, one in enumerate(written.questions):
        where = f"question {number}"
        if not one.question.strip() or not one.answer.strip():
            raise ValueError(f"{where} has no text, or no answer.")
        if one.category not in request.fields["categories"]:
            raise ValueError(f"{where} is of the category {one.category!r}, which was not asked for.")
        if one.options and (len(set(one.options)) != len(one.options) or len(one.options) < 2):
            raise ValueError(f"the options of {where} are not at least two different ones: {one.options}.")
        if one.options and one.answer not in one.options:
            raise ValueError(f"the answer to {where}, {one.answer!r:.60}, is none of its options.")
