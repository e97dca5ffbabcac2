"""How large and how hard the synthetic world is."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

AAC_SAMPLING_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class WorldConfig:
    """
    Size and difficulty of the clips.

    Args:
        height (`int`, defaults to 64), width (`int`, defaults to 64): Of the pictures, in pixels, even.
        fps (`int`, defaults to 8): Frames per second, even: clips last whole half-seconds.
        sampling_rate (`int`, defaults to 16000): Of the sound, in Hz; one of `AAC_SAMPLING_RATES`.
        clip_seconds (`tuple[float, float]`, defaults to `(4.0, 12.0)`):
            The shortest and the longest clip, multiples of half a second.
        slot_seconds (`tuple[float, float]`, defaults to `(2.0, 3.0)`):
            A clip is cut into slots, each with at most one shape and one sound: the shortest and the longest slot,
            multiples of half a second. A shape is on screen for at least half a second and twice `jitter` less than
            its slot.
        max_slots (`int`, defaults to 5): The most slots of a clip.
        jitter (`float`, defaults to 0.1):
            Seconds by which an event is at most off a multiple of half a second. Answers in seconds are rounded to
            such multiples, and no event is near the middle of two.
        shape_probability (`float`, defaults to 0.85), sound_probability (`float`, defaults to 0.85):
            That a slot has a shape, or a sound.
        repeat_probability (`float`, defaults to 0.3): That one sound of a clip is heard several times.
        num_frames (`int`, defaults to 16):
            Frames that are sampled uniformly from a clip by those who look at it: every shape is in one of them at
            least, and one whose motion is asked about in two.
        shape_radius (`tuple[float, float]`, defaults to `(0.2, 0.25)`): In parts of the shorter side.
        num_specks (`int`, defaults to 3): The most grey specks that drift over the background, to distract.
        grain (`float`, defaults to 4.0): The most noise of the background, in levels of 255.
        gain (`tuple[float, float]`, defaults to `(0.4, 1.0)`): Of a sound.
        noise (`float`, defaults to 0.01): The most amplitude of the noise under all sounds, of 1.
        hum (`float`, defaults to 0.02): The most amplitude of the hum under all sounds, of 1.

    Raises:
        ValueError, TypeError: a value is outside its limits, or of the wrong type.
    """

    height: int = 64
    width: int = 64
    fps: int = 8
    sampling_rate: int = 16_000
    clip_seconds: tuple[float, float] = (4.0, 12.0)
    slot_seconds: tuple[float, float] = (2.0, 3.0)
    max_slots: int = 5
    jitter: float = 0.1
    shape_probability: float = 0.85
    sound_probability: float = 0.85
    repeat_probability: float = 0.3
    num_frames: int = 16
    shape_radius: tuple[float, float] = (0.2, 0.25)
    num_specks: int = 3
    grain: float = 4.0
    gain: tuple[float, float] = (0.4, 1.0)
    noise: float = 0.01
    hum: float = 0.02

    def __post_init__(self):
        for field in fields(self):
            if isinstance(field.default, tuple):
                value = getattr(self, field.name)
                if not isinstance(value, (list, tuple)) or len(value) != 2:
                    raise TypeError(f"`{field.name}={value!r}` is no pair, such as {field.default}.")
                object.__setattr__(self, field.name, tuple(value))  # JSON knows no tuples
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _LIMITS[field.name]
            values = value if isinstance(field.default, tuple) else (value,)
            kind = int if isinstance(field.default, int) else (int, float)
            if any(not isinstance(number, kind) or isinstance(number, bool) for number in values):
                raise TypeError(f"`{field.name}={value!r}` is of the wrong type: it is like {field.default!r}.")
            if not low <= values[0] <= values[-1] <= high:
                raise ValueError(f"`{field.name}={value}` is outside its limits, from {low} to {high}.")
        if self.sampling_rate not in AAC_SAMPLING_RATES:
            raise ValueError(
                f"`sampling_rate={self.sampling_rate}`: AAC takes {', '.join(map(str, AAC_SAMPLING_RATES))}."
            )
        for name in ("height", "width", "fps"):
            if getattr(self, name) % 2:
                raise ValueError(f"`{name}={getattr(self, name)}` is odd: an even number is accepted.")
        for name in ("clip_seconds", "slot_seconds"):
            if any(2 * seconds % 1 for seconds in getattr(self, name)):
                raise ValueError(f"`{name}={getattr(self, name)}` must be multiples of half a second.")
        if self.clip_seconds[0] < self.slot_seconds[0]:
            raise ValueError(f"Clips of {self.clip_seconds[0]} s have no room for slots of {self.slot_seconds[0]} s.")
        if self.num_frames < self.min_num_frames:
            raise ValueError(
                f"{self.num_frames} of the frames of {self.clip_seconds[1]} s can miss a shape of "
                f"{self.min_shape_seconds:g} s: `num_frames` must be {self.min_num_frames} at least."
            )

    @classmethod
    def from_json(cls, path: str | Path) -> "WorldConfig":
        """
        Reads a JSON object with some of the fields; the others have their defaults.

        Raises:
            ValueError, TypeError, OSError: it cannot be read, or holds other fields or values than those accepted.
        """
        try:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}.") from error
        unknown = (
            settings.keys() - {field.name for field in fields(cls)} if isinstance(settings, dict) else {"no object"}
        )
        if unknown:
            raise ValueError(
                f"{path} holds {', '.join(sorted(unknown))}: an object of fields of WorldConfig is accepted."
            )
        return cls(**settings)

    @property
    def min_shape_seconds(self) -> float:
        """Seconds that every shape is on screen at least."""
        return self.slot_seconds[0] - 0.5 - 2 * self.jitter

    @property
    def min_num_frames(self) -> int:
        """Frames that must be sampled uniformly from the longest clip, for none of its shapes to be missed."""
        return math.floor(self.clip_seconds[1] / (self.min_shape_seconds - 1 / self.fps)) + 2


_LIMITS = {
    "height": (32, 1024),
    "width": (32, 1024),
    "fps": (4, 60),
    "sampling_rate": (8_000, 48_000),
    "clip_seconds": (2.0, 120.0),
    "slot_seconds": (2.0, 30.0),
    "max_slots": (1, 6),
    "jitter": (0.0, 0.1),
    "shape_probability": (0.1, 1.0),
    "sound_probability": (0.1, 1.0),
    "repeat_probability": (0.0, 1.0),
    "num_frames": (2, 4096),
    "shape_radius": (0.1, 0.25),
    "num_specks": (0, 20),
    "grain": (0.0, 16.0),
    "gain": (0.1, 1.0),
    "noise": (0.0, 0.05),
    "hum": (0.0, 0.05),
}
