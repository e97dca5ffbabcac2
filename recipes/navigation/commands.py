"""What a robot is told, as text and as speech by the voices of this machine."""

from pathlib import Path
from random import Random

import numpy as np

from transformers_omnivinci.inference.speech import SPEECH_RATE, find_programs, make_voice, speak_all
from transformers_omnivinci.media import encode_sound

from .world import COLOURS

WORDINGS = ("Go to the {colour} pillar.", "Find the {colour} pillar.")
QUESTION = "Which way?"
"""What is asked before each action, behind the instruction where that is text."""
VOICES = (
    "espeak-ng:en-us",
    "espeak-ng:en-gb",
    "espeak-ng:en-gb-scotland",
    "flite:slt",
    "flite:awb",
    "festival",
)
"""Voices of the training, as far as they are installed."""
UNHEARD = ("flite:rms", "festival", "espeak-ng:en-gb-x-rp")
"""The first of these that is installed, and does not speak in the training, speaks in the test alone."""
SPEEDS = {"train": (0.85, 0.95, 1.0, 1.1, 1.2), "test": (0.9, 1.05, 1.15)}


def instruction(colour: str, rng: Random) -> str:
    """One of the wordings."""
    return rng.choice(WORDINGS).format(colour=colour)


def find_voices() -> tuple[list[str], str | None]:
    """
    The voices of the training that this machine has, and one that is not among them; `None` if it has no other.

    Raises:
        OSError: nothing on this machine speaks.
    """
    programs = find_programs()
    heard = [name for name in VOICES if name.partition(":")[0] in programs]
    if not heard:
        heard = [make_voice().name]
    others = [name for name in UNHEARD if name.partition(":")[0] in programs and name not in heard]
    return heard, next(iter(others), None)


def speak(folder: Path, voice: str, speeds: tuple[float, ...], rng: Random) -> list[dict]:
    """
    Says all instructions at all speeds, each at a loudness of its own over faint noise.

    Args:
        folder (`Path`): Where the WAV files are written.
        voice (`str`): As `make_voice` takes it.
        speeds (`tuple[float, ...]`): 1 is the voice's own.
        rng (`random.Random`): Draws the loudness.

    Returns:
        `list[dict]`: `text`, `colour`, `voice`, `speed` and `path`, relative to the folder above `folder`'s own.

    Raises:
        OSError: the voice fails, or a file cannot be written.
    """
    spoken = []
    folder.mkdir(parents=True, exist_ok=True)
    for speed in speeds:
        made = make_voice(voice, speed)
        for colour in COLOURS:
            for number, wording in enumerate(WORDINGS):
                text = wording.format(colour=colour)
                samples = speak_all(made, text)
                noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 0.002, len(samples))
                samples = samples / max(np.abs(samples).max(), 1e-6) * rng.uniform(0.3, 0.9) + noise
                name = f"{voice.replace(':', '-')}-{speed:g}-{colour}-{number}.wav"
                content = encode_sound(samples.astype(np.float32), SPEECH_RATE, "wav")
                (folder / name).write_bytes(content)
                path = f"{folder.parent.name}/{folder.name}/{name}"
                spoken.append({"text": text, "colour": colour, "voice": voice, "speed": speed, "path": path})
    return spoken
