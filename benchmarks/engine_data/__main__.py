"""
Table 2 of the paper, in small: what sound, and what the data engine writes, do for a model of nano's size, under one
budget of training in the synthetic world.

All runs begin with one model, which has learned of pictures without sound and of sounds without picture, and never of
both at once. They learn from the same clips in as many steps, in the order of their seed. What they are asked and told
about these clips is all that differs, see `runs.ARMS`.

Encoders are nano's, and frozen. Clips are encoded once for all runs, and what is done is not done again.
"""

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from transformers_omnivinci.synthetic import CLOSED_TYPES

from .chats import dataset, run_engine, write_film
from .encoding import encode, warm_up
from .report import report
from .runs import BASE_FILE, MAIN, OTHERS, build_base, run


def wait_for(tasks: Sequence[Future]) -> list:
    """Results of tasks; the first failure ends what waits."""
    try:
        return [task.result() for task in tasks]
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def prepare(pool: ProcessPoolExecutor, name: str, size: int, folder: Path, most: int | None, parts: int) -> None:
    """Clips of a kind, what the engine writes about them, and both as the model gets them; what is there is kept."""
    paths = [folder / "encoded" / f"{name}-{part:02}.pickle" for part in range(parts)]
    if all(path.exists() for path in paths):
        return
    list(pool.map(partial(write_film, name, size, folder / "films"), range(size), chunksize=16))
    if name == "train" and not (folder / "engine.json.gz").exists():
        run_engine([folder / "films" / f"{sample.id}.mp4" for sample in dataset(name, size)], folder)
    tasks = [
        pool.submit(encode, name, size, folder, most, part, parts, path)
        for part, path in enumerate(paths)
        if not path.exists()
    ]
    wait_for(tasks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_data", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/engine-data"), help="default: %(default)s")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the report goes (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="where results of runs go (default: OUTPUT/runs)")
    parser.add_argument("--only", choices=("runs", "report"), help="leave out the report, or all but the report")
    parser.add_argument("--device", default="cpu", help="to train on (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=os.cpu_count(), help="processes that make data")
    parser.add_argument("--num-runs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no run goes on")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm (default: %(default)s)")
    parser.add_argument("--num-clips", type=int, default=4000, help="to learn from (default: %(default)s)")
    parser.add_argument("--num-base-clips", type=int, default=1600, help="of the first model (default: %(default)s)")
    parser.add_argument("--clips-per-type", type=int, default=100, help="to ask about (default: %(default)s)")
    parser.add_argument("--base-steps", type=int, default=800, help="of the first model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=800, help="of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips in a step (default: %(default)s)")
    parser.add_argument("--engine-chats", type=int, help="the most that the engine tells of a clip")
    parser.add_argument("--main", action="store_true", help="only the arms of the paper's table")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate (default: %(default)s)")
    arguments = parser.parse_args()
    start = time.time()
    folder, results = arguments.output, arguments.results or arguments.output / "runs"
    for one in (results, arguments.docs, folder / "films", folder / "encoded"):
        one.mkdir(parents=True, exist_ok=True)
    num_asked = arguments.clips_per_type * len(CLOSED_TYPES)

    def say(text: str) -> None:
        print(f"{time.time() - start:.0f} s: {text}", flush=True)

    if arguments.only != "report":
        sizes = {"base": arguments.num_base_clips, "train": arguments.num_clips, "test": num_asked}
        options = {"mp_context": get_context("spawn"), "initializer": torch.set_num_threads, "initargs": (1,)}
        where = (arguments.device, start + arguments.seconds)
        with (
            ProcessPoolExecutor(arguments.num_workers, **options) as makers,
            ProcessPoolExecutor(arguments.num_runs, **options) as runners,
        ):
            warm = [runners.submit(warm_up) for _ in range(arguments.num_runs)]
            if not (folder / BASE_FILE).exists():
                prepare(makers, "base", sizes["base"], folder, None, arguments.num_workers)
                say("Clips of single senses are made.")
            base = runners.submit(build_base, folder, arguments.base_steps, arguments.batch_size, *where)
            for name in ("train", "test"):
                prepare(makers, name, sizes[name], folder, arguments.engine_chats, arguments.num_workers)
                say(f"Clips are made: {name}.")
            say(f"The first model is trained: {base.result()}.")
            wait_for(warm)
            jobs = [
                (arm, seed)
                for arms in ((MAIN,) if arguments.main else (MAIN, OTHERS))
                for seed in range(arguments.seeds)
                for arm in arms
            ]  # those that matter most are first, if the time is over
            settings = (arguments.steps, arguments.batch_size, arguments.rate, folder, results, num_asked, *where)
            tasks = [runners.submit(run, *job, *settings) for job in jobs]
            for job, task in zip(jobs, tasks, strict=True):
                say(f"{job}: {task.result()}")
    if arguments.only != "runs":
        report(results, num_asked, arguments.docs)


if __name__ == "__main__":
    main()
