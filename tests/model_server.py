"""`omnivinci serve` in a process or a thread, and what clients ask of it."""

import base64
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
import uvicorn

from transformers_omnivinci.serving.app import build_app
from transformers_omnivinci.serving.models import Models

from .conftest import CLIP, PARITY
from .media_files import image_bytes, wav_bytes
from .media_samples import image, sound, user
from .processes import OMNIVINCI, PythonProcess

PUBLISHED = str(PARITY / "published-tiny")
NUM_FRAMES = 32  # what the server samples unless it is told otherwise


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


PNG, WAV = image_bytes(image()), wav_bytes(sound())
with open(CLIP, "rb") as file:
    MP4 = file.read()

# As OpenAI's API has them, with its common extensions for video and for URLs of sounds; and as the processor has them.
IMAGE = {"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}}
VIDEO = {"type": "video_url", "video_url": {"url": data_url("video/mp4", MP4)}}
AUDIO = {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}}
AUDIO_URL = {"type": "audio_url", "audio_url": {"url": data_url("audio/wav", WAV)}}
ASKED = {
    "text alone": [],
    "image": [(IMAGE, {"type": "image", "image": PNG})],
    "video with sound": [(VIDEO, {"type": "video", "video": CLIP})],
    "audio": [(AUDIO, {"type": "audio", "audio": WAV})],
    "URL of audio": [(AUDIO_URL, {"type": "audio", "audio": WAV})],
}
ASKED["all of them"] = ASKED["image"] + ASKED["video with sound"] + ASKED["audio"]


@contextmanager
def serving(folder):
    """The address of a server in a process, which loads what it is asked for; its log is in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    arguments = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with open(log, "w") as output:
        server = PythonProcess(OMNIVINCI, *arguments, stdout=output, stderr=output)
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


def content(completion) -> str:
    return completion.choices[0].message.content


def streamed(chunks) -> list[str]:
    """The text of each choice, put together; nothing comes after its end."""
    texts, ended = {}, set()
    for chunk in chunks:
        for choice in chunk.choices:
            assert choice.index not in ended
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                ended.add(choice.index)
    assert ended == texts.keys()
    return [texts[index] for index in sorted(texts)]


@contextmanager
def running(handler, only="tiny", **options):
    """The address of a server in this process; its models are all `handler`."""
    models = Models(lambda path, name: handler, only, **options)
    if only is not None:
        models._loaded[only] = handler
    server = uvicorn.Server(uvicorn.Config(build_app(models, 10_000_000), port=0, log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", models
    finally:
        server.should_exit = True
        thread.join()
