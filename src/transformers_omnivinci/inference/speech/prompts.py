"""Questions as speech beside other media: where they stand, and in which form (paper, appendix D.4)."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from .finding import make_voice
from .recognisers import HEARING_RATE, Recogniser
from .voice import SPEECH_RATE, Voice, speak_all

Position = Literal["prefix", "mid", "suffix"]
Regime = Literal["native", "transcript", "rendered"]
POSITIONS, REGIMES = get_args(Position), get_args(Regime)


def place_question(media: Sequence[dict], question: dict, position: Position = "suffix") -> list[dict]:
    """
    The content of a message of the user, with a question among media.

    Args:
        media (`Sequence[dict]`): Content items of images, videos and sounds.
        question (`dict`): The question's content item, a sound or a text.
        position (`str`, defaults to `"suffix"`):
            `"prefix"`: in front of the media; `"mid"`: behind the first third of them, as behind the first of the
            paper's three pairs; `"suffix"`: behind them, right before the answer, which the paper found best.

    Raises:
        ValueError: the position is unknown, or there is no middle between fewer than two media.
    """
    if position not in POSITIONS:
        raise ValueError(f"{position!r:.40} is no position of a question: {', '.join(POSITIONS)} are.")
    if position == "mid" and len(media) < 2:
        raise ValueError(f"There is no middle of {len(media)} media: at least two are needed.")
    place = {"prefix": 0, "mid": max(1, round(len(media) / 3)), "suffix": len(media)}[position]
    return [*media[:place], question, *media[place:]]


def spoken_question(
    samples: np.ndarray,
    regime: Regime = "native",
    recogniser: Recogniser | None = None,
    voice: Voice | None = None,
) -> dict:
    """
    The content item of a question that was spoken.

    Args:
        samples (`np.ndarray`): float32 mono samples of shape (num_samples,) at 16 kHz.
        regime (`str`, defaults to `"native"`):
            `"native"`: the sound itself; `"transcript"`: the text that `recogniser` hears; `"rendered"`: that text,
            spoken anew by `voice`.
        recogniser ([`Recogniser`], *optional*), voice ([`Voice`], *optional*): What the regime needs; for the voice,
            by default the first of this machine.

    Raises:
        ValueError: the regime is unknown, lacks its recogniser, or nothing was heard.
        OSError: the recogniser or the voice fails.
    """
    if regime not in REGIMES:
        raise ValueError(f"{regime!r:.40} is no form of a spoken question: {', '.join(REGIMES)} are.")
    if regime == "native":
        return {"type": "audio", "audio": samples}
    if recogniser is None:
        raise ValueError(f"A question in the form `{regime}` needs a recogniser.")
    text = recogniser.transcribe(samples)
    if not text.strip():
        raise ValueError(f"{recogniser.name} heard no words in the question of {len(samples) / HEARING_RATE:.1f} s.")
    if regime == "transcript":
        return {"type": "text", "text": text}
    return {"type": "audio", "audio": (speak_all(voice or make_voice(), text), SPEECH_RATE)}


def add_noise(samples: np.ndarray, decibels: float, seed: int = 0) -> np.ndarray:
    """
    Samples with white noise that is so many dB weaker than they are, clipped to [-1, 1]; infinity adds none.

    Args:
        samples (`np.ndarray`): float32 of shape (num_samples,).
        decibels (`float`): The ratio of signal to noise.
        seed (`int`): Of the noise.
    """
    noise = np.random.default_rng(seed).standard_normal(len(samples))
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-decibels / 20)
    return np.clip(samples + level * noise, -1, 1).astype(np.float32)
