"""The back ends for speech, in and out, with a real model, a real voice and real recordings."""

import wave
from io import BytesIO

import numpy as np
import pytest

from transformers_omnivinci.data_engine.backends.espeak import EspeakOptions, EspeakVoice
from transformers_omnivinci.data_engine.backends.protocol import Medium, Request
from transformers_omnivinci.data_engine.backends.whisper import Whisper, WhisperOptions
from transformers_omnivinci.data_engine.clip_media import SAMPLING_RATE
from transformers_omnivinci.media import load_audio
from transformers_omnivinci.synthetic import Clip, write_clip

from .debian import SPEECH
from .real_parts import FOLDER, READ_ALOUD, make_speech_film, make_whisper, read_speech


@pytest.fixture(scope="module")
def whisper():
    return Whisper(WhisperOptions(str(make_whisper())))


def words_of(text: str) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()


def spoken() -> dict[str, list[str]]:
    """The words of the recordings, by the ends of their names."""
    lines = (FOLDER / "debian" / SPEECH / "transcription").read_text().splitlines()
    return {line.rpartition("-")[2][:4]: words_of(line.partition(" </s>")[0].removeprefix("<s>")) for line in lines}


def heard(whisper: Whisper, source, start: float, end: float) -> list[str]:
    (reply,) = whisper.complete([Request("speech", "", (Medium(str(source), start, end, "sound"),))])
    assert not reply.error
    return words_of(reply.text)


def test_real_speech_in_a_film_is_written_down(whisper):
    film, start = make_speech_film(), 0.0
    for name in READ_ALOUD:
        end = start + len(read_speech(name)) / SAMPLING_RATE
        wanted, got = spoken()[name], heard(whisper, film, start, end)
        missing = [word for word in wanted if word not in got]
        assert len(missing) <= 0.2 * len(wanted), (wanted, got)
        start = end


def test_a_spoken_question_is_understood(whisper, tmp_path):
    question = "How many times does the bell ring before the music starts?"
    for voice in ("en-us", "en-gb"):
        backend = EspeakVoice(EspeakOptions(voices=[voice], words_per_minute=140))
        backend.check()
        (reply,) = backend.complete([Request("speech_prompts", question)])
        assert reply.text == voice and not reply.error
        with wave.open(BytesIO(reply.sound)) as file:
            assert 2 < file.getnframes() / file.getframerate() < 8
        sound = load_audio(reply.sound, sampling_rate=SAMPLING_RATE)
        path, frames = tmp_path / f"{voice}.mp4", np.zeros((8, 32, 32, 3), np.uint8)
        write_clip(path, Clip(frames, sound, 1, SAMPLING_RATE))
        got = heard(whisper, path, 0.0, len(sound) / SAMPLING_RATE)
        missing = [word for word in words_of(question) if word not in got]
        assert len(missing) <= 3, got


def test_a_voice_that_does_not_exist_is_one_sentence():
    (reply,) = EspeakVoice(EspeakOptions(voices=["xx-none"])).complete([Request("speech_prompts", "Which?")])
    assert reply.error.startswith("espeak-ng says: ") and not reply.sound
