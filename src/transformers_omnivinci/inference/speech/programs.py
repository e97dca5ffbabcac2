"""Voices that are programs of this machine, started for each sentence. None of them is part of the package."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...media import load_audio
from .voice import SPEECH_RATE, SentenceVoice, check_speed

PIPER_FOLDERS = ("~/.local/share/piper", "/usr/local/share/piper-voices", "/usr/share/piper-voices")
"""Where voices of piper are looked for, files `*.onnx` with their `*.onnx.json`."""

ESPEAK_WORDS_PER_MINUTE = 175
TIMEOUT = 60.0


@dataclass(frozen=True)
class Program:
    """
    How a program speaks.

    Attributes:
        program (`str`): What is started.
        words (`Callable`): Its arguments, of voice, speed, and the paths of the text and of the WAV that it writes.
        install (`str`): The command that installs it.
        voices (`Callable`): The names of its voices, or none where it cannot tell.
        language (`Callable`): The language of a voice.
    """

    program: str
    words: Callable[[str, float, Path, Path], list[str]]
    install: str
    voices: Callable[[], list[str]]
    language: Callable[[str], str] = lambda voice: "en"


def _espeak(voice: str, speed: float, text: Path, wav: Path) -> list[str]:
    return espeak_words(voice, round(ESPEAK_WORDS_PER_MINUTE * speed), wav)


def espeak_words(voice: str, words_per_minute: int, wav: Path) -> list[str]:
    """The arguments of espeak-ng, which reads the text from its input."""
    return ["-v", voice or "en-us", "-s", str(words_per_minute), "-w", str(wav), "--stdin"]


def _flite(voice: str, speed: float, text: Path, wav: Path) -> list[str]:
    return ["-voice", voice or "slt", "--setf", f"duration_stretch={1 / speed:g}", "-f", str(text), "-o", str(wav)]


def _festival(voice: str, speed: float, text: Path, wav: Path) -> list[str]:
    chosen = ["-eval", f"(voice_{voice})"] if voice else []
    slower = f"(Parameter.set 'Duration_Stretch {1 / speed:g})"
    return [*chosen, "-eval", slower, "-o", str(wav), str(text)]


def _piper(voice: str, speed: float, text: Path, wav: Path) -> list[str]:
    path = find_piper_voice(voice)
    if path is None:
        where = f"no file {voice}" if voice else f"none in {', '.join(PIPER_FOLDERS)}"
        raise OSError(f"piper has no voice, {where}: `piper:FILE.onnx` names one.")
    scale = ["--length-scale", f"{1 / speed:g}"] if speed != 1 else []
    return ["--model", str(path), *scale, "--input-file", str(text), "--output-file", str(wav)]


def find_piper_voice(voice: str = "") -> Path | None:
    """The file of a voice of piper: the one named, or the first of those in `PIPER_FOLDERS`."""
    if voice:
        path = Path(voice).expanduser()
        return path if path.is_file() else None
    folders = [Path(folder).expanduser() for folder in PIPER_FOLDERS]
    found = (path for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*.onnx")))
    return next((path for path in found if Path(f"{path}.json").is_file()), None)


def _lines(*command: str) -> list[str]:
    """What a program prints, or nothing where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def _espeak_voices() -> list[str]:
    return [line.split()[1] for line in _lines("espeak-ng", "--voices")[1:] if len(line.split()) > 1]


def _flite_voices() -> list[str]:
    return [name for line in _lines("flite", "-lv") for name in line.partition(":")[2].split()]


def _festival_voices() -> list[str]:
    listed = " ".join(_lines("festival", "-b", "(print (voice.list))"))
    return re.findall(r"[A-Za-z]\w*", listed)


def _piper_voices() -> list[str]:
    path = find_piper_voice()
    return [] if path is None else [str(path)]


PROGRAMS = {
    "piper": Program("piper", _piper, "pip install piper-tts", _piper_voices, lambda voice: _of_piper(voice)),
    "espeak-ng": Program(
        "espeak-ng", _espeak, "apt install espeak-ng", _espeak_voices, lambda voice: voice.partition("+")[0] or "en"
    ),
    "festival": Program("text2wave", _festival, "apt install festival", _festival_voices),
    "flite": Program("flite", _flite, "apt install flite", _flite_voices),
}
"""The programs that are known, those first that are looked for first."""


def _of_piper(voice: str) -> str:
    """The language of a voice of piper, whose file begins with it, as en_US-joe-medium.onnx does."""
    found = re.match(r"([a-z]{2})[_-]", Path(voice).name) if voice else None
    return found[1] if found else "en"


class ProgramVoice(SentenceVoice):
    """
    A program that speaks.

    Args:
        kind (`str`): One of `PROGRAMS`.
        voice (`str`, *optional*): A voice of the program; for piper the path of its file. Default: the first or usual.
        speed (`float`, defaults to 1.0): How fast, 1 being the voice's own.
        reads_out (`bool`, defaults to `True`): As in [`SentenceVoice`].

    Raises:
        ValueError: there is no such program, or the speed is out of range.
    """

    def __init__(self, kind: str, voice: str = "", speed: float = 1.0, reads_out: bool = True):
        if kind not in PROGRAMS:
            raise ValueError(f"{kind!r:.80} is no program that speaks: {', '.join(PROGRAMS)} are known.")
        self.kind, self.voice, self.speed = kind, voice, check_speed(speed)
        self.described = PROGRAMS[kind]
        super().__init__(f"{kind}:{voice}" if voice else kind, self.described.language(voice), reads_out)

    def check(self) -> None:
        """An OSError with the command that installs it, if the program or its voice is missing."""
        described = self.described
        if shutil.which(described.program) is None:
            raise OSError(f"There is no program {described.program} to speak: `{described.install}` installs it.")
        if self.kind == "piper":
            _piper(self.voice, 1.0, Path(), Path())
        elif self.voice and (known := described.voices()) and not _is_among(self.voice, known):
            raise OSError(f"{self.kind} has no voice {self.voice!r:.80}: it has {', '.join(known[:12])}.")

    def speak(self, text: str) -> np.ndarray:
        content = run_program(
            self.described.program, lambda file, wav: self.described.words(self.voice, self.speed, file, wav), text
        )
        try:
            return load_audio(content, sampling_rate=SPEECH_RATE)
        except ValueError as error:
            raise OSError(f"{self.described.program} wrote no sound for {text!r:.80}: {error}") from error


def _is_among(voice: str, known: Sequence[str]) -> bool:
    return voice.partition("+")[0].lower() in {name.lower() for name in known} or os.path.sep in voice


def run_program(program: str, words: Callable[[Path, Path], list[str]], text: str, timeout: float = TIMEOUT) -> bytes:
    """
    The WAV that a program writes for a text, which it gets in a file and on its input. `words` are its arguments, of
    the paths of both. Raises an OSError of one sentence if it fails or takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="omnivinci-") as folder:
        file, wav = Path(folder, "text.txt"), Path(folder, "speech.wav")
        file.write_text(text + "\n", encoding="utf-8")
        try:
            done = subprocess.run(
                [program, *words(file, wav)], input=text.encode(), capture_output=True, timeout=timeout
            )
        except FileNotFoundError as error:
            raise OSError(f"There is no program {program} to speak.") from error
        except subprocess.SubprocessError as error:
            raise OSError(f"{program} cannot speak: it took longer than {timeout:g} s.") from error
        if done.returncode or not wav.is_file():
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise OSError(f"{program} says: {said or f'exit code {done.returncode}'}.")
        return wav.read_bytes()
