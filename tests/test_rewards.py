"""What answers earn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.reinforcement.rewards import (
    final_answer,
    format_reward,
    letter_reward,
    number_reward,
    seconds_reward,
    set_reward,
    text_reward,
)

OPTIONS = ["a dog", "a cat", "a horse"]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>It barks.</think><answer>B</answer>", 1),
        ("\n<think>\nIt barks.\n</think>\n<answer> B </answer>\n", 1),
        ("<think>a < b</think><answer>B</answer>", 1),
        ("<answer>B</answer><think>It barks.</think>", 0),
        ("<think>It barks.</think>B", 0),
        ("<think>It barks.</think><answer>B</answer> Sure.", 0),
        ("Sure. <think>It barks.</think><answer>B</answer>", 0),
        ("<think></think><answer>B</answer>", 0),
        ("<think>It barks.</think><answer> </answer>", 0),
        ("<think>It barks.</think><answer>B", 0),
        ("<think>It barks.</think><answer>A</answer><answer>B</answer>", 0),
        ("<think>a<think>b</think></think><answer>B</answer>", 0),
        ("", 0),
    ],
)
def test_the_format_is_that_of_the_whole_text(text, reward):
    assert format_reward(text) == reward


def test_the_parts_may_be_others():
    text = "<see>A dog.</see><hear>Barks.</hear><answer>A</answer>"
    assert format_reward(text, ("see", "hear", "answer")) == 1
    assert format_reward(text) == 0
    with pytest.raises(ValueError, match="names such as 'think'"):
        format_reward(text, ("<see>",))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>A?</think><answer> B </answer>", "B"),
        ("<answer>A</answer> no, <answer>B</answer>", "B"),
        ("<think>A?</think> B", "B"),
        ("B", "B"),
        ("<think>B", "<think>B"),
    ],
)
def test_what_counts_as_the_answer(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>A barks.</think><answer>B</answer>", 1),
        ("<think>The answer is B.</think><answer>A</answer>", 0),
        ("<answer>(B) a cat</answer>", 1),
        ("a cat", 1),
        ("<answer>A or B</answer>", 0),
        ("<answer>A, B, C</answer>", 0),
        ("", 0),
    ],
)
def test_letters(text, reward):
    assert letter_reward(text, "B", OPTIONS) == reward


def test_a_right_letter_is_that_of_an_option():
    with pytest.raises(ValueError, match="'D', but there are 3 options"):
        letter_reward("A", "D", OPTIONS)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("12", 1),
        ("<answer>There are 12 of them.</answer>", 1),
        ("12.4", 1),
        ("11.5", 1),
        ("12.6", 0),
        ("-12", 0),
        ("12 or 13", 0),
        ("1,200", 0),
        ("twelve", 0),
        ("", 0),
    ],
)
def test_numbers(text, reward):
    assert number_reward(text, 12, 0.5) == reward


@pytest.mark.parametrize("text", ["1,200", "1200", "1.2e3", "+1200.0", "1200.", "$1200"])
def test_ways_to_write_a_number(text):
    assert number_reward(text, 1200) == 1


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("62.5", 1),
        ("62.5s", 1),
        ("at 62 seconds", 1),
        ("<answer>1:02.5</answer>", 1),
        ("0:01:03", 1),
        ("1:04", 0),
        ("61.9 s", 0),
        ("1:02 or 1:03", 0),
        ("1:02 to 70", 0),
        ("soon", 0),
    ],
)
def test_seconds(text, reward):
    assert seconds_reward(text, 62.5) == reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("red, blue", 1),
        ("<answer>Blue and red.</answer>", 1),
        ("red", 1 / 2),
        ("red, blue, green", 2 / 3),
        ("red, green", 1 / 3),
        ("red, red", 1 / 2),
        ("green", 0),
        ("", 0),
    ],
)
def test_sets(text, reward):
    assert set_reward(text, ["red", "blue"]) == pytest.approx(reward)


@pytest.mark.parametrize("answer", [[], [" "], "red"])
def test_right_sets_are_lists(answer):
    with pytest.raises(ValueError, match="a list of"):
        set_reward("red", answer)


def test_texts():
    assert text_reward("<think>?</think><answer>The red  square.</answer>", "the red square") == 1
    assert text_reward("The blue square.", "the red square") == 0
    assert text_reward("9.0 seconds.", "9.0 seconds") == 1
    assert text_reward("90 seconds", "9.0 seconds") == text_reward("9..0 seconds", "9.0 seconds") == 0


@given(st.floats(-1e6, 1e6), st.floats(0, 100), st.floats(-1e4, 1e4))
def test_numbers_are_right_within_their_tolerance(answer, tolerance, off):
    given = round(answer + off, 6)
    distance = abs(given - answer)
    if abs(distance - tolerance) > 1e-4:  # rounding at the border
        assert number_reward(f"{given:.6f}", answer, tolerance) == (distance < tolerance)


@given(st.integers(0, 5), st.integers(0, 59), st.integers(0, 59))
def test_clocks_are_seconds(hours, minutes, seconds):
    assert seconds_reward(f"{hours}:{minutes:02}:{seconds:02}", 3600 * hours + 60 * minutes + seconds, 0) == 1


@given(st.text(max_size=60))
def test_any_text_earns_something_between_0_and_1(text):
    rewards = [
        format_reward(text),
        letter_reward(text, "A", OPTIONS),
        number_reward(text, 1),
        seconds_reward(text, 1),
        set_reward(text, ["a"]),
        text_reward(text, "a"),
    ]
    assert all(0 <= reward <= 1 for reward in rewards)


@pytest.mark.parametrize(("answer", "tolerance"), [(float("nan"), 0), (float("inf"), 0), (1, -1)])
def test_right_numbers_are_finite_and_tolerances_positive(answer, tolerance):
    with pytest.raises(ValueError, match="is accepted"):
        number_reward("1", answer, tolerance)
