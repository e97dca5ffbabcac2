"""Which option an answer to a multiple-choice question names."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.evaluation.letters import choice_letter, strip_letters

ANIMALS = ["a dog", "a cat", "a bird", "none of them"]
VITAMINS = ["vitamin D", "vitamin C", "vitamin A", "B vitamins"]
NUMBERS = ["5", "15", "1.5", "-5"]
SHAPES = ["red", "red square", "a red square and a circle"]
LETTERS = ["B", "A", "D", "C"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        # The letter alone.
        ("A", "A"),
        ("B.", "B"),
        ("(C)", "C"),
        ("[D]", "D"),
        ("d", "D"),
        ("(a).", "A"),
        ("**B**", "B"),
        ("*(B)*", "B"),
        (" C\n", "C"),
        ('"D"', "D"),
        ("'a'", "A"),
        ("Option B", "B"),
        ("option b.", "B"),
        # With its option.
        ("B. a cat", "B"),
        ("b) A cat.", "B"),
        ("(A) a dog", "A"),
        ("D: none of them", "D"),
        ("A a dog", "A"),
        # A letter at the beginning.
        ("B. Because it purrs.", "B"),
        ("C because it sings", "C"),
        ("A, since it barks", "A"),
        ("A\nIt barks.", "A"),
        ("A. The cat is not seen.", "A"),
        # The text of the option.
        ("a cat", "B"),
        ("A CAT.", "B"),
        ("A bird", "C"),
        ("It is a cat that purrs.", "B"),
        # Statements.
        ("The answer is C.", "C"),
        ("The correct answer is (B).", "B"),
        ("The best answer is: D", "D"),
        ("Answer: D", "D"),
        ("answer: b", "B"),
        ("Answer:\n\nA", "A"),
        ("**Answer:** C", "C"),
        ("The answer is **B. a cat**", "B"),
        ("The correct option is B", "B"),
        ("My choice is option (C).", "C"),
        ("I choose A.", "A"),
        ("I would go with D", "D"),
        ("C is correct.", "C"),
        ("Option B is the right one.", "B"),
        ("The answer is A because it barks.", "A"),
        ("\\boxed{B}", "B"),
        ("So the answer is $\\boxed{C}$.", "C"),
        ("答案是B", "B"),
        ("The dog is A and the cat is B. The answer is B.", "B"),
        ("The answer is A? No: purring means that the answer is B.", "B"),
        ("A is wrong. B is wrong. So the answer is C.", "C"),
        ("It purrs, so it must be (B).", "B"),
        ("It purrs, so B", "B"),
        ("What purrs must be B", "B"),
        ("<think>The answer is A, or B?</think>C", "C"),
        ("<think>maybe</think>\n<answer>D</answer>", "D"),
        ("<answer>(B) a cat</answer> A", "B"),
        # None, or several.
        ("", None),
        ("   ", None),
        ("E", None),
        ("(E)", None),
        ("The answer is E.", None),
        ("I do not know.", None),
        ("A fish", None),
        ("A man walks a horse.", None),
        ("a", "A"),
        ("A and B", None),
        ("A, C", None),
        ("(A) or (B)", None),
        ("A/B", None),
        ("The answer is A or C.", None),
        ("Answer: B and D", None),
        ("a dog and a cat", None),
        ("Both (A) and (B) are seen.", None),
        ("The answer is a horse", None),
        ("A is wrong", None),
        ("B is not it", None),
        ("The answer is not A.", None),
        ("It isn't a dog.", None),
        ("It is not (A).", None),
        ("It is not a dog, it is a cat.", "B"),
        ("**A** and **B**", None),
        ("B, a man and a cat", "B"),
        ("The sound comes from a machine.", None),
    ],
)
def test_an_answer_names_a_letter_or_none(answer, letter):
    assert choice_letter(answer, ANIMALS) == letter
    assert choice_letter(answer, [f"{name}. {text}" for name, text in zip("ABCD", ANIMALS)]) == letter


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (VITAMINS, "vitamin C", "B"),
        (VITAMINS, "It is vitamin A.", "C"),
        (VITAMINS, "C", "C"),
        (VITAMINS, "B vitamins", "D"),
        (VITAMINS, "D. B vitamins", "D"),
        (NUMBERS, "5", "A"),
        (NUMBERS, "There are 15 of them", "B"),
        (NUMBERS, "It took 1.5 seconds", "C"),
        (NUMBERS, "-5", "D"),
        (SHAPES, "a red square", "B"),
        (SHAPES, "I see a red square and a circle.", "C"),
        (SHAPES, "red", "A"),
        (LETTERS, "A", "A"),
        (LETTERS, "B. A", "B"),
        (["yes", "no"], "Yes, it does.", "A"),
        (["yes", "no"], "C", None),
        (["the same", "the same"], "the same", None),
        (["the same", "the same", "another"], "It is the same here.", None),
        (["a-----b", "a-b"], "It is a-----b then", "A"),
        (["", "a cat"], "A", "A"),
        (list("abcdefghij"), "J", "J"),
        (list("abcdefghij"), "I", "I"),
        ([str(number) for number in range(10)], "I think that it is F", "F"),
    ],
)
def test_options_decide_what_an_answer_means(options, answer, letter):
    assert choice_letter(answer, options) == letter


texts = st.lists(
    st.text("abcdeé 0123456789-'", min_size=1, max_size=12).map(str.strip).filter(lambda text: len(text.split()) > 0),
    min_size=2,
    max_size=10,
    unique_by=lambda text: " ".join(text.split()).strip("' "),
)
FORMS = ["{0}", "({0})", "{0}.", "{0}. {1}", "{0}) {1}", "({0}) {1}", "{0}: {1}", "Answer: {0}", "answer: ({0})"]
FORMS += ["The answer is {0}.", "The correct answer is ({0}) {1}", "The best option is {0}. {1}", "**{0}**"]


@given(texts, st.data(), st.sampled_from(FORMS), st.booleans())
def test_every_usual_form_of_an_answer_is_understood(options, data, form, with_letters):
    index = data.draw(st.integers(0, len(options) - 1))
    letter = "ABCDEFGHIJ"[index]
    answer = form.format(letter, options[index])
    if with_letters:
        options = [f"{name}. {text}" for name, text in zip("ABCDEFGHIJ", options)]
    assert choice_letter(answer, options) == letter


@given(st.text(max_size=60), texts)
def test_whatever_is_answered_gives_a_letter_of_the_options_or_none(answer, options):
    assert choice_letter(answer, options) in {None, *"ABCDEFGHIJ"[: len(options)]}


@pytest.mark.parametrize("part", ["*", " ", "(A", "A, ", "answer ", "answer is ", "a dog ", "B is ", "* "])
def test_an_answer_that_repeats_itself_takes_no_time(part):
    start = time.process_time()  # of which others on the machine take nothing
    for answer in (part * 5000 + "x", "A" + part * 5000, "answer" + part * 5000 + "x"):
        choice_letter(answer, ANIMALS)
    assert time.process_time() - start < 5


def test_letters_of_options_are_removed_where_all_have_them():
    assert strip_letters(["A. a dog", "B. a cat"]) == ["a dog", "a cat"]
    assert strip_letters(["(A) a dog", "(B) a cat"]) == ["a dog", "a cat"]
    assert strip_letters(["A) a dog", "B: a cat"]) == ["a dog", "a cat"]
    assert strip_letters(["A. a dog", "a cat "]) == ["A. a dog", "a cat"]
    assert strip_letters(["B. Dylan", "A. Guthrie"]) == ["B. Dylan", "A. Guthrie"]
    assert strip_letters(["A dog", "Be quick"]) == ["A dog", "Be quick"]


@pytest.mark.parametrize("options", [[], ["x"] * 27])
def test_the_number_of_options_has_limits(options):
    with pytest.raises(ValueError, match="1 to 26 are accepted"):
        choice_letter("A", options)
