"""Spoken answers of `omnivinci ask` and `chat`, and spoken questions."""

import stat
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.cli.speaking import SpokenAnswer
from transformers_omnivinci.inference.speech import listening, make_voice
from transformers_omnivinci.inference.speech.listening import record
from transformers_omnivinci.media import encode_sound, load_audio

from .conftest import CLIP
from .speech_server import SpeechServer


def run(*arguments, code=0, given=None):
    result = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"], input=given)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def question(tmp_path):
    """A file with a sound, which nano takes for one of its own."""
    path = tmp_path / "question.wav"
    path.write_bytes(encode_sound(0.3 * np.sin(np.arange(16_000) / 5), 16_000))
    return path


@pytest.mark.compat
def test_an_answer_is_written_and_spoken(tmp_path):
    with SpeechServer() as server:
        words = run("ask", CLIP, "Which shape is seen?", "--speak", tmp_path / "out.ogg", "--voice", server.url).stdout
        said = " ".join(body["input"] for body in server.asked)
    assert said.split() == words.split()
    assert len(load_audio(tmp_path / "out.ogg")) > 500 and len(list(tmp_path.iterdir())) == 1


def test_a_chat_speaks_its_answers_and_hears_questions(tmp_path, question):
    answers = tmp_path / "answers"
    answers.mkdir()
    with SpeechServer(breaks_at=3, refuses=503) as server:
        options = ("--speak-to", answers, "--voice", server.url, "--listen", "--max-new-tokens", 6)
        lines = f"Which shape?\n{question}\nWhich sound?\n/timeline\n{CLIP}\n"
        result = run("chat", CLIP, *options, given=lines)
    assert sorted(path.name for path in answers.iterdir()) == ["answer-1.wav", "answer-2.wav"]
    assert "503" in result.output  # of the third answer, which is printed all the same
    assert "question.wav" in result.stdout  # it is a part of what was said
    assert "is a video: a question is a sound" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--speak", "--speak-to", "."), "not both"),
        (("--speak-to", "/nowhere/at/all"), "no folder"),
        (("--speak",), "Nothing here plays sound"),
        (("--speak", "--voice", "parrot"), "no program that speaks"),
    ],
)
def test_speech_that_cannot_be_had_is_told_before_the_model_is_loaded(monkeypatch, options, told):
    monkeypatch.setenv("PATH", "/nowhere")
    if "parrot" not in options:
        options = (*options, "--voice", "http://127.0.0.1:9/v1")
    assert told in " ".join(run("chat", CLIP, *options, code=1).output.split())


def test_a_question_is_recorded(tmp_path, question):
    recorder = tmp_path / "recorder"
    recorder.write_text(
        f"#!{sys.executable}\nimport shutil, signal, sys, time\n"
        f"signal.signal(signal.SIGINT, lambda *_: (shutil.copy({str(question)!r}, sys.argv[1]), sys.exit()))\n"
        f"open({str(tmp_path / 'began')!r}, 'w').close()\ntime.sleep(30)\n"
    )
    recorder.chmod(recorder.stat().st_mode | stat.S_IXUSR)

    def wait():
        while not (tmp_path / "began").exists():
            pass

    record(tmp_path / "made.wav", wait, [str(recorder)])
    assert (tmp_path / "made.wav").read_bytes() == question.read_bytes()
    with pytest.raises(OSError, match="recorded nothing"):
        record(tmp_path / "none.wav", lambda: None, ["true"])


def test_without_a_microphone_files_are_offered(monkeypatch, tmp_path):
    monkeypatch.setattr(listening, "find_recorder", lambda: None)
    with pytest.raises(OSError, match="no microphone.*sound file"):
        record(tmp_path / "made.wav", lambda: None)


def test_an_answer_that_fails_is_not_spoken_to_its_end():
    heard = []
    with SpeechServer() as server:
        with pytest.raises(KeyboardInterrupt), SpokenAnswer(make_voice(server.url), heard.extend) as spoken:
            spoken.say("One. Two.")
            raise KeyboardInterrupt
    assert not heard
