"""What was shown, asked and answered, and where it stands on the clock of a session."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..planning import Layout
from .live import LiveClip
from .media import Recording
from .policy import Track, Watched, keep_around, spans_of
from .positions import Positions


@dataclass(frozen=True, eq=False)
class Turn:
    """
    What a user has shown and said, and what was answered.

    Attributes:
        media (`tuple[Recording | LiveClip, ...]`): In front of the question.
        question (`str`): The text of the user.
        answer (`str`, *optional*): That of the model. `None`: it was not answered yet.
    """

    media: tuple[Recording | LiveClip, ...] = ()
    question: str = ""
    answer: str | None = None

    def messages(self) -> list[dict]:
        """It as messages of a chat, whose media are named by their kinds alone."""
        content = [*({"type": medium.modality} for medium in self.media), {"type": "text", "text": self.question}]
        answer = [] if self.answer is None else [{"role": "assistant", "content": self.answer}]
        return [{"role": "user", "content": content}, *answer]

    def change(self, change: Callable) -> "Turn":
        """It with what `change` makes of each medium."""
        return replace(self, media=tuple(change(medium) for medium in self.media))


@dataclass(frozen=True)
class Placed:
    """
    A medium on the clock of a session, which counts the seconds of all media one after another.

    Attributes:
        medium (`Recording | LiveClip`): The medium.
        positions ([`Positions`]): What of it stands in a prompt.
        start (`float`): Where it begins.
        layout ([`Layout`]): That of the processor.
    """

    medium: Recording | LiveClip
    positions: Positions
    start: float
    layout: Layout

    @property
    def is_timed(self) -> np.ndarray:
        """Which of its positions have seconds."""
        return ~np.isnan(self.positions.seconds)

    @property
    def track(self) -> Track:
        """What of it may be forgotten."""
        timed = self.is_timed
        is_sound = self.positions.ids[timed] == self.layout.token_ids["audio"]
        return Track(self.positions.seconds[timed] + self.start, is_sound)

    def left(self, kept: np.ndarray) -> np.ndarray:
        """The mask of positions that one of the embeddings of [`track`] leaves."""
        mask = np.ones(len(self.positions), bool)
        mask[self.is_timed] = kept
        return keep_around(self.positions, self.layout, mask)

    @property
    def watched(self) -> Watched:
        """What is told of it."""
        token_ids, seconds = self.layout.token_ids, self.positions.seconds
        shown, sound = (np.unique(seconds[self.positions.ids == token_ids[name]]) for name in ("video", "audio"))
        heard = [(first, last) for first, last, _ in spans_of(sound)]
        kind, name = self.medium.modality, self.medium.name
        seen = [] if kind == "image" else spans_of(shown)
        return Watched(name, kind, self.start, self.medium.duration, seen, heard, len(self.positions))


def place(media: Sequence[Recording | LiveClip], positions: Sequence[Positions], layout: Layout) -> list[Placed]:
    """Media with what of them stands in a prompt, one after another."""
    placed, start = [], 0.0
    for medium, one in zip(media, positions, strict=True):
        placed.append(Placed(medium, one, start, layout))
        start += medium.duration
    return placed
