"""Questions with right answers, and rewards as a trainer calls them."""

import json
import math
import sys

import pytest

from transformers_omnivinci.reinforcement.problems import INSTRUCTION, read_problems
from transformers_omnivinci.reinforcement.rewarding import load_function, make_rewards

CHAT = [{"role": "user", "content": [{"type": "video", "path": "clip.mp4"}, {"type": "text", "text": "Which?"}]}]


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.mark.parametrize(
    ("fields", "kind", "answer", "right", "wrong"),
    [
        ({"answer": "B", "choices": ["a dog", "a cat"]}, "letter", "B", "(B)", "A"),
        ({"answer": "a cat", "options": ["a dog", "a cat"]}, "letter", "B", "a cat", "a dog"),
        ({"answer": 3}, "number", 3, "3", "4"),
        ({"answer": 3, "tolerance": 1}, "number", 3, "4", "5"),
        ({"answer": "2.5", "answer_type": "seconds"}, "seconds", 2.5, "3 s", "4 s"),
        ({"answer": ["red", "blue"]}, "set", ["red", "blue"], "blue, red", "green"),
        ({"answer": "Red."}, "text", "Red.", "red", "blue"),
    ],
)
def test_kinds_of_answers(write, tmp_path, fields, kind, answer, right, wrong):
    (problem,) = read_problems(write({"messages": CHAT, **fields}), instruction="")
    assert (problem.kind, problem.answer) == (kind, answer)
    assert problem.accuracy(f"<think>?</think><answer>{right}</answer>") == 1
    assert problem.accuracy(wrong) == 0
    assert problem.messages == [
        {
            "role": "user",
            "content": [
                {"type": "video", "video": str(tmp_path / "clip.mp4")},
                {"type": "text", "text": "Which?"},
            ],
        }
    ]


def test_an_instruction_follows_each_question(write):
    path = write(
        {"messages": CHAT, "answer": "red"}, {"messages": [{"role": "user", "content": "Hi"}], "answer": "Hi"}
    )
    first, second = read_problems(path)
    assert first.messages[0]["content"][-1] == {"type": "text", "text": f"\n{INSTRUCTION}"}
    assert second.messages[0]["content"] == f"Hi\n{INSTRUCTION}"
    assert first.prompt == f"{path}:1 | user: <video> Which? \n{INSTRUCTION}"


def test_chats_that_are_answered_will_do(write):
    (problem,) = read_problems(write({"messages": [*CHAT, {"role": "assistant", "content": "red"}]}))
    assert (problem.answer, problem.kind, len(problem.messages)) == ("red", "text", 1)


def test_questions_as_evaluation_reads_them(write):
    row = {"question": "Which?", "options": ["A. a dog", "B. a cat"], "answer": "B", "video": "clip.mp4"}
    (problem,) = read_problems(write(row), instruction="")
    assert (problem.kind, problem.answer, problem.choices) == ("letter", "B", ["a dog", "a cat"])
    assert problem.messages[0]["content"][-1]["text"] == "Which?\nA. a dog\nB. a cat"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": CHAT}, "give the right answer as `answer`"),
        ({"messages": CHAT, "answer": None}, "None, but for a text"),
        ({"messages": CHAT, "answer": " "}, "text that is not empty"),
        ({"messages": CHAT, "answer": "C", "choices": ["a dog", "a cat"]}, "'C' is outside of its choices"),
        ({"messages": CHAT, "answer": "AB", "choices": ["a dog", "a cat"]}, "'AB' is outside of its choices"),
        ({"messages": CHAT, "answer": "A", "answer_type": "letter"}, "no `choices`"),
        ({"messages": CHAT, "answer": "A", "choices": "A, B"}, "a list of at most 26 texts"),
        ({"messages": CHAT, "answer": "soon", "answer_type": "seconds"}, "'soon', but for seconds a finite number"),
        ({"messages": CHAT, "answer": math.nan}, "a finite number"),
        ({"messages": CHAT, "answer": []}, "a list of texts"),
        ({"messages": CHAT, "answer": "A", "answer_type": "essay"}, "'essay': 'letter', 'number'"),
        ({"messages": CHAT, "answer": 1, "tolerance": -1}, "its tolerance is -1"),
        ({"messages": [*CHAT, {"role": "assistant", "content": "red"}], "answer": "red"}, "give one of them"),
        ({"messages": [{"role": "system", "content": "Hi"}], "answer": "red"}, "nothing is asked"),
        ([1], "an object with `messages`"),
        ({"question": "Which?", "options": ["a", "b"], "answer": "D", "video": "v"}, "none of its options"),
        ({"question": "Which?", "options": ["a", "b"], "video": "v"}, "has no field `answer`"),
    ],
)
def test_what_cannot_be_rewarded_is_refused(write, row, message):
    path = write(row)
    with pytest.raises(ValueError, match=message) as caught:
        read_problems(path)
    assert f"{path.name}:1" in str(caught.value)


def test_names_of_problems_differ(write):
    row = {"id": "one", "messages": CHAT, "answer": "red"}
    with pytest.raises(ValueError, match="have the id 'one'"):
        read_problems(write(row, row))


@pytest.fixture
def problems(write):
    rows = [{"id": name, "messages": CHAT, "answer": name} for name in ("red", "blue")]
    return {problem.prompt: problem for problem in read_problems(write(*rows))}


def test_rewards_by_rule(problems):
    form, accuracy = make_rewards(["format", "accuracy"], problems)
    completions = ["<think>?</think><answer>red</answer>", "red"]
    assert (form.__name__, form(prompts=list(problems), completions=completions)) == ("format", [1, 0])
    assert (accuracy.__name__, accuracy(prompts=list(problems), completions=completions)) == ("accuracy", [1, 0])
    (other,) = make_rewards(["format"], problems, tags=["answer"])
    assert other(prompts=list(problems), completions=["<answer>red</answer>", "red"]) == [1, 0]


def user_reward(completions, answer, row, trainer_state, **_):
    assert [one["answer"] for one in row] == answer
    return [None if text == "?" else float(text) * trainer_state for text in completions]


def test_rewards_of_users(problems, monkeypatch):
    (given,) = make_rewards([user_reward], problems)
    (reward,) = make_rewards([f"{__name__}:user_reward"], problems)
    assert given.__name__ == reward.__name__ == "user_reward"
    asked = {"prompts": list(problems), "trainer_state": 2}
    assert reward(completions=["1.5", "?"], **asked) == [3.0, None]
    with pytest.raises(ValueError, match=r"'user_reward' gave nan for an answer to blue"):
        reward(completions=["1", "nan"], **asked)
    with pytest.raises(ValueError, match=r"'user_reward' raised ValueError: could not convert .* \(answers to red"):
        reward(completions=["one", "1"], **asked)
    monkeypatch.setattr(reward, "_function", lambda **_: [1.0])
    with pytest.raises(ValueError, match="returned 1 values for 2 answers"):
        reward(completions=["1", "1"], **asked)


def test_what_was_cut_earns_nothing(problems):
    accuracy, own = make_rewards(["accuracy", f"{__name__}:user_reward"], problems)
    asked = {"prompts": list(problems), "truncated": [True, False], "trainer_state": 1}
    assert accuracy(completions=["red", "blue"], **asked) == [0, 1]
    assert own(completions=["-1", "-1"], **asked) == [-1, -1]
    assert own(completions=["?", "?"], **asked) == [0, None]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("acuracy", "no reward 'acuracy': format, accuracy"),
        ("no_such_module:reward", "cannot be imported: No module named"),
        ("json:no_such_function", "cannot be imported: module 'json' has no attribute"),
        ("sys:path", "is list, but a function"),
    ],
)
def test_rewards_that_are_not_there(path, message):
    with pytest.raises(ValueError, match=message):
        load_function(path)
    assert sys.modules.get("no_such_module") is None


def test_rewards_count_once(problems):
    with pytest.raises(ValueError, match="several have the same name"):
        make_rewards(["format", "format"], problems)
    with pytest.raises(ValueError, match="No reward is chosen"):
        make_rewards([], problems)
