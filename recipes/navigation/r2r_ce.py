"""
Episodes of R2R-CE as Habitat has them (VLN-CE, version 1: `SPLIT.json.gz` and `SPLIT_gt.json.gz`).

Of the format alone: the houses, Matterport3D, come under a licence of their own and are not here, so nothing was run
in Habitat. What is read gives instructions, which [`commands`] may speak, and actions as this recipe's model writes
them; and an action gives the steps that Habitat takes for it.
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .actions import AMOUNTS, STOP, Action

STEPS = {0: STOP, 1: Action("forward", 25), 2: Action("left", 15), 3: Action("right", 15)}
"""Habitat's numbers of VLN-CE's actions."""
NUMBERS = {step.kind: (number, step.amount) for number, step in STEPS.items()}


@dataclass(frozen=True)
class R2REpisode:
    """
    An episode.

    Attributes:
        id (`str`): Its number in the split; the key of its actions.
        scene (`str`): The file of the house.
        instruction (`str`): What the robot is told.
        start (`tuple[float, float, float]`): In metres, in Habitat's axes: y is up.
        rotation (`tuple[float, float, float, float]`): The start's orientation, a quaternion (x, y, z, w).
        goal (`tuple[float, float, float]`): In metres; the first goal of the episode.
        reach (`float`): Metres from the goal within which a stop counts as arrival: 3 in the published files.
        shortest (`float`, *optional*): Metres of the shortest way; `None`: the file does not tell, as for tests.
        path (`tuple[tuple[float, float, float], ...]`): The places that the instruction describes.
    """

    id: str
    scene: str
    instruction: str
    start: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    goal: tuple[float, float, float]
    reach: float
    shortest: float | None
    path: tuple[tuple[float, float, float], ...]


def read_r2r(path: str | Path) -> list[R2REpisode]:
    """
    Reads a split.

    Args:
        path (`str` or `Path`): `SPLIT.json.gz`, or the same unpacked.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, has no episodes, or one of them lacks something; the file and which are named.
    """
    told = _read(path)
    found = told.get("episodes") if isinstance(told, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError(f"{path} is no split of R2R-CE: an object with a list `episodes` is.")
    return [_episode(path, number, one) for number, one in enumerate(found)]


def _episode(path: str | Path, number: int, told: dict) -> R2REpisode:
    try:
        goal, info = told["goals"][0], told.get("info") or {}
        text = told["instruction"]["instruction_text"]
        if not isinstance(text, str) or not text.strip():
            raise ValueError("its `instruction_text` is no text")
        length = info.get("geodesic_distance")
        return R2REpisode(
            str(told["episode_id"]),
            str(told["scene_id"]),
            text.strip(),
            _numbers(told["start_position"], 3),
            _numbers(told["start_rotation"], 4),
            _numbers(goal["position"], 3),
            _numbers([goal.get("radius", 3.0)], 1)[0],
            None if length is None else _numbers([length], 1)[0],
            tuple(_numbers(place, 3) for place in told.get("reference_path") or ()),
        )
    except KeyError as error:
        raise ValueError(f"{path}: episode {number} of R2R-CE has no {error}.") from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: episode {number} of R2R-CE cannot be read ({error}).") from error


def _numbers(values: Sequence, count: int) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{count} finite numbers are needed, not {list(values)!r:.60}")
    return numbers


def read_steps(path: str | Path) -> dict[str, list[int]]:
    """
    Reads the steps of the shortest ways, by the ids of episodes.

    Args:
        path (`str` or `Path`): `SPLIT_gt.json.gz`, or the same unpacked.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or names a step that VLN-CE does not have; the file and the episode are named.
    """
    told = _read(path)
    if not isinstance(told, dict) or not told:
        raise ValueError(f"{path} has no steps of R2R-CE: an object of episodes is expected.")
    steps = {}
    for name, one in told.items():
        actions = one.get("actions") if isinstance(one, dict) else None
        if not isinstance(actions, list) or any(isinstance(step, bool) or step not in STEPS for step in actions):
            raise ValueError(f"{path}: the `actions` of episode {name!r:.40} are no list of 0 (stop), 1, 2 and 3.")
        steps[name] = actions
    return steps


def _read(path: str | Path):
    path = Path(path)
    content = path.read_bytes()
    try:
        return json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is neither JSON nor JSON packed by gzip, or is damaged ({error}).") from error


def join_steps(steps: Sequence[int]) -> Iterator[Action]:
    """
    Steps of Habitat as actions with amounts, as far as the training has them: three steps ahead are `forward 75`, two
    turns to the left `left 30`.
    """
    current, count = None, 0
    for number in [*steps, None]:
        most = 1 if current in (None, 0) else len(AMOUNTS[STEPS[current].kind])
        if number != current or count == most:
            if current is not None:
                yield Action(STEPS[current].kind, STEPS[current].amount * count)
            current, count = number, 0
        count += 1


def split_action(action: Action) -> list[int]:
    """
    The steps of Habitat that come closest to an action, at least one: `left 30` is two turns of 15 degrees.
    """
    number, amount = NUMBERS[action.kind]
    return [number] * (max(1, round(action.amount / amount)) if amount else 1)
