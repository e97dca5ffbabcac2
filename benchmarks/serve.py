"""
Serving: how many requests vLLM answers in the time in which `transformers` answers them in batches, with and without
media that are asked about again.

Both read mp4 files with their sound and decode greedily, in one process and with the same weights and threads. Needs
vLLM beside this package, as the environment of `make vllm` has it:

    python engines/run.py vllm -- python -m benchmarks.serve
"""

import os
import sys

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # so that caches can be emptied between rounds

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor
from vllm import LLM, SamplingParams

from transformers_omnivinci import NANO
from transformers_omnivinci.synthetic import SyntheticDataset, write_clip

from ._harness import Report, parser_on_device, take_turns, to_markdown

NOTE = (
    "How many times as many requests, and tokens, vLLM answers in a second, from mp4 files to answers, in one run. It "
    "starts every round with empty caches. transformers answers batches of as many requests as vLLM may run at once, "
    "in their order, and single requests."
)
CAPTION, LONG, SHORT = "What happens?", 64, 16


@dataclass(frozen=True)
class Request:
    """A question about a clip, and how many tokens its answer may have."""

    clip: Path
    question: str
    max_tokens: int = SHORT

    @property
    def chat(self) -> list[dict]:
        content = [{"type": "video", "path": str(self.clip)}, {"type": "text", "text": self.question}]
        return [{"role": "user", "content": content}]


def make_requests(folder: Path, count: int, questions_per_clip: int) -> dict[str, list[Request]]:
    """`count` requests for each kind of load."""
    dataset = SyntheticDataset("test", count, questions_per_clip=questions_per_clip)
    samples = list(dataset)
    for sample in samples:
        write_clip(folder / f"{sample.id}.mp4", dataset.render(sample))
    clips = [(folder / f"{sample.id}.mp4", [question.text for question in sample.questions]) for sample in samples]
    first = [Request(clip, questions[0]) for clip, questions in clips]
    # One clip after another, as users ask; the questions of a clip do not wait for each other's answers.
    repeated = [Request(clip, question) for clip, questions in clips for question in questions][:count]
    mixed = [
        Request(request.clip, CAPTION, LONG) if place % 4 == 0 else request for place, request in enumerate(first)
    ]
    times = count / len({request.clip for request in repeated})
    return {
        "each about its own clip": first,
        f"each clip {times:.1f} times": repeated,
        f"own clips, a quarter of {LONG} tokens": mixed,
    }


class Transformers:
    """Answers requests in batches. A batch is done when its longest answer is."""

    def __init__(self, path: str, device: str, dtype: torch.dtype):
        self.model = AutoModel.from_pretrained(path, dtype=dtype).to(device).eval()
        self.processor = AutoProcessor.from_pretrained(path)

    def answer(self, requests: list[Request], batch_size: int) -> list[list[int]]:
        """The tokens of each answer, up to the end of the text and without it."""
        batches = [requests[first : first + batch_size] for first in range(0, len(requests), batch_size)]
        return [answer for batch in batches for answer in self._answer_batch(batch)]

    @torch.inference_mode()
    def _answer_batch(self, requests: list[Request]) -> list[list[int]]:
        inputs = self.processor.apply_chat_template(
            [request.chat for request in requests],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            load_audio_from_video=True,
            return_tensors="pt",
        ).to(self.model.device, self.model.dtype)
        longest = max(request.max_tokens for request in requests)
        ids = self.model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        rows = ids[:, inputs["input_ids"].shape[1] :].tolist()
        end = self.model.generation_config.eos_token_id
        cut = [row[: request.max_tokens] for row, request in zip(rows, requests, strict=True)]
        return [row[: row.index(end)] if end in row else row for row in cut]


class VLLM:
    """Answers all requests at once, which it schedules by itself."""

    COUNTED = ("prefix_cache_queries", "prefix_cache_hits", "mm_cache_queries", "mm_cache_hits")

    def __init__(self, path: str, processor, dtype: torch.dtype, arguments: argparse.Namespace):
        self.processor, self.end = processor, processor.tokenizer.eos_token_id
        self.engine = LLM(
            path,
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=arguments.max_model_len,
            max_num_seqs=arguments.batch_size,
            gpu_memory_utilization=arguments.gpu_memory_utilization,
            block_size=32,
            enforce_eager=arguments.device == "cpu",
            disable_log_stats=False,
        )

    def answer(self, requests: list[Request]) -> list[list[int]]:
        """As [`Transformers.answer`], with empty caches at the beginning."""
        self.engine.reset_mm_cache()
        self.engine.reset_prefix_cache()
        prompts = [
            {
                "prompt": self.processor.apply_chat_template(request.chat, tokenize=False, add_generation_prompt=True),
                "multi_modal_data": {"video": str(request.clip)},
                "mm_processor_kwargs": {"load_audio_from_video": True},
            }
            for request in requests
        ]
        sampling = [SamplingParams(temperature=0, max_tokens=request.max_tokens) for request in requests]
        outputs = self.engine.generate(prompts, sampling, use_tqdm=False)
        rows = [list(output.outputs[0].token_ids) for output in outputs]
        return [row[: row.index(self.end)] if self.end in row else row for row in rows]

    def counters(self) -> dict[str, int]:
        """What its caches were asked for and had, so far."""
        values = {metric.name.removeprefix("vllm:"): metric for metric in self.engine.get_metrics()}
        return {name: values[name].value for name in self.COUNTED}


def compare(
    load: str, requests: list[Request], transformers: Transformers, vllm: VLLM, arguments: argparse.Namespace
) -> dict[str, object]:
    """The row of a load."""
    answers: dict[str, list] = {}

    def keep(name: str, run: Callable[[], list]) -> Callable[[], None]:
        def measured():
            answers[name] = run()

        return measured

    def engine():
        before = vllm.counters()
        tokens = vllm.answer(requests)
        caches.update({name: value - before[name] for name, value in vllm.counters().items()})
        return tokens

    caches: dict[str, int] = {}
    timings = take_turns(
        {
            "single": keep("single", lambda: transformers.answer(requests, 1)),
            "batches": keep("batches", lambda: transformers.answer(requests, arguments.batch_size)),
            "vllm": keep("vllm", engine),
        },
        arguments.repeats,
    )
    tokens = sum(map(len, answers["vllm"]))
    same = sum(one == other for one, other in zip(answers["vllm"], answers["batches"], strict=True))
    return {
        "load": load,
        "requests": len(requests),
        "same answers": same,
        "tokens": tokens,
        "vLLM/batches ×": timings.ratio("batches", "vllm"),
        "by CPU time ×": timings.ratio("batches", "vllm", "cpu"),
        "vLLM/single ×": timings.ratio("single", "vllm"),
        "media from the cache": f"{caches['mm_cache_hits']} of {caches['mm_cache_queries']}",
        "prompts from the cache": f"{caches['prefix_cache_hits'] / caches['prefix_cache_queries']:.0%}",
    }


def main() -> None:
    parser = parser_on_device("python -m benchmarks.serve", __doc__.strip().splitlines()[0])
    parser.add_argument("--model", default=str(NANO), help="a checkpoint; default: nano")
    parser.add_argument("--requests", type=int, default=64, help="of each load; default: 64")
    parser.add_argument("--batch-size", type=int, default=16, help="requests that run at once; default: 16")
    parser.add_argument("--questions-per-clip", type=int, default=8, help="of the load that asks again; default: 8")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count; default: 3")
    parser.add_argument("--max-model-len", type=int, default=4096, help="of vLLM; default: 4096")
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.5, help="of vLLM; default: 0.5")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)

    report = Report("serve", vars(arguments), NOTE)
    transformers = Transformers(arguments.model, arguments.device, dtype)
    vllm = VLLM(arguments.model, transformers.processor, dtype, arguments)
    with tempfile.TemporaryDirectory() as folder:
        loads = make_requests(Path(folder), arguments.requests, arguments.questions_per_clip)
        rows = [compare(load, requests, transformers, vllm, arguments) for load, requests in loads.items()]
    title = f"Answering {arguments.requests} requests, {arguments.batch_size} at once"
    report.add(title, rows)
    report.save()
    print(to_markdown(rows))
    if dtype == torch.float32 and any(row["same answers"] < row["requests"] for row in rows):
        sys.exit("The answers are not the same: the ratios compare nothing.")


if __name__ == "__main__":
    main()
