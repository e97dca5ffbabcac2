"""`omnivinci serve`, asked over HTTP by the clients that people use."""

import base64
import importlib.util
import io
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import openai
import pytest
import uvicorn
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.compat import VERSION
from transformers_omnivinci.endpoint import EndpointHandler, Limits, RequestError
from transformers_omnivinci.serving.app import build_app
from transformers_omnivinci.serving.models import Models
from transformers_omnivinci.serving.sources import AllowedSources
from transformers_omnivinci.serving.streaming import GrowingText

from .conftest import CLIP, PARITY
from .media_samples import image, sound, user
from .processes import OMNIVINCI, PythonProcess, run_python

pytestmark = pytest.mark.compat

PUBLISHED = str(PARITY / "published-tiny")
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


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["published", "transformers"])
@pytest.mark.parametrize("parts", ASKED.values(), ids=ASKED)
def test_the_server_says_what_the_model_says(client, model, processor, saved, parts, layout):
    completion = ask(client, PUBLISHED if layout == "published" else saved, parts)
    text, length = expected_answer(model, processor, parts)
    assert completion.choices[0].message.content == text
    assert completion.usage.prompt_tokens == length


@pytest.mark.slow
def test_answers_are_streamed(client, model, processor):
    chunks = list(ask(client, PUBLISHED, ASKED["all of them"], stream=True))
    text, _ = expected_answer(model, processor, ASKED["all of them"])
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == text.rstrip("\ufffd")  # bytes that are no character yet are not sent
    assert len(chunks) > 3


@pytest.mark.slow
def test_options_of_the_processor_are_passed_on(client, model, processor):
    parts = ASKED["video with sound"]
    completion = ask(client, PUBLISHED, parts, extra_body={"chat_template_kwargs": {"num_frames": 4}})
    text, length = expected_answer(model, processor, parts, num_frames=4)
    assert (completion.choices[0].message.content, completion.usage.prompt_tokens) == (text, length)


@pytest.mark.slow
def test_clients_hand_on_what_an_answer_rests_on(client):
    options = {"extra_body": {"return_evidence": True, "num_frames": 4}}
    completion = ask(client, PUBLISHED, ASKED["all of them"], **options)
    assert sum(completion.evidence["tokens"].values()) == completion.usage.prompt_tokens
    assert [medium["modality"] for medium in completion.evidence["media"]] == ["image", "video", "audio"]
    *_, last = ask(client, PUBLISHED, ASKED["all of them"], stream=True, **options)
    assert last.evidence == completion.evidence


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(
    VERSION < (5, 23) and importlib.util.find_spec("fastapi") is None,
    reason="the command of older transformers imports its server, which needs fastapi",
)
def test_transformers_chat(url, model, processor, tmp_path):
    (tmp_path / "input").write_text("What happens?\nn\n!exit\n")  # it asks whether to continue beyond 8 tokens: no
    with open(tmp_path / "input", "rb") as lines:
        output = run_python(
            *("from transformers.cli.transformers import main; main()", "chat", PUBLISHED, url),
            *("max_new_tokens=8", "do_sample=False"),
            env=os.environ | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"},
            stdin=lines,
        )
    assert output.returncode == 0, output.stderr
    text, _ = expected_answer(model, processor, [])
    assert text.rstrip("\ufffd") in output.stdout and "8 tokens in" in output.stdout


# ----------------------------------------------------------------------------------------------- parameters of OpenAI


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


@pytest.mark.slow
@pytest.mark.parametrize("is_listed", [False, True], ids=["string", "list"])
@pytest.mark.parametrize("start, end", [(3, 4), (2, 5), (1, 3)])
def test_stop(client, is_listed, start, end):
    full = content(ask(client, PUBLISHED, [], max_tokens=16))
    stop = full[start:end]
    options = {"max_tokens": 16, "stop": ["never said", stop] if is_listed else stop}
    whole = ask(client, PUBLISHED, [], **options)
    assert content(whole) == full[: full.index(stop)] and whole.choices[0].finish_reason == "stop"
    chunks = list(ask(client, PUBLISHED, [], stream=True, **options))
    assert streamed(chunks) == [content(whole)] and chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage and whole.usage.completion_tokens < 16


@pytest.mark.slow
def test_a_stop_sequence_does_not_begin_in_the_prompt(client):
    full = content(ask(client, PUBLISHED, []))
    assert content(ask(client, PUBLISHED, [], stop="assistant\n" + full[0])) == full


@pytest.mark.slow
def test_several_answers(client):
    options = {"n": 3, "temperature": 1.5, "seed": 4}
    whole = ask(client, PUBLISHED, [], **options)
    texts = [choice.message.content for choice in whole.choices]
    assert len(texts) == 3 and len(set(texts)) > 1 and [choice.index for choice in whole.choices] == [0, 1, 2]
    again = streamed(ask(client, PUBLISHED, [], stream=True, **options))
    assert again == [text.rstrip("\ufffd") for text in texts]
    assert len({content(ask(client, PUBLISHED, [], temperature=2.0)) for _ in range(4)}) > 1


@pytest.mark.slow
def test_log_probabilities(client, model, processor):
    import torch

    completion = ask(client, PUBLISHED, [], logprobs=True, top_logprobs=2, frequency_penalty=0.5)
    told = completion.choices[0].logprobs.content
    assert len(told) == 8
    chat = user("What happens?")
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**inputs).logits[0, -1].float().log_softmax(-1)
    best = expected.topk(2)
    assert told[0].logprob == pytest.approx(best.values[0].item(), abs=1e-4)
    assert [one.logprob for one in told[0].top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert told[0].token == told[0].top_logprobs[0].token == processor.tokenizer.decode([best.indices[0].item()])
    chunks = ask(client, PUBLISHED, [], logprobs=True, frequency_penalty=0.5, stream=True)
    entries = [one for chunk in chunks for choice in chunk.choices for one in _told(choice)]
    assert [one.logprob for one in entries] == pytest.approx([one.logprob for one in told])


def _told(choice) -> list:
    return [] if choice.logprobs is None else choice.logprobs.content


@pytest.mark.slow
def test_penalties_and_bias(client, processor):
    letters = {str(processor.tokenizer(letter)["input_ids"][0]): 100 for letter in "abc"}
    assert content(ask(client, PUBLISHED, [], logit_bias=dict(list(letters.items())[:1]))) == "a" * 8
    even, same = (
        content(ask(client, PUBLISHED, [], max_tokens=24, logit_bias=letters, frequency_penalty=penalty))
        for penalty in (2.0, -2.0)
    )
    assert max(map(even.count, "abc")) <= 9 and max(map(same.count, "abc")) >= 20
    once = content(ask(client, PUBLISHED, [], max_tokens=3, logit_bias=letters, presence_penalty=2.0))
    assert set(once) == set("abc")


@pytest.mark.slow
def test_usage_of_a_stream(client):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = ask(client, PUBLISHED, [], **options)
    assert last.choices == [] and last.usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mm_processor_kwargs", "chat_template_kwargs"])
def test_options_of_the_processor_in_an_object(client, processor, name):
    for given, options in (
        ({"num_frames": 3}, {"num_frames": 3}),
        ({"fps": 0.5, "max_frames": 4}, {"fps": 0.5, "max_frames": 4}),
        ({"num_frames": 2, "use_audio_in_video": False}, {"num_frames": 2, "load_audio_from_video": False}),
        ({"num_frames": 2, "video_start": 1, "video_end": 3}, {"num_frames": 2, "video_start": 1, "video_end": 3}),
    ):
        completion = ask(client, PUBLISHED, ASKED["video with sound"], max_tokens=1, extra_body={name: given})
        chat = user({"type": "video", "video": CLIP}, "What happens?")
        assert completion.usage.prompt_tokens == processor.count_tokens(chat, **options)


@pytest.mark.slow
def test_options_of_one_video(client, processor):
    clips = [{**VIDEO, "num_frames": 2}, {**VIDEO, "fps": 0.5, "video_start": 2, "video_end": 8}, VIDEO]
    expected = [
        {"type": "video", "video": CLIP, "num_frames": 2},
        {"type": "video", "video": CLIP, "fps": 0.5, "video_start": 2, "video_end": 8},
        {"type": "video", "video": CLIP},
    ]
    body = {"mm_processor_kwargs": {"num_frames": 5}}
    completion = ask(client, PUBLISHED, [(clip, None) for clip in clips], max_tokens=1, extra_body=body)
    length = processor.count_tokens(user(*expected, "What happens?"), num_frames=5)
    assert completion.usage.prompt_tokens == length
    for wrong, words in (({"fps": 0}, "`fps` is a number"), ({"num_frames": 1, "fps": 1}, "by both"), ({"x": 1}, "x")):
        with pytest.raises(openai.APIStatusError, match=words):
            ask(client, PUBLISHED, [({**VIDEO, **wrong}, None)])


# -------------------------------------------------------------------------------------------------------------- errors

TEXT = {"type": "text", "text": "?"}
NO_MEDIUM = base64.b64encode(b"hello").decode()


def item(kind: str, url: str) -> dict:
    return {"type": kind, kind: {"url": url}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_body, status, words",
    [
        ({"messages": user(item("image_url", f"data:image/png;base64,{NO_MEDIUM}"))}, 415, "not an image"),
        ({"messages": user(item("video_url", f"data:video/mp4;base64,{NO_MEDIUM}"))}, 415, "Medium 1"),
        ({"messages": user(item("audio_url", f"data:audio/wav;base64,{NO_MEDIUM}"))}, 415, "Medium 1"),
        ({"messages": user(item("video_url", data_url("image/png", png())))}, 415, "an image"),
        ({"messages": user(item("image_url", "http://127.0.0.1:9/a.png"))}, 400, "public internet"),
        ({"messages": user(item("image_url", "http://169.254.169.254/latest/meta-data"))}, 400, "public internet"),
        ({"messages": user(item("image_url", "http://no-such-host.invalid/a.png"))}, 400, "cannot be fetched"),
        ({"messages": user(item("video_url", f"file://{CLIP}"))}, 400, "--allowed-local-media-path"),
        ({"messages": user(item("video_url", CLIP))}, 400, "paths are not accepted"),
        ({"messages": []}, 400, "at least one message"),
        ({}, 400, "at least one message"),
        ({"messages": user(TEXT), "max_tokens": -1}, 422, "`max_tokens` is an integer"),
        ({"messages": user(TEXT), "temperature": "hot"}, 422, "`temperature` is a number"),
        ({"messages": user(TEXT), "temperature": 0, "n": 2}, 422, "one answer"),
        ({"messages": user(TEXT), "top_logprobs": 2}, 422, "needs `logprobs`"),
        ({"messages": user(TEXT), "logprobs": True, "top_logprobs": 50}, 422, "from 0 to 20"),
        ({"messages": user(TEXT), "presence_penalty": 3}, 422, "from -2 to 2"),
        ({"messages": user(TEXT), "logit_bias": {"a": 1}}, 422, "token ids"),
        ({"messages": user(TEXT), "logit_bias": {"100000": 1}}, 422, "token 100000"),
        ({"messages": user(TEXT), "response_format": {"type": "json_object"}}, 422, "response_format"),
        ({"messages": user(TEXT), "tools": [{"type": "function"}]}, 422, "'tools'"),
        ({"messages": user(TEXT), "stop": 3}, 422, "`stop` is a string"),
        ({"messages": user(TEXT), "stream": "yes"}, 422, "`stream`"),
        ({"messages": user(TEXT), "stream_options": {"include_usage": True}}, 422, "needs `stream`"),
        ({"messages": user(TEXT), "mm_processor_kwargs": {"max_pixels": 9}}, 422, "max_pixels.*num_frames"),
        ({"messages": user(TEXT), "mm_processor_kwargs": {"fps": 1}, "fps": 2}, 422, "twice"),
        ({"messages": user(TEXT), "mm_processor_kwargs": [1]}, 422, "is an object"),
        ({"messages": user(TEXT), "generation_config": "{"}, 422, "generation_config"),
        ({"messages": user(TEXT), "model": "no-such-folder"}, 404, "There is no model 'no-such-folder'"),
        ({"messages": user(TEXT), "model": None}, 404, "`model` names the model"),
        (b"{", 400, "no JSON"),
        (b"[1]", 400, "JSON object"),
    ],
    ids=lambda value: str(value)[-60:] if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_errors_of_a_request(url, request_body, status, words, is_streamed):
    if isinstance(request_body, dict):
        body = {"model": PUBLISHED, **({"stream": True} if is_streamed else {}), **request_body}
        if is_streamed and "stream_options" in body:
            return
        request_body = json.dumps(body).encode()
    answer, error = post(f"{url}/chat/completions", request_body)
    assert answer == status, error
    assert error["error"]["type"] == "invalid_request_error" and re.search(words, error["error"]["message"])


def post(address: str, body: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.slow
def test_the_client_tells_errors_and_goes_on(client):
    with pytest.raises(openai.BadRequestError, match="public internet"):
        ask(client, PUBLISHED, [(item("image_url", "http://localhost/a.png"), None)])
    with pytest.raises(openai.NotFoundError, match="There is no model") as error:
        ask(client, "gpt", [])
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError, match="'tools'"):
        ask(client, PUBLISHED, [], tools=[{"type": "function", "function": {"name": "f"}}], stream=True)
    assert ask(client, PUBLISHED, []).choices


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused(client, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(openai.NotFoundError, match="'bert'"):
        ask(client, str(tmp_path), [])


@pytest.mark.slow
def test_models(client):
    ask(client, PUBLISHED, [], max_tokens=1)
    names = [model.id for model in client.models.list()]
    assert PUBLISHED in names and "nano" in names
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.slow
def test_unknown_routes(url):
    status, error = post(f"{url}/embeddings", b"{}")
    assert status == 404 and "/v1/chat/completions" in error["error"]["message"]


def test_text_that_grows_is_the_text_in_the_end(processor):
    tokenizer = processor.tokenizer

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=True)

    for text, stop, expected in (
        ("a\u00e9\U0001f600b", [], "a\u00e9\U0001f600b"),
        ("one END two", ["END"], "one "),
        ("one EN two END", ["ENDS", "two"], "one EN "),
        ("aab", ["ab"], "a"),
        ("one E", ["END"], "one E"),
        ("\u00e9\u00e8", ["\u00e8"], "\u00e9"),
    ):
        growing, told = GrowingText(decode, stop), ""
        for token in tokenizer(text)["input_ids"]:
            told += growing.add(token)
            assert expected.startswith(told)
        assert told + growing.rest() == expected


# ----------------------------------------------------------------------------------------------------------- responses


@pytest.mark.slow
def test_responses_are_streamed(client):
    options = {"model": PUBLISHED, "input": "What happens?", "max_output_tokens": 8, "temperature": 0}
    events = list(client.responses.create(stream=True, instructions="Be brief.", **options))
    whole = client.responses.create(instructions="Be brief.", **options)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == f"response.{whole.status}"
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text == whole.output_text.rstrip("\ufffd")
    assert events[-1].response.usage.total_tokens == whole.usage.total_tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, words",
    [
        ({"input": []}, "`input` is a text"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "An item of `input`"),
        ({"input": "a", "previous_response_id": "resp_1"}, "not kept"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "`tools`"),
        ({"input": "a", "text": {"format": {"type": "json_object"}}}, "`text`"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "a"}]}]}, "input_file"),
    ],
)
def test_wrong_responses(client, options, words):
    with pytest.raises(openai.APIStatusError, match=words) as error:
        client.responses.create(model=PUBLISHED, **options)
    assert 400 <= error.value.status_code < 500


# ---------------------------------------------------------------------------------------------- the server in a thread


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


@pytest.fixture(scope="module")
def handler():
    return EndpointHandler(PUBLISHED, Limits(max_new_tokens=2000), name="tiny", trust_remote_code=False)


def test_one_model_answers_whatever_is_asked_for(handler):
    with running(handler) as (address, _), openai.OpenAI(base_url=address, api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert ask(client, "gpt-4o", [], max_tokens=1).model == "tiny"


def test_a_client_that_leaves_ends_the_generation(handler):
    with running(handler) as (address, _), openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        begin = time.monotonic()
        stream = ask(client, "tiny", [], max_tokens=2000, stream=True, logit_bias={"386": -100})
        next(iter(stream))
        stream.close()
        ask(client, "tiny", [], max_tokens=1)  # waits for the other one
        left = time.monotonic() - begin
        begin = time.monotonic()
        ask(client, "tiny", [], max_tokens=200, logit_bias={"386": -100})
        assert left < 5 * (time.monotonic() - begin)


def test_an_error_on_the_way_is_told_in_the_stream(handler, monkeypatch):
    with running(handler) as (address, _), openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        with monkeypatch.context() as patch:
            patch.setattr(handler.pipeline, "forward", lambda *args, **kwargs: 1 / 0)
            with pytest.raises(openai.APIError, match="ZeroDivisionError"):
                list(ask(client, "tiny", [], stream=True))
            with pytest.raises(openai.InternalServerError, match="ZeroDivisionError"):
                ask(client, "tiny", [])
        assert ask(client, "tiny", []).choices


def test_requests_at_the_same_time(handler):
    with running(handler) as (address, _), openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        alone = content(ask(client, "tiny", []))
        with ThreadPoolExecutor(6) as pool:
            whole = [pool.submit(ask, client, "tiny", []) for _ in range(3)]
            parts = [pool.submit(lambda: streamed(ask(client, "tiny", [], stream=True))) for _ in range(3)]
        assert {content(one.result()) for one in whole} == {alone}
        assert {one.result()[0] for one in parts} == {alone.rstrip("\ufffd")}


def test_idle_models_are_forgotten(handler):
    with running(handler, only=None, timeout=0.2) as (address, models):
        with openai.OpenAI(base_url=address, api_key="none") as client:
            ask(client, PUBLISHED, [], max_tokens=1)
            assert models.is_loaded(PUBLISHED)
            end = time.monotonic() + 10
            while models.is_loaded(PUBLISHED) and time.monotonic() < end:
                time.sleep(0.05)
            assert not models.is_loaded(PUBLISHED)
            assert ask(client, PUBLISHED, [], max_tokens=1).choices


def test_local_files_are_read_below_the_folder_that_is_allowed(tmp_path):
    allowed, outside = tmp_path / "media", tmp_path / "secret.png"
    allowed.mkdir()
    (allowed / "a b.png").write_bytes(png())
    outside.write_bytes(png())
    (allowed / "link.png").symlink_to(outside)
    sources = AllowedSources(allowed)
    assert sources.fetch(f"file://{allowed}/a%20b.png", 10**6, 0, 0) == png()
    for url in (
        f"file://{outside}",
        f"file://{allowed}/../secret.png",
        f"file://{allowed}/%2e%2e/secret.png",
        f"file://{allowed}/link.png",
        f"file://{allowed}",
        f"file://{allowed}/none.png",
        f"file://other.host{allowed}/a%20b.png",
        "file:///etc/passwd",
    ):
        with pytest.raises(RequestError, match="400.*no file below"):
            sources.fetch(url, 10**6, 0, 0)
    with pytest.raises(RequestError, match="413"):
        sources.fetch(f"file://{allowed}/a%20b.png", 10, 0, 0)
    with pytest.raises(ValueError, match="no folder"):
        AllowedSources(tmp_path / "none")


@pytest.mark.parametrize("is_named_with_port", [True, False])
def test_hosts_that_are_allowed(is_named_with_port):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port, deadline = server.server_port, time.monotonic() + 10
    try:
        sources = AllowedSources(hosts=[f"127.0.0.1:{port}" if is_named_with_port else "127.0.0.1"])
        assert sources.fetch(f"http://127.0.0.1:{port}/a.png", 10**6, 3, deadline) == png()
        for url in (f"http://localhost:{port}/a.png", f"http://127.0.0.1:{port}/away"):
            with pytest.raises(RequestError, match="public internet|is not fetched"):
                sources.fetch(url, 10**6, 3, deadline)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(ValueError, match="is no host"):
        AllowedSources(hosts=["http://a/b"])


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self):
        is_away = self.path == "/away"
        self.send_response(302 if is_away else 200)
        if is_away:
            self.send_header("Location", "file:///etc/passwd")
        self.end_headers()
        self.wfile.write(b"" if is_away else png())

    def log_message(self, *args):
        pass


# --------------------------------------------------------------------------------------------------------- the command


def test_help_names_the_routes():
    result = CliRunner().invoke(app, ["serve", "--help"])
    assert result.exit_code == 0
    assert "/v1/chat/completions" in result.output and "OMNIVINCI_MAX_NEW_TOKENS" in result.output


@pytest.mark.parametrize(
    ("arguments", "cache_gb"), [([], 2.0), (["--cache-gb", "0.5"], 0.5), (["--cache-gb", "0"], 0)]
)
def test_how_much_the_server_remembers(monkeypatch, arguments, cache_gb):
    asked = []
    monkeypatch.setattr("transformers_omnivinci.endpoint.EndpointHandler", lambda *_, **options: asked.append(options))
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: None)
    result = CliRunner().invoke(app, ["serve", "nano", "--device", "cpu", *arguments])
    assert result.exit_code == 0, result.output
    assert [options["cache_gb"] for options in asked] == [cache_gb]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["no-such-folder"], "There is no model 'no-such-folder'"),
        (["a/b", "--model", "c/d"], "twice"),
        (["--mm-processor-kwargs", "[1]"], "is an object"),
        (["--mm-processor-kwargs", '{"frames": 1}'], "unknown entries: frames"),
        (["--mm-processor-kwargs", '{"num_frames": 0}'], "`num_frames` is an integer from 1"),
        (["--allowed-local-media-path", "no-such-folder"], "no folder"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(arguments, words):
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 1
    assert words in result.stderr and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_what_is_missing_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: Serving needs an extra") and result.stderr.count("\n") == 1
