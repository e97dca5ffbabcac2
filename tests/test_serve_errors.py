"""`omnivinci serve` refuses wrong requests and wrong arguments in a sentence, and goes on."""

import base64
import json
import re
import sys
import urllib.error
import urllib.request

import openai
import pytest
import uvicorn
from typer.testing import CliRunner

from transformers_omnivinci.cli import app

from .conftest import CLIP
from .media_samples import user
from .model_server import PNG, PUBLISHED, ask, data_url, serving

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


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
        ({"messages": user(item("video_url", data_url("image/png", PNG)))}, 415, "an image"),
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
def test_unknown_routes(url):
    status, error = post(f"{url}/embeddings", b"{}")
    assert status == 404 and "/v1/chat/completions" in error["error"]["message"]


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
