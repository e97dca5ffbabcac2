"""
Sends robots through the rooms of the test: `python -m recipes.navigation.evaluate OUT --policy text --model DIR`.

Policies: `text`, `speech`, `unheard` (speech by a voice that the training does not have) and `nothing` (the model
without an instruction), whose answers are the likeliest; `text-sampled` and `speech-sampled`, whose answers are drawn
by their probabilities; and without a model `random`, `forward` and `oracle`.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import Session
from transformers_omnivinci.sessions import Agent

from .actions import STOP, Action, oracle, parse_action, random_action
from .commands import QUESTION
from .data import HISTORY, STEPS, read_episodes
from .environment import NavigationEnv
from .metrics import Outcome, summarise
from .world import SUCCESS, Room, Ways

SAMPLED = "-sampled"
MODEL_POLICIES = ("text", "speech", "unheard", "nothing", f"text{SAMPLED}", f"speech{SAMPLED}")
POLICIES = (*MODEL_POLICIES, "random", "forward", "oracle")
STOPS = 0.1
"""How often the random robot stops: the share of stops among the oracle's actions."""


class Recorder:
    """
    An episode of an environment, which ends at its bound or when the robot stops, and what happened in it.

    Args:
        env ([`NavigationEnv`]): The environment, whose room is given.
    """

    def __init__(self, env: NavigationEnv):
        self.env = env
        self.frame, info = env.reset(seed=0)
        self.distances, self.actions, self.has_stopped = [info["distance"]], [], False

    def perform(self, action: Action) -> np.ndarray | None:
        """Performs an action; returns what is seen then, or `None` at the end of the episode."""
        self.frame, _, self.has_stopped, is_over, info = self.env.perform(action)
        self.distances.append(info["distance"])
        self.actions.append(str(action))
        return None if self.has_stopped or is_over else self.frame

    def outcome(self, num_unreadable: int = 0, named: float | None = None) -> Outcome:
        """How it went. `num_unreadable`, `named`: as of [`Outcome`]."""
        room, pose = self.env.room, self.env.pose
        near = {name: math.dist(place, (pose.x, pose.y)) for name, place in room.pillars.items()}
        nearest = min(near, key=near.get)
        arrived = nearest if self.has_stopped and near[nearest] <= SUCCESS else None
        distances = tuple(round(distance, 3) for distance in self.distances)
        path, goal = round(self.env.path, 3), room.goal
        return Outcome(distances[0], path, distances, self.has_stopped, SUCCESS, arrived, goal, num_unreadable, named)


def follow(recorder: Recorder, choose: Callable[[Recorder], Action]) -> None:
    """Lets a policy without a model choose until the episode ends."""
    while recorder.perform(choose(recorder)) is not None:
        pass


def forwards(recorder: Recorder) -> Action:
    """Straight ahead until nothing moves any more, then stop."""
    poses = recorder.env.poses
    is_stuck = len(poses) > 1 and math.dist((poses[-1].x, poses[-1].y), (poses[-2].x, poses[-2].y)) < 0.01
    return STOP if is_stuck else Action("forward", 75)


def ask_model(recorder: Recorder, model, processor, policy: str, row: dict, seed: int) -> tuple[int, float]:
    """
    Lets a model choose until it stops. `seed`: of drawn answers.

    Returns:
        `tuple[int, float]`: how many of its answers were no action, and the share of them that named the goal.
    """
    torch.manual_seed(seed)
    is_sampled, policy = policy.endswith(SAMPLED), policy.removesuffix(SAMPLED)
    question = f"{row['text']} {QUESTION}" if policy == "text" else QUESTION
    with Session(model, processor) as session:
        if policy in ("speech", "unheard"):
            session.watch(row[policy])
        agent = Agent(
            session,
            parse_action,
            stop=STOP,
            question=question,
            history=HISTORY,
            unreadable="stop",
            max_new_tokens=12,
            do_sample=is_sampled,
        )
        run = agent.run(recorder.frame, recorder.perform, STEPS)
    if run.ended_by in ("stop", "unreadable"):
        recorder.perform(STOP)
    named = [step.is_action and step.action.goal == recorder.env.room.goal for step in run.steps]
    return sum(not step.is_action for step in run.steps), sum(named) / len(named)


def play(policy: str, room: Room, row: dict, number: int, model=None, processor=None) -> tuple[Outcome, dict]:
    """
    One episode by a policy.

    Returns:
        `tuple[Outcome, dict]`: how it went, and the poses and actions for a replay.
    """
    recorder = Recorder(NavigationEnv(room, row["text"], STEPS))
    said: tuple = ()
    if policy in MODEL_POLICIES:
        said = ask_model(recorder, model, processor, policy, row, number)
    else:
        rng, ways = Random(f"random/{number}"), Ways(room, room.goal)
        choose = {
            "random": lambda recorder: random_action(rng, STOPS),
            "forward": forwards,
            "oracle": lambda recorder: oracle(ways, recorder.env.pose),
        }[policy]
        follow(recorder, choose)
    poses = [[round(pose.x, 3), round(pose.y, 3), pose.heading] for pose in recorder.env.poses]
    return recorder.outcome(*said), {"id": row["id"], "poses": poses, "actions": recorder.actions}


def trained_steps(model_path: str) -> dict | None:
    """The training's steps behind a model, and how many were planned, where its folder tells."""
    path = Path(model_path) / "trainer_state.json"
    if not path.exists():
        return None
    state = json.loads(path.read_text(encoding="utf-8"))
    return {"steps": state["global_step"], "planned": state["max_steps"]}


def evaluate(out: Path, policy: str, model_path: str | None, limit: int | None = None) -> dict:
    """
    All episodes of the test by a policy; writes `OUT/runs/POLICY.json` and returns the means.

    Raises:
        ValueError: the policy is unknown, needs a model, or the test has no such recordings.
        OSError: a file cannot be read or written.
    """
    if policy not in POLICIES:
        raise ValueError(f"There is no policy {policy!r}: {', '.join(POLICIES)} are accepted.")
    if policy in MODEL_POLICIES and model_path is None:
        raise ValueError(f"The policy {policy!r} needs a model: name its folder.")
    episodes = read_episodes(out / "test.jsonl")[:limit]
    told = policy.removesuffix(SAMPLED)
    if told in ("speech", "unheard") and any(row[told] is None for _, row in episodes):
        raise ValueError(f"{out / 'test.jsonl'} names no recordings for {told!r}: no voice for them was installed.")
    model = processor = None
    if policy in MODEL_POLICIES:
        model = AutoModel.from_pretrained(model_path).eval()
        processor = AutoProcessor.from_pretrained(model_path)
    start, outcomes, replays = time.process_time(), [], []
    for number, (room, row) in enumerate(episodes):
        outcome, replay = play(policy, room, row, number, model, processor)
        outcomes.append(outcome)
        replays.append(replay)
    summary = {**summarise(outcomes), "cpu_seconds": round(time.process_time() - start, 1)}
    run = {"policy": policy, "summary": summary, "outcomes": [one.to_json() for one in outcomes], "replays": replays}
    run["training"] = trained_steps(model_path) if policy in MODEL_POLICIES else None
    (out / "runs").mkdir(exist_ok=True)
    (out / "runs" / f"{policy}.json").write_text(json.dumps(run) + "\n", encoding="utf-8")
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder of the data")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="repeatable; default: all")
    parser.add_argument("--model", help="the folder of the trained model")
    parser.add_argument("--limit", type=int, help="only the first episodes")
    options = parser.parse_args()
    for policy in options.policy or POLICIES:
        summary = evaluate(options.out, policy, options.model, options.limit)
        print(policy, json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
