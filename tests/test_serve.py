"""`omnivinci serve`, asked over HTTP by the clients that people use."""

import base64
import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
import wave

import numpy as np
import openai
import pytest
from typer.testing import CliRunner

from transformers_omnivinci.cli import app

from .conftest import CLIP, PARITY
from .media_samples import image, sound, user

PUBLISHED = str(PARITY / "published-tiny")
COMMAND = [sys.executable, "-c", "from transformers_omnivinci.cli import main; main()"]
NUM_FRAMES = 32  # what the server samples unless it is told otherwise


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png() -> bytes:
    file = io.BytesIO()
    image().save(file, "PNG")
    return file.getvalue()


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes((sound() * 32767).astype(np.int16).tobytes())
    return file.getvalue()


with open(CLIP, "rb") as file:
    MP4 = file.read()

# As OpenAI's API has them, with its common extensions for video and for URLs of sounds; and as the processor has them.
IMAGE = {"type": "image_url", "image_url": {"url": data_url("image/png", png())}}
VIDEO = {"type": "video_url", "video_url": {"url": data_url("video/mp4", MP4)}}
AUDIO = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav()).decode(), "format": "wav"}}
AUDIO_URL = {"type": "audio_url", "audio_url": {"url": data_url("audio/wav", wav())}}
ASKED = {
    "text alone": [],
    "image": [(IMAGE, {"type": "image", "image": png()})],
    "video with sound": [(VIDEO, {"type": "video", "video": CLIP})],
    "audio": [(AUDIO, {"type": "audio", "audio": wav()})],
    "URL of audio": [(AUDIO_URL, {"type": "audio", "audio": wav()})],
}
ASKED["all of them"] = ASKED["image"] + ASKED["video with sound"] + ASKED["audio"]


@pytest.fixture(scope="module")
def saved(load_checkpoint, tmp_path_factory):
    """The checkpoint in the transformers layout."""
    folder = tmp_path_factory.mktemp("saved")
    for part in load_checkpoint():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a running server, which loads the models that it is asked for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    arguments = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with open(log, "w") as output:
        server = subprocess.Popen([*COMMAND, *arguments], stdout=output, stderr=output)
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _wait_for(server, address, log):
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"The server does not answer.\n{log.read_text()}")


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def ask(client, model, parts, **options):
    content = [*(part for part, _ in parts), {"type": "text", "text": "What happens?"}]
    return client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": content}],
        **{"max_tokens": 8, "temperature": 0, **options},
    )


def expected_answer(model, processor, parts, num_frames=NUM_FRAMES) -> tuple[str, int]:
    """What the model says without a server, and how long the prompt is."""
    inputs = processor.apply_chat_template(
        user(*(item for _, item in parts), "What happens?"),
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
        load_audio_from_video=True,
        num_frames=num_frames,
    )
    length = inputs["input_ids"].shape[1]
    tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, length:]
    return processor.decode(tokens, skip_special_tokens=True), length


@pytest.mark.parametrize("layout", ["published", "transformers"])
@pytest.mark.parametrize("parts", ASKED.values(), ids=ASKED)
def test_the_server_says_what_the_model_says(client, model, processor, saved, parts, layout):
    completion = ask(client, PUBLISHED if layout == "published" else saved, parts)
    text, length = expected_answer(model, processor, parts)
    assert completion.choices[0].message.content == text
    assert completion.usage.prompt_tokens == length


def test_answers_are_streamed(client, model, processor):
    chunks = list(ask(client, PUBLISHED, ASKED["all of them"], stream=True))
    text, _ = expected_answer(model, processor, ASKED["all of them"])
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == text.rstrip("\ufffd")  # bytes that are no character yet are not sent
    assert len(chunks) > 3


def test_options_of_the_processor_are_passed_on(client, model, processor):
    parts = ASKED["video with sound"]
    completion = ask(client, PUBLISHED, parts, extra_body={"chat_template_kwargs": {"num_frames": 4}})
    text, length = expected_answer(model, processor, parts, num_frames=4)
    assert (completion.choices[0].message.content, completion.usage.prompt_tokens) == (text, length)


def test_responses(client, model, processor):
    content = [{"type": "input_image", "image_url": IMAGE["image_url"]["url"]}]
    content += [{"type": "input_text", "text": "What happens?"}]
    response = client.responses.create(
        model=PUBLISHED,
        input=[{"role": "user", "content": content}],
        max_output_tokens=8,
        temperature=0,
        stream=False,
    )
    assert response.output_text == expected_answer(model, processor, ASKED["image"])[0]


def test_transformers_chat(url, model, processor):
    chat = [sys.executable, "-m", "transformers.cli.transformers", "chat", PUBLISHED, url]
    output = subprocess.run(
        [*chat, "max_new_tokens=8", "do_sample=False"],
        input="What happens?\nn\n!exit\n",  # it asks whether to continue beyond 8 tokens: no
        env=os.environ | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert output.returncode == 0, output.stderr
    text, _ = expected_answer(model, processor, [])
    assert text.rstrip("\ufffd") in output.stdout and "8 tokens in" in output.stdout


def test_help_is_that_of_transformers():
    result = CliRunner().invoke(app, ["serve", "--help"])
    assert result.exit_code == 0
    assert "omnivinci serve" in result.output and "/v1/chat/completions" in result.output


def test_what_is_missing_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("transformers.cli.serve.is_serve_available", lambda: False)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: Missing dependencies for serving") and result.stderr.count("\n") == 1
