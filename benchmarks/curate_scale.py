"""
What a run of the data engine over many hours of video takes of the machine that drives it, on Ray Data:

    python -m benchmarks.curate_scale --hours 1000

Sources are links to one film of an hour, in which hardly anything happens and which the test captioner captions in no
time. So what is measured is not the work of models, but what the driver holds, its ledger, and what Ray keeps of tasks
and rows: after 1, 10, 100 and 1,000 hours of one run.
"""

import argparse
import json
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from transformers_omnivinci.data_engine.config import EngineConfig
from transformers_omnivinci.data_engine.engine import HereRunner, Runner, curate
from transformers_omnivinci.data_engine.segment_ledger import FILE
from transformers_omnivinci.data_engine.typed import read
from transformers_omnivinci.synthetic import Clip, Event, write_clip

FILM_SECONDS = 3600
MB = 1e6
EVERY_SECONDS = 0.5
"""How often memory is looked at."""
SERVERS = ("gcs_server", "raylet")


def configure(clip_seconds: float, batch_size: int) -> EngineConfig:
    """All stages of captions, with segments of two minutes."""
    asking = {"batch_size": batch_size, "num_cpus": 0.25}
    return read(
        EngineConfig,
        {
            "split": {"silence": None, "clip_seconds": clip_seconds},
            "backends": {"captioner": {"type": "test-captioner"}, "corrector": {"type": "test-reasoner"}},
            "stages": {
                "visual_caption": {"backend": "captioner", **asking},
                "audio_caption": {"backend": "captioner", **asking},
                "cross_modal_correction": {"backend": "corrector", **asking},
            },
        },
        "the config",
    )


def write_film(path: Path) -> None:
    """A film of an hour, a frame a second, in which something is seen and heard every ten minutes."""
    frames = np.zeros((FILM_SECONDS, 32, 32, 3), np.uint8)
    write_clip(path, Clip(frames, np.zeros(8000 * FILM_SECONDS, np.float32), 1, 8000))
    events = []
    for start in range(0, FILM_SECONDS, 600):
        events.append(Event("visual", "blue star", start + 5.0, start + 9.0, "left"))
        events.append(Event("audio", "chord", start + 6.0, start + 7.0))
    path.with_suffix(".events.json").write_text(json.dumps([asdict(event) for event in events]))


def link(film: Path, folder: Path, number: int) -> list[str]:
    """Paths of so many sources, which are all the same film."""
    folder.mkdir()
    paths = [folder / f"film-{index:06d}.mp4" for index in range(number)]
    for path in paths:
        path.symlink_to(film)
        path.with_suffix(".events.json").symlink_to(film.with_suffix(".events.json"))
    return [str(path) for path in paths]


class Watch:
    """Looks at the memory of this process and of Ray's servers, for as long as the `with` block."""

    def __init__(self):
        self.now: dict[str, float] = {}
        self._ended = threading.Event()

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil

        while not self._ended.wait(EVERY_SECONDS):
            now = {"driver": psutil.Process().memory_info().rss / MB}
            for process in psutil.Process().children(recursive=True):
                try:
                    name, memory = process.name(), process.memory_info()
                except psutil.NoSuchProcess:
                    continue
                if name in SERVERS:
                    shared = getattr(memory, "shared", 0)
                    now[name] = now.get(name, 0.0) + (memory.rss - shared) / MB
                    if name == "raylet":  # which maps the object store, whose pages stay once they were used
                        now["object store"] = now.get("object store", 0.0) + shared / MB
            self.now = now


def measure(config: EngineConfig, hours: int, film: Path, folder: Path, runner: Runner) -> tuple[list[dict], dict]:
    """A row for what is taken after 1, 10, 100 ... hours, and the throughput of the run."""
    sources = link(film, folder / "sources", max(1, hours * 3600 // FILM_SECONDS))
    marks = sorted({mark for mark in (1, 10, 100, 1000, 10_000) if mark < hours} | {hours})
    rows: list[dict] = []
    start, ledger = time.monotonic(), folder / "out" / FILE

    def look(report) -> None:
        throughput = report.throughput
        if len(rows) < len(marks) and throughput.media_seconds >= 3600 * marks[len(rows)] - 1:
            row = {"hours": marks[len(rows)], "segments": throughput.segments, "time (s)": time.monotonic() - start}
            row |= {f"{name} (MB)": watch.now.get(name, 0.0) for name in ("driver", *SERVERS, "object store")}
            rows.append(row | {"ledger (MB)": ledger.stat().st_size / MB})
            print(json.dumps(rows[-1]), flush=True)

    with Watch() as watch:
        report = curate(config, sources, folder / "out", runner, on_report=look)
    return rows, report.throughput.summary()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curate_scale", description=__doc__)
    parser.add_argument("--hours", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--clip-seconds", type=float, default=20.0, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="segments at a time (default: %(default)s)")
    parser.add_argument("--store", type=float, default=300.0, help="MB of the object store (default: %(default)s)")
    parser.add_argument("--here", action="store_true", help="in one process, without Ray")
    arguments = parser.parse_args()
    config = configure(arguments.clip_seconds, arguments.batch_size)
    with tempfile.TemporaryDirectory(prefix="curate-scale-") as name:
        film = Path(name) / "film.mp4"
        write_film(film)
        if arguments.here:
            runner: Runner = HereRunner()
        else:
            from transformers_omnivinci.data_engine.ray_runner import RayRunner

            runner = RayRunner(object_store_memory=int(arguments.store * MB))
        rows, throughput = measure(config, arguments.hours, film, Path(name), runner)

    from ._harness import Report  # which would add torch to what is measured

    note = (
        "Memory of the process that runs the command, and of servers of Ray without shared pages; pages of the "
        "object store that were ever used; the file of segments."
    )
    report, stages = Report("curate_scale", vars(arguments), note), throughput.pop("stages")
    report.add("Memory", rows)
    report.add("Stages, seconds of all workers together", [{"stage": name, **one} for name, one in stages.items()])
    report.add("Run", [throughput])
    report.save()


if __name__ == "__main__":
    main()
