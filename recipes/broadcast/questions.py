"""What is asked about a point, the right answers, and the commentary with the facts that it states."""

import random
import re
from collections.abc import Mapping

from transformers_omnivinci.tasks import Choice

from .rally import ENDINGS, MAX_STROKES, SHIRTS, Rally

CATEGORIES = ("server", "winner", "ending", "shots")
WORDINGS = {
    "server": "What colour does the server wear?",
    "winner": "What colour does the winner wear?",
    "ending": "How does the point end?",
    "shots": "How many times is the ball hit?",
}
COMMENT = "What happens in this point?"
NUM_OPTIONS = {"server": 2, "winner": 2, "ending": 4, "shots": 4}
PHRASES = {
    "ace": "It is an ace.",
    "double fault": "It is a double fault.",
    "winner": "The {} player hits a winner.",
    "net": "The {} player hits the net.",
    "long": "The {} player hits long.",
    "wide": "The {} player hits wide.",
}


def facts_of(rally: Rally) -> dict[str, str]:
    """The right answer of each category."""
    ending, shots = rally.ending, str(len(rally.strokes))
    return {"server": rally.server, "winner": rally.winner, "ending": ending, "shots": shots}


def ask(rally: Rally, path: str, rng: random.Random) -> list[Choice]:
    """
    A question of each category.

    Args:
        rally ([`Rally`]): The point.
        path (`str`): The file of its clip.
        rng (`random.Random`): Decides which wrong options stand beside the right one.
    """
    facts, asked = facts_of(rally), []
    for category in CATEGORIES:
        others = [one for one in _possible(category, rally, rng) if one != facts[category]]
        others = rng.sample(others, NUM_OPTIONS[category] - 1)
        fields = {"category": category, "facts": facts | {"is_close": rally.is_close}}
        name, media = f"{path}-{category}", [{"type": "video", "path": path}]
        asked.append(Choice(name, media, WORDINGS[category], facts[category], others, fields))
    return asked


def _possible(category: str, rally: Rally, rng: random.Random) -> list[str]:
    if category in ("server", "winner"):
        return list(rally.shirts)
    if category == "ending":
        return list(ENDINGS)
    width, right = NUM_OPTIONS[category], len(rally.strokes)
    first = rng.randint(max(1, right - width + 1), min(right, MAX_STROKES - width + 1))
    return [str(number) for number in range(first, first + width)]


def comment_on(rally: Rally) -> str:
    """The commentary: a sentence for each fact."""
    number = len(rally.strokes)
    ending = PHRASES[rally.ending].format(rally.last_hitter)
    shots = "is 1 shot" if number == 1 else f"are {number} shots"
    return f"The {rally.server} player serves. There {shots}. {ending} The {rally.winner} player wins."


def facts_in(commentary: str) -> dict[str, str]:
    """The facts that a commentary states; what it does not state, or states twice differently, is left out."""
    shirts = "|".join(SHIRTS)
    patterns = {
        "server": rf"\b({shirts}) player serves",
        "winner": rf"\b({shirts}) player wins",
        "shots": r"\b(\d+) shots?\b",
        "ending": "|".join(
            f"(?P<e{place}>{re.escape(PHRASES[ending]).replace(re.escape('{}'), f'(?:{shirts})')})"
            for place, ending in enumerate(ENDINGS)
        ),
    }
    facts = {}
    for category, pattern in patterns.items():
        found = {
            ENDINGS[int(match.lastgroup[1:])] if match.lastgroup else match[1]
            for match in re.finditer(pattern, commentary)
        }
        if len(found) == 1:
            facts[category] = found.pop()
    return facts


def count_facts(commentary: str, right: Mapping[str, str]) -> int:
    """How many of the four facts of a point a commentary states rightly."""
    stated = facts_in(commentary)
    return sum(stated.get(category) == right[category] for category in CATEGORIES)
