"""
Starting on a large data file: the time until the first sample can be drawn, and the memory that each process holds.

Rows are measured when a file is new ("cold"), and read from what was kept beside it afterwards ("kept"). The processes
have done nothing else before, and share the work of measuring.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import torch
from torch import distributed

from transformers_omnivinci.training import ChatDataset, DataSource, SampleEncoder

from ._harness import MB, PeakMemory, Report, in_fresh_process
from .load import AnonymousMemory
from .merge import build_processor

NOTE = (
    "Chats without media, all of them different. Memory is that of one process beyond what it held before, without "
    "pages of the data file, which processes share and the kernel drops when it needs room; the last column has them."
)
WORDS = ("a red circle", "slowly", "sinks", "the sound of", "bell", "rises while", "what", "low tone", "is heard")


def write_rows(path: Path, num_rows: int) -> None:
    """Chats of a question and an answer that is twice as long."""
    words = random.Random(0)
    with path.open("w") as file:
        for number in range(num_rows):
            question, answer = (" ".join(words.choices(WORDS, k=words.randint(n, 4 * n))) for n in (10, 20))
            messages = [
                {"role": "user", "content": f"{number}. {question}?"},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"id": f"row-{number}", "messages": messages}) + "\n")


def start(rank: int, num_processes: int, path: Path) -> None:
    """Opens the data as a process of training does and writes down what that took."""
    torch.set_num_threads(1)
    store = f"file://{path.parent}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=num_processes)
    encoder = SampleEncoder(build_processor())
    ChatDataset([DataSource([json.loads(path.open().readline())])], encoder)  # so that whatever is imported late is
    distributed.barrier()
    with PeakMemory() as peak, AnonymousMemory() as memory:
        begin, worked = time.perf_counter(), time.process_time()
        dataset = ChatDataset([DataSource(path)], SampleEncoder(encoder.processor))
        seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    dataset[len(dataset) // 2]
    result = {
        "time (s)": seconds,
        "of the CPU (s)": worked,
        "held (MB)": memory.left / MB,
        "peak (MB)": memory.most / MB,
    }
    result |= {"with all pages (MB)": peak.bytes / MB, "fingerprint": dataset.fingerprint}
    (path.parent / f"result-{rank}.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


def measure(way: str, path: Path, num_processes: int) -> dict:
    """A row: the slowest process, and the one with the most memory."""
    (path.parent / "store").unlink(missing_ok=True)
    torch.multiprocessing.spawn(start, (num_processes, path), nprocs=num_processes)
    results = [json.loads((path.parent / f"result-{rank}.json").read_text()) for rank in range(num_processes)]
    assert len({result.pop("fingerprint") for result in results}) == 1
    return {"start": way, "processes": num_processes} | {key: max(row[key] for row in results) for key in results[0]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=200_000, help="of the file (default: 200000)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many start (default: 1 2)")
    arguments = parser.parse_args()
    report = Report("data", vars(arguments), NOTE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.jsonl")
        in_fresh_process(write_rows, path, arguments.rows)
        rows = []
        for num_processes in arguments.processes:
            for kept in path.parent.glob(".data.jsonl.*"):
                kept.unlink()
            rows += [measure(way, path, num_processes) for way in ("cold", "kept")]
        report.add(f"{arguments.rows:,} rows in {path.stat().st_size / MB:.0f} MB", rows)
    report.save()


if __name__ == "__main__":
    main()
