"""Broadcast from end to end at toy size; points, questions and baselines; SPORTU's files."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recipes.broadcast import baselines, data, sportu, voices
from recipes.broadcast.drawing import SAMPLING_RATE, ball_at, draw_frame, project, sound_of
from recipes.broadcast.questions import CATEGORIES, ask, comment_on, count_facts, facts_in, facts_of
from recipes.broadcast.rally import CALLS, CLOSE, ENDINGS, MAX_STROKES, SHIRTS, plan_rally, shirts_of
from transformers_omnivinci.evaluation import read_questions
from transformers_omnivinci.media import load_audio, probe_video

ROOT = Path(__file__).parents[2]
SILENCE = {text: np.zeros(1000, np.float32) for text in CALLS}


def rallies(number, split="train"):
    return [plan_rally(random.Random(seed), split) for seed in range(number)]


@pytest.fixture(scope="module")
def spoken():
    """Calls of a machine without voices: noises of different lengths."""
    noise = np.random.default_rng(0)
    return {text: noise.uniform(-1, 1, 6000 + 1000 * place).astype("f4") for place, text in enumerate(CALLS)}


@pytest.fixture(scope="module")
def written(tmp_path_factory, spoken):
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "speak_calls", lambda names: [spoken])
        data.main([str(out / "data"), "--train", "6", "--test", "6", "--voice", "none", "--size", "32x32"])
    return out


def test_from_data_to_the_table(written, tmp_path):
    variables = {"FOLDER": tmp_path, "OUT": written, "STEPS": 2, "BATCH": 2, "FRAMES": 8, "QUANTIZE": ""}
    variables |= {"LATENCY_FRAMES": 16, "LATENCY_CLIPS": 2, "PYTHON": sys.executable}
    make = ["make", "-C", str(ROOT / "recipes/broadcast"), "all"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    subprocess.run([*make, *(f"{name}={value}" for name, value in variables.items())], check=True, env=environment)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["model"]) == {"both", "deaf", "blind", "text only"}
    assert all(0 <= one[category] <= 100 for one in results["model"].values() for category in CATEGORIES)
    assert results["baselines"]["chance"] == {"server": 50, "winner": 50, "ending": 25, "shots": 25}
    assert results["latency"]["models"]["unquantized"]["seconds"] > 0
    assert len(results["latency"]["models"]["unquantized"]["all_seconds"]) == 2
    assert (tmp_path / "results.png").stat().st_size > 5_000


def test_what_is_written(written):
    questions = read_questions(written / "data/test.jsonl", "multiple-choice", by=["category", "facts"])
    assert len(questions) == 6 * len(CATEGORIES)
    for question in questions:
        right = question.options["ABCD".index(question.references[0])]
        assert right == question.row["facts"][question.row["category"]]
    train = [json.loads(line) for line in (written / "data/train.jsonl").read_text().splitlines()]
    assert [row["video_path"] for row in train] == sorted(row["video_path"] for row in train)
    assert len(train) == 6 * (len(CATEGORIES) + 1)
    metadata = probe_video(written / "data" / train[0]["video_path"])
    assert metadata.duration < 12 and metadata.audio_duration == pytest.approx(metadata.duration, abs=0.15)


def test_the_same_settings_go_on_and_others_are_refused(written, spoken, monkeypatch):
    monkeypatch.setattr(data, "speak_calls", lambda names: [spoken])
    options = [str(written / "data"), "--train", "6", "--test", "6", "--voice", "none", "--size", "32x32"]
    before = {path: path.read_bytes() for path in (written / "data").rglob("*.*")}
    next((written / "data/media").iterdir()).unlink()
    data.main(options)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(SystemExit, match="belongs to other settings"):
        data.main([*options, "--seed", "1"])
    with pytest.raises(SystemExit, match="two even numbers"):
        data.main([*options, "--size", "33x"])
    with pytest.raises(SystemExit, match="positive"):
        data.main([*options, "--test", "0"])


def test_letters_train_on_options(written, spoken, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "speak_calls", lambda names: [spoken])
    out, options = tmp_path / "letters", ["--train", "4", "--test", "1", "--voice", "none", "--size", "32x32"]
    data.main([str(out), *options, "--letters"])
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    asked = [row for row in rows if "options" in row]
    assert all("\nA. " in row["messages"][0]["content"][1]["text"] for row in asked)
    servers = [row["answer"] for row in asked if row["category"] in ("server", "winner")]
    assert servers.count("A") == servers.count("B") == 4


def test_points_follow_the_rules():
    for rally in rallies(600):
        last_is_server = (rally.shirts[0] == rally.last_hitter) == rally.near_serves
        number = len(rally.strokes)
        assert 1 <= number <= MAX_STROKES and rally.seconds < 11
        assert (number == 1) == (rally.ending == "ace")
        if rally.ending == "double fault":
            assert number == 2 and rally.winner == rally.receiver
            assert [call.text for call in rally.calls[:-1]] == ["Fault!", "Fault!"]
            continue
        assert [stroke.is_near == rally.near_serves for stroke in rally.strokes] == [n % 2 == 0 for n in range(number)]
        assert (rally.winner == rally.last_hitter) == (rally.ending in ("ace", "winner"))
        assert rally.server_wins == (last_is_server == (rally.ending in ("ace", "winner")))
        assert [call.text for call in rally.calls[:-1]] == ["Out!"] * (rally.ending in ("long", "wide"))
        for before, after in zip(rally.legs, rally.legs[1:]):
            assert before.end <= after.start + 1e-9 and before.target == pytest.approx(after.origin, abs=0.16)


def test_only_a_close_ball_hides_its_ending():
    for rally in rallies(600):
        if rally.ending not in ("winner", "long", "wide"):
            assert not rally.is_close
            continue
        x, y, _ = rally.legs[-2].target
        beyond = {"long": abs(y) - 1, "wide": abs(x) - 1}.get(rally.ending, max(abs(x), abs(y)) - 1)
        assert (abs(beyond) <= CLOSE) == rally.is_close
        assert rally.is_close or (beyond > 0.1) == (rally.ending != "winner")


def test_shirts_of_the_test_never_meet_in_training():
    train, test = set(shirts_of("train")), set(shirts_of("test"))
    assert not train & test and len(train | test) == len(SHIRTS) * (len(SHIRTS) - 1)
    assert {one for one, _ in test} == {other for _, other in test} == set(SHIRTS)
    with pytest.raises(ValueError, match="Unknown split"):
        shirts_of("dev")
    with pytest.raises(ValueError, match="Unknown ending"):
        plan_rally(random.Random(0), "train", "let")


def test_what_is_drawn_is_what_happens():
    rally = plan_rally(random.Random(3), "train", "winner")
    stroke = rally.strokes[0]
    assert ball_at(rally, stroke.second + 1e-6)[0] == pytest.approx(stroke.x, abs=1e-3)
    second = rally.bounces[0]
    assert ball_at(rally, second)[2] == pytest.approx(0, abs=1e-6)
    frame = draw_frame(rally, second, 0, (256, 256)).astype(int)
    x, y, _ = project(*ball_at(rally, second))
    assert frame[round(256 * y), round(256 * x)] == pytest.approx(np.array([235, 255, 90]), abs=12)
    assert draw_frame(rally, second, 0, (96, 64)).shape == (64, 96, 3)


def test_hits_and_calls_are_heard_when_they_happen():
    rally = plan_rally(random.Random(5), "train", "long")
    quiet = sound_of(rally, SILENCE, 1)
    power = np.square(quiet).reshape(-1)[: len(quiet) // 160 * 160].reshape(-1, 160).mean(1)
    loud = np.flatnonzero(power > 0.01) / 100
    for stroke in rally.strokes:
        assert np.abs(loud - stroke.second).min() <= 0.02
    assert all(min(abs(second - stroke.second) for stroke in rally.strokes) < 0.08 for second in loud)
    called = sound_of(rally, {text: np.full(1600, 0.9, np.float32) for text in CALLS}, 1)
    start = round(rally.calls[0].second * SAMPLING_RATE)
    assert np.abs(called[start : start + 1600]).min() > 0.3 > np.abs(quiet[start : start + 1600]).mean()


def test_commentaries_state_the_facts():
    for rally in rallies(100):
        comment, facts = comment_on(rally), facts_of(rally)
        assert facts_in(comment) == facts and count_facts(comment, facts) == 4
        wrong = comment.replace(f"{rally.winner} player wins", f"{rally.winner} player cries")
        assert count_facts(wrong, facts) == 3
    assert facts_in("The red player serves. The blue player serves.") == {}
    assert facts_in("It is an ace. It is a double fault. There are 3 shots.") == {"shots": "3"}


def test_questions_have_one_right_option():
    for seed, rally in enumerate(rallies(200)):
        for choice in ask(rally, "clip.mp4", random.Random(seed)):
            facts = choice.fields["facts"]
            assert choice.answer == facts[choice.fields["category"]] and choice.answer not in choice.others
        shots = sorted(int(one) for one in (choice.answer, *choice.others))
        assert shots == list(range(shots[0], shots[0] + 4)) and 1 <= shots[0] <= shots[-1] <= MAX_STROKES


def test_baselines_without_a_model():
    time = np.arange(SAMPLING_RATE * 4) / SAMPLING_RATE
    samples = 0.01 * np.random.default_rng(0).standard_normal(len(time)).astype("f4")
    for second in (0.5, 1.3, 2.4):
        samples[round(second * SAMPLING_RATE) :][:800] += 0.5
    assert baselines.onsets(samples, 15) == 3
    assert baselines.nearest(9, ["2", "5", "4", "3"]) == "5"
    rows = [{"category": "shots", "facts": {"shots": shots}} for shots in "2242"]
    assert baselines.guess(baselines.majority(rows)["shots"], ["3", "4"]) == "4"
    close = {"is_close": True, "ending": "winner"}
    assert baselines.seen_alone("winner", close) == 0 and baselines.seen_alone("server", close) == 1
    assert baselines.seen_alone("ending", close | {"ending": "long"}) == 1
    assert baselines.heard_alone("ending", {"ending": "long"}, ["long", "wide", "net", "ace"]) == 0.5
    assert baselines.heard_alone("ending", {"ending": "net"}, ["long", "wide", "net", "ace"]) == 1
    assert baselines.heard_alone("server", {}, ["red", "blue"]) == 0.5


def test_the_counter_is_fitted_on_clips(written):
    rows = [json.loads(line) for line in (written / "data/train.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("category") == "shots"]
    paths, shots = [written / "data" / row["video_path"] for row in rows], [int(row["facts"]["shots"]) for row in rows]
    threshold, offset = baselines.fit_counter(paths, shots)
    counted = [baselines.onsets(load_audio(path, sampling_rate=SAMPLING_RATE), threshold) + offset for path in paths]
    assert sum(one == right for one, right in zip(counted, shots)) >= len(shots) / 2


def test_voices(monkeypatch, tmp_path):
    class Short:
        name = "short"

        def __init__(self, seconds):
            self.seconds = seconds

        def synthesize(self, texts):
            rise = np.r_[np.zeros(2400), np.linspace(0.1, 0.5, round(24_000 * self.seconds)), np.zeros(4800)]
            yield type("Spoken", (), {"samples": rise.astype("f4")})

    monkeypatch.setattr(voices, "make_voice", lambda name: Short(float(name)))
    (calls,) = voices.speak_calls(["0.5"])
    assert set(calls) == set(CALLS)
    assert len(calls["Out!"]) == pytest.approx(0.5 * SAMPLING_RATE, rel=0.05) and calls["Out!"].max() == 1
    assert len(voices.vary(calls["Out!"], 1.25)) == pytest.approx(0.4 * SAMPLING_RATE, rel=0.05)
    with pytest.raises(ValueError, match="takes 2.0 s to say 'Out!': up to 1.5 s are accepted"):
        voices.speak_calls(["2"])
    with pytest.raises(OSError, match="without a sound"):
        voices.speak_calls(["0"])


def test_without_a_voice_a_sentence_tells_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="No voice is installed"):
        data.main([str(tmp_path / "data")])


ENTRY = {
    "id": "Soccer_1",
    "question": "How many?",
    "options": {"A": 2, "B": 3},
    "answer": "B",
    "difficulty level": "easy",
}


def test_sportu_becomes_questions(tmp_path):
    videos = tmp_path / "videos/soccer"
    videos.mkdir(parents=True)
    for name in ("soccer_1.mp4", "ice_hockey_2.mp4"):
        (videos / name).touch()
    path = tmp_path / "SportU_Video_mc.json"
    path.write_text(json.dumps([ENTRY, ENTRY | {"id": "ice_hockey_2", "difficulty level": "hard"}]))
    sportu.main([str(tmp_path / "mc.jsonl"), "--questions", str(path), "--videos", str(tmp_path / "videos")])
    questions = read_questions(tmp_path / "mc.jsonl", "multiple-choice", by=["sport", "difficulty"])
    assert [question.row["sport"] for question in questions] == ["ice_hockey", "soccer"]
    assert questions[1].options == ["2", "3"] and questions[1].references == ["B"]
    assert questions[1].content[0] == {"type": "video", "video": str(videos / "soccer_1.mp4")}
    told = tmp_path / "SportU_video_oe.json"
    told.write_text(json.dumps([{key: ENTRY[key] for key in ENTRY if key != "options"}]))
    sportu.main([str(tmp_path / "oe.jsonl"), "--questions", str(told), "--videos", str(tmp_path / "videos")])
    (question,) = read_questions(tmp_path / "oe.jsonl", "short-answer")
    assert question.references == ["B"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "holds dict, but a list"),
        ([{"id": "soccer_1"}], "entry 1 has no question"),
        ([ENTRY | {"id": "1"}], "entry 1 has no sport in its id"),
        ([ENTRY | {"answer": "C"}], "the answer 'C' is none of the letters A, B"),
        ([ENTRY | {"options": ["2", "3"]}], "but an object such as"),
        ([ENTRY | {"id": "soccer_9"}], "hold no video called 'soccer_9'"),
        ([ENTRY, {key: ENTRY[key] for key in ENTRY if key != "options"}], "with options and without"),
    ],
)
def test_bad_files_of_sportu_get_a_sentence(tmp_path, content, message):
    (tmp_path / "soccer_1.mp4").touch()
    path = tmp_path / "questions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SystemExit, match=message):
        sportu.main([str(tmp_path / "out.jsonl"), "--questions", str(path), "--videos", str(tmp_path)])
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(SystemExit, match="There is no folder"):
        path.write_text(json.dumps([ENTRY]))
        sportu.main([str(tmp_path / "out.jsonl"), "--questions", str(path), "--videos", str(tmp_path / "none")])


def test_endings_are_all_there():
    assert {rally.ending for rally in rallies(60)} == set(ENDINGS)
