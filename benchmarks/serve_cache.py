"""`omnivinci serve`: a thousand requests of several clients about several clips, and what the server remembers."""

import argparse
import base64
import gc
import os
import random
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import openai
import torch
import uvicorn

from transformers_omnivinci import NANO
from transformers_omnivinci.endpoint import EndpointHandler, Limits
from transformers_omnivinci.serving.app import build_app
from transformers_omnivinci.serving.models import Models
from transformers_omnivinci.serving.sources import AllowedSources
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, write_clip

from ._harness import Report

NOTE = (
    "nano in float32 and OpenAI's client in one process. Requests are about one of three clips, which slowly change. "
    "Each third is streamed, and each ninth client leaves after the first piece. An answer is right if it is the one "
    "that is given without a cache."
)


def load(cache_gb: float) -> EndpointHandler:
    """A handler of nano."""
    options = {"trust_remote_code": False, "device": "cpu", "dtype": torch.float32, "cache_gb": cache_gb}
    return EndpointHandler(NANO, Limits(), AllowedSources(), "nano", {"num_frames": 16}, **options)


@contextmanager
def serving(handler: EndpointHandler):
    """The address of a server."""
    models = Models(lambda path, name: handler, "nano")
    server = uvicorn.Server(uvicorn.Config(build_app(models, 100_000_000), log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


def resident() -> float:
    """Megabytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_chats(folder: Path, num_clips: int) -> list[list[dict]]:
    """Three questions about each of some clips."""
    dataset = SyntheticDataset("test", 10 * num_clips, 3, types=CLOSED_TYPES, questions_per_clip=3)
    chats, path = [], folder / "clip.mp4"
    for sample in (one for one in dataset if len(one.questions) == 3):
        if len(chats) == 3 * num_clips:
            break
        write_clip(path, dataset.render(sample))
        url = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
        for question in sample.questions:
            items = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question.text}]
            chats.append([{"role": "user", "content": items}])
    return chats


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_cache", description=__doc__.strip())
    parser.add_argument("--requests", type=int, default=1000, help="default: 1000")
    parser.add_argument("--clients", type=int, default=8, help="at the same time (default: 8)")
    parser.add_argument("--clips", type=int, default=12, help="different clips (default: 12)")
    parser.add_argument("--held", type=int, default=6, help="clips for which the cache has room (default: 6)")
    arguments = parser.parse_args()
    report = Report("serve_cache", vars(arguments), NOTE)
    with tempfile.TemporaryDirectory() as folder:
        chats = write_chats(Path(folder), arguments.clips)
    options = {"max_tokens": 12, "temperature": 0}
    off, handler = load(0), load(2)
    right = [off.complete_chat({"messages": chat, **options})["choices"][0]["message"]["content"] for chat in chats]
    memory = handler.pipeline.memory
    for chat in chats[:3]:
        handler.complete_chat({"messages": chat, **options})
    memory.max_bytes = arguments.held * memory.num_bytes
    memory.clear()

    chosen = random.Random(0)
    order = [
        3 * ((number // 12 + chosen.randrange(3)) % arguments.clips) + chosen.randrange(3)
        for number in range(arguments.requests)
    ]

    def ask(number: int) -> dict:
        request = {"model": "nano", "messages": chats[order[number]], **options}
        if number % 3:
            answer = client.chat.completions.create(**request)
            text, usage = answer.choices[0].message.content, answer.usage
        else:
            text, usage = "", None
            stream = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
            for chunk in stream:
                usage = chunk.usage or usage
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
                if text and number % 9 == 0:
                    stream.close()
                    return {"left": True}
        is_hit = usage.prompt_tokens_details.cached_tokens > usage.prompt_tokens / 2
        return {"left": False, "right": text == right[order[number]], "hit": is_hit, "bytes": memory.num_bytes}

    rows, num_parts = [], 5
    with serving(handler) as address, openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        with ThreadPoolExecutor(arguments.clients) as pool:
            for part in range(num_parts):
                first, end = (arguments.requests * one // num_parts for one in (part, part + 1))
                begun = time.perf_counter()
                told = list(pool.map(ask, range(first, end)))
                answered = [one for one in told if not one["left"]]
                rows.append(
                    {
                        "requests": f"{first + 1} to {end}",
                        "right": f"{sum(one['right'] for one in answered)} of {len(answered)}",
                        "left": len(told) - len(answered),
                        "from the cache (%)": 100 * sum(one["hit"] for one in answered) / len(answered),
                        "most kept (MB)": max(one["bytes"] for one in answered) / 1e6,
                        "of at most (MB)": memory.max_bytes / 1e6,
                        "process (MB)": resident(),
                        "requests a second": (end - first) / (time.perf_counter() - begun),
                    }
                )
    report.add(f"{arguments.clients} clients, {arguments.clips} clips, room for about {arguments.held}", rows)
    report.save()


if __name__ == "__main__":
    main()
