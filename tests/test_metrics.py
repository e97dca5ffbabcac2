"""Metrics against values that were computed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.evaluation.metrics import (
    anls,
    bootstrap_interval,
    edit_distance,
    english_normalizer,
    exact_match,
    relaxed_match,
    vqa_match,
    wilson_interval,
    word_errors,
)

words = st.lists(st.sampled_from("abc"), max_size=8)


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("Blue", ["blue"], 1),
        ("blue.", ["red", " Blue"], 1),
        ("dark  blue!", ["dark blue"], 1),
        ("light blue", ["blue"], 0),
        ("", ["blue"], 0),
        ("blue", [], 0),
    ],
)
def test_exact_match(answer, references, score):
    assert exact_match(answer, references) == score


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("105", "100", 1),  # off by exactly 5%
        ("94.9", "100", 0),
        ("-1.02", "-1", 1),
        ("12%", "0.12", 1),
        ("12", "12%", 0),
        ("0", "0", 1),
        ("0.01", "0", 0),
        ("nan", "3", 0),
        ("inf", "3", 0),
        ("Yes", "yes", 1),
        ("yes!", "yes", 0),
        ("about 100", "100", 0),
    ],
)
def test_relaxed_match(answer, reference, score):
    assert relaxed_match(answer, [reference]) == score
    assert relaxed_match(answer, ["something else", reference]) == score


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("Paris", ["paris"], 1),
        ("Pariss", ["paris"], 1 - 1 / 6),
        ("prs", ["paris"], 1 - 2 / 5),
        ("pxyzs", ["paris"], 0),  # 3 of 5 characters are wrong
        ("abcd", ["abxy"], 0.5),
        ("new  york", ["New York", "nyc"], 1),
        ("", ["x"], 0),
        ("x", [], 0),
    ],
)
def test_anls(answer, references, score):
    assert anls(answer, references) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "agreeing", "score"),
    # n people of ten agree: leaving out one of them counts n - 1, one of the others n.
    [(0, 0, 0), (1, 1, 0.3), (2, 2, 0.6), (3, 3, 0.9), (4, 4, 1), (10, 10, 1)],
)
def test_vqa_match_of_ten_people(answer, agreeing, score):
    people = ["two cats"] * agreeing + [f"{index} dogs" for index in range(10 - agreeing)]
    assert vqa_match("The 2 cats.", people) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("a cat", "cat", 1),
        ("don't", "dont", 1),
        ("1,000", "1000", 1),
        ("10.5", "105", 0),
        ("none", "0", 1),
        ("", "cat", 0),
    ],
)
def test_vqa_match_of_one_reference(answer, reference, score):
    assert vqa_match(answer, [reference]) == score


def test_edit_distance():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance("flaw", "lawn") == 2


@given(words, words, words)
def test_the_edit_distance_is_a_distance(one, other, third):
    distance = edit_distance(one, other)
    assert distance == edit_distance(other, one) and (distance == 0) == (one == other)
    assert distance <= edit_distance(one, third) + edit_distance(third, other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))


@pytest.mark.parametrize(
    ("answer", "reference", "errors"),
    [
        ("the cat sat", "the cat sat", (0, 3)),
        ("cat sat down", "the cat sat", (2, 3)),
        ("", "the cat sat", (3, 3)),
        ("a b c", "", (3, 0)),
        ("The cat", "the cat", (1, 2)),
    ],
)
def test_word_errors(answer, reference, errors):
    assert word_errors(answer, reference) == errors


def test_transcripts_are_normalised_as_whisper_does():
    normalize = english_normalizer()
    assert word_errors("Mister Smith will not pay $20 (laughs)", "mr. smith won't pay twenty dollars", normalize) == (
        0,
        6,
    )
    assert word_errors("Um, the colour", "the colour", normalize) == (0, 2)
    assert word_errors("the colour", "the color", normalize) == (1, 2)
    assert word_errors("the colour", "the color", english_normalizer({"colour": "color"})) == (0, 2)


def test_the_interval_of_wilson():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert wilson_interval(0, 0) == (0, 1)


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_of_wilson_contains_the_share(right, wrong):
    low, high = wilson_interval(right, right + wrong)
    assert 0 <= low < high <= 1
    if right + wrong:
        assert low <= right / (right + wrong) + 1e-12 and right / (right + wrong) <= high + 1e-12


def test_the_bootstrap_interval_is_that_of_the_mean_and_always_the_same():
    values = [0, 1] * 200
    low, high = bootstrap_interval(values)
    # 1.96 standard errors of 0.5 / sqrt(400)
    assert (low, high) == pytest.approx((0.5 - 0.049, 0.5 + 0.049), abs=0.006)
    assert (low, high) == bootstrap_interval(values)
    uneven = [index**1.5 for index in range(40)]
    assert bootstrap_interval(uneven, seed=1) != bootstrap_interval(uneven)
    assert bootstrap_interval([1, 2, 3], [10, 20, 30]) == pytest.approx((0.1, 0.1))
    assert bootstrap_interval([1, 1], [0, 2]) == pytest.approx((0.5, 1.0))
    assert all(math.isnan(end) for end in bootstrap_interval([1, 2], [0, 0]))
