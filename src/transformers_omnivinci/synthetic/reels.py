"""Longer films: several scenes one after another in one mp4 file, with a list of all events beside it."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..new_file import new_file
from .candidates import CAPTION_WORDINGS, format_seconds
from .clips import Clip, write_clip
from .config import WorldConfig
from .rendering import draw_frames, synthesise
from .scenes import Scene, plan_scene

EVENTS_SUFFIX = ".events.json"


@dataclass(frozen=True)
class Event:
    """
    What is seen or heard in a film.

    Attributes:
        sense (`"visual"` or `"audio"`): Whether it is a shape or a sound.
        what (`str`): Colour and form, such as `"blue star"`, or the kind of sound.
        start (`float`), end (`float`): In seconds. Of sounds, captions tell the start alone.
        motion (`str`): Of a shape, one of `MOTIONS`; empty for a sound.
    """

    sense: Literal["visual", "audio"]
    what: str
    start: float
    end: float
    motion: str = ""

    @property
    def sentence(self) -> str:
        """Its sentence in captions, with seconds rounded to halves."""
        moves, stands, is_heard = CAPTION_WORDINGS
        start, end = format_seconds(self.start), format_seconds(self.end)
        if self.sense == "audio":
            return is_heard.format(start=start, sound=self.what)
        colour, form = self.what.split()
        wording = stands if self.motion == "nowhere" else moves
        return wording.format(start=start, end=end, colour=colour, form=form, motion=self.motion)


def events_of(scene: Scene, offset: float = 0.0) -> list[Event]:
    """The events of a scene that begins at second `offset`, in the order of their starts."""
    events = [
        Event("visual", f"{shape.colour} {shape.form}", shape.start + offset, shape.end + offset, shape.motion)
        for shape in scene.shapes
    ]
    events += [Event("audio", sound.kind, sound.start + offset, sound.end + offset) for sound in scene.sounds]
    return sorted(events, key=lambda event: (event.start, event.sense))


def write_reel(path: str | Path, scenes: list[Scene], config: WorldConfig) -> list[Event]:
    """
    Writes a film of scenes, and its events into a file beside it, see [`read_events`].

    Args:
        path (`str` or `Path`): With the suffix .mp4.
        scenes (`list[Scene]`): In their order.
        config ([`WorldConfig`]): The config of their world.

    Returns:
        `list[Event]`: in seconds of the film.
    """
    path = Path(path)
    frames = np.concatenate([draw_frames(scene, config) for scene in scenes])
    waveform = np.concatenate([synthesise(scene, config) for scene in scenes])
    events, offset = [], 0.0
    for scene in scenes:
        events += events_of(scene, offset)
        offset += scene.seconds
    with new_file(path.with_suffix(EVENTS_SUFFIX)) as part:
        part.write_text(json.dumps([asdict(event) for event in events], indent=1) + "\n", encoding="utf-8")
    write_clip(path, Clip(frames, waveform, config.fps, config.sampling_rate))
    return events


def write_reels(
    folder: str | Path,
    num_reels: int,
    seconds: float,
    seed: int = 0,
    config: WorldConfig | None = None,
    on_reel: Callable[[], object] | None = None,
) -> list[Path]:
    """
    Writes films of random scenes.

    Args:
        folder (`str` or `Path`): Made if it is missing. Films that are there already are kept.
        num_reels (`int`): How many.
        seconds (`float`): How long each is at least; it ends with the scene in which that is reached.
        seed (`int`, *optional*, defaults to 0): The same seed gives the same films.
        config ([`WorldConfig`], *optional*): The config of their world.
        on_reel (`Callable`, *optional*): Called without arguments after each.

    Returns:
        `list[Path]`: the films.
    """
    folder, config = Path(folder), config or WorldConfig()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"reel-{seed}-{number:04d}.mp4" for number in range(num_reels)]
    for number, path in enumerate(paths):
        rng = random.Random(f"reel/{seed}/{number}")
        scenes: list[Scene] = []
        while sum(scene.seconds for scene in scenes) < seconds:
            scenes.append(plan_scene(config, "train", rng))
        if not path.exists():
            write_reel(path, scenes, config)
        if on_reel is not None:
            on_reel()
    return paths


def read_events(path: str | Path) -> list[Event]:
    """
    The events of a film that [`write_reel`] wrote.

    Raises:
        OSError: there is no list of events beside it.
        ValueError: the list is damaged.
    """
    path = Path(path).with_suffix(EVENTS_SUFFIX)
    try:
        return [Event(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except OSError as error:
        raise OSError(f"There is no list of events {path}, which films of the synthetic world have.") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no list of events: {error}.") from error
