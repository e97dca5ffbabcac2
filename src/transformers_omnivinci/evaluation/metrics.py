"""How answers are compared with right ones, and how sure a score is. Plain text and numbers, without tensors."""

import math
import re
import string
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

NUM_RESAMPLES = 2000
ARTICLES = {"a", "an", "the"}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS)}


def exact_match(answer: str, references: Sequence[str]) -> float:
    """
    1 if the answer is one of the references but for case, punctuation and spaces, else 0.

    Args:
        answer (`str`): What a model answered.
        references (`Sequence[str]`): The right answers, of which any will do.
    """
    return float(any(_bare(answer) == _bare(reference) for reference in references))


def relaxed_match(answer: str, references: Sequence[str]) -> float:
    """
    Relaxed accuracy of ChartQA (arXiv 2203.10244, section 5.1): a number may be off by 5% of the right one, text must
    be equal but for case. `12%` counts as 0.12, as in lmms-eval.

    Args:
        answer, references: As of [`exact_match`].
    """
    return float(any(_is_near(answer.strip(), reference.strip()) for reference in references))


def anls(answer: str, references: Sequence[str]) -> float:
    """
    ANLS of DocVQA and InfographicVQA (arXiv 1907.00490, equation 1): 1 minus the edit distance in characters to the
    nearest reference, as a share of the longer text; 0 where that is less than 0.5.

    Args:
        answer, references: As of [`exact_match`].
    """
    given, best = " ".join(answer.lower().split()), 0.0
    for reference in references:
        right = " ".join(reference.lower().split())
        longest = max(len(given), len(right))
        best = max(best, 1 - edit_distance(given, right) / longest if longest else 1.0)
    return best if best >= 0.5 else 0.0


def vqa_match(answer: str, references: Sequence[str]) -> float:
    """
    Accuracy of VQAv2 and TextVQA: an answer that three of ten people gave is right, averaged over the sets of people
    without one of them (arXiv 1505.00468, section 2). Articles, punctuation and apostrophes do not count, and a number
    may be written as a word.

    Args:
        answer (`str`): What a model answered.
        references (`Sequence[str]`): What people answered, usually ten times.
    """
    given, people = _vqa_words(answer), [_vqa_words(reference) for reference in references]
    if len(people) == 1:
        return float(given == people[0])
    agreeing = sum(given == other for other in people)
    without_one = [min(1.0, (agreeing - (given == other)) / 3) for other in people]
    return sum(without_one) / len(people)


def edit_distance(one: Sequence, other: Sequence) -> int:
    """
    The least number of insertions, deletions and substitutions that turn one sequence into the other.

    Args:
        one, other (`Sequence`): Characters of texts, or lists of words.
    """
    row = list(range(len(other) + 1))
    for index, item in enumerate(one, start=1):
        diagonal, row[0] = row[0], index
        for column, right in enumerate(other, start=1):
            diagonal, row[column] = (
                row[column],
                diagonal if item == right else 1 + min(diagonal, row[column], row[column - 1]),
            )
    return row[-1]


def word_errors(answer: str, reference: str, normalize: Callable[[str], str] | None = None) -> tuple[int, int]:
    """
    Counts the errors of a transcript: the word error rate of a set is the sum of errors over the sum of words.

    Args:
        answer (`str`): What a model heard.
        reference (`str`): What was said.
        normalize (`Callable`, *optional*): Is called with both; see [`english_normalizer`]. Default: as they are.

    Returns:
        `tuple[int, int]`: Inserted, missing and wrong words, and words of the reference.
    """
    heard, said = ((normalize(text) if normalize else text).split() for text in (answer, reference))
    return edit_distance(said, heard), len(said)


def english_normalizer(spellings: dict[str, str] | None = None) -> Callable[[str], str]:
    """
    The normaliser of Whisper (arXiv 2212.04356, appendix C), from transformers: lower case, no punctuation, fillers or
    remarks in brackets, contractions spelt out, numbers as digits.

    Args:
        spellings (`dict[str, str]`, *optional*):
            American spellings of British words. They are in the file `normalizer.json` of Whisper's checkpoints, not
            in transformers. Default: words are left as they are spelt.
    """
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer(spellings or {})


def wilson_interval(right: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """
    The interval of Wilson (1927) for a share. Unlike the usual one of a normal distribution, it stays within 0 and 1
    and holds for few questions.

    Args:
        right (`float`): How many are right.
        total (`int`): Of how many.
        confidence (`float`, *optional*, defaults to 0.95): How often such intervals contain the true share.

    Returns:
        `tuple[float, float]`: lower and upper end. (0, 1) of no questions.
    """
    if not total:
        return 0.0, 1.0
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), right / total
    scale = 1 + z * z / total
    center = (share + z * z / (2 * total)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, center - reach), min(1.0, center + reach)


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """
    The percentile bootstrap interval of `sum(values) / sum(weights)` (Efron, 1979), for scores that are not shares:
    of word error rates, errors are the values and words the weights.

    Args:
        values (`Sequence[float]`): One for each question.
        weights (`Sequence[float]`, *optional*): Likewise. Default: 1 each, which gives the mean.
        confidence (`float`, *optional*, defaults to 0.95): As of [`wilson_interval`].
        seed (`int`, *optional*, defaults to 0): Of the resamples; the same gives the same interval.

    Returns:
        `tuple[float, float]`: lower and upper end. NaN if the weights are all 0.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    if not weights.sum():
        return math.nan, math.nan
    draws, rates = np.random.default_rng(seed), []
    while len(rates) < NUM_RESAMPLES:
        chosen = draws.integers(len(values), size=len(values))
        if weights[chosen].sum():
            rates.append(values[chosen].sum() / weights[chosen].sum())
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _bare(text: str) -> str:
    return " ".join(text.casefold().translate(str.maketrans("", "", string.punctuation)).split())


def _is_near(answer: str, reference: str) -> bool:
    given, right = _number(answer), _number(reference)
    if given is not None and right:
        return abs(given - right) / abs(right) <= 0.05
    return answer.lower() == reference.lower()


def _number(text: str) -> float | None:
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _vqa_words(text: str) -> list[str]:
    text = re.sub(r"(?<=\d),(?=\d)|'|(?<!\d)\.|\.(?!\d)", "", text.lower())
    words = re.sub(r"[^\w.\s:$%]", " ", text).split()
    return [DIGITS.get(word, word) for word in words if word not in ARTICLES]
