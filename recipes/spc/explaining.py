"""Charts explained in words, and explanations read back as facts."""

import re

from .charts import KINDS

SENTENCES = {
    "cluster": "A cluster of points lies {side}, in the {place} part.",
    "constant": "The values stay constant in the {place} part.",
    "cycling": "The values cycle {count} times.",
    "missing": "Values are missing in the {place} part.",
    "period_trending": "The values go {side} again and again, {count} times.",
    "periodic_patterns": "A peak goes {side} at regular distances, {count} times.",
    "shift": "The mean shifts {side} in the {place} part.",
    "trending": "The values trend {side} all along.",
    "uneven": "The spread is wider in the {place} part.",
}
VALUES = {"side": "up|down", "place": "early|middle|late", "count": r"\d+"}


def explain(kind: str, facts: dict[str, str]) -> str:
    """A sentence that tells the class of a chart and its facts."""
    return SENTENCES[kind].format(**facts)


def read_explanation(text: str) -> tuple[str, dict[str, str]] | None:
    """The class and the facts that a sentence of [`explain`] tells. `None`: it is no such sentence."""
    for kind in KINDS:
        pattern = re.escape(SENTENCES[kind])
        for name, values in VALUES.items():
            pattern = pattern.replace(re.escape("{" + name + "}"), f"(?P<{name}>{values})")
        if match := re.fullmatch(pattern, text.strip()):
            return kind, match.groupdict()
    return None


def score_explanation(text: str, kind: str, facts: dict[str, str]) -> tuple[int, int]:
    """
    How many facts of a chart an explanation tells rightly. The class is one of them; where it is wrong, none is right.
    Of counts, one more or less is right, as cycles are cut at the ends of a chart.

    Returns:
        `tuple[int, int]`: right facts, and all.
    """
    told = read_explanation(text)
    if told is None or told[0] != kind:
        return 0, 1 + len(facts)
    right = [
        abs(int(told[1][name]) - int(value)) <= 1 if name == "count" else told[1][name] == value
        for name, value in facts.items()
    ]
    return 1 + sum(right), 1 + len(facts)
