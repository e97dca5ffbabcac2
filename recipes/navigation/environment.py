"""The rooms as an environment of gymnasium."""

import math
from random import Random

import gymnasium
import numpy as np
from gymnasium import spaces

from .actions import AMOUNTS, STOP, Action, perform
from .camera import PIXELS, take_picture
from .commands import instruction
from .data import STEPS
from .world import SUCCESS, Pose, Room, Ways, draw_room

KINDS = tuple(AMOUNTS)


class NavigationEnv(gymnasium.Env):
    """
    A robot in a room, which is sent to a pillar.

    An observation is the picture of its camera, uint8 of shape `(64, 64, 3)`. An action is a pair: the place of its
    kind in `KINDS`, and its amount in centimetres or degrees, of shape `(1,)`. A stop ends the episode; it is rewarded
    with 1 within 1 m of the pillar, with 0 elsewhere. `info` has `instruction`, `pose`, `distance`, the metres that
    are left of the shortest way, and `path`, the metres that were gone.

    Args:
        room ([`Room`], *optional*): The room of all episodes. `None`: `reset` draws one.
        text (`str`, *optional*): The instruction of that room. `None`: one of the wordings.
        max_steps (`int`, *optional*, defaults to 40): After so many actions an episode is cut off.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}
    render_mode = "rgb_array"

    def __init__(self, room: Room | None = None, text: str | None = None, max_steps: int = STEPS):
        self.given, self.text, self.max_steps = room, text, max_steps
        self.observation_space = spaces.Box(0, 255, (PIXELS, PIXELS, 3), np.uint8)
        self.action_space = spaces.Tuple((spaces.Discrete(len(KINDS)), spaces.Box(0.0, 180.0, (1,), np.float32)))
        self.room: Room | None = room
        self.pose, self.poses, self.told = None, [], ""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begins an episode; returns what is seen, and `info`."""
        super().reset(seed=seed)
        rng = Random(int(self.np_random.integers(2**31)))
        self.room = self.given or draw_room(rng)
        self.told = self.text or instruction(self.room.goal, rng)
        self.ways, self.pose = Ways(self.room, self.room.goal), self.room.start
        self.poses, self.path, self.num_steps = [self.pose], 0.0, 0
        return self.render(), self._info()

    def step(self, action: tuple[int, np.ndarray]) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Performs an action; returns what is seen, the reward, whether it was a stop or the last step, and `info`."""
        kind, amount = action
        return self.perform(Action(KINDS[int(kind)], round(float(np.ravel(amount)[0]))))

    def perform(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict]:
        """As [`step`], for an action that a model has named."""
        before, self.num_steps = self.pose, self.num_steps + 1
        self.pose = perform(self.room, self.pose, action)
        self.poses.append(self.pose)
        self.path += math.dist((before.x, before.y), (self.pose.x, self.pose.y))
        has_stopped, info = action.kind == STOP.kind, self._info()
        reward = float(has_stopped and info["distance"] <= SUCCESS)
        return self.render(), reward, has_stopped, not has_stopped and self.num_steps >= self.max_steps, info

    def render(self) -> np.ndarray:
        """What the robot sees."""
        return take_picture(self.room, self.pose)

    def _info(self) -> dict:
        pose: Pose = self.pose
        return {
            "instruction": self.told,
            "pose": pose,
            "distance": self.ways.distance(pose),
            "path": self.path,
        }
