"""Rooms with coloured pillars and low boxes, robots that move in them, and the shortest ways around obstacles."""

import math
from dataclasses import dataclass
from random import Random

import numpy as np

COLOURS = {"red": (225, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 235), "yellow": (240, 215, 50)}
"""The colours of pillars, which are what a robot is sent to; RGB."""
SIDE = 6.0
"""Metres from wall to wall."""
ROBOT, PILLAR = 0.2, 0.3
"""Radii in metres."""
MARGIN = 0.1
"""How far from an obstacle's corner the shortest way passes it, in metres, as headings are multiples of 15 degrees."""
SUCCESS, STOP_AT = 1.0, 0.75
"""Metres from a pillar's middle: within the first a stop counts as arrival, within the second the oracle stops."""


@dataclass(frozen=True)
class Pose:
    """Where a robot is, in metres, and which way it looks, in degrees counter-clockwise from the x axis."""

    x: float
    y: float
    heading: float


@dataclass(frozen=True)
class Room:
    """
    A square room, whose corner is the origin.

    Attributes:
        pillars (`dict[str, tuple[float, float]]`): The middle of each pillar by its colour, in metres.
        boxes (`tuple[tuple[float, float, float, float], ...]`):
            Low boxes, which cameras see over: least x, least y, greatest x, greatest y in metres.
        start ([`Pose`]): Where the robot begins.
        goal (`str`): The colour of the pillar that it is sent to.
    """

    pillars: dict[str, tuple[float, float]]
    boxes: tuple[tuple[float, float, float, float], ...]
    start: Pose
    goal: str

    def obstacles(self, without: str | None = None) -> np.ndarray:
        """
        What the middle of the robot cannot enter, grown by its radius, but for one pillar: rectangles of shape
        `(num_obstacles, 4)` as boxes are given.
        """
        reach = PILLAR + ROBOT
        boxes = [(left - ROBOT, low - ROBOT, right + ROBOT, high + ROBOT) for left, low, right, high in self.boxes]
        pillars = [
            (x - reach, y - reach, x + reach, y + reach) for name, (x, y) in self.pillars.items() if name != without
        ]
        return np.array(boxes + pillars, dtype=np.float64).reshape(-1, 4)


def draw_room(rng: Random, goal: str | None = None) -> Room:
    """
    A room with a pillar of each colour and two low boxes, in which the goal is at least 2 m of way from the start.

    Args:
        rng (`random.Random`): What draws it.
        goal (`str`, *optional*): The colour of the goal. `None`: any.
    """
    while True:
        boxes = []
        for _ in range(2):
            long, short = rng.uniform(0.8, 1.8), rng.uniform(0.3, 0.5)
            width, depth = (long, short) if rng.random() < 0.5 else (short, long)
            x, y = rng.uniform(0.8, SIDE - 0.8 - width), rng.uniform(0.8, SIDE - 0.8 - depth)
            boxes.append((x, y, x + width, y + depth))
        pillars: dict[str, tuple[float, float]] = {}
        for colour in rng.sample(list(COLOURS), len(COLOURS)):
            place = (rng.uniform(0.6, SIDE - 0.6), rng.uniform(0.6, SIDE - 0.6))
            if all(math.dist(place, other) > 1.6 for other in pillars.values()):
                pillars[colour] = place
        start = Pose(rng.uniform(0.4, SIDE - 0.4), rng.uniform(0.4, SIDE - 0.4), 15.0 * rng.randrange(24))
        wanted = goal or rng.choice(list(COLOURS))
        room = Room(pillars, tuple(boxes), start, wanted)
        if len(pillars) < len(COLOURS) or not _is_roomy(room):
            continue
        distance = Ways(room, wanted).distance(start)
        if 2.0 <= distance < math.inf:
            return room


def _is_roomy(room: Room) -> bool:
    """Whether there is room for the robot beside each obstacle, and at its start."""
    rectangles = room.obstacles()
    gap = MARGIN + 0.05
    grown = rectangles + np.array([-gap, -gap, gap, gap])
    for first in range(len(grown)):
        for second in range(first + 1, len(grown)):
            one, other = rectangles[first], grown[second]
            if one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]:
                return False
    x, y = room.start.x, room.start.y
    return not np.any((grown[:, 0] < x) & (x < grown[:, 2]) & (grown[:, 1] < y) & (y < grown[:, 3]))


def wrap(degrees: float) -> float:
    """An angle in degrees, from -180 on and less than 180."""
    return (degrees + 180.0) % 360.0 - 180.0


def first_hits(starts: np.ndarray, ways: np.ndarray, rectangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Where straight ways enter and leave rectangles, as shares of each way.

    Args:
        starts (`np.ndarray` of shape `(num_ways, 2)`), ways (`np.ndarray` of shape `(num_ways, 2)`): Metres.
        rectangles (`np.ndarray` of shape `(num_rectangles, 4)`): Least x, least y, greatest x, greatest y in metres.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: of shape `(num_ways, num_rectangles)` each. The way of a line that misses a
        rectangle enters it behind where it leaves it.
    """
    along = np.where(np.abs(ways) < 1e-12, 1e-12, ways)[:, None, :]
    low = (rectangles[None, :, :2] - starts[:, None, :]) / along
    high = (rectangles[None, :, 2:] - starts[:, None, :]) / along
    return np.minimum(low, high).max(-1), np.maximum(low, high).min(-1)


def move(room: Room, pose: Pose, metres: float) -> Pose:
    """The pose after a straight way ahead, which ends where an obstacle or a wall stands in it."""
    angle = math.radians(pose.heading)
    way = metres * np.array([math.cos(angle), math.sin(angle)])
    start = np.array([pose.x, pose.y])
    enter, leave = first_hits(start[None], way[None], room.obstacles())
    is_hit = (enter < leave) & (leave > 1e-9) & (enter < 1.0)
    share = min([1.0, *np.maximum(enter[is_hit] - 1e-3, 0.0)])
    for place, step in zip(start, way, strict=True):
        if step > 1e-12:
            share = min(share, (SIDE - ROBOT - place) / step)
        elif step < -1e-12:
            share = min(share, (ROBOT - place) / step)
    x, y = start + max(share, 0.0) * way
    return Pose(float(x), float(y), pose.heading)


class Ways:
    """
    The shortest ways to a pillar, around obstacles that are in between: lines between their corners and the pillar.

    Args:
        room ([`Room`]): The room.
        goal (`str`): The colour of the pillar.
    """

    def __init__(self, room: Room, goal: str):
        self.goal = np.array(room.pillars[goal])
        self.rectangles = room.obstacles(without=goal)
        corners = [
            (x + dx, y + dy)
            for left, low, right, high in self.rectangles
            for x, dx in ((left, -MARGIN), (right, MARGIN))
            for y, dy in ((low, -MARGIN), (high, MARGIN))
        ]
        inside = [
            (x, y) for x, y in corners if ROBOT <= x <= SIDE - ROBOT and ROBOT <= y <= SIDE - ROBOT
        ]  # the others are in a wall
        self.nodes = np.array([tuple(self.goal), *inside])
        lengths = np.stack([self._lengths(node) for node in self.nodes])
        self.rest = np.full(len(self.nodes), math.inf)
        self.rest[0] = 0.0
        for _ in self.nodes:  # Bellman-Ford: no way has more lines than there are nodes
            self.rest = np.minimum(self.rest, (lengths + self.rest[None]).min(1))

    def _lengths(self, place: np.ndarray) -> np.ndarray:
        """Metres of the straight lines to all nodes; infinite where something stands in between."""
        ways = self.nodes - place
        enter, leave = first_hits(np.broadcast_to(place, ways.shape), ways, self.rectangles)
        is_blocked = (np.maximum(enter, 0.0) + 1e-6 < np.minimum(leave, 1.0)).any(1)
        return np.where(is_blocked, math.inf, np.linalg.norm(ways, axis=1))

    def distance(self, pose: Pose) -> float:
        """Metres of the shortest way from there to the middle of the pillar; infinite if there is none."""
        return float((self._lengths(np.array([pose.x, pose.y])) + self.rest).min())

    def next_place(self, pose: Pose) -> tuple[np.ndarray, bool]:
        """Where the first line of the shortest way ends, of shape `(2,)` in metres, and whether that is the pillar."""
        total = self._lengths(np.array([pose.x, pose.y])) + self.rest
        nearby = np.linalg.norm(self.nodes - [pose.x, pose.y], axis=1) < 0.08
        nearby[0] = False
        best = int(np.where(nearby, math.inf, total).argmin())
        return self.nodes[best], best == 0
