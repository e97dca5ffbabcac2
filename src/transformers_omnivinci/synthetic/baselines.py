"""
What can be answered without seeing, without hearing, or with neither: the baselines of the synthetic world.

They do not look at rendered clips, but know the facts of the sense that they have, without error, and learn from many
scenes how probable each possible answer is, given what is known of it: a naive Bayes classifier over candidates.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator

from .config import WorldConfig
from .dataset import Sample
from .questions import CLOSED_TYPES, PICTURE_FORMS, QUESTION_FORMS, Question, format_seconds
from .scenes import COLOURS, FORMS, SOUNDS, SPLITS, Scene, held_out

# What each baseline knows beside the question.
SENSES = {"text": (), "picture": ("picture",), "sound": ("sound",)}
_HELD_OUT = frozenset().union(*map(held_out, SPLITS))
_FORMS = {form.name: form for form in (*QUESTION_FORMS, *PICTURE_FORMS)}
_NAMES = {
    name: re.compile(rf"\b({'|'.join(values)})\b")
    for name, values in (("colour", COLOURS), ("form", FORMS), ("sound", SOUNDS))
}


class Baseline:
    """
    Guesses the answers from one sense, or none.

    Args:
        senses (`str`): `"text"` knows the question alone, `"picture"` and `"sound"` the facts of one sense too.
        config ([`WorldConfig`], *optional*): The world's.

    Raises:
        ValueError: there are no such senses.
    """

    def __init__(self, senses: str, config: WorldConfig | None = None):
        if senses not in SENSES:
            raise ValueError(f"Unknown senses {senses!r}: {', '.join(map(repr, SENSES))} are accepted.")
        self.senses, self.config = SENSES[senses], config or WorldConfig()
        self.trials, self.hits = Counter(), Counter()

    def fit(self, samples: Iterable[Sample]) -> "Baseline":
        """Learns from the questions of samples that are of `CLOSED_TYPES`."""
        for scene, question in _questions(samples):
            for answer, features in self._candidates(scene, question):
                keys = [(question.form, *feature) for feature in features]
                self.trials.update(keys)
                if answer == question.answer:
                    self.hits.update(keys)
        return self

    def guess(self, scene: Scene, question: Question) -> str:
        """The most probable answer; the right one is not looked at."""

        def score(candidate) -> float:
            keys = [(question.form, *feature) for feature in candidate[1]]
            return sum(math.log((self.hits[key] + 1) / (self.trials[key] + 2)) for key in keys)

        return max(self._candidates(scene, question), key=score)[0]

    def scores(self, samples: Iterable[Sample]) -> dict[str, tuple[float, float, int]]:
        """For each type of question: accuracy, chance (the mean of one in `num_candidates`), number of questions."""
        right, chance, total = Counter(), Counter(), Counter()
        for scene, question in _questions(samples):
            total[question.type] += 1
            chance[question.type] += 1 / question.num_candidates
            right[question.type] += self.guess(scene, question) == question.answer
        return {type: (right[type] / total[type], chance[type] / total[type], total[type]) for type in total}

    def _candidates(self, scene: Scene, question: Question) -> Iterator[tuple[str, list[tuple[Hashable, ...]]]]:
        """Possible answers, each with what is known of it."""
        named = {name: match[0] for name, pattern in _NAMES.items() if (match := pattern.search(question.text))}
        answers = _FORMS[question.form].answers(self.config)
        shapes = scene.shapes if "picture" in self.senses else ()
        sounds = scene.sounds if "sound" in self.senses else ()
        if answers == COLOURS and shapes:
            yield from ((shape.colour, _event_features(shapes, shape, named)) for shape in shapes)
        elif answers == FORMS and shapes:
            yield from ((shape.form, _event_features(shapes, shape, named)) for shape in shapes)
        elif answers == SOUNDS and sounds:
            yield from ((sound.kind, _event_features(sounds, sound, named)) for sound in sounds)
        else:
            yield from ((answer, _answer_features(answer, shapes, sounds, named)) for answer in answers)


def _questions(samples: Iterable[Sample]) -> Iterator[tuple[Scene, Question]]:
    for sample in samples:
        yield from ((sample.scene, question) for question in sample.questions if question.type in CLOSED_TYPES)


def _event_features(events, event, named: dict[str, str]) -> list[tuple[Hashable, ...]]:
    """What is known of a shape among shapes or a sound among sounds, and of how it relates to what is named."""
    place, count = events.index(event), len(events)
    others = [other for other in events if other is not event]
    length = event.end - event.start
    values = {value for value in vars(event).values() if isinstance(value, str)}
    is_named = bool(values & set(named.values()))
    distance = [
        place - index
        for index, other in enumerate(events)
        if set(named.values()) & {value for value in vars(other).values() if isinstance(value, str)}
    ]
    combinations = {
        (
            getattr(event, "colour", named.get("colour")),
            getattr(event, "form", named.get("form")),
            getattr(event, "kind", named.get("sound")),
        )
    }
    before = event.start - (events[place - 1].end if place else 0.0)
    return [
        ("place", place, count),
        ("slot", event.slot),
        ("longer than", sum(length > other.end - other.start for other in others), count),
        ("start", round(event.start)),
        ("gap before", round(before)),
        ("values", *sorted(values)),
        ("is named", is_named),
        ("from named", *distance),
        ("held out", bool(combinations & _HELD_OUT)),
    ]


def _answer_features(answer: str, shapes, sounds, named: dict[str, str]) -> list[tuple[Hashable, ...]]:
    """What is known of an answer that the sense does not contain."""
    features = [("answer", answer)] + [("with", answer, value) for value in named.values()]
    for events in (shapes, sounds):
        if events:
            times = [
                f"{format_seconds(event.start)} seconds" == answer
                for event in events
                if set(named.values()) & set(map(str, vars(event).values()))
            ]
            kinds = [value for event in events for value in vars(event).values() if isinstance(value, str)]
            features += [
                ("count", answer, len(events)),
                ("last", answer, round(events[-1].end)),
                ("time of the named", any(times)),
                *(("beside", answer, kind) for kind in kinds),
                *(("count of the named", answer, kinds.count(value)) for value in named.values()),
            ]
    motions = [
        getattr(shape, "motion", None) == answer
        for shape in shapes
        if {shape.colour, shape.form} <= set(named.values())
    ]
    held = any((shape.colour, shape.form, answer) in _HELD_OUT for shape in shapes)
    return [*features, ("motion of the named", any(motions)), ("held out", held)]
