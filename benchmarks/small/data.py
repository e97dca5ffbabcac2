"""
Speech of many voices with what is said, as `omnivinci train` reads it.

Sentence, voice, speed, pitch, room and noise of the n-th utterance of a set depend on the seed and on n alone.
Utterances are rendered in shards. A shard is a folder that appears when it is whole, so that a run that was
interrupted goes on with the next one, and more can be rendered at any time.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from transformers_omnivinci.media import load_audio
from transformers_omnivinci.new_file import new_file

from .rooms import RATE, vary
from .voices import Voice
from .wav import write_wav

SHARD = 200
QUESTION = "Transcribe the speech."
SPEEDS = (0.85, 1.2)
PITCHES = (0.85, 1.35)
"""By which a voice is played faster, and so sounds higher and of a smaller speaker: most voices are of men."""
SECONDS = (0.6, 9.9)
"""Utterances that are shorter or longer are left out."""


@dataclass(frozen=True)
class SpeechSet:
    """
    What is read, and by whom.

    Attributes:
        texts (`Sequence[Sequence[str]]`): Sentences by their source; sources are drawn alike.
        voices (`Sequence[Voice]`): Who reads; anything with a `share` and `speak(text, speed, path)`.
        seed (`int`): Of everything that is drawn.
        varied (`bool`): Whether speeds, pitches, rooms and noise vary.
    """

    texts: Sequence[Sequence[str]]
    voices: Sequence[Voice]
    seed: int = 0
    varied: bool = True

    def draw(self, index: int) -> tuple[str, Voice, np.random.Generator]:
        """The sentence and the voice of an utterance, and what the rest of it is drawn from."""
        rng = np.random.default_rng([self.seed, index])
        source = self.texts[index % len(self.texts)]
        turn, place = divmod(index // len(self.texts), len(source))
        order = np.random.default_rng([self.seed, index % len(self.texts), turn]).permutation(len(source))
        shares = np.array([voice.share for voice in self.voices])
        voice = self.voices[rng.choice(len(self.voices), p=shares / shares.sum())]
        return source[order[place]], voice, rng

    def render(self, index: int) -> tuple[str, Voice, np.ndarray]:
        """
        The sentence of an utterance, its voice and its sound: float32 (num_samples,), 16 kHz.

        Raises:
            OSError: the voice cannot read it.
        """
        text, voice, rng = self.draw(index)
        speed, pitch = (rng.uniform(*SPEEDS), rng.uniform(*PITCHES)) if self.varied else (1.0, 1.0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "read.wav"
            voice.speak(text, speed / pitch, path)
            samples = load_audio(path, sampling_rate=round(RATE / pitch))
        return text, voice, vary(samples, rng) if self.varied else samples


def to_row(path: str, text: str, **facts) -> dict:
    """A chat that asks for what is said in a file, as `omnivinci train` reads it."""
    content = [{"type": "audio", "path": path}, {"type": "text", "text": QUESTION}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": text}], **facts}


def read_rows(path: Path) -> list[dict]:
    """The rows of a file, with whole paths of sounds."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        item = row["messages"][0]["content"][0]
        item["path"] = str(path.parent / item["path"])
    return rows


def write_set(folder: Path, speech: SpeechSet, count: int, workers: int = 1) -> Path:
    """
    Renders the first utterances of a set, as far as they are not there, and writes `rows.jsonl` of them.

    Args:
        folder: Of the set, whose shards are `0000`, `0001` and so on.
        speech: What it has.
        count: How many utterances. More that are there already are left in their place, and have no rows.
        workers: Processes.

    Returns:
        `Path`: The file of rows. Those of utterances that were too short or too long are not among them.

    Raises:
        OSError: a voice is missing, or the set was begun with other sentences, voices, seeds, speeds or pitches.
        ValueError: there is nothing to read.
    """
    if count < 1 or not speech.texts or not all(speech.texts) or not speech.voices:
        raise ValueError(f"{folder} needs at least one utterance, sentence and voice.")
    _check_same(folder, speech)
    for left in folder.glob(".*"):
        shutil.rmtree(left) if left.is_dir() else None
    sizes = {f"{start // SHARD:04}": (start, min(count, start + SHARD)) for start in range(0, count, SHARD)}
    missing = {name: span for name, span in sizes.items() if not _is_whole(folder / name, span)}
    render = partial(_write_shard, folder, speech)
    if workers > 1 and len(missing) > 1:
        # Not forked: libraries that voices load may hold locks.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(render, missing, missing.values()))
    else:
        for name, span in missing.items():
            render(name, span)
    rendered = chain.from_iterable(_read_shard(folder, name) for name in sizes)
    rows = [row for row in rendered if int(Path(row["messages"][0]["content"][0]["path"]).stem) < count]
    path, new = folder / "rows.jsonl", folder / ".rows.jsonl"
    new.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not path.is_file() or path.read_text() != new.read_text():  # measures of the old file stay true
        os.replace(new, path)
    new.unlink(missing_ok=True)
    return path


def _check_same(folder: Path, speech: SpeechSet) -> None:
    described = {
        "voices": [str(voice) for voice in speech.voices],
        "sentences": [len(source) for source in speech.texts],
        "seed": speech.seed,
        "speeds": list(SPEEDS) if speech.varied else None,
        "pitches": list(PITCHES) if speech.varied else None,
    }
    path = folder / "set.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        with new_file(path) as new:
            new.write_text(json.dumps(described, indent=2) + "\n")
    before = json.loads(path.read_text())
    different = [name for name in described if before.get(name) != described[name]]
    if different:
        raise OSError(f"{folder} was begun with other {', '.join(different)}: name a new folder, or remove it.")


def _is_whole(shard: Path, span: tuple[int, int]) -> bool:
    """Whether a shard has the utterances that are wanted of it."""
    try:
        first, end = json.loads((shard / "span.json").read_text())
    except OSError:
        return False
    return (first, end) == span or (first == span[0] and end > span[1])


def _read_shard(folder: Path, name: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / name / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        item = row["messages"][0]["content"][0]
        item["path"] = f"{name}/{item['path']}"
    return rows


def _write_shard(folder: Path, speech: SpeechSet, name: str, span: tuple[int, int]) -> None:
    """Renders a span of utterances into a hidden folder, and shows it when it is whole."""
    new = folder / f".{name}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    rows = []
    for index in range(*span):
        text, voice, samples = speech.render(index)
        seconds = len(samples) / RATE
        if SECONDS[0] <= seconds <= SECONDS[1]:
            write_wav(new / f"{index:06}.wav", samples)
            rows.append(to_row(f"{index:06}.wav", text, voice=str(voice), seconds=round(seconds, 2)))
    (new / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (new / "span.json").write_text(json.dumps(span))
    shutil.rmtree(folder / name, ignore_errors=True)
    new.rename(folder / name)
