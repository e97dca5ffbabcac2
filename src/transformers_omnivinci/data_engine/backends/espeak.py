"""The voice of espeak-ng, a program beside this package (GPL), for where nothing better can be had."""

import random
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
        with tempfile.TemporaryDirectory(prefix="omnivinci-") as folder:
            path = Path(folder, "speech.wav")
            words = [options.program, "-v", voice, "-s", str(options.words_per_minute), "-w", str(path), "--stdin"]
            try:
                done = subprocess.run(words, input=request.text.encode(), capture_output=True, timeout=options.timeout)
                if done.returncode:
                    said = " ".join(done.stderr.decode(errors="replace").split())[:200]
                    return Reply(error=f"{options.program} says: {said or f'exit code {done.returncode}'}.")
                return Reply(text=voice, sound=path.read_bytes())
            except (OSError, subprocess.SubprocessError) as error:
                return Reply(error=f"{options.program} cannot speak: {error}.")
