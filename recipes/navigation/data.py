"""
Writes what a model learns from and the episodes that it is tested in: `python -m recipes.navigation.data OUT`.

Behaviour cloning: the steps of the shortest way, from places that a robot reaches which sometimes does something
else. What it should do there is asked for each pillar that it has seen lately, so that answers depend on instructions.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import numpy as np

from transformers_omnivinci.synthetic import Clip, write_clip
from transformers_omnivinci.tasks import task_row, write_rows

from .actions import STOP, oracle, perform, random_action
from .camera import sees, take_picture
from .commands import QUESTION, SPEEDS, find_voices, instruction, speak
from .world import COLOURS, Pose, Room, Ways, draw_room

HISTORY, STEPS = 8, 40
"""Frames that an action is chosen by, as in the paper, and the most actions of an episode."""
DETOURS = 0.2
"""The share of actions of the training's robots that are drawn instead of the shortest way's."""


def chat(content: Sequence[dict], answer: str | None = None) -> list[dict]:
    """Messages of a question, and its answer."""
    answered = [] if answer is None else [{"role": "assistant", "content": answer}]
    return [{"role": "user", "content": list(content)}, *answered]


def step_rows(room: Room, rng: Random) -> Iterator[tuple[list[np.ndarray], dict[str, str]]]:
    """
    The steps of an episode: the frames that are seen before each, the last one at the end, and the right answer for
    each pillar that was seen in them, the goal being the first. Answers begin with the pillar: what was heard is
    written down before it is acted upon.
    """
    ways, pose = {colour: Ways(room, colour) for colour in room.pillars}, room.start
    frames: list[np.ndarray] = []
    poses: list[Pose] = []
    for _ in range(STEPS):
        frames, poses = [*frames, take_picture(room, pose)][-HISTORY:], [*poses, pose][-HISTORY:]
        seen = [one for one in COLOURS if one != room.goal and any(sees(room, then, one) for then in poses)]
        right = {colour: oracle(ways[colour], pose) for colour in [room.goal, *seen]}
        yield frames, {colour: f"{colour}: {action}" for colour, action in right.items()}
        action = right[room.goal]
        if action == STOP:
            return
        pose = perform(room, pose, random_action(rng) if rng.random() < DETOURS else action)


def write_training(out: Path, num_episodes: int, seed: int, spoken: Sequence[dict]) -> int:
    """
    Writes `train.jsonl`, chats with text and with speech, and `said.jsonl`, which colour is said in
    each recording.

    Returns:
        `int`: how many steps it has.
    """
    (out / "media" / "steps").mkdir(parents=True, exist_ok=True)
    rows, num_steps = [], 0
    for number in range(num_episodes):
        rng = Random(f"train/{seed}/{number}")
        for step, (frames, right) in enumerate(step_rows(draw_room(rng), rng)):
            path = f"media/steps/{number:05d}-{step:02d}.mp4"
            clip = Clip(np.stack(frames), np.zeros(1, dtype=np.float32), fps=1, sampling_rate=16_000)
            write_clip(out / path, clip, with_sound=False)
            video, num_steps = {"type": "video", "path": path, "fps": 1}, num_steps + 1
            for colour, action in right.items():
                text = {"type": "text", "text": f"{instruction(colour, rng)} {QUESTION}"}
                rows.append({"id": f"{number}-{step}-{colour}", "messages": chat([video, text], action)})
            colour = rng.choice(list(right))
            told = rng.choice([one for one in spoken if one["colour"] == colour])
            heard = [{"type": "audio", "path": told["path"]}, video, {"type": "text", "text": QUESTION}]
            rows.append({"id": f"{number}-{step}-spoken", "messages": chat(heard, right[colour])})
    write_rows(
        out / "said.jsonl",
        [
            task_row(f"said-{number}", [{"type": "audio", "path": told["path"]}], "Which colour?", told["colour"])
            for number, told in enumerate(spoken)
        ],
    )
    write_rows(out / "train.jsonl", rows)
    return num_steps


def write_episodes(out: Path, num_episodes: int, seed: int, spoken: Sequence[dict], unheard: Sequence[dict]) -> None:
    """Writes `test.jsonl`: rooms, each with an instruction as text, and said by a known and by an unheard voice."""
    rows = []
    for number in range(num_episodes):
        rng = Random(f"test/{seed}/{number}")
        goal = list(COLOURS)[number % len(COLOURS)]
        room = draw_room(rng, goal)
        row = {"id": f"test-{number}", "room": asdict(room), "text": instruction(goal, rng)}
        row["distance"] = round(Ways(room, goal).distance(room.start), 3)
        for name, recordings in (("speech", spoken), ("unheard", unheard)):
            told = [one for one in recordings if one["text"] == row["text"]]
            row[name] = rng.choice(told)["path"] if told else None
        rows.append(row)
    write_rows(out / "test.jsonl", rows)


def read_episodes(path: str | Path) -> list[tuple[Room, dict]]:
    """
    The rooms of a file that [`write_episodes`] wrote, each with its row, whose paths are made absolute.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line of it is no such episode; the sentence names file and line.
    """
    path, episodes = Path(path), []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no file of episodes: it is not UTF-8.") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            told = row["room"]
            pillars = {name: (float(x), float(y)) for name, (x, y) in told["pillars"].items()}
            boxes = tuple(tuple(map(float, (left, low, right, high))) for left, low, right, high in told["boxes"])
            start = Pose(*(float(told["start"][name]) for name in ("x", "y", "heading")))
            room = Room(pillars, boxes, start, told["goal"])
            if room.goal not in pillars or not isinstance(row["text"], str) or set(pillars) - set(COLOURS):
                raise ValueError("a goal that is one of its pillars, of known colours, and a text are needed")
            if not math.isfinite(Ways(room, room.goal).distance(start)):
                raise ValueError("no way leads to the goal")
            spoken = {name: str(path.parent / row[name]) for name in ("speech", "unheard") if row.get(name)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: this is no episode of a room ({error}).") from error
        episodes.append((replace(room, goal=told["goal"]), {**row, "speech": None, "unheard": None, **spoken}))
    if not episodes:
        raise ValueError(f"{path} holds no episodes.")
    return episodes


def write_data(
    out: Path, train_episodes: int, test_episodes: int, seed: int, voices: Sequence[str] | None = None
) -> dict:
    """
    Writes all files, and returns what was written: numbers, and the voices.

    Args:
        out (`Path`): The folder.
        train_episodes (`int`), test_episodes (`int`): How many rooms.
        seed (`int`): Of rooms, detours and instructions.
        voices (`Sequence[str]`, *optional*):
            The voices of the training, without one for the test alone. `None`: those that this machine has.

    Raises:
        OSError: nothing on this machine speaks, or a file cannot be written.
    """
    heard, unheard = find_voices() if voices is None else (list(voices), None)
    rng, speech = Random(f"speech/{seed}"), out / "media" / "speech"
    spoken = {split: [one for voice in heard for one in speak(speech, voice, SPEEDS[split], rng)] for split in SPEEDS}
    others = [] if unheard is None else speak(speech, unheard, SPEEDS["test"], rng)
    steps = write_training(out, train_episodes, seed, spoken["train"])
    write_episodes(out, test_episodes, seed, spoken["test"], others)
    about = {"seed": seed, "train_episodes": train_episodes, "test_episodes": test_episodes, "steps": steps}
    about |= {"voices": heard, "unheard_voice": unheard, "recordings": len(spoken["train"])}
    (out / "data.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that is written")
    parser.add_argument("--train-episodes", type=int, default=500)
    parser.add_argument("--test-episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--voice", action="append", help="repeatable; default: those of this machine")
    options = parser.parse_args()
    numbers = options.train_episodes, options.test_episodes, options.seed
    print(json.dumps(write_data(options.out, *numbers, options.voice)))


if __name__ == "__main__":
    main()
