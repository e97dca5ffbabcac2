"""The voice of espeak-ng, a program beside this package (GPL), for where nothing better can be had."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...inference.speech.programs import espeak_words, run_program
from .protocol import Reply, Request


@dataclass(frozen=True)
class EspeakOptions:
    """
    Which voices, and how fast.

    Attributes:
        voices (`list[str]`): Names that `espeak-ng --voices` lists; one is drawn for each text.
        words_per_minute (`int`): How fast.
        program (`str`): The program, or one that takes the same options.
        timeout (`float`): Seconds that it may take for a text.
    """

    voices: list[str] = field(default_factory=lambda: ["en-us"])
    words_per_minute: int = 160
    program: str = "espeak-ng"
    timeout: float = 60.0

    def __post_init__(self):
        if not self.voices:
            raise ValueError("`voices` of espeak is empty: names such as en-us are accepted.")


class EspeakVoice:
    """A [`Backend`] that speaks the text of each request."""

    model = "espeak-ng"

    def __init__(self, options: EspeakOptions):
        self.options = options

    def check(self) -> None:
        """An OSError if the program is not installed."""
        if shutil.which(self.options.program) is None:
            raise OSError(f"There is no program {self.options.program} to speak: on Debian, apt install espeak-ng.")

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._speak(request) for request in requests]

    def _speak(self, request: Request) -> Reply:
        options = self.options
        voice = random.Random(request.seed).choice(options.voices)
        try:
            sound = run_program(
                options.program,
                lambda file, wav: espeak_words(voice, options.words_per_minute, wav),
                request.text,
                options.timeout,
            )
        except OSError as error:
            return Reply(error=str(error))
        return Reply(text=voice, sound=sound)
