"""What `omnivinci serve` remembers, asked by OpenAI's client: whose answers are whose, and how much is kept."""

import gc
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import torch

from transformers_omnivinci import NANO
from transformers_omnivinci.endpoint import EndpointHandler, Limits
from transformers_omnivinci.serving.sources import AllowedSources
from transformers_omnivinci.synthetic import SyntheticDataset, write_clip

from .media_files import image_bytes
from .media_samples import image
from .model_server import content, data_url, running, streamed

pytestmark = pytest.mark.compat

FIRST, SECOND = "When does the blue star appear?", "Which shape is shown first?"
QUESTIONS = (FIRST, SECOND, "How many shapes are shown?")
NUM_CLIPS = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """mp4 files of nano's world, the first one that of `omnivinci demo`: a blue star appears at 4 s."""
    folder = tmp_path_factory.mktemp("clips")
    types = ("visual", "synchrony", "time")
    dataset = SyntheticDataset("test", 1000, 0, types=types, questions_per_clip=len(types))
    samples = (sample for sample in dataset if len(sample.questions) == len(types))
    paths = [folder / f"{number}.mp4" for number in range(NUM_CLIPS)]
    for path, sample in zip(paths, samples):
        write_clip(path, dataset.render(sample))
    return paths


def load(folder, **options) -> EndpointHandler:
    """In float32, in which no two answers are so close that another order of sums exchanges them."""
    given = {"trust_remote_code": False, "device": "cpu", "dtype": torch.float32, **options}
    sources = AllowedSources(folder)
    return EndpointHandler(NANO, Limits(), sources, "nano", {"num_frames": 16}, **given)


@pytest.fixture(scope="module")
def handler(clips):
    return load(clips[0].parent)


@pytest.fixture(scope="module")
def off(clips):
    """One that remembers nothing."""
    return load(clips[0].parent, cache_gb=0)


@pytest.fixture
def client(handler):
    handler.pipeline.memory.clear()
    with running(handler, only="nano") as (address, _):
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=120) as client:
            yield client


def video(path: Path, **options) -> dict:
    return {"type": "video_url", "video_url": {"url": data_url("video/mp4", path.read_bytes())}, **options}


def messages(question: str, *media) -> list[dict]:
    return [{"role": "user", "content": [*media, {"type": "text", "text": question}]}]


def ask(client, question: str, *media, **options):
    given = {"model": "nano", "max_tokens": 16, "temperature": 0, **options}
    return client.chat.completions.create(messages=messages(question, *media), **given)


def expected(off, question: str, *media, **options) -> str:
    request = {"messages": messages(question, *media), "max_tokens": 16, "temperature": 0, **options}
    return off.complete_chat(request)["choices"][0]["message"]["content"]


def cached(completion) -> int:
    return completion.usage.prompt_tokens_details.cached_tokens


@pytest.fixture
def start(handler) -> int:
    """Where the first medium of a user stands: what goes before it is the same in all prompts."""
    processor = handler.pipeline.processor
    return processor.tokenize_chat([{"role": "user", "content": [{"type": "video"}]}]).ids.index(
        processor.video_token_id
    )


def test_the_second_question_is_answered_from_the_first(client, clips, off):
    first = ask(client, FIRST, video(clips[0]))
    assert content(first) == "4.0 seconds" and cached(first) == 0
    second = ask(client, SECOND, video(clips[0]))
    assert content(second) == "square" == expected(off, SECOND, video(clips[0]))
    assert second.usage.prompt_tokens - 12 < cached(second) < second.usage.prompt_tokens
    *chunks, last = ask(client, SECOND, video(clips[0]), stream=True, stream_options={"include_usage": True})
    assert streamed(chunks) == ["square"]
    assert cached(last) == last.usage.prompt_tokens - 1 and last.usage.total_tokens == second.usage.total_tokens


def test_responses_tell_it_too(client, clips):
    part = {"type": "input_image", "image_url": data_url("image/png", image_bytes(image()))}
    given = {"model": "nano", "max_output_tokens": 4, "temperature": 0}
    asked = [{"role": "user", "content": [part, {"type": "input_text", "text": SECOND}]}]
    first, second = (client.responses.create(input=asked, **given) for _ in range(2))
    assert first.output_text == second.output_text
    assert first.usage.input_tokens_details.cached_tokens == 0
    assert second.usage.input_tokens_details.cached_tokens == second.usage.input_tokens - 1
    *_, last = client.responses.create(input=asked, stream=True, **given)
    assert last.response.usage.input_tokens_details.cached_tokens == second.usage.input_tokens - 1


def test_the_next_turn_of_a_conversation(client, clips, off):
    chat = messages(FIRST, video(clips[0]))
    given = {"model": "nano", "max_tokens": 16, "temperature": 0}
    first = client.chat.completions.create(messages=chat, **given)
    chat += [{"role": "assistant", "content": content(first)}, *messages(SECOND)]
    second = client.chat.completions.create(messages=chat, **given)
    assert cached(second) >= first.usage.prompt_tokens
    told = off.complete_chat({"messages": chat, "max_tokens": 16, "temperature": 0})
    assert content(second) == told["choices"][0]["message"]["content"]


def test_a_file_of_the_same_name_is_another_one(client, clips, off, start):
    named = clips[0].with_name("same.mp4")
    item = {"type": "video_url", "video_url": {"url": f"file://{named}"}}
    answers = []
    for clip in (clips[0], clips[1], clips[0]):
        named.write_bytes(clip.read_bytes())
        answers.append(ask(client, SECOND, item))
        assert content(answers[-1]) == expected(off, SECOND, video(clip))
    assert cached(answers[0]) == 0 and cached(answers[1]) <= start < cached(answers[2])
    # Nor do a name and how it is given matter where the content is the same.
    assert cached(ask(client, SECOND, video(clips[1]))) > start
    named.unlink()


@pytest.mark.parametrize(
    "options",
    [{"num_frames": 8}, {"use_audio_in_video": False}, {"video_start": 2.0}, {"fps": 1.0}],
    ids=str,
)
def test_other_options_are_other_media(client, clips, off, start, options):
    ask(client, SECOND, video(clips[0]))
    other = ask(client, SECOND, video(clips[0]), extra_body=options)
    # Frames and sound stand behind each other in each group: nothing of them may be taken over.
    assert cached(other) <= start
    assert content(other) == expected(off, SECOND, video(clips[0]), **options)
    assert cached(ask(client, SECOND, video(clips[0]), extra_body=options)) == other.usage.prompt_tokens - 1


def test_clients_with_clips_of_their_own(client, clips, off, handler):
    asked = [(question, clip) for question in QUESTIONS for clip in clips] * 2
    right = {(question, clip): expected(off, question, video(clip)) for question, clip in set(asked)}
    assert len(set(right.values())) > 3
    # About three clips: what is asked about is forgotten and seen again in between.
    ask(client, FIRST, video(clips[0]))
    memory = handler.pipeline.memory
    most, memory.max_bytes = memory.max_bytes, 3 * memory.num_bytes

    def answer(number: int) -> str:
        question, clip = asked[number]
        if number % 2:
            return streamed(ask(client, question, video(clip), stream=True))[0]
        return content(ask(client, question, video(clip)))

    try:
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(answer, range(len(asked)))) == [right[one] for one in asked]
        assert memory.num_bytes <= memory.max_bytes
    finally:
        memory.max_bytes = most


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_a_client_that_leaves_frees_its_place(client, clips, off, handler, is_streamed):
    ask(client, FIRST, video(clips[0]))
    began = time.monotonic()
    options = {"max_tokens": 3000, "logit_bias": {str(end): -100 for end in handler.ends}}
    if is_streamed:
        stream = ask(client, SECOND, video(clips[0]), stream=True, **options)
        next(iter(stream))
        stream.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            ask(client, SECOND, video(clips[0]), timeout=0.3, **options)
    assert content(ask(client, SECOND, video(clips[0]))) == expected(off, SECOND, video(clips[0]))
    left = time.monotonic() - began
    began = time.monotonic()
    ask(client, SECOND, video(clips[0]), **{**options, "max_tokens": 300})
    assert left < 0.5 + 5 * (time.monotonic() - began)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"n": 2, "temperature": 1.0, "seed": 1},
        {"frequency_penalty": 1.5, "presence_penalty": 0.5},
        {"stop": "quare"},
        {"logprobs": True, "top_logprobs": 3},
        {"return_evidence": True},
    ],
    ids=str,
)
def test_whatever_is_asked_for_is_answered_as_without_it(handler, off, clips, options):
    request = {"messages": messages(SECOND, video(clips[0])), "max_tokens": 16, "temperature": 0, **options}
    told = [one.complete_chat(request) for one in (off, handler, handler)]
    for answer in told[1:]:
        assert [one["message"] for one in answer["choices"]] == [one["message"] for one in told[0]["choices"]]
        assert answer.get("evidence") == told[0].get("evidence")
        if "logprobs" in options:
            values, right = (
                [one["logprob"] for one in each["choices"][0]["logprobs"]["content"]] for each in (answer, told[0])
            )
            assert values == pytest.approx(right, abs=1e-4)
    assert told[2]["usage"]["prompt_tokens_details"]["cached_tokens"] == told[0]["usage"]["prompt_tokens"] - 1


def test_nothing_grows(client, handler):
    """`python -m benchmarks.serve_cache` does the same with 1,000 requests."""
    memory = handler.pipeline.memory
    ask(client, "Once?", {"type": "image_url", "image_url": {"url": data_url("image/png", image_bytes(image()))}})
    most, memory.max_bytes = memory.max_bytes, 4 * memory.num_bytes
    try:
        counts = []
        for number in range(24):
            pixels = data_url("image/png", image_bytes(image(40, 40, seed=number % 7)))
            options = {"max_tokens": 2, "stream": number % 3 == 0}
            answer = ask(client, f"What {number}?", {"type": "image_url", "image_url": {"url": pixels}}, **options)
            list(answer)
            if number % 6 == 5 and number > 6:  # the first six fill the memory
                gc.collect()
                counts.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))
            assert memory.num_bytes <= memory.max_bytes
        assert counts[-1] <= 1.1 * counts[0] + 50, counts
        address = str(client.base_url).removesuffix("/v1/")
        with urllib.request.urlopen(f"{address}/health") as response:
            told = json.load(response)
        assert told == {"status": "ok", "cache": {"nano": memory.usage()}}
        assert 0 < told["cache"]["nano"]["bytes"] <= told["cache"]["nano"]["max_bytes"]
    finally:
        memory.max_bytes = most
