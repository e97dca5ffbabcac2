"""The handler of Inference Endpoints, asked over HTTP: what it answers, and what it refuses to do."""

from urllib.parse import quote

import PIL.Image
import pytest
from openai.types.chat import ChatCompletion
from transformers import pipeline

from transformers_omnivinci.endpoint import EndpointHandler, Limits, RequestError
from transformers_omnivinci.endpoint.fetch import decode_base64
from transformers_omnivinci.publishing.code import write_code

from .conftest import CLIP
from .endpoint_client import MEDIA, asking, data_url, in_base64, serving, text_item, user, wav
from .media_files import image_bytes, write_animation
from .media_samples import image


@pytest.fixture(scope="module")
def public():
    """A server that the handler takes for one of the public internet."""
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def repository(load_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    for part in load_checkpoint():
        part.save_pretrained(folder)
    write_code(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(repository):
    return pipeline("video-text-to-text", model=repository)


@pytest.fixture(scope="module")
def ask(repository, public):
    with asking(repository, public) as post:
        yield post


# Answers


@pytest.mark.slow
@pytest.mark.compat
def test_a_text_is_answered_as_by_the_pipeline(ask, pipe):
    expected = pipe(text="Who are you?", max_new_tokens=12, return_full_text=False)[0]["generated_text"]
    body = {"inputs": "Who are you?", "parameters": {"max_new_tokens": 12, "temperature": None}}
    assert ask(body) == (200, [{"generated_text": expected}])


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("source", ["base64", "data URL", "URL", "redirect"])
@pytest.mark.parametrize("modality", MEDIA)
def test_a_sample_is_answered_as_by_the_pipeline(modality, source, ask, pipe, public):
    item = {"type": modality, modality: MEDIA[modality]}
    expected = pipe(user(item, text_item("What?")), max_new_tokens=8, num_frames=4, return_full_text=False)
    value = {
        "base64": in_base64(MEDIA[modality]),
        "data URL": data_url(MEDIA[modality]),
        "URL": f"{public.url}/{modality}",
        "redirect": f"{public.url}/redirect?/{modality}",
    }[source]
    body = {"inputs": {modality: value, "text": "What?"}, "parameters": {"max_new_tokens": 8, "num_frames": 4}}
    assert ask(body) == (200, [{"generated_text": expected[0]["generated_text"]}])


def test_base64_is_read_as_browsers_do():
    text = in_base64(bytes(range(250)) + b"\xff\xfe\xfd")
    lines = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    for given in (
        *(text, lines, text.rstrip("="), text.replace("+", "-").replace("/", "_")),
        *("data:a/b;name=c.png;base64," + text, "DATA:A/B;BASE64," + text, " data:;base64," + lines + "\n"),
        "data:a/b;base64," + quote(text, safe=""),
    ):
        assert decode_base64(given, 300) == bytes(range(250)) + b"\xff\xfe\xfd"


@pytest.mark.slow
@pytest.mark.compat
def test_a_chat_of_the_hub_is_answered_as_by_the_pipeline(ask, pipe):
    sources = {"image": {"url": data_url(MEDIA["image"])}, "video": {"video": in_base64(MEDIA["video"])}}
    parameters = {"max_new_tokens": 8, "fps": 0.5, "video_end": 6, "load_audio_from_video": False}

    def chat(of):
        return [
            {"role": "system", "content": "Be brief."},
            *user(of("image"), of("video"), text_item("Compare.")),
            {"role": "assistant", "content": "They"},
        ]

    expected = pipe(chat(lambda kind: {"type": kind, kind: MEDIA[kind]}), return_full_text=False, **parameters)
    body = {"inputs": chat(lambda kind: {"type": kind, **sources[kind]}), "parameters": parameters}
    assert ask(body) == (200, [{"generated_text": expected[0]["generated_text"]}])


@pytest.mark.slow
@pytest.mark.compat
def test_several_images_and_beams_are_answered_as_by_the_pipeline(ask, pipe):
    items = [{"type": "image", "image": MEDIA["image"]}] * 2
    parameters = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2}
    expected = pipe(user(*items, text_item("Same?")), return_full_text=False, **parameters)
    body = {"inputs": {"image": [in_base64(MEDIA["image"])] * 2, "text": "Same?"}, "parameters": parameters}
    assert ask(body) == (200, [{"generated_text": answer["generated_text"]} for answer in expected])


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("is_wrapped", [False, True], ids=["body", "inputs"])
def test_a_chat_of_openai_is_completed_as_by_the_pipeline(is_wrapped, ask, pipe, public):
    items = [{"type": kind, kind: MEDIA[kind]} for kind in ("image", "video", "audio")]
    options = {"load_audio_from_video": True, "num_frames": 4}
    chat = user(*items, text_item("Compare."))
    expected = pipe(chat, max_new_tokens=8, return_full_text=False, **options)[0]["generated_text"]
    request = {
        "model": "nvidia/omnivinci",
        "messages": [
            *user(
                {"type": "image_url", "image_url": {"url": data_url(MEDIA["image"]), "detail": "auto"}},
                {"type": "video_url", "video_url": {"url": f"{public.url}/video"}},
                {"type": "input_audio", "input_audio": {"data": in_base64(MEDIA["audio"]), "format": "wav"}},
                text_item("Compare."),
            )
        ],
        "max_completion_tokens": 8,
        "stream": False,
        **options,
    }
    status, answer = ask({"inputs": request} if is_wrapped else request)
    assert status == 200, answer
    completion = ChatCompletion.model_validate(answer)
    assert completion.object == "chat.completion" and completion.model == "nvidia/omnivinci"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == expected
    assert completion.choices[0].finish_reason == "length"
    length = pipe.processor.count_tokens(chat, **options)
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (length, 8, length + 8)


@pytest.mark.slow
@pytest.mark.compat
def test_sampling_depends_on_the_seed_alone(ask):
    def choices(seed):
        messages = [{"role": "user", "content": "Tell."}]
        body = {"messages": messages, "max_tokens": 8, "temperature": 1.5, "top_p": 0.9, "n": 3, "seed": seed}
        return [choice["message"]["content"] for choice in ask(body)[1]["choices"]]

    first = choices(1)
    assert choices(1) == first and len(set(first)) > 1
    assert choices(2) != first


@pytest.mark.slow
@pytest.mark.compat
def test_a_stop_sequence_ends_an_answer(ask):
    messages = [{"role": "user", "content": "Who are you?"}]
    full = ask({"messages": messages, "max_tokens": 12})[1]["choices"][0]["message"]["content"]
    stop = full[5:7]
    answer = ask({"messages": messages, "max_tokens": 12, "stop": stop})[1]
    assert answer["choices"][0]["message"]["content"] == full[: full.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert 0 < answer["usage"]["completion_tokens"] < 12
    [answer] = ask({"inputs": "Who are you?", "parameters": {"max_new_tokens": 12, "stop": [stop]}})[1]
    assert (
        stop in answer["generated_text"]
        and full.startswith(answer["generated_text"])
        and len(answer["generated_text"]) < len(full)
    )


@pytest.mark.slow
@pytest.mark.compat
def test_control_tokens_of_a_request_are_plain_text(ask):
    def length(text):
        return ask({"messages": [{"role": "user", "content": text}], "max_tokens": 1})[1]["usage"]["prompt_tokens"]

    # As plain text a control token is spelled by several tokens.
    assert length("a <|im_end|> b") > length("a b") + 2
    assert length("a <image> b") > length("a b") + 1


# What is refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, ""),
        (["a"], 400, "JSON object"),
        ({}, 400, "neither `inputs` nor `messages`"),
        ({"parameters": {}}, 400, "neither `inputs` nor `messages`"),
        ({"inputs": 3}, 400, "`inputs` is a text"),
        ({"inputs": []}, 400, "at least one message"),
        ({"inputs": ["a", "b"]}, 400, "message"),
        ({"inputs": {"image": "aaaa"}}, 400, 'no "text"'),
        ({"inputs": {"text": 3}}, 400, "string"),
        ({"inputs": {"text": "a", "picture": "b"}}, 422, "picture"),
        ({"inputs": "a", "parameters": [1]}, 400, "`parameters` is an object"),
        ({"inputs": "a", "options": {}}, 422, "options"),
        ({"inputs": "a", "parameters": {"tempratur": 1}}, 422, "'tempratur'"),
        ({"inputs": "a", "parameters": {"trust_remote_code": True}}, 422, "'trust_remote_code'"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 17}}, 422, "from 1 to 16"),
        ({"inputs": "a", "parameters": {"max_new_tokens": "8"}}, 422, "`max_new_tokens` is an integer"),
        ({"inputs": "a", "parameters": {"max_new_tokens": True}}, 422, "`max_new_tokens` is an integer"),
        (b'{"inputs": "a", "parameters": {"temperature": NaN}}', 422, "`temperature` is a number"),
        ({"inputs": "a", "parameters": {"num_frames": 9}}, 422, "from 1 to 8"),
        ({"inputs": "a", "parameters": {"num_frames": 2, "fps": 1}}, 422, "not by both"),
        ({"inputs": "a", "parameters": {"do_sample": 1}}, 422, "true or false"),
        ({"inputs": "a", "parameters": {"do_sample": False, "top_p": 0.5}}, 422, "no effect"),
        ({"inputs": "a", "parameters": {"do_sample": True, "temperature": 0}}, 422, "contradict"),
        ({"inputs": "a", "parameters": {"num_return_sequences": 2}}, 422, "num_return_sequences"),
        ({"inputs": "a", "parameters": {"stop": []}}, 422, "list of strings"),
        ({"inputs": "a", "parameters": {"return_full_text": True}}, 422, "return_full_text"),
        ({"inputs": "a" * 1001}, 413, "1000 characters"),
        ({"messages": "a"}, 400, "at least one message"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "'tool'"),
        ({"messages": [{"role": "user"}]}, 400, "content of a message"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [1]}]}, 422, "tool_calls"),
        ({"messages": user("a")}, 400, "type of a content item"),
        ({"messages": user({"type": "file", "file": "a"})}, 400, "'file'"),
        ({"messages": user({"type": "video", "path": CLIP})}, 422, "path"),
        ({"messages": user({"type": "image", "url": "aaaa", "image": "aaaa"})}, 400, "one entry"),
        ({"messages": user({"type": "image_url", "image_url": {"url": "aaaa", "detail": "low"}})}, 422, "detail"),
        ({"messages": user(text_item("a")), "stream": True}, 422, "`stream` can be False alone"),
        ({"messages": user(text_item("a")), "tools": [{}]}, 422, "'tools'"),
        ({"messages": user(text_item("a")), "max_tokens": 2, "max_completion_tokens": 2}, 422, "twice"),
        ({"messages": user(text_item("a")), "model": 1}, 400, "`model` is a string"),
    ],
)
def test_a_wrong_request_is_refused(body, status, reason, ask):
    answer = ask(body)
    assert answer[0] == status and reason in answer[1], answer


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize(
    ("modality", "source", "status", "reason"),
    [
        ("image", 3, 400, "a URL or base64"),
        ("image", "not base64!", 400, "paths are not accepted"),
        ("image", "data:image/png,abc", 400, "is not accepted"),
        ("image", "data:image/png;base64,####", 400, "neither"),
        ("image", "data:image/png;base64,", 400, "empty"),
        ("video", CLIP, 400, "paths are not accepted"),
        ("image", f"file://{CLIP}", 400, "is not fetched"),
        ("image", "ftp://example.com/a.png", 400, "is not fetched"),
        ("image", "C:\\image.png", 400, "is not fetched"),
        ("image", in_base64(b"This is text, and no image."), 415, "not an image"),
        ("image", in_base64(MEDIA["audio"]), 415, "not an image"),
        ("video", in_base64(MEDIA["audio"]), 415, "no video stream"),
        ("audio", in_base64(b"This is text, and no sound."), 415, "FFmpeg"),
        ("video", in_base64(MEDIA["image"]), 415, "an image"),
        ("image", in_base64(bytes(200_001)), 413, "200000 bytes"),
        ("image", in_base64(image_bytes(PIL.Image.new("L", (1000, 400)))), 413, "400000 pixels"),
        ("audio", in_base64(wav(16.0, 4000)), 413, "last 16.0 s"),
        ("video", [in_base64(MEDIA["video"])] * 2, 413, "s are accepted in all"),
        ("image", [in_base64(MEDIA["image"])] * 4, 413, "More than 3 media"),
        ("image", [in_base64(image_bytes(image(150, 200), "BMP"))] * 3 + ["aaaa"], 413, "More than 3 media"),
        ("image", [in_base64(image_bytes(image(200, 300), "BMP"))] * 2, 413, "bytes"),
    ],
)
def test_a_wrong_medium_is_refused(modality, source, status, reason, ask):
    answer = ask({"inputs": {modality: source, "text": "a"}})
    assert answer[0] == status and reason in answer[1], answer


@pytest.mark.slow
def test_an_animation_is_no_video(ask, tmp_path):
    content = write_animation(tmp_path / "animation.gif", [100] * 3).read_bytes()
    status, error = ask({"inputs": {"video": in_base64(content), "text": "a"}})
    assert status == 415 and "still or animated" in error


@pytest.mark.slow
def test_a_part_of_a_long_video_counts_as_the_part(ask):
    body = {"inputs": {"video": [in_base64(MEDIA["video"])] * 2, "text": "a"}, "parameters": {"max_new_tokens": 1}}
    body["parameters"] |= {"video_start": 1, "video_end": 3, "num_frames": 2}
    assert ask(body)[0] == 200


# Limits


def test_limits_come_from_the_environment():
    assert Limits.from_environment({}) == Limits()
    limits = Limits.from_environment({"OMNIVINCI_MAX_MEDIA": "2", "OMNIVINCI_MAX_DOWNLOAD_SECONDS": "1.5"})
    assert limits == Limits(max_media=2, max_download_seconds=1.5)


@pytest.mark.parametrize("value", ["many", "-1", "1.5", ""])
def test_a_wrong_limit_is_refused(value):
    with pytest.raises(ValueError, match="(?i)max_media"):
        Limits.from_environment({"OMNIVINCI_MAX_MEDIA": value})


def test_usual_frames_and_tokens_stay_within_the_limits(repository, pipe):
    handler = EndpointHandler(str(repository), Limits(max_frames=2, max_new_tokens=3))
    body = {"inputs": {"video": in_base64(MEDIA["video"]), "text": "What?"}}
    expected = pipe({"video": MEDIA["video"], "text": "What?"}, num_frames=2, max_new_tokens=3, return_full_text=False)
    assert handler(body) == [{"generated_text": expected[0]["generated_text"]}]


def test_a_prompt_that_is_longer_than_the_context_is_refused(repository):
    handler = EndpointHandler(str(repository))
    handler.pipeline.tokenizer.model_max_length = 40
    with pytest.raises(RequestError, match="422.*has room for 30"):
        handler({"inputs": "one two three " * 10, "parameters": {"max_new_tokens": 10}})
