"""The size and difficulty of the synthetic world."""

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

AAC_SAMPLING_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def _within(low, high, default):
    """A field whose value, or both values of a pair, are between `low` and `high`."""
    return field(default=default, metadata={"limits": (low, high)})


@dataclass(frozen=True)
class WorldConfig:
    """
    Size and difficulty of the clips.

    Args:
        height (`int`, defaults to 64), width (`int`, defaults to 64): Size of the frames in pixels; even numbers.
        fps (`int`, defaults to 8): Frames per second; an even number, as clips last multiples of half a second.
        sampling_rate (`int`, defaults to 16000): Of the sound, in Hz; one of `AAC_SAMPLING_RATES`.
        clip_seconds (`tuple[float, float]`, defaults to `(4.0, 12.0)`):
            Shortest and longest clip; multiples of half a second.
        slot_seconds (`tuple[float, float]`, defaults to `(2.0, 3.0)`):
            Shortest and longest slot; multiples of half a second. A clip is divided into slots, each with at most one
            shape and one sound. A shape is on screen for half a second to half a second plus twice `jitter` less than
            its slot lasts.
        max_slots (`int`, defaults to 5): Maximum number of slots in a clip.
        jitter (`float`, defaults to 0.1):
            Maximum distance in seconds of an onset from a multiple of half a second. Answers are rounded to such
            multiples, and no onset is near the middle between two.
        shape_probability (`float`, defaults to 0.85), sound_probability (`float`, defaults to 0.85):
            Probability that a slot has a shape, and that it has a sound.
        repeat_probability (`float`, defaults to 0.3): Probability that one sound of a clip is heard several times.
        match_probability (`float`, defaults to 0.0):
            Probability that the sounds of a clip go with its shapes: in slots that have both, each form then has a
            sound of its own (`SOUND_OF`). In other clips, what is seen does not tell what is heard.
        num_frames (`int`, defaults to 16):
            Number of frames that a model samples uniformly from a clip: every shape is in at least one of them, and a
            shape whose motion is asked about in at least two.
        shape_radius (`tuple[float, float]`, defaults to `(0.2, 0.25)`):
            Smallest and largest radius, as a fraction of the shorter side.
        num_specks (`int`, defaults to 3): Maximum number of grey specks that drift over the background as distractors.
        grain (`float`, defaults to 4.0): Maximum noise of the background, in levels of 255.
        gain (`tuple[float, float]`, defaults to `(0.4, 1.0)`): Smallest and largest gain of a sound.
        noise (`float`, defaults to 0.01): Maximum amplitude of the background noise; full scale is 1.
        hum (`float`, defaults to 0.02): Maximum amplitude of the background hum; full scale is 1.

    Raises:
        ValueError: a value is out of range, or values do not fit together.
        TypeError: a value has the wrong type.
    """

    height: int = _within(32, 1024, default=64)
    width: int = _within(32, 1024, default=64)
    fps: int = _within(4, 60, default=8)
    sampling_rate: int = _within(8_000, 48_000, default=16_000)
    clip_seconds: tuple[float, float] = _within(2.0, 120.0, default=(4.0, 12.0))
    slot_seconds: tuple[float, float] = _within(2.0, 30.0, default=(2.0, 3.0))
    max_slots: int = _within(1, 6, default=5)
    jitter: float = _within(0.0, 0.1, default=0.1)
    shape_probability: float = _within(0.1, 1.0, default=0.85)
    sound_probability: float = _within(0.1, 1.0, default=0.85)
    repeat_probability: float = _within(0.0, 1.0, default=0.3)
    match_probability: float = _within(0.0, 1.0, default=0.0)
    num_frames: int = _within(2, 4096, default=16)
    shape_radius: tuple[float, float] = _within(0.1, 0.25, default=(0.2, 0.25))
    num_specks: int = _within(0, 20, default=3)
    grain: float = _within(0.0, 16.0, default=4.0)
    gain: tuple[float, float] = _within(0.1, 1.0, default=(0.4, 1.0))
    noise: float = _within(0.0, 0.05, default=0.01)
    hum: float = _within(0.0, 0.05, default=0.02)

    def __post_init__(self):
        for spec in fields(self):
            value, (low, high) = getattr(self, spec.name), spec.metadata["limits"]
            if isinstance(spec.default, tuple):
                if not isinstance(value, (list, tuple)) or len(value) != 2:
                    raise TypeError(f"`{spec.name}={value!r}`: a pair such as {spec.default} is accepted.")
                value = tuple(value)  # JSON has no tuples
                object.__setattr__(self, spec.name, value)
            values = value if isinstance(spec.default, tuple) else (value,)
            kind = int if isinstance(spec.default, int) else (int, float)
            if any(not isinstance(number, kind) or isinstance(number, bool) for number in values):
                raise TypeError(
                    f"`{spec.name}={value!r}` has the wrong type: values like {spec.default!r} are accepted."
                )
            if not low <= values[0] <= values[-1] <= high:
                raise ValueError(f"`{spec.name}={value}` is out of range: {low} to {high} is accepted.")
        if self.sampling_rate not in AAC_SAMPLING_RATES:
            raise ValueError(
                f"`sampling_rate={self.sampling_rate}`: AAC accepts {', '.join(map(str, AAC_SAMPLING_RATES))}."
            )
        for name in ("height", "width", "fps"):
            if getattr(self, name) % 2:
                raise ValueError(f"`{name}={getattr(self, name)}` is odd: an even number is accepted.")
        for name in ("clip_seconds", "slot_seconds"):
            if any(2 * seconds % 1 for seconds in getattr(self, name)):
                raise ValueError(f"`{name}={getattr(self, name)}`: multiples of half a second are accepted.")
        if self.clip_seconds[0] < self.slot_seconds[0]:
            raise ValueError(f"Clips of {self.clip_seconds[0]} s are too short for slots of {self.slot_seconds[0]} s.")
        if self.num_frames < self.min_num_frames:
            raise ValueError(
                f"`num_frames={self.num_frames}`: frames sampled from {self.clip_seconds[1]} s can miss a shape of "
                f"{self.min_shape_seconds:g} s; at least {self.min_num_frames} are accepted."
            )

    @classmethod
    def from_json(cls, path: str | Path) -> "WorldConfig":
        """
        Reads a config from a JSON object with some of the fields; the others keep their defaults.

        Args:
            path (`str` or `Path`): The JSON file.

        Raises:
            ValueError: the file is not JSON, is not an object of these fields, or a value is out of range.
            TypeError: a value has the wrong type.
            OSError: the file cannot be read.
        """
        try:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}.") from error
        if not isinstance(settings, dict):
            raise ValueError(f"{path} holds {settings!r:.80}: an object with fields of WorldConfig is accepted.")
        unknown = settings.keys() - {spec.name for spec in fields(cls)}
        if unknown:
            raise ValueError(
                f"{path} has unknown fields: {', '.join(sorted(unknown))}. Fields of WorldConfig are accepted."
            )
        return cls(**settings)

    @property
    def min_shape_seconds(self) -> float:
        """The shortest time that a shape is on screen, in seconds."""
        return self.slot_seconds[0] - 0.5 - 2 * self.jitter

    @property
    def min_num_frames(self) -> int:
        """The number of frames that must be sampled uniformly from the longest clip so as not to miss a shape."""
        return math.floor(self.clip_seconds[1] / (self.min_shape_seconds - 1 / self.fps)) + 2
