"""The back ends of the data engine that are servers and models, and what becomes of their answers."""

import base64
import io
import json
import socket
import threading
import time

import pytest
from PIL import Image

from transformers_omnivinci.data_engine.assembly import build_stages, check_backends
from transformers_omnivinci.data_engine.backends.openai_server import OpenAIServer, ServerOptions
from transformers_omnivinci.data_engine.backends.protocol import Medium, Reply, Request
from transformers_omnivinci.data_engine.cross_modal_correction import Correction
from transformers_omnivinci.data_engine.engine import HereRunner, curate
from transformers_omnivinci.data_engine.patience import GiveUp, Patience, RateLimit, TryAgain
from transformers_omnivinci.data_engine.split import Split
from transformers_omnivinci.data_engine.structured import ask, parse_json
from transformers_omnivinci.media import probe_audio, probe_video

from .chat_server import ChatServer, completion
from .test_curation import configured, films  # noqa: F401

ASKED = Request("visual_caption", "What is seen?", max_tokens=5, seed=3)


def asked(url, request=ASKED, **options) -> Reply:
    options = {"retries": 2, "timeout": 5.0, **options}
    waits = []
    server = OpenAIServer(ServerOptions(url, "large", **options), Patience(options["retries"], sleep=waits.append))
    (reply,) = server.complete([request])
    asked.waits = waits
    return reply


def test_a_clip_is_sent_as_images_as_a_video_and_as_sound(films):  # noqa: F811
    medium = Medium(films[0], 4.0, 8.0, "picture")
    with ChatServer(lambda body, number: (200, {}, completion("a caption"))) as server:
        reply = asked(server.url, Request("visual_caption", "What?", (medium,)), fps=2.0, max_side=32)
        assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("a caption", 7, 3) and reply.seconds > 0
        *images, text = server.bodies[0]["messages"][0]["content"]
        assert text == {"type": "text", "text": "What?"} and len(images) == 8
        content = base64.b64decode(images[0]["image_url"]["url"].partition(",")[2])
        assert Image.open(io.BytesIO(content)).size == (32, 32)
        asked(server.url, Request("visual_caption", "What?", (medium,)), fps=2.0, video="mp4")
        video, _ = server.bodies[1]["messages"][0]["content"]
        metadata = probe_video(video["video_url"]["url"])
        assert metadata.audio_duration is None and metadata.duration == pytest.approx(4, abs=0.1)
        heard = Medium(films[0], 4.0, 8.0, "sound")
        asked(server.url, Request("audio_caption", "What?", (heard,)))
        (sound, _) = server.bodies[2]["messages"][0]["content"]
        assert probe_audio(base64.b64decode(sound["input_audio"]["data"])) == pytest.approx(4, abs=0.01)
        asked(server.url, Request("filter", "What?", (Medium(films[0], 4.0, 8.0, "both"),)), audio="audio_url")
        kinds = [part["type"] for part in server.bodies[3]["messages"][0]["content"]]
        assert kinds == ["image_url"] * 4 + ["audio_url", "text"]


def test_a_wanted_structure_and_a_key_reach_the_server(monkeypatch):
    answer = '{"omni_caption": "A dog barks.", "rejected_statements": []}'
    with ChatServer(lambda body, number: (200, {}, completion(answer))) as server:
        monkeypatch.setenv("SOME_KEY", "secret")
        backend = OpenAIServer(ServerOptions(server.url, "large", api_key_env="SOME_KEY"))
        (one,) = ask(backend, [ASKED], Correction)
        assert one.value == Correction("A dog barks.", []) and one.repairs == 0
        body = server.bodies[0]
        assert server.headers[0]["Authorization"] == "Bearer secret" and body["seed"] == 3 and body["max_tokens"] == 5
        schema = body["response_format"]["json_schema"]["schema"]
        assert schema["required"] == ["omni_caption", "rejected_statements"]
        assert schema["properties"]["rejected_statements"]["items"]["properties"]["sense"]["enum"] == [
            "visual",
            "audio",
        ]
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ValueError, match="The environment has no SOME_KEY"):
        OpenAIServer(ServerOptions(server.url, "large", api_key_env="SOME_KEY"))


def test_a_server_that_is_busy_or_garbled_is_asked_again():
    answers = [(503, {}, b"busy"), (429, {"Retry-After": "7"}, b"slower"), (200, {}, completion("at last"))]
    with ChatServer(lambda body, number: answers[number - 1]) as server:
        assert asked(server.url).text == "at last"
        assert 1 <= asked.waits[0] <= 1.25 and asked.waits[1] == 7
    for garbage in (b"<html>", b'{"choices": [', {"choices": []}, {"error": "x"}, [1]):
        with ChatServer(lambda body, number, garbage=garbage: (200, {}, garbage)) as server:
            error = asked(server.url).error
            assert "answers what is no chat completion" in error and "after 3 attempts" in error
            assert len(server.bodies) == 3


def test_what_will_not_change_is_not_asked_again():
    with ChatServer(lambda body, number: (400, {}, {"error": "no such model"})) as server:
        error = asked(server.url).error
        assert "answers 400" in error and "no such model" in error and len(server.bodies) == 1
    with ChatServer(lambda body, number: (200, {}, completion(None, refusal="I will not."))) as server:
        assert asked(server.url).error == "The model refuses: I will not."
    with ChatServer(lambda body, number: (200, {}, completion(None))) as server:
        assert "answers no text" in asked(server.url).error


def test_a_server_that_is_slow_or_down_is_one_sentence():
    told = threading.Event()
    with ChatServer(lambda body, number: (told.wait(60), (200, {}, completion("late")))[1]) as server:
        started = time.monotonic()
        assert "did not answer for 0.2 s after 2 attempts" in asked(server.url, timeout=0.2, retries=1).error
        assert time.monotonic() - started < 20
        told.set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "cannot be asked" in asked(f"http://127.0.0.1:{port}/v1").error
    config = configured()
    config.backends["captioner"] = {"type": "server", "url": f"http://127.0.0.1:{port}/v1", "model": "large"}
    with pytest.raises(ConnectionError, match="does not answer"):
        check_backends(config)


def test_segments_of_which_a_server_says_nothing_are_listed_and_tried_again(films, tmp_path):  # noqa: F811
    state = {"is_down": True}

    def answer(body, number):
        return (500, {}, b"down") if state["is_down"] else (200, {}, completion("A shape."))

    with ChatServer(answer) as server:
        config = configured(write={"repeated": None})
        config.backends["captioner"] = {"type": "server", "url": server.url, "model": "large", "retries": 0}
        report = curate(config, films[:1], tmp_path / "out", HereRunner())
        assert (report.finished, report.rejected) == (0, 2)
        assert "answers 500: down" in (tmp_path / "out" / "rejects.jsonl").read_text()
        state["is_down"] = False
        report = curate(config, films[:1], tmp_path / "out", HereRunner())
        assert (report.finished, report.rejected, report.prompt_tokens > 0) == (2, 0, True)
        assert not (tmp_path / "out" / "rejects.jsonl").read_text()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (completion(None, refusal="I will not."), "The model refuses: I will not."),
        (completion("I cannot help with that."), "no JSON object"),
        (completion('{"omni_caption": "A ring'), "its JSON is broken"),
        (completion('{"omni_caption": 3, "rejected_statements": []}'), "a text is accepted"),
        (b'{"choices": [{"mess', "no chat completion"),
    ],
    ids=["refuses", "evades", "half", "other", "garbled"],
)
def test_what_a_corrector_answers_instead_rejects_segments_and_not_the_run(films, tmp_path, content, told):  # noqa: F811
    with ChatServer(lambda body, number: (200, {}, content)) as server:
        config = configured()
        config.backends["corrector"] = {"type": "server", "url": server.url, "model": "large", "retries": 0}
        report = curate(config, films[:1], tmp_path / "out", HereRunner())
    assert (report.finished, report.rejected) == (0, 2) and not report.chats
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert all(one["stage"] == "cross_modal_correction" and told in one["reason"] for one in rejects)


def test_further_entries_of_requests_come_from_the_config_and_answers_that_are_cut_off_say_so():
    body = completion('{"omni_caption": "A ri')
    body["choices"][0]["finish_reason"] = "length"
    with ChatServer(lambda given, number: (200, {}, body)) as server:
        options = ServerOptions(server.url, "large", parameters={"frequency_penalty": 0.3})
        (one,) = ask(OpenAIServer(options), [ASKED], Correction)
        assert "It was cut off after 3 tokens, see `max_tokens`" in one.error
        assert server.bodies[0]["frequency_penalty"] == 0.3
    with pytest.raises(ValueError, match="'seed', which the engine sets itself"):
        ServerOptions("http://127.0.0.1/v1", "large", parameters={"seed": 1})


def test_tokens_cost_what_the_config_says(films):  # noqa: F811
    with ChatServer(lambda body, number: (200, {}, completion("A shape."))) as server:
        config = configured()
        prices = {"prompt_price": 2.0, "completion_price": 10.0}
        config.backends["captioner"] = {"type": "server", "url": server.url, "model": "large", **prices}
        split, (visual, *_) = Split(config.split), build_stages(config)
        (row, _) = visual(split([{"source": films[0]}]))
        (told,) = row["provenance"]
        calls = len(row["clips"])
        assert (told["calls"], told["prompt_tokens"], told["completion_tokens"]) == (calls, 7 * calls, 3 * calls)
        assert told["cost"] == pytest.approx(calls * (7 * 2 + 3 * 10) / 1e6)


class Scripted:
    model = "scripted"

    def __init__(self, *texts):
        self.texts, self.requests = list(texts), []

    def complete(self, requests):
        self.requests += requests
        return [Reply(self.texts.pop(0)) for _ in requests]


GOOD = '{"omni_caption": "A dog.", "rejected_statements": []}'


@pytest.mark.parametrize("text", [GOOD, f"```json\n{GOOD}\n```", f"Here it is:\n{GOOD}\nI hope it helps {{.}}"])
def test_json_is_found_among_other_words(text):
    assert parse_json(text)["omni_caption"] == "A dog."


def test_an_answer_of_another_structure_is_repaired_once():
    statement = '{"sense": "smell", "clip": 0, "statement": "A rose.", "reason": "It is far."}'
    wrong = '{"omni_caption": "A dog.", "rejected_statements": [' + statement + "]}"
    backend = Scripted(wrong, GOOD)
    (one,) = ask(backend, [ASKED], Correction)
    assert one.value.omni_caption == "A dog." and one.repairs == 1
    assert "'smell'" in backend.requests[1].text and wrong in backend.requests[1].text
    assert backend.requests[1].text.startswith(ASKED.text) and backend.requests[1].seed != ASKED.seed
    backend = Scripted('{"omni_caption": ', "no")
    (one,) = ask(backend, [ASKED], Correction)
    assert one.value is None and "no JSON object" in one.error and len(backend.requests) == 2


def test_only_those_with_wrong_answers_are_asked_again():
    backend = Scripted(GOOD, "no", GOOD, GOOD.replace("dog", "cat"))
    answers = ask(backend, [ASKED] * 3, Correction)
    assert [one.value.omni_caption for one in answers] == ["A dog.", "A cat.", "A dog."]
    assert ask(Scripted("", "said"), [ASKED])[0].value == "said"
    assert ask(Scripted(""), [ASKED], str)[0].value == ""


def test_waits_double_up_to_a_limit():
    waits = []

    def fail():
        raise TryAgain("It is busy.")

    with pytest.raises(GiveUp, match="It is busy after 6 attempts."):
        Patience(5, first=1, longest=5, sleep=waits.append)(fail)
    assert all(low <= wait <= 1.25 * low for wait, low in zip(waits, (1, 2, 4, 5, 5)))


def test_a_rate_limit_spaces_requests_evenly():
    now, waits = [0.0], []

    def sleep(seconds):
        waits.append(seconds)

    limit = RateLimit(30, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        limit.wait()
    now[0] = 100.0
    limit.wait()
    assert waits == [2.0, 4.0]


def test_nano_captions_in_this_process(films):  # noqa: F811
    """The package's own model, which is deaf for pictures and gets the sound alone otherwise."""
    backends = {"nano": {"type": "transformers", "model": "nano"}, "corrector": {"type": "test-reasoner"}}
    asking = {"backend": "nano", "max_tokens": 24}
    config = configured(backends=backends, stages={"visual_caption": asking, "audio_caption": asking})
    split, (visual, audio) = Split(config.split), build_stages(config)
    rows = split([{"source": films[0]}])[:1]
    rows[0]["clips"] = rows[0]["clips"][:1]
    (row,) = audio(visual(rows))
    assert row.get("rejected") is None
    assert row["visual_captions"][0] and row["audio_captions"][0]
    assert row["provenance"][0]["completion_tokens"] > 0
