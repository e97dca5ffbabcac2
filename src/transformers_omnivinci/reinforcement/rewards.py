"""
Rewards by rule: what an answer earns, as pure functions of text.

Section 4.3 of the paper rewards format and accuracy. An answer is what stands in `<answer>…</answer>`; without the
tags it is what follows `</think>`, or everything. An answer that names several options or numbers names none: to list
all of them earns nothing.
"""

import math
import re
from collections.abc import Iterable, Sequence

from ..evaluation.letters import choice_letter

TAGS = ("think", "answer")
"""What an answer consists of, in this order."""
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d+)?(?=\D|$)", re.IGNORECASE)
CLOCK = re.compile(r"(?<![\d:.])(?:(\d+):)?(\d{1,3}):([0-5]?\d(?:\.\d+)?)(?![\d:])")
SECOND_TOLERANCE = 0.5
"""Seconds."""


def format_reward(text: str, tags: Sequence[str] = TAGS) -> float:
    """
    1 if a text consists of the wanted parts and nothing else, else 0: `<think>…</think><answer>…</answer>`. Each part
    occurs once and is not empty; white space between them does not count.

    Args:
        text (`str`): What a model wrote.
        tags (`Sequence[str]`, *optional*): The names of the parts, in their order.

    Raises:
        ValueError: there are no names, or one of them is none.
    """
    if not tags or not all(isinstance(tag, str) and re.fullmatch(r"\w+", tag) for tag in tags):
        raise ValueError(f"The parts of an answer are {tags!r}: names such as 'think' and 'answer' are accepted.")
    pattern = r"\s*".join(rf"<{tag}>(?=\s*[^\s<])(?:(?!</?{tag}>).)*</{tag}>" for tag in tags)
    counts = (text.count(f"<{tag}>") == text.count(f"</{tag}>") == 1 for tag in tags)
    return float(all(counts) and re.fullmatch(rf"\s*{pattern}\s*", text, re.DOTALL) is not None)


def final_answer(text: str) -> str:
    """
    What a text answers: the inside of its last `<answer>`, or else what follows `</think>`, or else all of it.

    Args:
        text (`str`): What a model wrote.
    """
    marked = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return (marked[-1] if marked else text.rpartition("</think>")[2]).strip()


def letter_reward(text: str, answer: str, options: Sequence[str]) -> float:
    """
    1 if a text names the right option, see [`choice_letter`], else 0.

    Args:
        text (`str`): What a model wrote.
        answer (`str`): The right letter.
        options (`Sequence[str]`): The options in their order, with or without letters.

    Raises:
        ValueError: the right letter is that of no option.
    """
    if len(answer) != 1 or not 0 <= ord(answer) - ord("A") < len(options):
        raise ValueError(f"The right answer is {answer!r}, but there are {len(options)} options, from A on.")
    return float(choice_letter(final_answer(text), options) == answer)


def number_reward(text: str, answer: float, tolerance: float = 0.0) -> float:
    """
    1 if a text answers with exactly one number, which is off by `tolerance` at most, else 0.

    Args:
        text (`str`): What a model wrote; `1,200`, `-3.5` and `2e3` are numbers.
        answer (`float`): The right number.
        tolerance (`float`, *optional*, defaults to 0): The most that it may be off by, inclusively.

    Raises:
        ValueError: the right number is not finite, or the tolerance is negative.
    """
    _check_number(answer, tolerance)
    found = [match[0] for match in NUMBER.finditer(final_answer(text)) if re.search(r"\d", match[0])]
    return float(len(found) == 1 and _is_near(float(found[0].replace(",", "")), answer, tolerance))


def seconds_reward(text: str, answer: float, tolerance: float = SECOND_TOLERANCE) -> float:
    """
    1 if a text answers with exactly one point in time, which is off by `tolerance` at most, else 0.

    Args:
        text (`str`): What a model wrote: seconds (`12.5 s`), or a clock (`1:02.5`, `0:01:02`).
        answer (`float`): The right time in seconds.
        tolerance (`float`, *optional*, defaults to 0.5): The most seconds that it may be off by, inclusively.

    Raises:
        ValueError: as of [`number_reward`].
    """
    _check_number(answer, tolerance)
    given = final_answer(text)
    clocks = CLOCK.findall(given)
    if not clocks:
        # A unit may follow the number directly.
        return number_reward(re.sub(r"(?<=\d)\s*(?:seconds?|secs?|s)\b", " ", given), answer, tolerance)
    if len(clocks) > 1 or re.search(r"\d", CLOCK.sub("", given)):
        return 0.0
    hours, minutes, seconds = clocks[0]
    return float(_is_near(3600 * int(hours or 0) + 60 * int(minutes) + float(seconds), answer, tolerance))


def set_reward(text: str, answer: Iterable[str]) -> float:
    """
    How much of a set a text names: what both have in common, as a share of what either has (Jaccard). To name
    everything earns as little as it is right.

    Args:
        text (`str`): What a model wrote: things between commas, semicolons, lines or "and".
        answer (`Iterable[str]`): The right things, without order.

    Raises:
        ValueError: the right set is empty or a text.
    """
    if isinstance(answer, str):
        raise ValueError(f"The right set is the text {answer!r:.80}: a list of texts is accepted.")
    right = {_plain(one) for one in answer} - {""}
    if not right:
        raise ValueError("The right set is empty: a list of at least one text is accepted.")
    parts = re.split(r"[,;\n]|\band\b", final_answer(text).strip("[]{}()."))
    given = {_plain(part) for part in parts} - {""}
    return len(given & right) / len(given | right)


def text_reward(text: str, answer: str) -> float:
    """
    1 if a text answers with the right words, but for case, spaces and the punctuation around them, else 0. What stands
    inside counts: `90 seconds` are not `9.0 seconds`.

    Args:
        text (`str`): What a model wrote.
        answer (`str`): The right words.
    """
    return float(_plain(final_answer(text)) == _plain(answer))


def _check_number(answer: float, tolerance: float) -> None:
    if not math.isfinite(answer):
        raise ValueError(f"The right number is {answer}: a finite one is accepted.")
    if not tolerance >= 0:
        raise ValueError(f"The tolerance is {tolerance}: 0 or more is accepted.")


def _is_near(given: float, right: float, tolerance: float) -> bool:
    return abs(given - right) <= tolerance * (1 + 1e-9) + 1e-9


def _plain(text: str) -> str:
    return " ".join(str(text).casefold().split()).strip(" .,:;!?\"'`*_-()[]{}")
