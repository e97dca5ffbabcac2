"""
vLLM's server under a load of concurrent clients, some of which go away, and some of which ask for what is wrong.

The caches are far smaller than what the requests need, so that media are dropped and encoded again, and requests are
preempted. Processed media go through shared memory: with vLLM's default, `lru`, one process keeps a list of what
another has cached. Clients that go away put the two at odds, and later ones get an error 500 until they try again.
"""

import asyncio
import time
from dataclasses import dataclass

import httpx
import openai
import pytest

from engines.vllm.load_requests import Call, Media, draw_calls, right_requests, wrong_requests
from engines.vllm.served import Server
from transformers_omnivinci import NANO

NUM_CLIENTS = 200
NEW, ROUNDS = 2, 5
"""In so many of the rounds, the first ones, nobody has asked about the media before."""
MAX_GROWTH = 48e6
"""
Bytes by which a process may be larger after the last round than after the last one with new media. In between there
are 600 calls, and 120 clients that disconnect; the inputs of a video have 1.1 MB.
"""
OPTIONS = [
    *("--max-model-len", "2048", "--max-num-seqs", "16", "--block-size", "32"),
    *("--num-gpu-blocks-override", "72"),  # one request of the longest kind, and a few usual ones
    *("--mm-processor-cache-type", "shm", "--mm-shm-cache-max-object-size-mb", "4"),
    *("--mm-processor-cache-gb", "0.02"),  # fewer than 20 videos
    "--trust-request-mm-kwargs",
]
ENVIRONMENT = {
    # Memory that was freed goes back to the system, so that what is left is in use.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    # oneDNN keeps a kernel for each shape of a batch, 1024 of them: it would take thousands of requests to have all.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
    "LRU_CACHE_CAPACITY": "16",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
USED = ("prefix_cache_hits_total", "mm_cache_hits_total", "num_preemptions_total")


@dataclass
class Answer:
    """What a client has got."""

    text: str = ""
    finish_reason: str | None = None
    error: str | None = None
    is_cancelled: bool = False


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    with Server(NANO, log, OPTIONS, ENVIRONMENT) as server:
        yield server


def connect(server: Server) -> openai.AsyncOpenAI:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    transport = httpx.AsyncClient(limits=limits, timeout=300)
    return openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, http_client=transport)


async def ask(client: openai.AsyncOpenAI, call: Call) -> Answer:
    answer = Answer()
    try:
        async with asyncio.timeout(call.leaves_after):
            await _receive(client, call, answer)
    except TimeoutError:
        answer.is_cancelled = True
    except openai.APIStatusError as error:
        answer.error = f"{error.status_code}: {error.message}"
    except openai.APIError as error:  # in the middle of a stream
        answer.error = error.message
    return answer


async def _receive(client: openai.AsyncOpenAI, call: Call, answer: Answer) -> None:
    arguments = {"model": Server.NAME, **call.request.arguments()}
    if not call.stream:
        [choice] = (await client.chat.completions.create(**arguments)).choices
        answer.text, answer.finish_reason = choice.message.content, choice.finish_reason
        return
    stream = await client.chat.completions.create(**arguments, stream=True)
    pieces = 0
    async with stream:
        async for chunk in stream:
            for choice in chunk.choices:
                answer.text += choice.delta.content or ""
                answer.finish_reason = choice.finish_reason or answer.finish_reason
                pieces += bool(choice.delta.content)
            if pieces == call.leaves_at:
                answer.is_cancelled = True
                return


async def ask_alone(server: Server, requests) -> list[Answer]:
    async with connect(server) as client:
        return [await ask(client, Call(request)) for request in requests]


async def ask_together(server: Server, calls) -> tuple[list[Answer], list[dict]]:
    """All at once. Returns the answers, and the metrics of every second meanwhile."""
    seen = []

    async def watch():
        while True:
            seen.append(await asyncio.to_thread(server.metrics))
            await asyncio.sleep(1)

    async with connect(server) as client:
        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*(ask(client, call) for call in calls))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return answers, seen


def wait_until_idle(server: Server, seconds: float = 30) -> dict[str, float]:
    deadline = time.monotonic() + seconds
    while True:
        metrics = server.metrics()
        busy = {name: metrics[f"vllm:{name}"] for name in ("num_requests_running", "num_requests_waiting")}
        if not any(busy.values()) or time.monotonic() > deadline:
            assert not any(busy.values()), f"After {seconds} s without clients: {busy}"
            return metrics
        time.sleep(0.5)


def finished(metrics: dict[str, float]) -> dict[str, float]:
    """How many requests ended for each reason."""
    name = "vllm:request_success_total"
    return {
        reason: metrics[f'{name}{{finished_reason="{reason}"}}'] for reason in ("stop", "length", "abort", "error")
    }


def check(call: Call, answer: Answer, alone: Answer) -> None:
    """Each client got what it got alone, or what was wrong with its request; or a beginning, if it went away."""
    if call.request.error is not None:
        assert answer.error is not None and answer.error.startswith("400"), (call, answer)
        assert call.request.error in answer.error, (call, answer)
    elif answer.is_cancelled:
        assert call.is_cancelled and alone.text.startswith(answer.text), (call, answer, alone)
    else:
        assert answer == alone and answer.finish_reason in ("stop", "length"), (call, answer, alone)


def test_200_clients_get_what_each_gets_alone_and_nothing_grows(server, tmp_path):
    right, wrong, alone, watched, sizes = [], [], {}, [], []
    completed, cancelled, before = 0, 0, wait_until_idle(server)
    done_alone = 0
    for number in range(ROUNDS):
        if number < NEW:
            (tmp_path / str(number)).mkdir()
            media = Media(tmp_path / str(number), seed=2 * number)
            right, wrong = [*right, *(new := right_requests(media))], wrong_requests(media)
        calls = draw_calls(new if number < NEW else right, wrong, NUM_CLIENTS, seed=number)
        start = time.monotonic()
        answers, seen = asyncio.run(ask_together(server, calls))
        seconds = time.monotonic() - start
        watched += seen
        metrics = wait_until_idle(server)
        assert metrics["vllm:kv_cache_usage_perc"] == 0
        sizes.append(server.memory())

        asked = {id(call.request): call.request for call in calls if call.request.error is None}
        unknown = [request for key, request in asked.items() if key not in alone]
        alone |= zip(map(id, unknown), asyncio.run(ask_alone(server, unknown)), strict=True)
        done_alone += len(unknown)
        for call, answer in zip(calls, answers, strict=True):
            check(call, answer, alone.get(id(call.request)))
        completed += sum(not answer.is_cancelled and answer.error is None for answer in answers)
        cancelled += sum(answer.is_cancelled for answer in answers)
        megabytes = {name: size // 1_000_000 for name, size in sizes[-1].items()}
        print(f"round {number}: {seconds:.1f} s, {cancelled} cancelled so far, MB: {megabytes}")

    assert len({answer.text for answer in alone.values()}) > len(alone) / 3  # they tell requests apart
    metrics = wait_until_idle(server)
    ended = {reason: count - finished(before)[reason] for reason, count in finished(metrics).items()}
    used = {name: metrics[f"vllm:{name}"] - before[f"vllm:{name}"] for name in USED}
    print(f"{completed} answered, {cancelled} cancelled, {done_alone} alone; finished: {ended}; {used}")
    assert ended["error"] == 0
    # Those of the cancelled that went on to their end are few: the client left in the last moments.
    went_on = ended["stop"] + ended["length"] - completed - done_alone
    assert 0 <= went_on < cancelled / 4 and cancelled > NUM_CLIENTS * ROUNDS / 10
    # It was a load: requests waited for each other and were preempted, and caches were used.
    assert max(seen["vllm:num_requests_running"] for seen in watched) > 8
    assert max(seen["vllm:num_requests_waiting"] for seen in watched) > 8
    assert all(used.values()), used

    assert sizes[0].keys() == sizes[-1].keys(), "Processes of the server were replaced."
    growth = {name: sizes[-1][name] - size for name, size in sizes[NEW - 1].items()}
    assert all(size < MAX_GROWTH for size in growth.values()), growth
    assert httpx.get(f"{server.address}/health").status_code == 200
