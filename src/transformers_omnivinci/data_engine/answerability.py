"""
Marks questions that teach little: those that are answered without the video, or with one of its senses alone; answers
that the caption does not support; and questions that were asked before.
"""

from dataclasses import dataclass, replace

from .asking_stage import AskingStage
from .backends.protocol import Medium, Request
from .chat_rows import written_question
from .columns import OmniCaption, QuestionAnswer, Questions, Segment
from .likeness import likeness, triples_of, words_of
from .stage import Failed
from .structured import Asked

MARKS = {
    "text only": "answered without the video",
    "deaf": "answered by the picture alone",
    "blind": "answered by the sound alone",
    "unsupported": "an answer that the caption does not support",
    "duplicate": "nearly the same question as one before it",
}
"""What the filter marks."""
SHOWN = {"text only": None, "deaf": "picture", "blind": "sound"}


@dataclass(frozen=True)
class Support:
    """What the judge writes."""

    supported: bool
    reason: str


class Answerability(AskingStage):
    """
    Asks the questions of a segment without a sense, or without the video, and marks those that are answered all the
    same. A multiple choice is asked in several orders of its options, and counts as answered only if it is in all.
    """

    name = "filter"
    takes, gives = (Segment, OmniCaption, Questions), (Questions,)

    def process(self, rows):
        plans = [self._plan(*row) for row in rows]
        answers = self.ask_all([[request for _, _, _, request in plan] for plan in plans])
        judged = self._judge(rows)
        results = []
        for (_, _, questions), plan, asked, support in zip(rows, plans, answers, judged):
            took = [self.account(asked)] if asked else []
            if support:
                prompt = self.find_prompt(self.config.support_prompt)
                took.append(self.account(support, self.config.support, prompt))
            error = next((one.error for one in (*asked, *support) if one.error), "")
            if error:
                results.append(Failed(error, *took))
                continue
            marks = [set() for _ in questions.questions]
            for number, duplicate in enumerate(_duplicates(questions.questions, self.config.duplicates)):
                if duplicate:
                    marks[number].add("duplicate")
            for number, one in enumerate(support):
                if not one.value.supported:
                    marks[number].add("unsupported")
            for number, question in enumerate(questions.questions):
                for senses in self.config.senses:
                    rounds = [
                        is_right(one.value, question.answer, options)
                        for (place, given, options, _), one in zip(plan, asked)
                        if place == number and given == senses
                    ]
                    if all(rounds):
                        marks[number].add(senses)
            marked = zip(questions.questions, marks)
            results.append(
                (Questions([replace(one, marks=[m for m in MARKS if m in ms]) for one, ms in marked]), *took)
            )
        return results

    def _plan(self, segment: Segment, caption: OmniCaption, questions: Questions):
        """For each time that a question is asked: its number, the senses, the options in that order, the request."""
        plan = []
        for number, question in enumerate(questions.questions):
            for senses in self.config.senses:
                media = ()
                if SHOWN[senses] is not None:
                    media = (Medium(segment.source, segment.start, segment.end, SHOWN[senses]),)
                for turn in range(min(self.config.rounds, len(question.options)) or 1):
                    options = [*question.options[turn:], *question.options[:turn]]
                    turned = replace(question, options=options)
                    fields = {
                        "text": written_question(turned),
                        "question": question.question,
                        "options": options,
                        "senses": senses,
                    }
                    name = f"{segment.label}/{number}/{senses}/{turn}"
                    plan.append((number, senses, options, self.request(name, fields, media)))
        return plan

    def _judge(self, rows) -> list[list[Asked]]:
        if self.config.support is None:
            return [[] for _ in rows]
        prompt = self.find_prompt(self.config.support_prompt)
        requests: list[list[Request]] = [
            [
                self.request(
                    f"{segment.label}/{number}",
                    {"caption": caption.omni_caption, "question": one.question, "answer": one.answer},
                    prompt=prompt,
                )
                for number, one in enumerate(questions.questions)
            ]
            for segment, caption, questions in rows
        ]
        return self.ask_all(requests, Support, backend=self.config.support)


def is_right(text: str, answer: str, options: list[str]) -> bool:
    """Whether a model's text gives an answer: names that option, or has all of its words one after another."""
    from ..evaluation.letters import choice_letter

    if options:
        return choice_letter(text, options) == "ABCDEFGHIJ"[options.index(answer)]
    return f" {' '.join(words_of(answer))} " in f" {' '.join(words_of(text))} "


def _duplicates(questions: list[QuestionAnswer], share: float) -> list[bool]:
    """Which questions have so many triples of words in common with one before them."""
    seen, found = [], []
    for one in questions:
        triples = triples_of(f"{one.question} {one.answer}")
        found.append(any(likeness(triples, other) >= share for other in seen))
        seen.append(triples)
    return found
