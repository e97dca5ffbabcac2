"""
What stands in a text, as it is said: numbers, units and abbreviations become words.

Numbers are those of num2words (LGPL, in the extra `speech`), in each of its languages. Voices that are given digits
read them in ways of their own, or spell them. Units, currencies and abbreviations are English.
"""

import re
from decimal import Decimal
from functools import cache

ABBREVIATIONS = {
    "dr.": "doctor",
    "mr.": "mister",
    "mrs.": "missus",
    "ms.": "miz",
    "prof.": "professor",
    "st.": "saint",
    "vs.": "versus",
    "e.g.": "for example",
    "i.e.": "that is",
    "etc.": "et cetera",
    "approx.": "approximately",
    "fig.": "figure",
    "no.": "number",
    "min.": "minutes",
    "sec.": "seconds",
    "jr.": "junior",
    "sr.": "senior",
    "ca.": "circa",
}
"""What is said for an abbreviation, in lower case with its points. None of them ends a sentence."""

UNITS = {
    "km": "kilometer",
    "cm": "centimeter",
    "mm": "millimeter",
    "m": "meter",
    "kg": "kilogram",
    "g": "gram",
    "mg": "milligram",
    "l": "liter",
    "ml": "milliliter",
    "h": "hour",
    "hr": "hour",
    "min": "minute",
    "s": "second",
    "sec": "second",
    "ms": "millisecond",
    "Hz": "hertz",
    "kHz": "kilohertz",
    "MHz": "megahertz",
    "GHz": "gigahertz",
    "dB": "decibel",
    "W": "watt",
    "kW": "kilowatt",
    "V": "volt",
    "A": "ampere",
    "kB": "kilobyte",
    "KB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
    "px": "pixel",
    "mph": "mile per hour",
    "fps": "frame per second",
    "%": "percent",
    "°C": "degree Celsius",
    "°F": "degree Fahrenheit",
    "°": "degree",
}
"""The name of a unit by its sign, behind a number. Two of them may be joined by a slash."""

CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP"}
_UNCHANGED = ("hertz", "percent")  # endings of names that have no plural
_MARKS = re.compile(r"^\s*(?:#{1,6}\s+|>\s+|[-*+]\s+)|\*\*|__|`+|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SIGN = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_WITH_UNIT = re.compile(rf"(?<![\w.])([-−]?)({_NUMBER})[ \u00a0]?({_SIGN})(?:/({_SIGN}))?(?![\w°])")
_RANGE = re.compile(r"(?<=\d)\s?[–-]\s?(?=\d)")
_CLOCK = re.compile(r"(?<![\w:.])(\d{1,2}):(\d\d)(?![\w:])(?:\s?([ap])\.?m\b\.?)?")
_ORDINAL = re.compile(r"(?<![\w.])(\d+)(?:st|nd|rd|th)\b")
_YEAR = re.compile(
    r"(?<![\w.,])((?:in|since|until|of|from|by|year)\s)(1[1-9]\d\d|20\d\d)(?![\w%]|[.,]\d)", re.IGNORECASE
)
# Not within dates, fractions, versions and telephone numbers, which voices know better.
_PLAIN = re.compile(rf"(?<![\w.,/:-])([-−]?)({_NUMBER})(?![\w/-]|[.,:]\d)")
_MONEY = re.compile(rf"([$€£])\s?({_NUMBER})(?![\w]|[.,]\d)")
_SHORT = re.compile(
    r"(?<![\w.])("
    + "|".join(map(re.escape, sorted(ABBREVIATIONS, key=len, reverse=True)))
    + r")(?=\s+(\S)|\s*$|[,;:)])",
    re.IGNORECASE,
)


def read_out(text: str, language: str = "en") -> str:
    """
    A text as it is said: without the marks of Markdown, and with words for numbers, units and abbreviations.

    Without num2words, numbers stay digits. In languages that it does not know, and in others than English for all but
    plain numbers, the text stays as it is.

    Args:
        text (`str`): A sentence.
        language (`str`, defaults to `"en"`): Of the text, as `"de"` or `"pt-br"`.
    """
    text = _MARKS.sub("", _LINK.sub(r"\1", text))
    say = _numbers(language.lower())
    if language.lower().split("-")[0] != "en":
        return text if say is None else _PLAIN.sub(lambda found: _plain(say, *found.groups()), text)
    text = _SHORT.sub(_expand, text)
    if say is None:
        return text
    text = _RANGE.sub(" to ", text) if _is_range(text) else text
    text = _MONEY.sub(lambda found: _money(say, *found.groups()), text)
    text = _WITH_UNIT.sub(lambda found: _measure(say, *found.groups()), text)
    text = _CLOCK.sub(lambda found: _clock(say, *found.groups()), text)
    text = _ORDINAL.sub(lambda found: say(int(found[1]), to="ordinal"), text)
    text = _YEAR.sub(lambda found: found[1] + say(int(found[2]), to="year"), text)
    return _PLAIN.sub(lambda found: _plain(say, *found.groups()), text)


@cache
def _numbers(language: str):
    """num2words in a language, or `None` where it is not installed or does not know the language."""
    try:
        from num2words import num2words
    except ImportError:
        return None
    for name in (language, language.replace("-", "_"), language.split("-")[0]):
        try:
            num2words(1, lang=name)
        except NotImplementedError:
            continue
        return lambda number, to="cardinal", **options: num2words(number, lang=name, to=to, **options)
    return None


def _is_range(text: str) -> bool:
    """Whether its hyphens between digits are ranges: dates and telephone numbers have several in a row."""
    return not re.search(r"\d\s?[–-]\s?\d+\s?[–-]\s?\d", text)


def _value(digits: str) -> int | Decimal:
    digits = digits.replace(",", "")
    return Decimal(digits) if "." in digits else int(digits)


def _plain(say, sign: str, digits: str) -> str:
    if digits[0] == "0" and digits.isdigit() and len(digits) > 1:  # a number that is spelled
        return " ".join(say(int(digit)) for digit in sign.replace("−", "").replace("-", "") + digits)
    whole, _, part = digits.partition(".")
    words = say(_value(whole))
    if part:  # digit by digit, with the zeros that a number would lose
        words += f" {say(Decimal('0.5')).split()[1]} " + " ".join(say(int(digit)) for digit in part)
    return f"minus {words}" if sign else words


def _measure(say, sign: str, digits: str, unit: str, per: str | None) -> str:
    name = UNITS[unit]
    if _value(digits) != 1 or sign:
        first, *rest = name.split(" ")
        name = " ".join([first if first.endswith(_UNCHANGED) else f"{first}s", *rest])
    return f"{_plain(say, sign, digits)} {name}" + (f" per {UNITS[per]}" if per else "")


def _money(say, currency: str, digits: str) -> str:
    amount = Decimal(digits.replace(",", "")).quantize(Decimal("0.01"))
    words = say(amount, to="currency", currency=CURRENCIES[currency])
    return words.rpartition(", ")[0] if amount == int(amount) else words


def _clock(say, hours: str, minutes: str, half: str | None) -> str:
    words = say(int(hours))
    if int(minutes):
        words += (" oh " if minutes[0] == "0" else " ") + say(int(minutes))
    elif not half:
        words += " o'clock"
    return words + (f" {half.upper()} M" if half else "")


def _expand(found: re.Match) -> str:
    """An abbreviation's words; "no." and "st." only where a number or a name follows, and "No." may be an answer."""
    short, behind = found[1].lower(), found[2]
    if short == "no." and not (behind and behind.isdigit()):
        return found[1]
    if short == "st." and not (behind and behind.isupper()):
        return found[1]
    words = ABBREVIATIONS[short]
    return words if behind else f"{words}." if found.end() == len(found.string.rstrip()) else words
