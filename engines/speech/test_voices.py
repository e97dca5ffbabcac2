"""Real voices are understood by a real recogniser, and real recognisers understand real speech."""

import resource
import socket
import threading
from pathlib import Path

import numpy as np
import openai
import pytest
import uvicorn
from transformers import WhisperTokenizerFast
from typer.testing import CliRunner

from benchmarks.voices import SENTENCES as MEASURED
from benchmarks.voices import joe, measure, recordings, whisper_folder
from engines.assemble.ctranslate2_whisper import save_whisper
from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.data_engine.backends.protocol import Medium, Request
from transformers_omnivinci.data_engine.backends.whisper import Whisper, WhisperOptions
from transformers_omnivinci.data_engine.clip_media import mp4
from transformers_omnivinci.endpoint import EndpointHandler, Limits
from transformers_omnivinci.evaluation import english_normalizer, word_errors
from transformers_omnivinci.inference.speech import SPEECH_RATE, find_programs, make_voice, read_out, speak_all
from transformers_omnivinci.inference.speech.recognisers import HEARING_RATE, make_recogniser
from transformers_omnivinci.inference.speech.transcribing import load_speech, transcribe
from transformers_omnivinci.inference.speech.transcripts import read_transcript
from transformers_omnivinci.media import encode_sound, load_audio, resample
from transformers_omnivinci.serving.app import build_app
from transformers_omnivinci.serving.models import Models
from transformers_omnivinci.serving.speech import Speech

SENTENCES = ["A small dog runs across the street.", "The train leaves at 9:45 from platform 12."]
PIPER = f"piper:{joe()}"
VOICES = [PIPER, *(name for name in find_programs() if name != "piper")]


@pytest.fixture(scope="module")
def whisper():
    return make_recogniser(f"whisper:{whisper_folder()}")


def error_rate(heard: str, said: str) -> float:
    errors, words = word_errors(heard, said, english_normalizer())
    return errors / words


def hearing(samples):
    return resample(samples, SPEECH_RATE, HEARING_RATE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It costs $3.50.", "It costs three dollars, fifty cents."),
        ("It costs $1,234.", "It costs one thousand, two hundred and thirty-four dollars."),
        ("7.5 s, 16 kHz, 25 °C", "seven point five seconds, sixteen kilohertz, twenty-five degrees Celsius"),
        ("at 3:05 pm", "at three oh five P M"),
        ("in 1999, the 21st", "in nineteen ninety-nine, the twenty-first"),
        ("from 2.0 to 3.5 seconds", "from two point zero to three point five seconds"),
        ("-4 and 0.05%", "minus four and zero point zero five percent"),
    ],
)
def test_numbers_are_those_of_num2words(text, said):
    assert read_out(text) == said


def test_numbers_of_other_languages_are_read_out():
    assert read_out("Es sind 21 Hunde.", "de") == "Es sind einundzwanzig Hunde."
    assert read_out("Hay 3,5 y 7.", "es") == "Hay 3,5 y siete."
    assert read_out("21", "xx") == "21"


@pytest.mark.parametrize("name", VOICES, ids=lambda name: name.partition(":")[0])
def test_voices_are_understood(name, whisper):
    sentences = MEASURED.read_text().splitlines()[:12]  # so many that one misheard word decides nothing
    row = measure(name, name, sentences, whisper)
    assert row["WER (%)"] <= 35 and 1.5 < row["DNSMOS"] < 5 and row["clips"] == 12
    assert row["real-time factor"] > 0 and row["first sound (s)"] < 60


def test_a_recording_with_pauses_becomes_segments(whisper, tmp_path):
    voice, parts = make_voice(PIPER), []
    for sentence in SENTENCES * 2:
        parts += [hearing(speak_all(voice, sentence)), np.zeros(16_000, np.float32)]
    path = tmp_path / "talk.flac"
    path.write_bytes(encode_sound(np.concatenate(parts), HEARING_RATE, "flac"))
    arguments = ["transcribe", str(path), "--external", f"whisper:{whisper_folder()}", "--alone", "--format", "srt"]
    result = CliRunner().invoke(app, [*arguments, "--segment", "1"])
    assert result.exit_code == 0, result.output
    segments = read_transcript(result.stdout, "it")
    assert len(segments) == 4
    starts = np.cumsum([0, *(len(part) / HEARING_RATE for part in parts)])[:-1:2]
    assert [one.start for one in segments] == pytest.approx(starts, abs=0.5)
    assert error_rate(" ".join(one.text for one in segments), read_out(" ".join(SENTENCES * 2))) <= 0.35


def test_pocketsphinx_hears_words():
    recogniser = make_recogniser("pocketsphinx")
    samples = hearing(speak_all(make_voice(PIPER), "Go forward ten meters."))
    heard = recogniser.transcribe(samples)
    assert len(set(heard.split()) & {"go", "forward", "ten", "meters"}) >= 2
    assert recogniser.transcribe(np.zeros(16_000, np.float32)) == ""


def test_real_recordings_are_understood(whisper):
    """Those of Debian's pocketsphinx-testdata, where it is installed; else the package's own clip of a voice."""
    clips = recordings() or [(hearing(speak_all(make_voice(PIPER), SENTENCES[0])), SENTENCES[0])]
    rates = [error_rate(whisper.transcribe(samples), text) for samples, text in clips]
    assert np.mean(rates) <= 0.2


def test_the_data_engine_writes_down_clips(tmp_path):
    samples = hearing(speak_all(make_voice(PIPER), SENTENCES[0]))
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    path, seconds = tmp_path / "clip.mp4", len(samples) / HEARING_RATE
    path.write_bytes(mp4(frames, len(frames) / seconds, samples))
    (heard,) = Whisper(WhisperOptions(whisper_folder())).complete(
        [Request("audio_caption", "", (Medium(str(path), 0.0, seconds, "sound"),))]
    )
    assert not heard.error and error_rate(heard.text, SENTENCES[0]) <= 0.35


def test_whisper_of_transformers_hears_the_same(tmp_path):
    model = save_whisper(Path(whisper_folder()), tmp_path)
    # What the file of CTranslate2 does not have, and whoever publishes a Whisper writes beside it.
    WhisperTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path)
    settings = {"no_timestamps_token_id": 50362, "is_multilingual": False, "max_length": 448}
    model.generation_config.update(**settings)
    model.generation_config.save_pretrained(tmp_path)
    samples = hearing(speak_all(make_voice(PIPER), SENTENCES[0]))
    heard = make_recogniser(f"whisper:{tmp_path}").transcribe(samples)
    assert error_rate(heard, SENTENCES[0]) <= 0.35


def test_the_server_speaks_with_a_real_voice(whisper):
    handler = EndpointHandler(NANO, Limits(), name="nano", trust_remote_code=False)
    models = Models(lambda path, name: handler, "nano")
    server = uvicorn.Server(uvicorn.Config(build_app(models, 10_000_000, voices=Speech([PIPER])), log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with openai.OpenAI(base_url=address, api_key="none", timeout=120) as client:
            sound = client.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCES[0]).content
            assert error_rate(whisper.transcribe(load_audio(sound)), SENTENCES[0]) <= 0.35
            # The server is a voice and a recogniser itself, for another one.
            samples = speak_all(make_voice(f"{address}?voice=alloy"), SENTENCES[0])
            assert error_rate(whisper.transcribe(hearing(samples)), SENTENCES[0]) <= 0.35
            assert isinstance(make_recogniser(address).transcribe(hearing(samples)), str)
    finally:
        server.should_exit = True
        thread.join()


def test_two_hours_take_little_memory(tmp_path):
    """They are 460 MB as samples in memory, and more while they grow."""
    path = tmp_path / "long.flac"
    minute = np.concatenate([0.3 * np.sin(np.arange(16_000 * 12) / 4), np.zeros(16_000 * 3)] * 4).astype(np.float32)
    path.write_bytes(encode_sound(np.tile(minute, 120), 16_000, "flac"))

    class Silent:
        name, windows, longest = "silent", 0, 0

        def transcribe(self, samples, start=0.0):
            self.windows, self.longest = self.windows + 1, max(self.longest, len(samples))
            return f"at {start:.0f}"

    recogniser, before = Silent(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    segments = list(transcribe(load_speech(path), recogniser))
    assert len(segments) == recogniser.windows == 480 and recogniser.longest < 30 * HEARING_RATE
    assert segments[-1].start == pytest.approx(7185, abs=0.2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
