"""Voices of any kind that `inference.speech` knows: programs of this machine, and servers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...inference.speech import SPEECH_RATE, make_voice, speak_all
from ..clip_media import wav
from .protocol import Reply, Request


@dataclass(frozen=True)
class VoicesOptions:
    """
    Which voices, and how fast.

    Attributes:
        voices (`list[str]`):
            As [`~transformers_omnivinci.inference.speech.make_voice`] takes them, such as `flite:slt`, or the URL of a
            server of `/v1/audio/speech`; one is drawn for each text.
        speeds (`list[float]`): How fast, 1 being a voice's own speed; one is drawn for each text.
    """

    voices: list[str] = field(default_factory=lambda: ["auto"])
    speeds: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self):
        if not self.voices or not self.speeds:
            raise ValueError(
                "`voices` and `speeds` of a voice must not be empty: names such as flite:slt are accepted."
            )


class Voices:
    """A [`Backend`] that speaks the text of each request."""

    def __init__(self, options: VoicesOptions):
        self.options, self.model = options, ", ".join(options.voices)

    def check(self) -> None:
        """An OSError or ValueError if one of them cannot speak."""
        for voice in self.options.voices:
            make_voice(voice, self.options.speeds[0])

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._speak(request) for request in requests]

    def _speak(self, request: Request) -> Reply:
        rng = random.Random(request.seed)
        name, speed = rng.choice(self.options.voices), rng.choice(self.options.speeds)
        try:
            samples = speak_all(make_voice(name, speed), request.text)
        except (OSError, ValueError) as error:
            return Reply(error=str(error))
        return Reply(text=name, sound=wav(samples, SPEECH_RATE))
