"""The letter that an answer to a multiple-choice question names."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

# Signs around a letter: not so many that a search through an answer full of them becomes slow.
OPENING = r"[\s(\[{*_\"'`$]{0,9}"
CLOSING = r"[\s)\]}*_\"'`$.:,;!-]{0,9}"
PREFIX = re.compile(r"\s*[(\[]?([A-Z])(?:[)\]]\s*[.:]?|[.:])\s*")
JOINED = r"[\s)\]}*_\"'`$]{0,9}(?:,|/|&|\+|\band\b|\bor\b)" + OPENING
DENIED = r"(?<!not )(?<!n't )(?<!not \()(?<!n't \()"
"""What must not precede a letter or a text."""
DISCUSSED = rf"(?!{CLOSING}\s(?:is|are|was|can|could|does)\b)"
"""What must not follow a letter: `B is not it` discusses an option."""
BEFORE = (
    r"(?i:\b(?:answer|option|choice)\s*(?:(?:is|was|would\s+be|should\s+be|must\s+be)\b\s*[:=]?|[:=])|"
    r"\b(?:choose|select|pick|go\s+with)\b\s*:?|\\boxed\s*(?=\{)|答案(?:是|为|：|:))"
    r"[\s*_]{0,9}(?i:(?:the\s+)?(?:option|choice|letter)\b)?" + OPENING
)


def strip_letters(options: Sequence[str]) -> list[str]:
    """
    The texts of options, without letters in front of them. Some data sets write `["A. a dog", "B. a cat"]`, others
    `["a dog", "a cat"]`; letters are only removed where all options begin with their own.

    Args:
        options (`Sequence[str]`): The options in their order.
    """
    found = [PREFIX.match(option) for option in options]
    if all(match and match[1] == letter for match, letter in zip(found, ascii_uppercase)):
        return [option[match.end() :].strip() for option, match in zip(options, found, strict=True)]
    return [option.strip() for option in options]


def choice_letter(answer: str, options: Sequence[str]) -> str | None:
    """
    Finds which option an answer names, as the benchmarks do, but without guessing: lmms-eval counts an answer that
    names none as `A` or as a random letter in some of its tasks.

    In this order: the letter alone or with its own option (`B`, `(B)`, `b.`, `B. a cat`); the text of an option;
    the last statement (`The answer is B`, `Answer: B`, `B is correct`, `I choose B`, `\\boxed{B}`); a letter at the
    beginning (`B) because ...`); the only letter in parentheses; the only option whose text is mentioned; the only
    capital letter that stands alone. What is inside `<answer>` counts alone, and nothing before `</think>` does.

    Args:
        answer (`str`): What a model answered.
        options (`Sequence[str]`): The options in their order, with or without letters; at most 26.

    Returns:
        `str`, *optional*: `"A"` for the first option, and so on. `None`: the answer names no option, or several.

    Raises:
        ValueError: there are no options, or more than letters.
    """
    if not 0 < len(options) <= len(ascii_uppercase):
        raise ValueError(f"Got {len(options)} options: 1 to {len(ascii_uppercase)} are accepted.")
    texts = {letter: _plain(text) for letter, text in zip(ascii_uppercase, strip_letters(options))}
    answer = _final_part(answer)
    steps = (_whole, _text, _stated, _first, _in_parentheses, _mentioned, _standing_alone)
    return next((letter or None for step in steps if (letter := step(answer, texts)) is not None), None)


# Each step returns a letter, "" if the answer names several options, or `None` to leave it to the next step.


def _whole(answer: str, texts: dict[str, str]) -> str | None:
    """`B`, `(b)`, `**B.**`, `B. a cat`."""
    match = re.match(OPENING + r"(?:(?i:option|choice)\s+)?([A-Za-z])(?!\w)", answer)
    if not match or (letter := match[1].upper()) not in texts:
        return None
    rest = answer[match.end() :]
    if not re.sub(CLOSING, "", rest, count=1) or (texts[letter] and _plain(rest) == texts[letter]):
        return letter
    return None


def _text(answer: str, texts: dict[str, str]) -> str | None:
    """`a cat`."""
    plain = _plain(answer)
    return _only([letter for letter, text in texts.items() if text and text == plain])


def _stated(answer: str, texts: dict[str, str]) -> str | None:
    """`The answer is B`, `B is correct`. Of several statements the last one counts, as it concludes the others."""
    letter = _letter_pattern(texts)
    judged = rf"(?<![\w'(]){OPENING}{letter}{CLOSING}\bis\s+(?:the\s+)?(?:correct|right|best|final|answer|true)\b"
    found = list(re.finditer(f"{BEFORE}{letter}|{judged}", answer))
    if not found:
        return None
    for match in found:
        # What looks like a further statement may be the text of the option.
        if whole := _whole(answer[match.start(match.lastindex) :], texts):
            return whole
    last = found[-1]
    return _unless_joined(last[last.lastindex], answer[last.end(last.lastindex) :], texts)


def _first(answer: str, texts: dict[str, str]) -> str | None:
    """`B) because ...`, `B, as ...`, `C because ...`."""
    match = re.match(OPENING + _letter_pattern(texts) + DISCUSSED, answer)
    return _unless_joined(match[1], answer[match.end() :], texts) if match else None


def _in_parentheses(answer: str, texts: dict[str, str]) -> str | None:
    return _only(re.findall(rf"{DENIED}[(\[]([{''.join(texts)}])[)\]]", answer))


def _mentioned(answer: str, texts: dict[str, str]) -> str | None:
    """The option whose text is in the answer, but not only as a part of another option's text."""
    left, found = _plain(answer), []
    for text in sorted({text for text in texts.values() if text}, key=len, reverse=True):
        left, count = re.subn(rf"(?<!\w){DENIED}{re.escape(text)}(?!\w)", "\n", left)
        found += [letter for letter in texts if count and texts[letter] == text]
    return _only(found)


def _standing_alone(answer: str, texts: dict[str, str]) -> str | None:
    return _only(re.findall(rf"(?<![\w'-]){DENIED}{_letter_pattern(texts)}{DISCUSSED}", answer))


def _letter_pattern(texts: dict[str, str]) -> str:
    """A letter as a group. `A`, `I` and small letters may be words: they only count where a word would go on."""
    letters = "".join(texts)
    sure = re.sub("[AI]", "", letters)
    end = r"(?=[)\]}*_\"'`$]{0,9}(?:\s*$|[.,:;!?)\]}*\n/&-]|\s+(?i:because|since|as|and|or)\b|\s*/))"
    capital = rf"[{sure}](?![\w'])|" if sure else ""
    return rf"({capital}[{letters}{letters.lower()}]{end})"


def _unless_joined(letter: str, rest: str, texts: dict[str, str]) -> str:
    """The letter, or "" where another one is joined to it: `A and B`, `A, C`."""
    other = re.match(JOINED + _letter_pattern(texts), rest)
    return "" if other and other[1].upper() != letter.upper() else letter.upper()


def _only(letters: list[str]) -> str | None:
    """The letter that is found; "" where there are several, `None` where there is none."""
    unique = {letter.upper() for letter in letters}
    return None if not unique else unique.pop() if len(unique) == 1 else ""


def _plain(text: str) -> str:
    """Without case, and without the punctuation around it."""
    return " ".join(_shortened(text).casefold().split()).strip(" .,:;!?\"'`*_()[]{}$")


def _final_part(answer: str) -> str:
    answer = answer.rpartition("</think>")[2]
    marked = re.findall(r"<answer>(.*?)(?:</answer>|$)", answer, re.DOTALL)
    return _shortened((marked[-1] if marked else answer).strip())


def _shortened(text: str) -> str:
    """With runs of the same sign cut to three: see `OPENING`."""
    return re.sub(r"(\W)\1{3,}", r"\1\1\1", text)
