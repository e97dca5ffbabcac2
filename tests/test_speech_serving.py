"""Speech of the server: answers as sound, `/v1/audio/speech` and `/v1/audio/transcriptions`, with OpenAI's client."""

import base64
import socket
import threading
from contextlib import contextmanager

import numpy as np
import openai
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_omnivinci import NANO
from transformers_omnivinci.endpoint import EndpointHandler, Limits, RequestError
from transformers_omnivinci.inference.speech.transcripts import read_transcript
from transformers_omnivinci.media import encode_sound, load_audio
from transformers_omnivinci.serving.app import build_app
from transformers_omnivinci.serving.forms import read_form
from transformers_omnivinci.serving.models import Models
from transformers_omnivinci.serving.second_opinion import SecondOpinion
from transformers_omnivinci.serving.speech import Speech

from .speech_server import SpeechServer

QUESTION = {"model": "nano", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def handler():
    return EndpointHandler(NANO, Limits(max_media_seconds=60), name="nano", trust_remote_code=False)


@contextmanager
def running(handler, voices=(), opinion=None):
    """A client of a server with these voices, and with recognisers beside the model."""
    models = Models(lambda path, name: handler, "nano")
    models._loaded["nano"] = handler
    app = build_app(models, 10_000_000, voices=Speech(voices), opinion=opinion)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    try:
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def voice():
    with SpeechServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(handler, voice):
    with running(handler, [voice.url]) as client:
        yield client


@pytest.fixture(scope="module")
def answer(client):
    """What nano says to the question."""
    text = client.chat.completions.create(**QUESTION).choices[0].message.content
    assert text
    return text


# Answers


@pytest.mark.compat
def test_an_answer_is_text_and_sound(client, voice, answer):
    audio = {"voice": "alloy", "format": "wav"}
    completion = client.chat.completions.create(**QUESTION, modalities=["text", "audio"], audio=audio)
    message = completion.choices[0].message
    assert message.content is None and message.audio.transcript == answer and message.audio.id
    assert voice.asked[-1]["input"].split() and completion.usage.completion_tokens
    sound = load_audio(base64.b64decode(message.audio.data))
    assert len(sound) == pytest.approx(0.05 * 16_000 * len(voice.asked[-1]["input"].split()), rel=0.1)


def test_a_streamed_answer_is_spoken_along(client, voice, answer):
    audio = {"voice": "alloy", "format": "pcm16"}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**QUESTION, modalities=["text", "audio"], audio=audio, **options))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    told = [one["audio"] for one in (delta.to_dict() for delta in deltas) if "audio" in one]
    assert "".join(one.get("transcript") or "" for one in told) == answer
    pcm = b"".join(base64.b64decode(one["data"]) for one in told if "data" in one)
    assert len(pcm) / 2 / 24_000 == pytest.approx(0.05 * len(voice.asked[-1]["input"].split()), rel=0.1)
    assert len({one["id"] for one in told}) == 1 and not any(delta.content for delta in deltas)
    assert chunks[-1].usage.completion_tokens
    (end,) = [n for n, chunk in enumerate(chunks) if chunk.choices and chunk.choices[0].finish_reason]
    assert end == len(chunks) - 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"modalities": ["text", "video"]}, "modalities"),
        ({"modalities": ["audio", "video"]}, "modalities"),
        ({"audio": {"voice": "nobody", "format": "wav"}}, "nobody"),
        ({"audio": {"voice": "alloy", "format": "midi"}}, "midi"),
        ({"audio": {"voice": "alloy", "format": "wav"}, "stream": True}, "pcm16"),
        ({"n": 2}, "`n` is 1"),
    ],
)
def test_what_cannot_be_spoken_is_refused(client, given, told):
    with pytest.raises(openai.UnprocessableEntityError, match=told):
        client.chat.completions.create(**QUESTION, **{"modalities": ["text", "audio"], **given})


def test_a_server_without_voices_says_how_to_have_one(handler):
    with running(handler) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="--voice auto"):
            client.chat.completions.create(**QUESTION, modalities=["text", "audio"], audio={"format": "wav"})
        with pytest.raises(openai.UnprocessableEntityError, match="--voice auto"):
            client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")


def test_a_voice_that_fails_is_told(handler):
    with SpeechServer(breaks_at=2, refuses=503) as voice, running(handler, [voice.url]) as client:
        # The first sentence was sent when the second fails: the file breaks off, and the client knows.
        with pytest.raises(openai.APIConnectionError):
            client.audio.speech.create(model="tts-1", voice="alloy", input="A dog barks. A cat sleeps.")
        voice.asked.append("one more, so that number two is past")
        assert client.audio.speech.create(model="tts-1", voice="alloy", input="A dog barks.").content
    with running(handler, [voice.url]) as client:
        for ask in (
            lambda: client.audio.speech.create(model="tts-1", voice="alloy", input="Hello."),
            lambda: client.chat.completions.create(
                **QUESTION, modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}
            ),
        ):
            with pytest.raises(openai.InternalServerError, match="cannot be asked") as error:
                ask()
            assert error.value.status_code == 503
        with pytest.raises(openai.APIError, match="cannot be asked"):
            list(
                client.chat.completions.create(
                    **QUESTION, modalities=["text", "audio"], audio={"voice": "alloy", "format": "pcm16"}, stream=True
                )
            )


# /v1/audio/speech


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_texts_are_spoken(client, voice, format):
    options = {"response_format": format, "speed": 1.5}
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="A dog barks. A cat sleeps.", **options)
    assert [body["input"] for body in voice.asked[-2:]] == ["A dog barks.", "A cat sleeps."]
    assert voice.asked[-1]["speed"] == 1.5 and spoken.response.headers["content-type"].startswith("audio/")
    if format == "pcm":
        samples = np.frombuffer(spoken.content, "<i2")[::3]
    else:
        samples = load_audio(spoken.content, sampling_rate=8000)
    assert len(samples) == pytest.approx(0.3 * 8000, rel=0.3)


def test_speech_comes_as_events(client):
    body = {"model": "tts-1", "voice": "alloy", "input": "A dog barks.", "response_format": "pcm"}
    with client.audio.speech.with_streaming_response.create(**body, stream_format="sse") as response:
        text = response.read().decode()
    assert text.count('"type": "speech.audio.delta"') >= 1 and '"type": "speech.audio.done"' in text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"input": " "}, "must not be empty"),
        ({"input": "… !"}, "nothing to say"),
        ({"input": "a" * 5000}, "5000 characters"),
        ({"voice": "/etc/passwd"}, "voice"),
        ({"response_format": "midi"}, "midi"),
        ({"instructions": "Whisper."}, "instructions"),
        ({"extra_body": {"speed": 9}}, "speed"),
        ({"extra_body": {"pitch": 9}}, "pitch"),
    ],
)
def test_speech_that_cannot_be_had_is_refused(client, given, told):
    with pytest.raises(openai.APIStatusError, match=told) as error:
        client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": "Hello.", **given})
    assert 400 <= error.value.status_code < 500


# /v1/audio/transcriptions


def speech(*seconds: float) -> bytes:
    """Tones of so many seconds, with a second of silence before each."""
    parts = [np.zeros(0, np.float32)]
    for number, length in enumerate(seconds):
        parts += [np.zeros(16_000), 0.4 * np.sin(np.arange(round(16_000 * length)) / (3 + number))]
    return encode_sound(np.concatenate(parts), 16_000, "wav")


@pytest.mark.compat
def test_speech_is_written_down(client):
    file = ("talk.wav", speech(5.0, 2.0))
    plain = client.audio.transcriptions.create(model="nano", file=file)
    assert plain.text
    verbose = client.audio.transcriptions.create(
        model="nano", file=file, response_format="verbose_json", timestamp_granularities=["segment"], language="en"
    )
    assert verbose.text == plain.text and verbose.duration == pytest.approx(9, abs=0.01)
    places = [(segment.start, segment.end) for segment in verbose.segments]
    assert places == [(pytest.approx(1, abs=0.2), pytest.approx(6, abs=0.3)), (pytest.approx(7, abs=0.2), 9)]
    for format in ("srt", "vtt"):
        subtitles = client.audio.transcriptions.create(model="nano", file=file, response_format=format)
        read = read_transcript(subtitles, "the answer")
        assert [one.text for one in read] == [segment.text for segment in verbose.segments]
    text = client.audio.transcriptions.create(model="nano", file=file, response_format="text")
    assert text.strip() == plain.text
    events = list(client.audio.transcriptions.create(model="nano", file=file, stream=True))
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == plain.text


def test_silence_has_no_text(client):
    file = ("silence.wav", encode_sound(np.zeros(48_000), 16_000, "wav"))
    told = client.audio.transcriptions.create(model="nano", file=file, response_format="verbose_json")
    assert (told.text, told.segments) == ("", [])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"file": ("a.wav", b"no sound")}, "not accepted as sound"),
        ({"file": ("a.wav", b"")}, "no `file`"),
        ({"file": ("long.wav", encode_sound(np.zeros(16_000 * 61), 16_000, "flac"))}, "lasts 61 s"),
        ({"response_format": "docx"}, "response_format"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"prompt": "Names: Lee"}, "prompt"),
        ({"extra_body": {"speaker": "x"}}, "speaker"),
    ],
)
def test_what_cannot_be_written_down_is_refused(client, given, told):
    with pytest.raises(openai.APIStatusError, match=told) as error:
        client.audio.transcriptions.create(**{"model": "nano", "file": ("a.wav", speech(0.5)), **given})
    assert 400 <= error.value.status_code < 500


def test_what_others_hear_enters_the_prompt(handler, monkeypatch):
    asked, complete, file = [], handler.complete_chat, ("talk.wav", speech(1.0))

    def record(chat, cancelled=None):
        asked.append(chat["messages"][0]["content"][1]["text"])
        return complete({**chat, "max_tokens": 2}, cancelled)

    monkeypatch.setattr(handler, "complete_chat", record)
    with SpeechServer(heard="a dog barks") as other:
        opinion = SecondOpinion([other.url])
        with running(handler, opinion=opinion) as client:
            client.audio.transcriptions.create(model="nano", file=file)
            assert "Another recogniser heard: a dog barks" in asked[0]
        with running(handler, opinion=SecondOpinion([other.url], decides=True)) as client:
            with pytest.raises(openai.UnprocessableEntityError, match="tokenizer lacks <accept_internal>"):
                client.audio.transcriptions.create(model="nano", file=file)
    with running(handler, opinion=opinion) as client:
        with pytest.raises(openai.InternalServerError, match="of this server fails") as error:
            client.audio.transcriptions.create(model="nano", file=file)
        assert error.value.status_code == 503


# Forms


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_files_of_forms_are_read_byte_by_byte(content):
    body = b'--xYz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + content
    body += b'\r\n--xYz\r\nContent-Disposition: form-data; name="kinds[]"\r\n\r\nsegment\r\n--xYz--\r\n'
    assert read_form(body, "multipart/form-data; boundary=xYz") == {"file": [content], "kinds": ["segment"]}


@pytest.mark.parametrize(
    ("body", "header", "told"),
    [
        (b"{}", "application/json", "multipart/form-data"),
        (b"nothing", "multipart/form-data; boundary=x", "no parts|no name"),
        (b"--x\r\n\r\nvalue\r\n--x--\r\n", "multipart/form-data; boundary=x", "no name"),
    ],
)
def test_other_forms_are_refused(body, header, told):
    with pytest.raises(RequestError, match=told):
        read_form(body, header)
