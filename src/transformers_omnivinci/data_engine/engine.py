"""A run: sources through all stages into a folder, by a runner that decides where the work is done."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from ..new_file import new_file
from .assembly import build_stages, check_backends, check_config, settings_of
from .config import EngineConfig
from .segment_ledger import FILE, SegmentLedger, key_of
from .split import Split
from .stage import PROVENANCE, REJECTED, Stage
from .throughput import TOOK, Throughput, timed
from .writing.result_writing import CHATS as CHATS
from .writing.result_writing import REJECTS as REJECTS
from .writing.result_writing import check_formats, write_results

RUN = "run.json"
SOUNDS = "sounds"


class Runner(Protocol):
    """Where the work is done."""

    def __call__(self, config: EngineConfig, sources: Sequence[str], done: set[int]) -> Iterator[dict]:
        """The rows of all segments that are not in `done`, see [`key_of`], finished or rejected, in any order."""


class HereRunner:
    """
    Does the work in this process, a few segments at a time: for tests, and to try a config.

    Args:
        made (`dict[str, Backend]`, *optional*): Back ends by name that take the place of those of the config.
    """

    def __init__(self, made: dict | None = None):
        self.made = made

    def __call__(self, config: EngineConfig, sources: Sequence[str], done: set[int]) -> Iterator[dict]:
        split, stages = Split(config.split), build_stages(config, self.made)
        rows = (row for source in sources for row in timed(split, [{"source": source}]))
        wanted = (row for row in rows if key_of(row["id"]) not in done)
        size = max(options.batch_size for _, options in config.named_stages())
        while rows := list(islice(wanted, size)):
            yield from apply(stages, rows)


def apply(stages: Iterable[Stage], rows: list[dict]) -> list[dict]:
    """Rows after all stages."""
    for stage in stages:
        rows = timed(stage, rows)
    return rows


@dataclass
class Report:
    """
    What a run has done.

    Attributes:
        finished (`int`), known (`int`), rejected (`int`): Segments of this run and of earlier ones, and rejects.
        chats (`dict[str, int]`): Chats that were written, by category.
        prompt_tokens (`int`), completion_tokens (`int`), cost (`float`): Of this run.
        seconds (`dict[str, float]`): Which back ends took in this run, by stage.
        throughput ([`Throughput`]): How fast this run is, by stage.
        notes (`list[str]`): What to know of what was written, in sentences.
    """

    finished: int = 0
    known: int = 0
    rejected: int = 0
    chats: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    throughput: Throughput = field(default_factory=Throughput)
    notes: list[str] = field(default_factory=list)

    def count(self, row: dict, took: dict[str, float]) -> None:
        """Counts the row of a segment, and the seconds that it took in each stage."""
        self.throughput.count(row, took)
        if row.get(REJECTED):
            self.rejected += 1
        else:
            self.finished += 1
        for one in row.get(PROVENANCE, []):
            self.prompt_tokens += one["prompt_tokens"]
            self.completion_tokens += one["completion_tokens"]
            self.cost += one["cost"]
            self.seconds[one["stage"]] = self.seconds.get(one["stage"], 0.0) + one["seconds"]

    def summary(self) -> dict:
        """All of it as JSON has it."""
        names = ("finished", "known", "rejected", "chats", "prompt_tokens", "completion_tokens", "cost")
        told = {name: getattr(self, name) for name in names}
        return {**told, "back ends (s)": self.seconds, "throughput": self.throughput.summary()}


def curate(
    config: EngineConfig,
    sources: Sequence[str],
    output: str | Path,
    runner: Runner,
    on_row: Callable[[dict], object] | None = None,
    check: bool = True,
    on_report: Callable[[Report], object] | None = None,
) -> Report:
    """
    Runs the engine. What an earlier run with the same settings finished in the folder is kept and not done again.

    Args:
        config ([`EngineConfig`]): What is done.
        sources (`Sequence[str]`):
            Paths and URLs of videos, see [`list_sources`]. None: only what is finished is written again.
        output (`str` or `Path`): The folder; made if it is missing.
        runner ([`Runner`]): Where it is done.
        on_row (`Callable`, *optional*): Gets the row of each segment once it is on disk.
        check (`bool`, *optional*, defaults to `True`):
            Whether back ends are checked from this machine first: servers that are down, programs that are missing.
        on_report (`Callable`, *optional*): Gets what was done so far, after each row.

    Returns:
        [`Report`]: what was done, which is also written to `run.json`.

    Raises:
        ValueError: the config does not fit together, or the folder holds results of another one.
        OSError: the folder cannot be written, another run has it, or a server does not answer.
        ImportError: a format that is wanted needs a library that is missing.
    """
    check_config(config)
    check_formats(config)
    output = Path(output)
    if not sources and not (output / FILE).is_file():
        raise ValueError(f"No sources are given, and {output} holds no run whose results could be written again.")
    if check and sources:
        check_backends(config)
    with SegmentLedger(output, settings_of(config)) as ledger:
        report = Report(known=len(ledger.done))
        for row in runner(config, sources, ledger.done) if sources else ():
            _write_sounds(output, row.pop(SOUNDS, {}))
            took = row.pop(TOOK, {})
            ledger.add(row)
            report.count(row, took)
            if on_row is not None:
                on_row(row)
            if on_report is not None:
                on_report(report)
        report.throughput.stop()
        written = write_results(ledger, config, output)
        report.chats, report.notes = dict(written.counts.chats), written.notes
        with new_file(output / RUN) as part:
            part.write_text(json.dumps(report.summary(), indent=1) + "\n", encoding="utf-8")
    return report


def _write_sounds(output: Path, sounds: dict[str, str]) -> None:
    for name, content in sounds.items():
        path = output / name
        path.parent.mkdir(exist_ok=True)
        try:
            with new_file(path) as part:
                part.write_bytes(base64.b64decode(content))
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror or error}.") from error
