"""
Points of tennis as plain numbers: who hits the ball when and where, how the point ends, and what the umpire calls.

Places are in units of the court: `x` from -1 to 1 between the sidelines, `y` from -1, the baseline near the camera, to
1, the far one, with the net at 0; heights in the same unit. Times are in seconds. What is seen and what is heard are
both computed from these numbers, so every question has a known answer.
"""

import random
from dataclasses import dataclass

ENDINGS = ("ace", "winner", "net", "long", "wide", "double fault")
SHIRTS = ("red", "orange", "yellow", "blue", "pink", "white")
CALLS = ("Out!", "Fault!", "Fifteen, love.", "Love, fifteen.")
SPLITS = ("train", "test")
MAX_STROKES = 7
"""The longest rally, with which a clip stays below the 12 s that nano's time embeddings reach."""
CLOSE = 0.012
"""Half the width of a line: a ball that lands within it may be in or out, and only the umpire tells."""
BESIDE_BASELINE, SERVICE_LINE = 1.06, 0.55
REACTION, PAUSE, BEFORE_SCORE = 0.25, 1.1, 0.9


@dataclass(frozen=True)
class Leg:
    """A part of the ball's way between two contacts: straight from above, a parabola from the side."""

    start: float
    end: float
    origin: tuple[float, float, float]
    target: tuple[float, float, float]
    arc: float = 0.0

    def at(self, second: float) -> tuple[float, float, float]:
        """Where the ball is."""
        part = min(max((second - self.start) / max(self.end - self.start, 1e-9), 0.0), 1.0)
        x, y, z = (a + part * (b - a) for a, b in zip(self.origin, self.target))
        return x, y, z + 4 * self.arc * part * (1 - part)


@dataclass(frozen=True)
class Stroke:
    """A contact of racket and ball."""

    second: float
    is_near: bool
    x: float


@dataclass(frozen=True)
class Call:
    """What the umpire says, one of `CALLS`, and when it begins."""

    second: float
    text: str


@dataclass(frozen=True)
class Rally:
    """
    A point.

    Attributes:
        shirts (`tuple[str, str]`): Colours of the near and of the far player.
        near_serves (`bool`): Whether the near player serves.
        ending (`str`): One of `ENDINGS`.
        is_close (`bool`): Whether the last ball lands on the line, so that its picture does not tell if it is out.
        strokes (`tuple[Stroke, ...]`): All contacts of rackets and ball, faults included.
        legs (`tuple[Leg, ...]`): The way of the ball. Before and between them it is in the server's hand.
        bounces (`tuple[float, ...]`): When the ball touches the ground.
        calls (`tuple[Call, ...]`): In their order; the last one is the score.
        seconds (`float`): Length of the clip.
    """

    shirts: tuple[str, str]
    near_serves: bool
    ending: str
    is_close: bool
    strokes: tuple[Stroke, ...]
    legs: tuple[Leg, ...]
    bounces: tuple[float, ...]
    calls: tuple[Call, ...]
    seconds: float

    @property
    def server(self) -> str:
        """The colour of the server's shirt."""
        return self.shirts[0 if self.near_serves else 1]

    @property
    def receiver(self) -> str:
        """The colour of the other player's shirt."""
        return self.shirts[1 if self.near_serves else 0]

    @property
    def last_hitter(self) -> str:
        """The colour of the shirt of whoever hit the ball last."""
        return self.shirts[0 if self.strokes[-1].is_near else 1]

    @property
    def server_wins(self) -> bool:
        """Whether the server wins the point: the score is called server first."""
        return self.calls[-1].text == CALLS[2]

    @property
    def winner(self) -> str:
        """The colour of the winner's shirt."""
        return self.server if self.server_wins else self.receiver


def shirts_of(split: str) -> list[tuple[str, str]]:
    """The pairs of shirts, server first, that a split has: those of the test split never meet in training."""
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r:.40}: {', '.join(SPLITS)} are accepted.")
    number = {shirt: place for place, shirt in enumerate(SHIRTS)}
    pairs = [(one, other) for one in SHIRTS for other in SHIRTS if one != other]
    return [(one, other) for one, other in pairs if ((number[one] + 2 * number[other]) % 5 == 0) == (split == "test")]


def plan_rally(rng: random.Random, split: str, ending: str | None = None, call_seconds: float = 1.2) -> Rally:
    """
    Draws a point.

    Args:
        rng (`random.Random`): Decides all that is left open.
        split (`str`): One of `SPLITS`, which decides the shirts.
        ending (`str`, *optional*): One of `ENDINGS`. Default: any.
        call_seconds (`float`): How long the last call takes; the clip ends after it.

    Raises:
        ValueError: split or ending is unknown.
    """
    ending = rng.choice(ENDINGS) if ending is None else ending
    if ending not in ENDINGS:
        raise ValueError(f"Unknown ending {ending!r:.40}: {', '.join(ENDINGS)} are accepted.")
    shirts, near_serves = rng.choice(shirts_of(split)), rng.random() < 0.5
    drawn = _Drawing(rng, near_serves)
    if ending == "double fault":
        for _ in range(2):
            drawn.serve_fault()
        drawn.end = drawn.calls[-1].second
        is_close, server_wins = False, False
    else:
        number = 1 if ending == "ace" else rng.randint(2, MAX_STROKES)
        is_close = drawn.rally(number, ending)
        hitter_wins, server_hit_last = ending in ("ace", "winner"), number % 2 == 1
        server_wins = hitter_wins == server_hit_last
    score = drawn.end + BEFORE_SCORE
    calls = (*drawn.calls, Call(score, CALLS[2] if server_wins else CALLS[3]))
    return Rally(
        shirts if near_serves else shirts[::-1],
        near_serves,
        ending,
        is_close,
        tuple(drawn.strokes),
        tuple(drawn.legs),
        tuple(drawn.bounces),
        calls,
        score + call_seconds + 0.15,
    )


class _Drawing:
    """A point while it is drawn, stroke by stroke. `side` is -1 where the near player hits, else 1."""

    def __init__(self, rng: random.Random, near_serves: bool):
        self.rng, self.side = rng, -1 if near_serves else 1
        self.second, self.x = rng.uniform(0.6, 1.0), rng.choice((-1, 1)) * rng.uniform(0.15, 0.45)
        self.strokes, self.legs, self.bounces, self.calls = [], [], [], []
        self.end = 0.0

    def serve_fault(self) -> None:
        """A serve behind the service line; the ball is then in the server's hand again."""
        target = -self._sign(self.x) * self.rng.uniform(0.1, 0.5), -self.side * self.rng.uniform(0.7, 0.9)
        self._hit()
        landing = self._fly(target, self.rng.uniform(0.45, 0.55), arc=0.12)
        self._roll_on(landing, target)
        self.calls.append(Call(landing + REACTION, CALLS[1]))
        self.second = landing + REACTION + PAUSE

    def rally(self, number: int, ending: str) -> bool:
        """Strokes until the last one, which ends the point. Returns whether it was close."""
        for stroke in range(1, number):
            serves, duration = stroke == 1, self.rng.uniform(0.75, 0.95)
            target = self._into_court(serves)
            self._hit()
            landing = self._fly(target, 0.6 * duration, arc=0.12 if serves else 0.28)
            reached = self._clip(target[0] + self.rng.uniform(-0.2, 0.2)), -self.side * BESIDE_BASELINE
            self.legs.append(Leg(landing, self.second + duration, (*target, 0.0), (*reached, 0.15), 0.06))
            self.second, self.x, self.side = self.second + duration, reached[0], -self.side
        self._hit()
        if ending == "net":
            target, lands = (self.x * 0.8, 0.0), self.rng.uniform(0.3, 0.4)
            self.legs.append(Leg(self.second, self.second + lands, (self.x, self._y, 0.2), (*target, 0.06), arc=0.1))
            self.end = self.second + lands
            self.legs.append(Leg(self.end, self.end + 0.2, (*target, 0.06), (target[0], self.side * 0.04, 0.0)))
            return False
        is_close = ending != "ace" and self.rng.random() < 0.5
        target = self._last_place(ending, is_close)
        landing = self._fly(target, self.rng.uniform(0.45, 0.6), arc=0.1 if ending == "ace" else 0.25)
        self._roll_on(landing, target)
        self.end = landing
        if ending in ("long", "wide"):
            self.calls.append(Call(landing + REACTION, CALLS[0]))
        return is_close

    def _last_place(self, ending: str, is_close: bool) -> tuple[float, float]:
        """Where the last ball lands."""
        uniform, away = self.rng.uniform, -self.side
        if ending == "ace":
            return -self._sign(self.x) * uniform(0.3, 0.6), away * uniform(0.35, 0.5)
        if ending == "winner" and not is_close:
            return self.rng.choice((-1, 1)) * uniform(0.5, 0.9), away * uniform(0.5, 0.85)
        beyond = uniform(-CLOSE, CLOSE) if is_close else uniform(0.15, 0.35)
        at_baseline = ending == "long" or (ending == "winner" and self.rng.random() < 0.5)
        if at_baseline:
            return uniform(-0.7, 0.7), away * (1 + beyond)
        return self.rng.choice((-1, 1)) * (1 + beyond), away * uniform(0.5, 0.85)

    def _into_court(self, serves: bool) -> tuple[float, float]:
        uniform = self.rng.uniform
        if serves:
            return -self._sign(self.x) * uniform(0.15, 0.5), -self.side * uniform(0.35, 0.5)
        return uniform(-0.7, 0.7), -self.side * uniform(0.5, 0.8)

    def _hit(self) -> None:
        self.strokes.append(Stroke(self.second, self.side < 0, self.x))

    def _fly(self, target: tuple[float, float], seconds: float, arc: float) -> float:
        """The ball on its way from the racket to the ground. Returns when it lands."""
        landing = self.second + seconds
        height = 0.32 if arc < 0.2 else 0.15  # a serve is hit above the head
        self.legs.append(Leg(self.second, landing, (self.x, self._y, height), (*target, 0.0), arc))
        self.bounces.append(landing)
        return landing

    def _roll_on(self, landing: float, place: tuple[float, float]) -> None:
        """The ball goes past the other player."""
        behind = place[0] + 0.5 * (place[0] - self.x) * 0.6, -self.side * max(1.5, abs(place[1]) + 0.3)
        self.legs.append(Leg(landing, landing + 0.5, (*place, 0.0), (*behind, 0.05), 0.1))

    @property
    def _y(self) -> float:
        return self.side * BESIDE_BASELINE

    @staticmethod
    def _sign(x: float) -> int:
        return 1 if x > 0 else -1

    @staticmethod
    def _clip(x: float) -> float:
        return min(max(x, -1.1), 1.1)
