"""
The engine on Ray Data: each stage is a pool of actors, segments stream from one to the next, and only a few are under
way at a time. The same on one machine and on a cluster. No other module knows Ray.

Rows travel as texts of JSON, so that their shape never depends on what a block of them happens to hold.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .asking_stage import Bench
from .assembly import build_stage
from .config import EngineConfig
from .segment_ledger import key_of
from .split import Split
from .throughput import timed

ROW, FATAL = "row", "fatal"
"""The column of rows, and the one entry of a row that says why the run cannot go on."""
SPLITTING_CPUS = 1.0
"""CPUs of a task that splits videos."""
MAX_BLOCKS = 2000
"""The most tasks that sources are divided among, all of which the driver knows from the beginning."""


class RayRunner:
    """
    Does the work on Ray.

    Args:
        address (`str`, *optional*): Of a cluster, such as `"auto"` or `"ray://host:10001"`. `None`: this machine.
        object_store_memory (`int`, *optional*): Bytes of this machine's object store. `None`: as Ray chooses.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, object_store_memory: int | None = None):
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "Ray Data is not installed: pip install 'transformers-omnivinci[curate]', or run with `--here`."
            ) from error
        self.address, self.object_store_memory = address, object_store_memory

    def __call__(self, config: EngineConfig, sources: Sequence[str], done: set[int]) -> Iterator[dict]:
        import ray
        from ray.exceptions import RayError

        with self._connected(config):
            try:
                for row in self._plan(ray, config, sources, done).iter_rows():
                    row = json.loads(row[ROW])
                    if FATAL in row:
                        raise RuntimeError(row[FATAL])
                    yield row
            except RayError as error:
                lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
                raise RuntimeError(f"Ray stopped the run, which can be started again: {lines[-1]:.300}") from error

    def _plan(self, ray, config: EngineConfig, sources: Sequence[str], done: set[int]):
        known = ray.put(np.sort(np.fromiter(done, np.uint64, len(done))))
        blocks = min(len(sources), MAX_BLOCKS)
        data = ray.data.from_items([{"source": source} for source in sources], override_num_blocks=blocks)
        data = data.map_batches(
            SplitTask(config, known), batch_size=None, num_cpus=SPLITTING_CPUS, batch_format="numpy"
        )
        stages = config.named_stages()
        # A task does a block, however many segments a film has. Stages that are given more at a time bundle blocks. To
        # cut them anew before each stage would take tasks of their own, for which splitting leaves no CPU.
        data = data.repartition(target_num_rows_per_block=min(options.batch_size for _, options in stages))
        for name, options in stages:
            data = data.map_batches(
                StageActor,
                fn_constructor_args=(name, config),
                batch_size=options.batch_size,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(size=options.workers),
                num_cpus=options.num_cpus,
                num_gpus=options.num_gpus,
            )
        return data

    @contextmanager
    def _connected(self, config: EngineConfig) -> Iterator[None]:
        """Ray as it is, or started, or reached, for the time of a run."""
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        needs = resources_of(config)
        is_ours = not ray.is_initialized()
        if is_ours:
            options = {"logging_level": logging.WARNING, "log_to_driver": False, "address": self.address}
            if self.address is None and not os.environ.get("RAY_ADDRESS"):
                options["address"] = "local"  # not one that somebody else has started on this machine
                # Stages that only wait for servers need no core of their own.
                options |= {"num_cpus": max(os.cpu_count() or 1, int(needs["CPU"] + 0.999))}
                options |= {"include_dashboard": False, "object_store_memory": self.object_store_memory}
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConnectionError(f"Ray cannot be reached at {self.address}: {error}.") from error
        try:
            has = ray.cluster_resources()
            short = [name for name, number in needs.items() if has.get(name, 0) < number]
            if short:
                told = ", ".join(f"{needs[name]:g} {name} where there are {has.get(name, 0):g}" for name in short)
                raise ValueError(f"The stages ask for {told}: lower `workers`, `num_cpus` or `num_gpus` of some.")
            yield
        finally:
            if is_ours:
                ray.shutdown()


class SplitTask:
    """Splits the sources of a block, and leaves out the segments that are finished."""

    def __init__(self, config: EngineConfig, known):
        self.config, self.known = config, known

    def __call__(self, batch: dict) -> dict:
        import ray

        known, kept = ray.get(self.known), []
        split = Split(self.config.split)
        for source in batch["source"]:
            rows = timed(split, [{"source": str(source)}])
            kept += [row for row in rows if not _has(known, key_of(row["id"]))]
        return _batch(kept)


class StageActor:
    """A stage in a process of its own, which holds its model."""

    def __init__(self, name: str, config: EngineConfig):
        self.stage = build_stage(name, config, Bench(config))

    def __call__(self, batch: dict) -> dict:
        rows = [json.loads(row) for row in batch[ROW]]
        if any(FATAL in row for row in rows):
            return _batch(rows)
        try:
            return _batch(timed(self.stage, rows))
        except Exception as error:  # Ray would pass on the text of a traceback
            told = " ".join(str(error).split()) or type(error).__name__
            return _batch([{FATAL: f"The stage {self.stage.name} cannot go on: {told}"}])


def resources_of(config: EngineConfig) -> dict[str, float]:
    """What all stages need at a time, by Ray's names."""
    stages = [options for _, options in config.named_stages()]
    return {
        "CPU": SPLITTING_CPUS + sum(options.workers * options.num_cpus for options in stages),
        "GPU": sum(options.workers * options.num_gpus for options in stages),
    }


def _batch(rows: list[dict]) -> dict:
    return {ROW: np.array([json.dumps(row, ensure_ascii=False) for row in rows], dtype=object)}


def _has(known: np.ndarray, key: int) -> bool:
    place = np.searchsorted(known, np.uint64(key))
    return bool(place < len(known) and known[place] == key)
