"""Actions as a model writes them, and who chooses them without a model: the shortest way, and chance."""

import math
import re
from dataclasses import dataclass, field, replace
from random import Random

from .world import COLOURS, STOP_AT, Pose, Room, Ways, move, wrap

AMOUNTS = {"forward": (25, 50, 75), "left": (15, 30, 45), "right": (15, 30, 45), "stop": ()}
"""The amounts of each kind that are trained: centimetres ahead, degrees of turns."""
ACCEPTED = (
    "'forward CENTIMETRES', 'left DEGREES', 'right DEGREES' and 'stop' are accepted, also behind a pillar: 'red: stop'"
)


@dataclass(frozen=True)
class Action:
    """
    What a robot does next.

    Attributes:
        kind (`str`): A key of `AMOUNTS`.
        amount (`int`): Centimetres ahead, or degrees of a turn; 0 of a stop.
        goal (`str`, *optional*): The pillar that it is meant for, as far as that was said. It makes no other action.
    """

    kind: str
    amount: int = 0
    goal: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.kind if self.kind == "stop" else f"{self.kind} {self.amount}"


STOP = Action("stop")


def parse_action(answer: str) -> Action:
    """
    The action that an answer names, such as `"left 30"` or `"red: left 30"`.

    Raises:
        ValueError: it is none: another word, no amount, or one beyond 500 cm or 180 degrees.
    """
    goals = "|".join(COLOURS)
    found = re.fullmatch(
        rf"(?:({goals}): )?(?:(forward|left|right) (\d{{1,3}})|stop)", answer.strip().rstrip(".").lower()
    )
    if found is None:
        raise ValueError(f"{ACCEPTED}.")
    goal, kind, amount = found.groups()
    if kind is None:
        return replace(STOP, goal=goal)
    most = 500 if kind == "forward" else 180
    if not 1 <= int(amount) <= most:
        raise ValueError(f"an amount from 1 to {most} is accepted behind {kind!r}.")
    return Action(kind, int(amount), goal)


def perform(room: Room, pose: Pose, action: Action) -> Pose:
    """The pose after an action; that of a stop is the same."""
    if action.kind == "forward":
        return move(room, pose, action.amount / 100)
    turn = {"left": action.amount, "right": -action.amount, "stop": 0}[action.kind]
    return Pose(pose.x, pose.y, (pose.heading + turn) % 360.0)


def oracle(ways: Ways, pose: Pose) -> Action:
    """The next action of the shortest way: turn towards it by a multiple of 15 degrees, go ahead, stop at the goal."""
    if ways.distance(pose) <= STOP_AT:
        return STOP
    place, is_goal = ways.next_place(pose)
    way = math.dist((pose.x, pose.y), place)
    turn = wrap(math.degrees(math.atan2(place[1] - pose.y, place[0] - pose.x)) - pose.heading)
    if abs(turn) > 7.5:
        return Action("left" if turn > 0 else "right", min(45, 15 * max(1, round(abs(turn) / 15))))
    ahead = way - (STOP_AT - 0.15 if is_goal else 0.0)
    return Action("forward", 25 * min(3, max(1, round(ahead / 0.25))))


def random_action(rng: Random, stops: float = 0.0) -> Action:
    """Any of the actions that are trained, a stop with that probability."""
    if rng.random() < stops:
        return STOP
    kind = rng.choice(["forward", "forward", "left", "right"])
    return Action(kind, rng.choice(AMOUNTS[kind]))
