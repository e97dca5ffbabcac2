"""The metrics of this package give what lmms-eval's own give, where they mean the same."""

import random

import pytest
from lmms_eval.api.metrics import anls as their_anls
from lmms_eval.tasks.chartqa.utils import relaxed_correctness
from lmms_eval.tasks.librispeech.utils import librispeech_wer
from lmms_eval.tasks.textvqa.utils import textvqa_process_results

from transformers_omnivinci.evaluation import anls, english_normalizer, relaxed_match, vqa_match, word_errors

WORDS = ["the", "a", "cat", "cats", "two", "2", "seven", "don't", "can't", "Dr.", "Smith's", "blue-green", "light,"]
WORDS += ["1,000", "10.5", "yes", "no", "Paris", "paris.", "nobody!"]
NUMBERS = ["100", "105", "105.1", "-100", "95", "12%", "0.12", "0.125", "0", "1e2", "yes", "Yes", "no.", ""]


def texts(seed, number, most=6):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, most))) for _ in range(number)]


@pytest.mark.parametrize("seed", range(5))
def test_word_error_rates(seed):
    said, heard = texts(seed, 40), texts(seed + 100, 40)
    heard[:20] = [f"{text} {WORDS[seed]}" for text in said[:20]]
    rows = [{"gt": one, "pred": other, "task": "asr_en"} for one, other in zip(said, heard)]
    # lmms-eval applies Whisper's basic normaliser on top of the English one, which takes decimals apart.
    rows = [row for row in rows if "10.5" not in row["gt"] + row["pred"]]
    normalize = english_normalizer()
    errors, words = zip(*(word_errors(row["pred"], row["gt"], normalize) for row in rows))
    assert 100 * sum(errors) / sum(words) == pytest.approx(librispeech_wer(rows, None))


def test_anls():
    for answer, *references in zip(texts(1, 200), texts(2, 200, 2), texts(1, 200)[1:] + ["paris"], texts(4, 200)):
        expected = their_anls(references, [answer])["anls"]
        assert anls(answer, references) == pytest.approx(expected)


def test_relaxed_accuracy():
    for answer in NUMBERS:
        for reference in NUMBERS:
            assert relaxed_match(answer, [reference]) == relaxed_correctness(answer, reference), (answer, reference)


def test_the_accuracy_of_vqa():
    for seed in range(200):
        draw = random.Random(seed)
        people = draw.choices(texts(seed, 3, 2), k=10)
        for answer in (*people[:3], "nothing of this"):
            doc = {"answers": list(people), "question_id": 1}
            expected = textvqa_process_results(doc, [answer])["exact_match"]
            assert vqa_match(answer, people) == pytest.approx(expected), (answer, people)
