"""What a robot sees: rays through each column of a picture, painted from the farthest thing to the nearest."""

import math

import numpy as np

from .world import COLOURS, PILLAR, SIDE, Pose, Room, first_hits

PIXELS, VIEW = 64, 90.0
"""Columns and rows of a picture, and how many degrees wide it is."""
EYE, WALL, TALL, LOW = 0.9, 2.4, 1.9, 0.45
"""Heights in metres: of the camera, of walls, of pillars and of boxes."""
WALLS = np.array([(150, 150, 158), (128, 128, 136), (172, 172, 178), (140, 138, 132)], dtype=np.float32)
BOX, CEILING, FLOOR = (120, 92, 70), (205, 208, 212), (96, 94, 90)
FOCAL = PIXELS / 2 / math.tan(math.radians(VIEW / 2))


def take_picture(room: Room, pose: Pose) -> np.ndarray:
    """The picture from a pose, uint8 of shape `(64, 64, 3)`: pillars, boxes and walls, darker where they are far."""
    columns = np.arange(PIXELS) + 0.5 - PIXELS / 2
    angle = math.radians(pose.heading)
    forward = np.array([math.cos(angle), math.sin(angle)])
    right = np.array([math.sin(angle), -math.cos(angle)])
    rays = forward + right * (columns / FOCAL)[:, None]  # (64, 2): 1 m ahead each, so that shares are depths in metres
    eye = np.array([pose.x, pose.y])

    picture = np.empty((PIXELS, PIXELS, 3), dtype=np.float32)
    picture[: PIXELS // 2], picture[PIXELS // 2 :] = CEILING, FLOOR
    depths, heights, colours = [], [], []
    along = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    to_walls = np.maximum((0.0 - eye) / along, (SIDE - eye) / along)
    side = to_walls.argmin(1)
    which = 2 * side + (np.take_along_axis(along, side[:, None], 1)[:, 0] > 0)
    depths.append(to_walls.min(1)), heights.append(WALL), colours.append(WALLS[which])
    if room.boxes:
        enter, leave = first_hits(np.broadcast_to(eye, rays.shape), rays, np.array(room.boxes))
        for depth in np.where((enter < leave) & (enter > 0), enter, math.inf).T:
            depths.append(depth), heights.append(LOW), colours.append(np.tile(np.float32(BOX), (PIXELS, 1)))
    for colour, middle in room.pillars.items():
        depths.append(_to_pillar(eye, rays, np.array(middle))), heights.append(TALL)
        colours.append(np.tile(np.float32(COLOURS[colour]), (PIXELS, 1)))

    rows, all_depths = np.arange(PIXELS)[:, None], np.stack(depths)
    for order in np.argsort(-all_depths, axis=0):  # of each column, the next nearer thing
        depth = np.take_along_axis(all_depths, order[None], 0)[0]
        is_there = np.isfinite(depth)
        depth = np.where(is_there, np.maximum(depth, 0.05), 1.0)
        top = PIXELS / 2 - FOCAL * (np.array(heights)[order] - EYE) / depth
        bottom = PIXELS / 2 + FOCAL * EYE / depth
        is_covered = is_there & (rows + 0.5 >= top) & (rows + 0.5 < bottom)
        painted = np.stack(colours)[order, np.arange(PIXELS)] * np.clip(1.1 - 0.06 * depth, 0.6, 1.0)[:, None]
        picture = np.where(is_covered[..., None], painted[None], picture)
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def _to_pillar(eye: np.ndarray, rays: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Metres ahead at which each ray meets a pillar, of shape `(64,)`; infinite where it misses it."""
    beside = eye - middle
    square, half = (rays**2).sum(1), rays @ beside
    inside = half**2 - square * (beside @ beside - PILLAR**2)
    depth = (-half - np.sqrt(np.maximum(inside, 0.0))) / square
    return np.where((inside > 0) & (depth > 0), depth, math.inf)


def sees(room: Room, pose: Pose, colour: str) -> bool:
    """Whether the middle of a pillar is within the picture; what stands before it is low, or another pillar."""
    x, y = room.pillars[colour]
    turn = math.degrees(math.atan2(y - pose.y, x - pose.x)) - pose.heading
    return abs((turn + 180.0) % 360.0 - 180.0) < VIEW / 2
