"""The data engine on Ray: it gives what one process gives, and loses or repeats nothing when workers die."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from transformers_omnivinci.data_engine.config import EngineConfig
from transformers_omnivinci.data_engine.engine import CHATS, HereRunner, curate
from transformers_omnivinci.data_engine.ray_runner import RayRunner
from transformers_omnivinci.data_engine.segment_ledger import FILE
from transformers_omnivinci.data_engine.typed import plain, read
from transformers_omnivinci.synthetic import write_reels


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return [str(path) for path in write_reels(tmp_path_factory.mktemp("films"), 6, 40)]


def configured(delay=0.0, **changes) -> EngineConfig:
    asking = {"backend": "captioner", "batch_size": 2, "num_cpus": 0.5}
    content = {
        "split": {"segment_seconds": 8, "clip_seconds": 4},
        "backends": {
            "captioner": {"type": "test-captioner", "imagine": 0.5, "invent": 0.2, "delay": delay},
            "corrector": {"type": "test-reasoner"},
        },
        "stages": {
            "visual_caption": asking,
            "audio_caption": asking,
            "cross_modal_correction": {"backend": "corrector", "batch_size": 2, "num_cpus": 0.5},
        },
    }
    return read(EngineConfig, {**content, **changes}, "the config")


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / FILE).read_text().splitlines()[1:]]
    names = [row["id"] for row in rows]
    assert len(names) == len(set(names)), "a segment was written twice"
    for row in rows:
        for one in row.get("provenance", []):
            one.pop("seconds")
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def expected(films, tmp_path_factory):
    """The rows of a run in one process."""
    folder = tmp_path_factory.mktemp("expected") / "out"
    curate(configured(), films, folder, HereRunner())
    return rows_of(folder)


@pytest.fixture
def cluster():
    """Two nodes on this machine, of which the second can be lost."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=nodes.address, log_to_driver=False)
    nodes.second = nodes.add_node(num_cpus=2)
    nodes.wait_for_nodes()
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_a_run_on_ray_gives_what_one_process_gives(films, expected, tmp_path):
    report = curate(configured(), [*films, "/none.mp4"], tmp_path / "out", RayRunner())
    assert (report.finished, report.rejected) == (len(expected), 1)
    rows = rows_of(tmp_path / "out")
    assert {name: row for name, row in rows.items() if name in expected} == expected
    report = curate(configured(), films, tmp_path / "out", RayRunner())
    assert (report.finished, report.known) == (0, len(expected))


def workers() -> list[psutil.Process]:
    """The processes of stages."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith("ray::") and "StageActor" in words[0]:
            found.append(process)
    return found


def test_workers_that_are_killed_lose_and_repeat_nothing(films, expected, tmp_path, cluster):
    killed = []

    def kill(row):
        if len(killed) < 2:
            victim = workers()[0]
            killed.append(victim.pid)
            victim.kill()

    report = curate(configured(delay=0.1), films, tmp_path / "out", RayRunner(), kill)
    assert len(killed) == 2 and killed[0] != killed[1]
    assert report.finished == len(expected) and rows_of(tmp_path / "out") == expected


def test_a_node_that_is_lost_loses_and_repeats_nothing(films, expected, tmp_path, cluster):
    timer = []

    def lose(row):
        if not timer:
            timer.append(threading.Thread(target=cluster.remove_node, args=(cluster.second, False)))
            timer[0].start()

    report = curate(configured(delay=0.1), films, tmp_path / "out", RayRunner(), lose)
    timer[0].join()
    assert len([node for node in ray.nodes() if node["Alive"]]) == 1
    assert report.finished == len(expected) and rows_of(tmp_path / "out") == expected


def test_a_run_whose_driver_is_killed_goes_on(films, expected, tmp_path):
    import yaml

    config, out = tmp_path / "engine.yaml", tmp_path / "out"
    content = plain(configured(delay=0.1))
    content["stages"] = {name: value for name, value in content["stages"].items() if value}
    config.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "transformers_omnivinci.cli", "curate", *films]
    command += ["--config", str(config), "--output", str(out)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while not (out / FILE).exists() or len((out / FILE).read_text().splitlines()) < 4:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = rows_of(out)
    assert 0 < len(before) < len(expected) and not (out / CHATS).exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(expected) - len(before)} segments finished, {len(before)} known before" in done.stdout
    assert rows_of(out) == expected


def test_what_a_stage_cannot_bear_is_one_sentence(films, tmp_path):
    config = configured()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "visual_caption.txt").write_text("{{ nothing }}")
    config = read(EngineConfig, {**plain(config), "prompts": str(tmp_path / "prompts")}, "the config")
    with pytest.raises(
        RuntimeError, match="The stage visual_caption cannot go on: The prompt visual_caption.txt cannot be filled in"
    ):
        curate(config, films, tmp_path / "out", RayRunner())


def test_more_than_a_cluster_has_is_refused(films, tmp_path):
    stages = plain(configured().stages)
    stages["visual_caption"]["num_gpus"] = 8.0
    config = configured(stages={name: value for name, value in stages.items() if value})
    with pytest.raises(ValueError, match="ask for 8 GPU where there are"):
        curate(config, films, tmp_path / "out", RayRunner())
