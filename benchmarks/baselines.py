"""
How far a single modality gets in the synthetic world: oracles that know the question alone, or also everything that is
seen, or everything that is heard.

The oracles do not look at rendered clips. They are given the events of their modality without error, and learn from
many scenes how likely each possible answer is given what they know about it: a naive Bayes classifier over candidates.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator

from transformers_omnivinci.synthetic import (
    CLOSED_TYPES,
    COLOURS,
    FORMS,
    MODALITIES,
    SOUNDS,
    SPLITS,
    Question,
    Sample,
    Scene,
    SyntheticDataset,
    WorldConfig,
    held_out,
)
from transformers_omnivinci.synthetic.candidates import format_seconds

from ._harness import Report

NOTE = "Shares of right answers. Chance is one in as many answers as the better single modality leaves."
SENSES = {"text": (), "picture": ("picture",), "sound": ("sound",)}
"""What each oracle knows besides the question."""

_HELD_OUT = frozenset().union(*map(held_out, SPLITS))
_FORMS = {form.name: form for modality in MODALITIES.values() for form in modality.forms}
_NAMES = {
    name: re.compile(rf"\b({'|'.join(values)})\b")
    for name, values in (("colour", COLOURS), ("form", FORMS), ("sound", SOUNDS))
}


class Baseline:
    """
    An oracle for one modality, or for none.

    Args:
        senses (`str`): A key of `SENSES`.
        config ([`WorldConfig`], *optional*): The world's config.
    """

    def __init__(self, senses: str, config: WorldConfig | None = None):
        self.senses, self.config = SENSES[senses], config or WorldConfig()
        self.trials, self.hits = Counter(), Counter()

    def fit(self, samples: Iterable[Sample]) -> "Baseline":
        """Learns from the questions of `CLOSED_TYPES` in the samples. Returns itself."""
        for scene, question in _questions(samples):
            for answer, features in self._candidates(scene, question):
                keys = [(question.form, *feature) for feature in features]
                self.trials.update(keys)
                if answer == question.answer:
                    self.hits.update(keys)
        return self

    def guess(self, scene: Scene, question: Question) -> str:
        """The most likely answer to a question, whose right answer is not looked at."""

        def score(candidate) -> float:
            keys = [(question.form, *feature) for feature in candidate[1]]
            return sum(math.log((self.hits[key] + 1) / (self.trials[key] + 2)) for key in keys)

        return max(self._candidates(scene, question), key=score)[0]

    def scores(self, samples: Iterable[Sample]) -> dict[str, tuple[float, float, int]]:
        """
        Accuracy, chance (the mean of 1 / `num_candidates`) and number of questions, for each type of question.
        """
        right, chance, total = Counter(), Counter(), Counter()
        for scene, question in _questions(samples):
            total[question.type] += 1
            chance[question.type] += 1 / question.num_candidates
            right[question.type] += self.guess(scene, question) == question.answer
        return {type: (right[type] / total[type], chance[type] / total[type], total[type]) for type in total}

    def _candidates(self, scene: Scene, question: Question) -> Iterator[tuple[str, list[tuple[Hashable, ...]]]]:
        """Possible answers, each with its features."""
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
    """What is known about one shape or sound among others, and about its relation to what the question names."""
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
    """What is known about an answer that is not among the events of the oracle's modality."""
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__)
    parser.add_argument("--num-clips", type=int, default=6000, help="to learn from and to ask about (default: 6000)")
    arguments = parser.parse_args()
    report = Report("baselines", vars(arguments), NOTE)
    train, test = (SyntheticDataset(split, arguments.num_clips, types=CLOSED_TYPES) for split in ("train", "test"))
    scores = {senses: Baseline(senses).fit(train).scores(test) for senses in SENSES}
    rows = [
        {"type": type, "questions": total, "chance": chance}
        | {f"{senses} alone": scores[senses][type][0] for senses in SENSES}
        for type, (_, chance, total) in scores["text"].items()
    ]
    report.add("Right answers of a single modality", rows)
    report.save()


if __name__ == "__main__":
    main()
