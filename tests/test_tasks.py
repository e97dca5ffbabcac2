"""What tasks of one's own are made of: line plots, rows, classes in balance, and confusion matrices."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.evaluation import (
    AnswerFile,
    confusion_matrix,
    draw_confusion,
    read_answers,
    read_questions,
)
from transformers_omnivinci.tasks import (
    Choice,
    SeriesStyle,
    balance_classes,
    choice_rows,
    draw_series,
    task_row,
    write_rows,
)
from transformers_omnivinci.training.data import read_sample

PLOT = [{"type": "image", "path": "plot.png"}]


def inked(picture):
    """Which pixels are not white."""
    return np.asarray(picture).min(axis=2) < 200


def test_a_rising_series_goes_from_below_left_to_above_right():
    picture = draw_series([0, 1], SeriesStyle(width=40, height=20, margin=0.1))
    rows, columns = np.nonzero(inked(picture))
    assert picture.size == (40, 20) and picture.mode == "RGB"
    assert columns.min() in (3, 4) and columns.max() in (35, 36)
    assert rows[columns == columns.min()].min() >= 16 and rows[columns == columns.max()].max() <= 3


def test_missing_values_leave_a_gap_and_a_lone_value_is_a_dot():
    ink = inked(draw_series([1, 1, np.nan, 1, np.nan, 1, 1], SeriesStyle(width=70, height=16, margin=0)))
    columns = ink.any(axis=0)
    assert columns[:10].all() and columns[33:37].any() and columns[-10:].all()
    assert not columns[16:30].any() and not columns[40:54].any()


def test_channels_and_levels_have_their_colours():
    style = SeriesStyle(colours=("#ff0000", "#00ff00"), level_colour="#0000ff", line_width=3)
    pixels = np.asarray(draw_series([[0, 0, 0], [2, 2, 2]], style, levels=[1])).reshape(-1, 3)
    colours = {tuple(map(int, pixel)) for pixel in pixels}
    assert {(255, 0, 0), (0, 255, 0)} <= colours and any(b > 200 and r < 120 for r, g, b in colours)


def test_limits_cut_and_a_constant_series_is_in_the_middle():
    assert not inked(draw_series([5, 5], limits=(0, 1))).any()
    rows = np.nonzero(inked(draw_series([5, 5, 5])).any(axis=1))[0]
    assert 30 <= rows.mean() <= 33


@pytest.mark.parametrize("series", [[], [np.nan], [np.inf, 1], np.zeros((2, 2, 2))])
def test_what_cannot_be_drawn_is_refused(series):
    with pytest.raises(ValueError, match="finite values or NaN of shape"):
        draw_series(series)


def test_limits_and_styles_out_of_order_are_refused():
    with pytest.raises(ValueError, match="not in order"):
        draw_series([1, 2], limits=(2, 1))
    with pytest.raises(ValueError, match="at least 8"):
        SeriesStyle(width=4)
    with pytest.raises(ValueError, match="a margin from 0"):
        SeriesStyle(margin=0.5)


def test_a_row_is_trained_on_and_asked_alike(tmp_path):
    choice = Choice("one", PLOT, "Which class?", "shift", ["cycling", "trending"], {"kind": "class"})
    rows = choice_rows([choice]) + [
        task_row(
            "two", [{"type": "audio", "path": "a.wav"}, *PLOT], "Which class?", "shift", {"options": ["shift", "b"]}
        )
    ]
    write_rows(tmp_path / "new" / "rows.jsonl", rows)
    asked = read_questions(tmp_path / "new" / "rows.jsonl", "multiple-choice")
    for row, question in zip(rows[:1], asked):
        learned = read_sample(row, "row", tmp_path / "new").messages[0]["content"]
        assert learned[-1] == question.content[-1]
        assert [item["type"] for item in learned] == [item["type"] for item in question.content]
    assert asked[0].options["ABC".index(asked[0].references[0])] == "shift" and asked[0].row["kind"] == "class"
    assert [item["type"] for item in rows[1]["messages"][0]["content"]] == ["image", "audio", "text"]
    assert [item["type"] for item in asked[1].content] == ["image", "audio", "text"]


@given(st.lists(st.integers(2, 6), min_size=1, max_size=60), st.integers(0, 5))
def test_letters_are_balanced_for_each_number_of_options(numbers, seed):
    choices = [
        Choice(str(n), PLOT, "?", "right", [f"o{k}" for k in range(size - 1)]) for n, size in enumerate(numbers)
    ]
    rows = choice_rows(choices, seed)
    assert rows == choice_rows(choices, seed)
    for size in set(numbers):
        letters = Counter(row["answer"] for row in rows if len(row["options"]) == size)
        counts = [letters["ABCDEF"[place]] for place in range(size)]
        assert max(counts) - min(counts) <= 1 and sum(counts) == numbers.count(size)
    assert all(row["options"]["ABCDEF".index(row["answer"])] == "right" for row in rows)


def test_rows_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one: .* is no medium"):
        task_row("one", [{"type": "image"}], "?", "a")
    with pytest.raises(ValueError, match="'answer', a name that is taken"):
        task_row("one", PLOT, "?", "a", {"answer": "b"})
    with pytest.raises(ValueError, match="2 to 26 different ones"):
        Choice("one", PLOT, "?", "a", ["a"])
    with pytest.raises(TypeError):
        write_rows(tmp_path / "rows.jsonl", [{"a": object()}])
    assert not list(tmp_path.iterdir())


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1), st.integers(1, 20) | st.none())
def test_classes_are_drawn_equally_often_and_rows_in_turn(sizes, per_class):
    rows = [{"answer": name, "n": n} for name, size in sizes.items() for n in range(size)]
    drawn = balance_classes(rows, per_class=per_class, seed=1)
    wanted = per_class or max(sizes.values())
    assert Counter(row["answer"] for row in drawn) == dict.fromkeys(sizes, wanted)
    for name, size in sizes.items():
        times = Counter(row["n"] for row in drawn if row["answer"] == name)
        assert max(times.values()) - (min(times.values()) if len(times) == size else 0) <= 1
    assert drawn == balance_classes(rows, lambda row: row["answer"], per_class, seed=1)


def test_classes_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="at least one of each"):
        balance_classes([])
    with pytest.raises(ValueError, match="no field 'class'"):
        balance_classes([{"answer": "a"}], "class")


def test_a_confusion_matrix_counts_what_is_taken_for_what():
    matrix = confusion_matrix(["a", "a", "b", "b", "b"], ["a", "B.", "b", "what?", " A"], ["a", "b", "c"])
    assert matrix.counts.tolist() == [[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]
    assert (matrix.total, matrix.accuracy, matrix.num_other) == (5, 0.4, 1)
    assert matrix.recalls == {"a": 0.5, "b": pytest.approx(1 / 3), "c": None}
    assert matrix.balanced_accuracy == pytest.approx((1 / 2 + 1 / 3) / 2)
    axes = draw_confusion(matrix, "title").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c", "none of them"]
    assert sorted(text.get_text() for text in axes.texts) == ["1"] * 5


@pytest.mark.parametrize(
    ("targets", "answers", "labels", "message"),
    [
        (["a"], [], ["a"], "1 targets and 0 answers"),
        ([], [], ["a"], "0 targets and 0 answers"),
        (["c"], ["a"], ["a", "b"], "'c' is none of the labels: a, b"),
        (["a"], ["a"], ["a", "A."], "'A.' is there twice"),
    ],
)
def test_what_cannot_be_counted_is_refused(targets, answers, labels, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(targets, answers, labels)


def test_kept_answers_are_read_without_the_settings_of_their_run(tmp_path):
    kept = AnswerFile(tmp_path / "answers.jsonl", {"model": "one"})
    kept.add([{"question": "rows.jsonl:1", "senses": "both", "answer": "shift"}])
    assert read_answers(tmp_path / "answers.jsonl") == {"rows.jsonl:1": "shift"}
    with pytest.raises(ValueError, match=r"no answers with the senses 'deaf': \['both'\]"):
        read_answers(tmp_path / "answers.jsonl", "deaf")
    (tmp_path / "other.jsonl").write_text(json.dumps(["rows"]) + "\n")
    with pytest.raises(ValueError, match="no file of answers"):
        read_answers(tmp_path / "other.jsonl")
