"""`omnivinci serve`, asked over HTTP by the clients that people use."""

import importlib.util
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from transformers_omnivinci.compat import VERSION
from transformers_omnivinci.endpoint import EndpointHandler, Limits, RequestError
from transformers_omnivinci.serving.sources import AllowedSources
from transformers_omnivinci.serving.streaming import GrowingText

from .conftest import CLIP
from .media_samples import user
from .model_server import (
    ASKED,
    IMAGE,
    PNG,
    PUBLISHED,
    VIDEO,
    ask,
    content,
    expected_answer,
    running,
    serving,
    streamed,
)
from .processes import run_python

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module")
def saved(load_checkpoint, tmp_path_factory):
    """The checkpoint in the transformers layout."""
    folder = tmp_path_factory.mktemp("saved")
    for part in load_checkpoint():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


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


@pytest.mark.slow
def test_models(client):
    ask(client, PUBLISHED, [], max_tokens=1)
    names = [model.id for model in client.models.list()]
    assert PUBLISHED in names and "nano" in names
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


# ----------------------------------------------------------------------------------------------- parameters of OpenAI


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


# ---------------------------------------------------------------------------------------------- the server in a thread


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
    (allowed / "a b.png").write_bytes(PNG)
    outside.write_bytes(PNG)
    (allowed / "link.png").symlink_to(outside)
    sources = AllowedSources(allowed)
    assert sources.fetch(f"file://{allowed}/a%20b.png", 10**6, 0, 0) == PNG
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
        assert sources.fetch(f"http://127.0.0.1:{port}/a.png", 10**6, 3, deadline) == PNG
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
        self.wfile.write(b"" if is_away else PNG)

    def log_message(self, *args):
        pass
