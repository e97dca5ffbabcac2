"""The recipe of navigation: from end to end at toy size, its world, its measures, and files that are no episodes."""

import gzip
import json
import math
import shutil
import wave
from dataclasses import replace
from random import Random

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.inference.speech import find_programs

from .actions import STOP, Action, oracle, parse_action, perform
from .base import write_base
from .camera import PIXELS, sees, take_picture
from .data import HISTORY, STEPS, read_episodes, step_rows, write_data
from .environment import NavigationEnv
from .evaluate import evaluate
from .metrics import Outcome, summarise
from .r2r_ce import join_steps, read_r2r, read_steps, split_action
from .table import write_table
from .world import COLOURS, ROBOT, SIDE, STOP_AT, SUCCESS, Pose, Room, Ways, draw_room, move

ROOMS = [draw_room(Random(seed)) for seed in range(30)]
EMPTY = Room(
    {"red": (5.0, 1.0), "blue": (1.0, 5.0), "green": (5.0, 5.0), "yellow": (3.0, 3.0)}, (), Pose(1, 1, 0), "red"
)


@pytest.fixture
def voice(tmp_path, monkeypatch):
    """The first voice of this machine, or a program in its place that says a tone."""
    found = find_programs()
    if found:
        return found[0]
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((9_000 * np.sin(np.arange(8_000) / 9)).astype("<i2").tobytes())
    program = tmp_path / "espeak-ng"
    program.write_text(f'#!/bin/sh\ncat > /dev/null\ncp "{tmp_path}/tone.wav" "$6"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return "espeak-ng"


def test_it_runs_from_end_to_end(voice, tmp_path):
    out = tmp_path / "out"
    about = write_data(out, train_episodes=2, test_episodes=2, seed=0, voices=[voice])
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert {len(row["messages"][0]["content"]) for row in rows} == {2, 3} and len(rows) > 2 * about["steps"] - 1
    write_base(out / "base")
    options = ["--recipe", "full", "--model", out / "base", "--data", out / "train.jsonl", "--output", out / "model"]
    options += ["--share-media", "--max-steps", 2, "--per-device-train-batch-size", 2, "--report-to", "none"]
    trained = CliRunner().invoke(app, ["train", *map(str, options)])
    assert trained.exit_code == 0, trained.output
    summaries = {name: evaluate(out, name, str(out / "model")) for name in ("text", "speech", "random", "oracle")}
    assert summaries["oracle"]["SR"] == 100 and summaries["text"]["episodes"] == 2
    with pytest.raises(ValueError, match="names no recordings for 'unheard'"):
        evaluate(out, "unheard", str(out / "model"))
    page = tmp_path / "README.md"
    page.write_text("<!-- results -->\n<!-- end -->\n")
    write_table(out, tmp_path / "written", page)
    assert (tmp_path / "written" / "results.png").stat().st_size > 10_000
    assert "| shortest way | " in page.read_text()
    assert json.loads((tmp_path / "written" / "results.json").read_text())["policies"].keys() == summaries.keys()


def test_the_same_seed_gives_the_same_rooms_and_steps():
    first, second = (list(step_rows(room, Random(7))) for room in (draw_room(Random(5)), draw_room(Random(5))))
    assert [right for _, right in first] == [right for _, right in second]
    assert all(np.array_equal(one[0][-1], other[0][-1]) for one, other in zip(first, second, strict=True))
    assert max(len(frames) for frames, _ in first) <= HISTORY


def test_the_oracle_arrives_by_about_the_shortest_way_in_every_room():
    for room in ROOMS:
        ways, pose, path = Ways(room, room.goal), room.start, 0.0
        shortest = ways.distance(pose)
        for _ in range(STEPS):
            action = oracle(ways, pose)
            if action == STOP:
                break
            moved = perform(room, pose, action)
            path += math.dist((pose.x, pose.y), (moved.x, moved.y))
            pose = moved
        assert ways.distance(pose) <= STOP_AT and path < 1.1 * shortest + 0.3


def test_no_robot_enters_an_obstacle_or_leaves_the_room():
    rng = Random(0)
    for room in ROOMS:
        pose, rectangles = room.start, room.obstacles()
        for _ in range(40):
            pose = move(room, replace(pose, heading=rng.uniform(0, 360)), rng.uniform(0, 2))
            assert min(pose.x, pose.y) >= ROBOT - 1e-9 and max(pose.x, pose.y) <= SIDE - ROBOT + 1e-9
            left, low, right, high = rectangles.T
            assert not ((left < pose.x) & (pose.x < right) & (low < pose.y) & (pose.y < high)).any()


def test_the_shortest_way_goes_around_what_is_in_between():
    assert Ways(EMPTY, "red").distance(EMPTY.start) == pytest.approx(4.0)
    behind = replace(EMPTY, boxes=((2.5, 0.4, 2.9, 2.0),))
    assert 4.0 < Ways(behind, "red").distance(EMPTY.start) < 5.0


def test_the_camera_shows_pillars_where_they_are():
    picture = take_picture(EMPTY, EMPTY.start)
    reddish = (picture[..., 0] > 120) & (picture[..., 1] < 80)
    columns = np.flatnonzero(reddish.any(0))
    assert columns.mean() == pytest.approx((PIXELS - 1) / 2, abs=1) and sees(EMPTY, EMPTY.start, "red")
    turned = take_picture(EMPTY, replace(EMPTY.start, heading=330.0))  # to the right, so that it stands on the left
    assert np.flatnonzero(((turned[..., 0] > 120) & (turned[..., 1] < 80)).any(0)).mean() < PIXELS / 2 - 10
    nearer = take_picture(EMPTY, replace(EMPTY.start, x=3.5))
    assert ((nearer[..., 0] > 120) & (nearer[..., 1] < 80)).sum() > 3 * reddish.sum()
    assert not sees(EMPTY, replace(EMPTY.start, heading=180.0), "red")


def test_it_is_an_environment_of_gymnasium():
    check_env(NavigationEnv(), skip_render_check=True)
    env = NavigationEnv(EMPTY, "Go to the red pillar.", max_steps=3)
    _, info = env.reset(seed=1)
    assert info["instruction"] == "Go to the red pillar." and info["distance"] == pytest.approx(4.0)
    assert isinstance(env, gymnasium.Env) and env.step((0, np.array([150.0])))[4]["path"] == pytest.approx(1.5)
    _, reward, is_over, _, info = env.perform(Action("forward", 150))[0:5]
    assert (reward, is_over, info["path"]) == (0.0, False, pytest.approx(3.0))
    _, reward, is_over, is_cut, _ = env.perform(STOP)
    assert (reward, is_over, is_cut) == (1.0, True, False)


@pytest.mark.parametrize("answer", ["forward 75", "left 30", "right 45", "stop"])
def test_actions_are_read_as_they_are_written(answer):
    assert str(parse_action(answer)) == answer and str(parse_action(f" {answer.upper()}.")) == answer


@pytest.mark.parametrize("action", ["forward 75", "stop"])
def test_the_pillar_of_an_action_is_read_and_makes_no_other(action):
    found = parse_action(f"Blue: {action}.")
    assert found.goal == "blue" and found == parse_action(action) and str(found) == action


@pytest.mark.parametrize(
    "answer", ["", "forward", "pink: stop", "red:", "left -5", "stop 3", "forward 0", "left 270", "There is no star."]
)
def test_other_answers_are_no_actions(answer):
    with pytest.raises(ValueError, match="accepted"):
        parse_action(answer)


def test_measures_are_those_of_table_10():
    def outcome(distances, path, has_stopped=True, arrived="red"):
        return Outcome(4.0, path, distances, has_stopped, SUCCESS, arrived, "red")

    outcomes = [
        outcome((4.0, 2.0, 0.5), 5.0),  # arrived by a detour
        outcome((4.0, 0.9, 3.0), 3.0, arrived="blue"),  # passed by, and stopped elsewhere
        outcome((4.0, 0.5), 3.5, has_stopped=False, arrived=None),  # did not stop
        outcome((4.0, 3.5), 0.5, arrived=None),
    ]
    told = summarise(outcomes)
    assert {name: told[name] for name in ("NE", "OS", "SR", "SPL", "arrived", "right")} == {
        "NE": pytest.approx(1.875), "OS": 75, "SR": 25, "SPL": pytest.approx(20), "arrived": 50, "right": 50,
    }  # fmt: skip
    assert Outcome.from_json(json.loads(json.dumps(outcomes[0].to_json()))) == outcomes[0]
    with pytest.raises(ValueError, match="^There are no episodes to sum up"):
        summarise([])


GOOD = {
    "text": "Go to the red pillar.",
    "room": {
        "pillars": {"red": [5, 1], "blue": [1, 5]},
        "boxes": [],
        "start": {"x": 1, "y": 1, "heading": 0},
        "goal": "red",
    },
}


@pytest.mark.parametrize(
    "change",
    [
        {"text": 3},
        {"room": None},
        {"room": {**GOOD["room"], "goal": "pink"}},
        {"room": {**GOOD["room"], "pillars": {"red": [5]}}},
        {"room": {**GOOD["room"], "boxes": [[2.5, 0.0, 2.9, 6.0]]}},  # nothing gets past it
    ],
)
def test_bad_episodes_get_a_sentence(tmp_path, change):
    path = tmp_path / "test.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n")
    with pytest.raises(ValueError, match=r"test.jsonl, line 2: this is no episode of a room \(.+\)\.$"):
        read_episodes(path)


def test_an_empty_file_and_one_that_is_no_text_get_a_sentence(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="test.jsonl holds no episodes.$"):
        read_episodes(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no file of episodes: it is not UTF-8.$"):
        read_episodes(path)


EPISODE = {
    "episode_id": 12,
    "trajectory_id": 4,
    "scene_id": "mp3d/AbCdEfGhIjK/AbCdEfGhIjK.glb",
    "start_position": [1.5, 0.17, -3.25],
    "start_rotation": [0, 0.7071, 0, 0.7071],
    "info": {"geodesic_distance": 6.5},
    "goals": [{"position": [4.0, 0.17, -1.0], "radius": 3.0}],
    "instruction": {"instruction_text": " Leave the room and wait by the stairs. ", "instruction_tokens": [5, 9]},
    "reference_path": [[1.5, 0.17, -3.25], [4.0, 0.17, -1.0]],
}


def packed(path, content):
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


def test_episodes_of_habitat_are_read(tmp_path):
    split = {"episodes": [EPISODE, {**EPISODE, "info": {}, "reference_path": None}], "instruction_vocab": {}}
    first, second = read_r2r(packed(tmp_path / "val.json.gz", split))
    assert (first.id, first.instruction, first.reach) == ("12", "Leave the room and wait by the stairs.", 3.0)
    assert (first.shortest, len(first.path), second.shortest, second.path) == (6.5, 2, None, ())
    (tmp_path / "val.json").write_text(json.dumps(split))
    assert read_r2r(tmp_path / "val.json") == [first, second]
    steps = read_steps(packed(tmp_path / "val_gt.json.gz", {"12": {"actions": [2, 2, 1, 1, 1, 1, 3, 0]}}))["12"]
    actions = list(join_steps(steps))
    assert list(map(str, actions)) == ["left 30", "forward 75", "forward 25", "right 15", "stop"]
    assert [step for action in actions for step in split_action(action)] == steps


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"instruction": {}}, "episode 0 of R2R-CE has no 'instruction_text'."),
        ({"instruction": {"instruction_text": " "}}, "its `instruction_text` is no text"),
        ({"goals": []}, "episode 0 of R2R-CE cannot be read"),
        ({"start_position": [1, 2]}, "3 finite numbers are needed, not [1, 2]"),
        ({"start_rotation": [0, 0, 0, float("nan")]}, "4 finite numbers are needed"),
    ],
)
def test_bad_episodes_of_habitat_get_a_sentence(tmp_path, change, told):
    with pytest.raises(ValueError) as error:
        read_r2r(packed(tmp_path / "val.json.gz", {"episodes": [EPISODE | change]}))
    assert str(error.value).startswith(str(tmp_path / "val.json.gz")) and told in str(error.value)


@pytest.mark.parametrize("content", [b"\x1f\x8b damaged", b"no json", b"\xff\xff"])
def test_damaged_files_of_habitat_get_a_sentence(tmp_path, content):
    path = tmp_path / "val.json.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="val.json.gz is neither JSON nor JSON packed by gzip, or is damaged"):
        read_r2r(path)


def test_files_of_other_things_get_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="is no split of R2R-CE"):
        read_r2r(packed(tmp_path / "a.json.gz", [1, 2]))
    with pytest.raises(ValueError, match="has no steps of R2R-CE"):
        read_steps(packed(tmp_path / "b.json.gz", {}))
    with pytest.raises(ValueError, match="the `actions` of episode '7' are no list of 0"):
        read_steps(packed(tmp_path / "c.json.gz", {"7": {"actions": [1, 4]}}))
    with pytest.raises(OSError):
        read_r2r(tmp_path / "absent.json.gz")


def test_every_colour_is_a_goal_of_the_test(voice, tmp_path):
    write_data(tmp_path, train_episodes=1, test_episodes=4, seed=3, voices=[voice])
    assert [room.goal for room, _ in read_episodes(tmp_path / "test.jsonl")] == list(COLOURS)
    shutil.rmtree(tmp_path / "media")
