"""The suite of the synthetic world: what is asked, what each of the senses is given, and how answers are scored."""

import json
import re

import pytest
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.evaluation import SENSES, evaluate_synthetic, score_answers
from transformers_omnivinci.evaluation import synthetic as suite
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, write_dataset

from .conftest import PARITY

TINY = PARITY / "published-tiny"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with two clips for each type of question, and its rows."""
    folder = tmp_path_factory.mktemp("clips")
    path = write_dataset(folder, SyntheticDataset("test", 2 * len(CLOSED_TYPES), types=CLOSED_TYPES))
    return folder, suite.read_rows(path)


def truth(row):
    return row["messages"][-1]["content"][0]["text"]


def test_right_answers_score_fully_and_wrong_ones_not(clips):
    _, rows = clips
    for score in score_answers(rows, [truth(row) for row in rows]):
        assert (score.num_questions, score.accuracy) == (2, 1) and 0 < score.chance < 0.6
        assert score.median_error == (0 if score.type == "time" else None)
    wrong = score_answers(rows, ["no idea"] * len(rows), "deaf")
    assert {score.type for score in wrong} == set(CLOSED_TYPES) and not any(score.accuracy for score in wrong)
    (time,) = (score for score in wrong if score.type == "time")
    assert time.median_error == float("inf") and time.senses == "deaf"


def test_half_of_the_answers_right_is_half_the_score(clips):
    _, rows = clips
    seen, answers = set(), []
    for row in rows:
        answers.append("no idea" if row["question_type"] in seen else truth(row))
        seen.add(row["question_type"])
    assert {score.accuracy for score in score_answers(rows, answers)} == {0.5}


def test_the_distance_in_time_is_the_median():
    def row(seconds):
        answer = {"role": "assistant", "content": [{"type": "text", "text": seconds}]}
        return {"question_type": "time", "num_candidates": 20, "messages": [{}, answer]}

    rows = [row("3.0 seconds"), row("4.0 seconds"), row("5.0 seconds")]
    (score,) = score_answers(rows, ["3.0 seconds", "4.5 seconds", "at 9 s"])
    assert score.median_error == 0.5 and score.accuracy == pytest.approx(1 / 3)


def test_captions_are_scored_by_their_events(tmp_path):
    rows = suite.write_rows(tmp_path, ["caption"], clips_per_type=2)
    truths = [truth(row) for row in rows]
    (score,) = score_answers(rows, truths)
    assert (score.type, score.accuracy, score.precision, score.recall, score.invention) == ("caption", 1, 1, 1, 0)
    wrong = "From 0.0 to 12.0 seconds, the red star stands still."
    (score,) = score_answers(rows, [truths[0] + " " + wrong, ""])
    counts = [len(re.findall("seconds, the", text)) for text in truths]
    assert score.accuracy == 0 and score.recall == counts[0] / sum(counts)
    assert score.precision == counts[0] / (counts[0] + 1)


def test_the_second_question_of_a_chat_is_asked_behind_the_answer_to_the_first(tmp_path, monkeypatch):
    rows = suite.write_rows(tmp_path, ["chat", "absent"], clips_per_type=2)
    asked = []

    def reply(model, processor, questions, *args, **kwargs):
        asked.append(questions)
        return [f"answer {number}" for number in range(len(questions))]

    monkeypatch.setattr(suite, "answer_questions", reply)
    given = suite.answer_rows(None, None, rows, tmp_path)
    _, firsts, seconds = asked
    for number, (row, first, second) in enumerate(zip(rows[2:], firsts, seconds, strict=True)):
        assert (tmp_path / row["messages"][0]["content"][0]["path"]).is_file()
        assert first.content == second.content and not first.turns and first.name != second.name
        assert second.turns[0]["content"][0]["text"] == f"answer {number}"
        assert second.turns[1] == row["messages"][2] and second.references == [truth(row)]
    assert given == ["answer 0", "answer 1"] * 2
    scores = score_answers(rows, [truth(row) for row in rows])
    assert [(score.type, score.num_questions, score.accuracy) for score in scores] == [
        ("absent", 2, 1),
        ("chat", 2, 1),
    ]


@pytest.mark.slow
def test_each_of_the_senses_is_given_its_part_of_the_clip(clips, load_checkpoint, monkeypatch):
    folder, rows = clips
    model, processor = load_checkpoint()
    given, template = [], processor.apply_chat_template

    def record(chats, **kwargs):
        inputs = template(chats, **kwargs)
        given.append(inputs.keys() & {"pixel_values_videos", "input_features"})
        return inputs

    monkeypatch.setattr(processor, "apply_chat_template", record)
    scores = evaluate_synthetic(model, processor, folder, clips_per_type=2, batch_size=6)
    picture, sound = {"pixel_values_videos"}, {"input_features"}
    parts = (picture | sound, picture, sound, set())
    assert given == [part for part in parts for _ in rows]
    assert [score.senses for score in scores] == [name for name in SENSES for _ in CLOSED_TYPES]


def test_answers_of_a_batch_are_those_of_questions_alone(clips, load_checkpoint):
    folder, rows = clips
    model, processor = load_checkpoint()
    chats = [suite.chat_of(row, folder) for row in rows[:4]]
    alone = [suite.answer(model, processor, [chat])[0] for chat in chats]
    assert suite.answer(model, processor, chats) == alone


@pytest.mark.slow
def test_the_command_prints_and_writes_the_table(clips, tmp_path):
    folder, _ = clips
    arguments = ["eval", "--model", TINY, "--clips-per-type", 2, "--folder", folder, "--output", tmp_path / "s.json"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    for type in CLOSED_TYPES:
        assert re.search(rf"{type} +2 +\d+\.\d%", result.output)
    assert len(json.loads((tmp_path / "s.json").read_text())) == len(SENSES) * len(CLOSED_TYPES)


def test_the_command_asks_some_types_about_another_world_with_some_of_the_senses(tmp_path):
    (tmp_path / "world.json").write_text('{"clip_seconds": [4, 5], "max_slots": 2}')
    arguments = ["eval", "--model", TINY, "--clips-per-type", 1, "--folder", tmp_path, "--output", tmp_path / "s.json"]
    arguments += ["--type", "audio", "--type", "time", "--senses", "deaf", "--senses", "text only"]
    result = CliRunner().invoke(app, list(map(str, [*arguments, "--world", tmp_path / "world.json"])))
    assert result.exit_code == 0, result.output
    scores = [(score["type"], score["senses"]) for score in json.loads((tmp_path / "s.json").read_text())]
    assert scores == [("audio", "deaf"), ("time", "deaf"), ("audio", "text only"), ("time", "text only")]
    assert json.loads((tmp_path / "test.json").read_text())["world"]["max_slots"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", TINY, "--senses", "smell"], "Unknown senses ['smell']"),
        (["--model", TINY, "--type", "matching"], "Types ['matching']: some of"),
        (["--model", TINY, "--world", "nowhere.json"], "nowhere.json"),
        (["--model", TINY, "--suite", "world"], "Invalid value for '--suite'"),
        (["--model", "nowhere"], "There is no folder 'nowhere'"),
        (["--model", TINY, "--split", "dev"], "Invalid value for '--split'"),
    ],
)
def test_the_command_refuses(arguments, message):
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert result.exit_code != 0 and message in " ".join(result.output.replace("│", " ").split())


def test_other_clips_in_the_folder_are_not_taken_for_those_asked_for(clips, load_checkpoint):
    folder, _ = clips
    with pytest.raises(ValueError, match="a data set with other settings"):
        evaluate_synthetic(*load_checkpoint(), folder, clips_per_type=3)
    with pytest.raises(ValueError, match=r"Unknown senses \['smell'\]"):
        evaluate_synthetic(*load_checkpoint(), folder, clips_per_type=2, senses=["smell"])
