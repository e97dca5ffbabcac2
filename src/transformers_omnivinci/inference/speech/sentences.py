"""A text that is still being written becomes sentences, each as soon as it is complete."""

import re
from collections.abc import Iterable, Iterator

from .reading_out import ABBREVIATIONS

LONGEST = 300
"""Characters after which a sentence without an end is cut, where it pauses or between two words."""

# What ends a sentence, if more text follows; and ends that need no space behind them.
_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s)|[。！？]+[”’」』）]*|\n\s*(?=\S)")
_SHORT = re.compile(r"(?:^|[\s(])((?:[A-Za-z]\.)+|[A-Za-z]+\.|\d+\.)$")


def split_sentences(texts: Iterable[str], longest: int = LONGEST) -> Iterator[str]:
    """
    Yields the sentences of a text whose pieces come one after another.

    A sentence is yielded once the next one has begun, so that "3.5", "Dr. Lee" and "e.g. a dog" stay whole. Together
    the sentences are the text but for the space around them.

    Args:
        texts (`Iterable[str]`): The pieces, cut anywhere.
        longest (`int`, defaults to 300): The most characters of a sentence.
    """
    held = ""
    for text in texts:
        held += text
        sentences, held = _take(held, longest)
        yield from sentences
    if held.strip():
        yield held.strip()


def _take(text: str, longest: int) -> tuple[list[str], str]:
    """The sentences that are complete, and the rest."""
    sentences, start = [], 0
    while True:
        end = next((match.end() for match in _END.finditer(text, start) if _ends(text, start, match)), None)
        if end is None or end - start > longest:
            if len(text) - start <= longest:
                return sentences, text[start:]
            end = _pause(text, start, longest)
        if text[start:end].strip():
            sentences.append(text[start:end].strip())
        start = end


def _ends(text: str, start: int, match: re.Match) -> bool:
    """Whether what looks like the end of a sentence is one, by the word before it and the letter behind it."""
    mark = match.group()
    if mark[0] != ".":
        return True
    behind = text[match.end() :].lstrip()
    if not behind:
        return False  # the next letter tells
    if behind[0].islower():
        return False
    word = _SHORT.search(text[start : match.start() + 1])
    if word is None or len(mark) > 1:
        return True
    word = word[1]
    is_number = word[:-1].isdigit()
    if is_number:  # "1. First", but not "in 2020. Then"
        return bool(text[start : match.start() + 1 - len(word)].strip())
    return word.lower() not in ABBREVIATIONS and not re.fullmatch(r"(?:[A-Z]\.)+", word)


def _pause(text: str, start: int, longest: int) -> int:
    """Where a text that has no end within `longest` characters is cut."""
    part = text[start : start + longest]
    for marks in (",;:—–，；", " \t\n"):
        place = max(part.rfind(mark) for mark in marks)
        if place > longest // 3:
            return start + place + 1
    return start + longest
