"""What writes down speech: OmniVinci itself, or another recogniser that it is given the text of."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ...media import encode_sound
from .finding import split_url
from .server_voice import AudioServer
from .transcripts import Segment, read_transcript

HEARING_RATE = 16_000
"""Samples per second of the sound that recognisers are given, in Hz."""

WHISPER = "openai/whisper-large-v3-turbo"
"""The model that `whisper` names, which the paper's cascade uses (appendix D.3)."""

TRANSCRIBE = "Transcribe the speech."
TRANSLATE = "Translate the speech into {language}."
REFERENCE = "Another recogniser heard: {text}\nKeep what agrees with the sound, and correct the rest."
LONGEST_REFERENCE = 4000
"""Characters of an external text that enter the prompt of a window."""


class Recogniser(Protocol):
    """
    Writes down speech.

    Attributes:
        name (`str`): As [`make_recogniser`] takes it.
    """

    name: str

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """
        What is said in a window of sound.

        Args:
            samples (`np.ndarray`): float32 mono samples in [-1, 1] of shape (num_samples,) at `HEARING_RATE`.
            start (`float`): The second of the whole sound at which they begin.

        Raises:
            OSError, ValueError, ImportError: it cannot; the message says why.
        """


class ModelRecogniser:
    """
    OmniVinci, which is asked about each window. With the text of another recogniser in the prompt, it is the cascade
    of figure 16 (a).

    Args:
        ask (`Callable[[np.ndarray, str], str]`): Answers a question about samples at `HEARING_RATE`.
        external ([`Recogniser`], *optional*): Whose text enters the prompt.
        language (`str`, *optional*): What the speech is translated into. `None`: it is written down as it is.
    """

    name = "model"

    def __init__(
        self,
        ask: Callable[[np.ndarray, str], str],
        external: "Recogniser | None" = None,
        language: str | None = None,
    ):
        self.ask, self.external, self.language = ask, external, language

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """As in [`Recogniser`]."""
        text = "" if self.external is None else self.external.transcribe(samples, start)
        return self.ask(samples, write_prompt(text, self.language)).strip()


def write_prompt(external: str = "", language: str | None = None) -> str:
    """
    What the model is asked about a window of speech.

    Args:
        external (`str`): What another recogniser heard there.
        language (`str`, *optional*): What it is translated into.

    Raises:
        ValueError: the text is longer than a prompt may have.
    """
    task = TRANSCRIBE if language is None else TRANSLATE.format(language=language)
    if len(external) > LONGEST_REFERENCE:
        raise ValueError(
            f"The external text of a window has {len(external)} characters, where {LONGEST_REFERENCE} fit into a "
            "prompt: give one with times, as SRT, VTT or JSON, so that each window gets its own part."
        )
    return f"{task}\n{REFERENCE.format(text=external)}" if external else task


class WhisperRecogniser:
    """
    A Whisper, of transformers or, if its folder has a `model.bin` of CTranslate2, of faster-whisper.

    Args:
        model (`str`): A folder, or a repository of the Hub.
        language (`str`, *optional*): Of the speech. `None`: the model finds out, if it knows several.
        device (`str`), dtype (`str`): As transformers takes them.
    """

    def __init__(self, model: str = WHISPER, language: str | None = None, device: str = "cpu", dtype: str = "auto"):
        self.model, self.language, self.device, self.dtype = model, language, device, dtype
        self.name = f"whisper:{model}"

    @cached_property
    def _run(self) -> Callable[[np.ndarray], str]:
        if (Path(self.model) / "model.bin").is_file():
            return self._faster_whisper()
        from transformers import pipeline

        recogniser = pipeline("automatic-speech-recognition", self.model, device=self.device, dtype=self.dtype)
        generation = {"generate_kwargs": {"language": self.language}} if self.language else {}

        def run(samples: np.ndarray) -> str:
            options = {"return_timestamps": True} if len(samples) > 30 * HEARING_RATE else {}
            return recogniser({"raw": samples, "sampling_rate": HEARING_RATE}, **options, **generation)["text"]

        return run

    def _faster_whisper(self) -> Callable[[np.ndarray], str]:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ImportError(f"{self.model} is read by another package: pip install faster-whisper.") from error
        whisper = WhisperModel(self.model, device=self.device, local_files_only=True)
        options = {"language": self.language, "beam_size": 1, "condition_on_previous_text": False}

        def run(samples: np.ndarray) -> str:
            segments, _ = whisper.transcribe(samples, **options)
            return " ".join(segment.text.strip() for segment in segments)

        return run

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """As in [`Recogniser`]."""
        return self._run(samples).strip()


class PocketsphinxRecogniser:
    """pocketsphinx, which knows US English and is often wrong: a second opinion that needs nothing but its package."""

    name = "pocketsphinx"

    @cached_property
    def _decoder(self):
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise ImportError("pocketsphinx is not installed: pip install pocketsphinx.") from error
        return Decoder(samprate=HEARING_RATE, loglevel="FATAL")

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """As in [`Recogniser`]."""
        self._decoder.start_utt()
        self._decoder.process_raw(encode_sound(samples, HEARING_RATE, "wav")[44:], full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return "" if heard is None else heard.hypstr


class ServerRecogniser:
    """
    A server of OpenAI's `/v1/audio/transcriptions`.

    Args:
        server ([`AudioServer`]): Where it listens.
        model (`str`, defaults to `"whisper-1"`), language (`str`, *optional*): As the server takes them.
    """

    def __init__(self, server: AudioServer, model: str = "whisper-1", language: str | None = None):
        self.server, self.model, self.language, self.name = server, model, language, server.url

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """As in [`Recogniser`]."""
        fields = {"model": self.model, "response_format": "json"}
        if self.language:
            fields["language"] = self.language
        sound = encode_sound(samples, HEARING_RATE, "wav")
        content = self.server.post(
            "audio/transcriptions", data=fields, files={"file": ("speech.wav", sound, "audio/wav")}
        )
        heard = read_transcript(content.decode(errors="replace") or "{}", f"What {self.server.url} answers")
        return heard if isinstance(heard, str) else " ".join(one.text for one in heard)


class FileRecogniser:
    """
    A transcript that is there already: subtitles (SRT, VTT), JSON with `segments`, or a plain text, which is that of
    every window.

    Args:
        path (`str` or `os.PathLike`): The file.

    Raises:
        OSError, ValueError: it cannot be read, or is no transcript.
    """

    def __init__(self, path: str | os.PathLike):
        self.name = os.fspath(path)
        try:
            content = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.name!r:.200} is no text in UTF-8: a transcript is accepted.") from error
        self.heard = read_transcript(content, f"{self.name!r:.200}")

    def transcribe(self, samples: np.ndarray, start: float = 0.0) -> str:
        """As in [`Recogniser`]; a segment counts to the window that has its middle."""
        if isinstance(self.heard, str):
            return self.heard
        end = start + len(samples) / HEARING_RATE
        return " ".join(one.text for one in self.heard if start <= _middle(one) < end)


def _middle(segment: Segment) -> float:
    return (segment.start + segment.end) / 2


def make_recogniser(name: str) -> Recogniser:
    """
    A recogniser by its name.

    Args:
        name (`str`):
            - `"whisper"` or `"whisper:MODEL"`: a folder or a repository of the Hub, of transformers or CTranslate2;
            - `"pocketsphinx"`;
            - the URL of an OpenAI-compatible server, such as `"http://127.0.0.1:8000/v1?model=whisper-1"`, where
              `api_key_env`, `timeout` and `language` are accepted, too;
            - a file with a transcript: SRT, VTT, JSON or plain text.

    Raises:
        ValueError, OSError: there is no such recogniser or file.
    """
    if name.startswith(("http://", "https://")):
        url, options = split_url(name, ("model", "api_key_env", "timeout", "language"))
        own = {entry: options.pop(entry) for entry in ("api_key_env", "timeout") if entry in options}
        return ServerRecogniser(AudioServer(url, **own), **options)
    if name == "pocketsphinx":
        return PocketsphinxRecogniser()
    if name == "whisper":
        return WhisperRecogniser()
    if name.startswith("whisper:") and name != "whisper:":
        return WhisperRecogniser(name.removeprefix("whisper:"))
    if os.path.isfile(name):
        return FileRecogniser(name)
    raise ValueError(
        f"{name!r:.200} is no recogniser: whisper, whisper:MODEL, pocketsphinx, the URL of a server of "
        "/v1/audio/transcriptions, or a file with a transcript is accepted."
    )


def make_listeners(names: Sequence[str]) -> dict[str, Recogniser]:
    """
    Recognisers of any sound, by their names.

    Args:
        names (`Sequence[str]`): As of [`make_recogniser`], but no files with a transcript.

    Raises:
        ValueError, OSError: there is no such recogniser, one is given twice, or is the transcript of one sound.
    """
    made: dict[str, Recogniser] = {}
    for name in names:
        if name in made:
            raise ValueError(f"The recogniser {name!r:.200} is given twice.")
        made[name] = make_recogniser(name)
        if isinstance(made[name], FileRecogniser):
            raise ValueError(f"{name!r:.200} is the transcript of one sound: recognisers of any are accepted.")
    return made
