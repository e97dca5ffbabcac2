"""
Scenes: what is seen and heard in a clip, and when. They are planned without rendering anything.

A clip is divided into slots. Shapes and their slots are drawn independently of sounds and their slots, so that neither
modality gives away what happens in the other; the config can ask for clips whose sounds go with their shapes. No two
shapes of a clip share a colour or a form.

**Held-out combinations.** Of the 384 combinations of colour, form and sound, 16 belong to validation and 16 to test.
No clip of another split contains all three, at the same time or not; each clip of these splits contains one of its
own. A third of the pairs of colour and form is not held out with any sound, and every colour, form and sound is part
of combinations in all splits.
"""

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from .config import WorldConfig

SPLITS = ("train", "validation", "test")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "pink", "white")
FORMS = ("circle", "square", "triangle", "star", "cross", "ring")
MOTIONS = ("left", "right", "up", "down", "nowhere")
SOUNDS = ("low tone", "middle tone", "high tone", "chord", "rising sweep", "falling sweep", "noise", "click")
SOUND_OF = dict(zip(FORMS, SOUNDS))
"""The sound of each form, in clips whose sounds go with their shapes."""
BACKGROUNDS = ("plain", "vertical", "horizontal", "diagonal", "stripes", "checks")

CLICK_SECONDS = 0.04
MIN_SOUND_SECONDS, MAX_SOUND_SECONDS = 0.8, 1.2
# The fraction of the frame that a moving shape crosses.
_WAY = 0.36

Combination = tuple[str, str, str]
Point = tuple[float, float]


@dataclass(frozen=True)
class VisibleShape:
    """
    A shape on screen from `start` to `end` (seconds) in the slot of index `slot`.

    Attributes:
        colour (`str`), form (`str`), motion (`str`): One each of `COLOURS`, `FORMS` and `MOTIONS`.
        origin (`tuple[float, float]`), target (`tuple[float, float]`):
            Its centre at the start and at the end, (x, y) as fractions of the frame. It moves in a straight line.
        radius (`float`): As a fraction of the shorter side.
    """

    slot: int
    start: float
    end: float
    colour: str
    form: str
    motion: str
    origin: Point
    target: Point
    radius: float


@dataclass(frozen=True)
class AudibleSound:
    """
    A sound from `start` to `end` (seconds), which a shape in the same slot begins before and outlasts.

    Attributes:
        kind (`str`): One of `SOUNDS`.
        gain (`float`): Its loudness, up to 1.
    """

    slot: int
    start: float
    end: float
    kind: str
    gain: float


@dataclass(frozen=True)
class Background:
    """
    The background of the shapes.

    Attributes:
        pattern (`str`): One of `BACKGROUNDS`.
        first (`tuple[int, int, int]`), second (`tuple[int, int, int]`): Its two RGB colours.
        grain (`float`): Amplitude of its noise, in levels of 255.
        specks (`tuple[tuple[Point, Point], ...]`):
            Centres of grey specks at the start and at the end of the clip, (x, y) as fractions of the frame.
    """

    pattern: str
    first: tuple[int, int, int]
    second: tuple[int, int, int]
    grain: float
    specks: tuple[tuple[Point, Point], ...]


@dataclass(frozen=True)
class Scene:
    """
    Everything that happens in a clip.

    Attributes:
        seconds (`float`): The duration of the clip.
        slots (`tuple[tuple[float, float], ...]`): Start and end of each slot in seconds; slots do not overlap.
        shapes (`tuple[VisibleShape, ...]`), sounds (`tuple[AudibleSound, ...]`): At most one each per slot, in order.
        background ([`Background`]): What is behind the shapes.
        noise (`float`), hum (`float`): Amplitudes of the background sound; full scale is 1.
        seed (`int`): Seed of the noise in picture and sound.
    """

    seconds: float
    slots: tuple[tuple[float, float], ...]
    shapes: tuple[VisibleShape, ...]
    sounds: tuple[AudibleSound, ...]
    background: Background
    noise: float
    hum: float
    seed: int

    def shape_in(self, slot: int) -> VisibleShape | None:
        """The shape in a slot; `None` if there is none, or no such slot."""
        return next((shape for shape in self.shapes if shape.slot == slot), None)

    def sound_in(self, slot: int) -> AudibleSound | None:
        """The sound in a slot; `None` if there is none, or no such slot."""
        return next((sound for sound in self.sounds if sound.slot == slot), None)

    @property
    def combinations(self) -> set[Combination]:
        """Colour, form and sound for every pair of a shape and a sound, at the same time or not."""
        return {(shape.colour, shape.form, sound.kind) for shape, sound in product(self.shapes, self.sounds)}


@lru_cache
def held_out(split: str) -> frozenset[Combination]:
    """
    The combinations of colour, form and sound that are reserved for a split: none for `"train"`.

    Args:
        split (`str`): One of `SPLITS`.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}: {', '.join(map(repr, SPLITS))} are accepted.")
    return frozenset(
        (colour, form, SOUNDS[(i + 3 * j) % len(SOUNDS)])
        for (i, colour), (j, form) in product(enumerate(COLOURS), enumerate(FORMS))
        if (i + j) % 3 == SPLITS.index(split) and split != "train"
    )


def between(origin: Point, target: Point, part: float) -> Point:
    """The point at the fraction `part` of the way from `origin` to `target`, all (x, y)."""
    return origin[0] + (target[0] - origin[0]) * part, origin[1] + (target[1] - origin[1]) * part


def freeze(scene: Scene, second: float, seconds: float) -> Scene:
    """
    Freezes a moment of a scene into a silent scene in which nothing moves.

    Args:
        scene ([`Scene`]): The scene.
        second (`float`): The moment, in seconds.
        seconds (`float`): The duration of the new scene.
    """
    shapes = []
    for shape in scene.shapes:
        if shape.start <= second < shape.end:
            place = between(shape.origin, shape.target, (second - shape.start) / (shape.end - shape.start))
            still = replace(shape, slot=0, start=0.0, end=seconds, motion="nowhere", origin=place, target=place)
            shapes.append(still)
    specks = tuple((between(*speck, second / scene.seconds),) * 2 for speck in scene.background.specks)
    return replace(
        scene,
        seconds=seconds,
        slots=((0.0, seconds),),
        shapes=tuple(shapes),
        sounds=(),
        background=replace(scene.background, specks=specks),
    )


def take_all(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    """The scene itself."""
    return scene


def take_picture(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    """A random frame that shows a shape, as a still scene; there is never more than one shape on screen."""
    shape = rng.choice(scene.shapes)
    frames = (frame / config.fps for frame in range(round(scene.seconds * config.fps)))
    second = rng.choice([second for second in frames if shape.start <= second < shape.end])
    return freeze(scene, second, 1 / config.fps)


def take_sound(scene: Scene, config: WorldConfig, rng: random.Random) -> Scene:
    """The scene without its shapes."""
    return replace(scene, shapes=())


def plan_scene(config: WorldConfig, split: str, rng: random.Random) -> Scene:
    """
    Plans a random scene. The same state of `rng` gives the same scene on every machine.

    Args:
        config ([`WorldConfig`]): The world's config.
        split (`str`): One of `SPLITS`, which differ in their combinations, see [`held_out`].
        rng (`random.Random`): The generator to draw from.

    Raises:
        ValueError: the split is unknown.
    """
    required = held_out(split)
    forbidden = frozenset().union(*(held_out(other) for other in SPLITS if other != split))
    seconds, slots = _draw_slots(config, rng)
    seen = _draw_occupied(len(slots), config.shape_probability, rng)
    heard = _draw_occupied(len(slots), config.sound_probability, rng)
    kinds = _draw_kinds(len(heard), config.repeat_probability, rng)
    pairs = _draw_pairs(len(seen), set(kinds), required, forbidden, rng)
    if config.match_probability and rng.random() < config.match_probability:
        pairs, kinds = _draw_matched(seen, heard, required, forbidden, rng)
    return Scene(
        seconds=seconds,
        slots=slots,
        shapes=tuple(_draw_shape(slot, *slots[slot], *pair, config, rng) for slot, pair in zip(seen, pairs)),
        sounds=tuple(_draw_sound(slot, *slots[slot], kind, config, rng) for slot, kind in zip(heard, kinds)),
        background=_draw_background(config, rng),
        noise=rng.uniform(0, config.noise),
        hum=rng.uniform(0, config.hum),
        seed=rng.getrandbits(32),
    )


def _draw_slots(config: WorldConfig, rng: random.Random) -> tuple[float, tuple[tuple[float, float], ...]]:
    """The duration of the clip and its slots. Time is dealt out in half-seconds to slots and the gaps between them."""
    total = rng.randint(*(round(2 * seconds) for seconds in config.clip_seconds))
    shortest, longest = (round(2 * seconds) for seconds in config.slot_seconds)
    most = min(config.max_slots, total // shortest)
    count = rng.randint((most + 1) // 2, most)
    lengths, gaps = [shortest] * count, [0] * (count + 1)
    for _ in range(total - count * shortest):
        slot = rng.randrange(2 * count + 1)
        if slot < count and lengths[slot] < longest:
            lengths[slot] += 1
        else:
            gaps[slot % (count + 1)] += 1
    slots, clock = [], 0
    for gap, length in zip(gaps, lengths):
        slots.append(((clock + gap) / 2, (clock + gap + length) / 2))
        clock += gap + length
    return total / 2, tuple(slots)


def _draw_occupied(num_slots: int, probability: float, rng: random.Random) -> list[int]:
    """The slots that have an event; at least one."""
    return [slot for slot in range(num_slots) if rng.random() < probability] or [rng.randrange(num_slots)]


def _draw_kinds(count: int, repeat_probability: float, rng: random.Random) -> list[str]:
    kinds = rng.sample(SOUNDS, count)
    if rng.random() < repeat_probability:
        for place in range(1, rng.randint(1, count)):
            kinds[place] = kinds[0]
        rng.shuffle(kinds)
    return kinds


def _draw_pairs(
    count: int, kinds: set[str], required: frozenset, forbidden: frozenset, rng: random.Random
) -> list[tuple[str, str]]:
    """Colours and forms with a required combination, if there are any, and no forbidden one, whatever the slots."""
    choices = sorted((colour, form) for colour, form, kind in required if kind in kinds)
    while True:
        pairs = [rng.choice(choices)] if choices else []
        taken = {value for pair in pairs for value in pair}
        colours, forms = ([value for value in values if value not in taken] for values in (COLOURS, FORMS))
        others = count - len(pairs)
        pairs += zip(rng.sample(colours, others), rng.sample(forms, others))
        if not any((*pair, kind) in forbidden for pair, kind in product(pairs, kinds)):
            rng.shuffle(pairs)
            return pairs


def _draw_matched(
    seen: list[int], heard: list[int], required: frozenset, forbidden: frozenset, rng: random.Random
) -> tuple[list[tuple[str, str]], list[str]]:
    """Colours and forms, and sounds that go with the forms in their slots, under the same conditions."""
    while True:
        pairs = list(zip(rng.sample(COLOURS, len(seen)), rng.sample(FORMS, len(seen))))
        forms = {slot: form for slot, (_, form) in zip(seen, pairs)}
        kinds = [SOUND_OF[forms[slot]] if slot in forms else rng.choice(SOUNDS) for slot in heard]
        found = {(*pair, kind) for pair, kind in product(pairs, kinds)}
        if found.isdisjoint(forbidden) and (found & required or not required):
            return pairs, kinds


def _draw_shape(
    slot: int, start: float, end: float, colour: str, form: str, config: WorldConfig, rng: random.Random
) -> VisibleShape:
    motion = rng.choice(MOTIONS)
    x, y, radius = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(*config.shape_radius)
    origin = target = (round(x, 3), round(y, 3))
    if motion in ("left", "right"):
        origin, target = (0.5 - _WAY / 2, origin[1]), (0.5 + _WAY / 2, origin[1])
    elif motion in ("up", "down"):
        origin, target = (origin[0], 0.5 - _WAY / 2), (origin[0], 0.5 + _WAY / 2)
    if motion in ("left", "up"):
        origin, target = target, origin
    return VisibleShape(
        slot=slot,
        start=round(start + rng.uniform(0, config.jitter), 2),
        end=round(end - 0.5 - rng.uniform(0, config.jitter), 2),
        colour=colour,
        form=form,
        motion=motion,
        origin=origin,
        target=target,
        radius=round(radius, 3),
    )


def _draw_sound(
    slot: int, start: float, end: float, kind: str, config: WorldConfig, rng: random.Random
) -> AudibleSound:
    """A sound that a shape in the same slot begins before and outlasts, whatever the jitter of both."""
    latest = end - 0.5 - config.jitter
    room = latest - start - config.jitter - MIN_SOUND_SECONDS
    onset = round(start + rng.randint(1, max(1, int(2 * room + 1e-9))) / 2 + rng.uniform(0, config.jitter), 2)
    seconds = CLICK_SECONDS if kind == "click" else rng.uniform(MIN_SOUND_SECONDS, MAX_SOUND_SECONDS)
    return AudibleSound(
        slot=slot,
        start=onset,
        end=round(min(onset + seconds, latest), 2),
        kind=kind,
        gain=round(rng.uniform(*config.gain), 2),
    )


def _draw_background(config: WorldConfig, rng: random.Random) -> Background:
    """A dark, greyish background, so that the colours of shapes stand out."""

    def draw_colour() -> tuple[int, int, int]:
        grey = rng.randint(35, 95)
        red, green, blue = (grey + rng.randint(-15, 15) for _ in range(3))
        return red, green, blue

    def draw_point() -> Point:
        return round(rng.random(), 3), round(rng.random(), 3)

    return Background(
        pattern=rng.choice(BACKGROUNDS),
        first=draw_colour(),
        second=draw_colour(),
        grain=round(rng.uniform(0, config.grain), 2),
        specks=tuple((draw_point(), draw_point()) for _ in range(rng.randint(0, config.num_specks))),
    )
