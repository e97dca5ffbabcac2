"""What all recipes write at the end: numbers as JSON, a table in their README, and on what they were measured."""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers

from transformers_omnivinci.evaluation import wilson_interval

START, END = "<!-- results -->", "<!-- end -->"


def machine() -> str:
    """The processor and the versions that decide about time and numbers, for a line below a table."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    processor = found[1].strip() if found else platform.processor() or platform.machine()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{os.cpu_count()} cores of {processor}, {versions}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head, and columns after the first are aligned to the right."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_results(results: Mapping, text: str, folder: Path, page: Path | None = None) -> None:
    """
    Writes `results.json` into a folder, and a text between the markers of a page.

    Args:
        results (`Mapping`): Values that JSON has.
        text (`str`): Markdown, such as a [`table`] and the line of the [`machine`].
        folder (`Path`): Where `results.json` is written.
        page (`Path`, *optional*): The README, with `<!-- results -->` and `<!-- end -->`. `None`: none is written.

    Raises:
        ValueError: the page has no such markers.
        OSError: a file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if page is None:
        return
    old = page.read_text(encoding="utf-8")
    new, count = re.subn(
        f"{START}.*?{END}", lambda _: f"{START}\n\n{text.strip()}\n\n{END}", old, count=1, flags=re.DOTALL
    )
    if not count:
        raise ValueError(f"{page} has no place for the table: the markers {START} and {END} are needed.")
    page.write_text(new, encoding="utf-8")


def run_timed(command: Sequence[str], output: Path) -> int:
    """
    Runs a command and writes how long it took.

    Args:
        command (`Sequence[str]`): The program and its arguments; `python` is the interpreter that runs this.
        output (`Path`): A JSON file with `wall_seconds` and `cpu_seconds` (of the command and its processes), and the
            `command`. Not written if the command fails.

    Returns:
        `int`: the exit code of the command.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    program = sys.executable if command[0] == "python" else command[0]
    code = subprocess.run([program, *command[1:]]).returncode
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not code:
        output.parent.mkdir(parents=True, exist_ok=True)
        told = {"wall_seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "command": list(command)}
        output.write_text(json.dumps(told) + "\n")
    return code


def tell_training(timed: Mapping | None) -> str:
    """Steps, seed and minutes of what [`read_timed`] gives, as a sentence behind others; "" of none."""
    if timed is None:
        return ""
    options, minutes = timed["options"], timed["cpu_seconds"] / 60
    return f" {options['max_steps']} steps in {minutes:.1f} minutes of CPU time, seed {options['seed']}."


def share(right: Sequence[bool]) -> dict:
    """The share of right answers, with both ends of its 95% interval."""
    low, high = wilson_interval(sum(right), len(right))
    return {"accuracy": sum(right) / len(right), "low": low, "high": high, "questions": len(right)}


def read_timed(path: Path) -> dict | None:
    """
    What [`run_timed`] wrote: `wall_seconds`, `cpu_seconds`, and the `options` of the command that are whole numbers,
    such as `{"max_steps": 300}`: its paths belong to one machine. `None` where there is no such file.
    """
    if not path.is_file():
        return None
    timed = json.loads(path.read_text(encoding="utf-8"))
    command = timed.pop("command")
    pairs = [(name, value) for name, value in zip(command, command[1:]) if name.startswith("--") and value.isdecimal()]
    return timed | {"options": {name.removeprefix("--").replace("-", "_"): int(value) for name, value in pairs}}


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit("python -m recipes.results TIME.json -- COMMAND [argument ...]")
    sys.exit(run_timed(sys.argv[3:], Path(sys.argv[1])))
