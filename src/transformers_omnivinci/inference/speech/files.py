"""Speech that is written to a file, or played, while it is spoken."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...media import SOUND_FORMATS, encode_sound
from ...new_file import new_file
from .voice import SPEECH_RATE, Spoken, join_spoken

ENDINGS = {"ogg": "opus"}
PLAYERS = (
    ("aplay", ["-q", "-"]),
    ("paplay", ["/dev/stdin"]),
    ("ffplay", ["-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"]),
)
"""Programs that play a WAV from their input, with their arguments."""


def format_of(path: str | os.PathLike) -> str:
    """The format of a sound file by its ending; a ValueError if it has none of those that can be written."""
    ending = Path(path).suffix[1:].lower()
    format = ENDINGS.get(ending, ending)
    if format not in SOUND_FORMATS or format == "pcm":
        known = ", ".join(f".{name}" for name in SOUND_FORMATS if name != "pcm")
        raise ValueError(
            f"The format of {str(path)!r:.200} is not known by its ending: {known} and .ogg are accepted."
        )
    return format


def check_target(path: str | os.PathLike) -> None:
    """Refuses a file that cannot be written, before anything is spoken, with a ValueError or OSError."""
    format_of(path)
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise OSError(f"There is no folder {str(folder)!r:.200} for {Path(path).name}.")
    if Path(path).is_dir():
        raise OSError(f"{str(path)!r:.200} is a folder: the name of a sound file is accepted.")


def write_spoken(spoken: Iterable[Spoken], path: str | os.PathLike, text: str = "") -> float:
    """
    Writes speech to a file, whose ending tells its format. The file appears whole, or not at all.

    Args:
        spoken (`Iterable[Spoken]`): The sentences.
        path (`str` or `os.PathLike`): The file, which is replaced if it is there.
        text (`str`): What was to be said, for the error if there are no sentences.

    Returns:
        `float`: seconds of speech.

    Raises:
        ValueError: the ending is unknown, or there was nothing to say.
        OSError: it cannot be written, or the voice fails.
    """
    path, format = Path(path), format_of(path)
    samples = join_spoken(list(spoken), text)
    content = encode_sound(samples, SPEECH_RATE, format)
    try:
        with new_file(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise OSError(f"{str(path)!r:.200} cannot be written: {error.strerror or error}.") from error
    return len(samples) / SPEECH_RATE


def find_player() -> list[str] | None:
    """The command that plays a WAV from its input, if this machine has one."""
    return next(([program, *words] for program, words in PLAYERS if shutil.which(program)), None)


def check_player() -> list[str]:
    """The command of [`find_player`]; an OSError if there is none."""
    command = find_player()
    if command is None:
        names = ", ".join(name for name, _ in PLAYERS)
        raise OSError(f"Nothing here plays sound, of {names}: `apt install alsa-utils` installs one.")
    return command


def play(spoken: Iterable[Spoken]) -> Iterator[Spoken]:
    """
    Plays sentences as they come, and yields each when it was played.

    Raises:
        OSError: no program plays sound here, or it fails, as on a machine without a sound card.
    """
    command = check_player()
    for one in spoken:
        try:
            wav = encode_sound(one.samples, SPEECH_RATE)
            done = subprocess.run(command, input=wav, capture_output=True, timeout=one.seconds + 30)
        except subprocess.SubprocessError as error:
            raise OSError(f"{command[0]} does not play: it took longer than the sound.") from error
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise OSError(f"{command[0]} cannot play: {said or f'exit code {done.returncode}'}.")
        yield one
