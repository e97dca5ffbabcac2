"""A run that was saved before the redesign goes on; what is stored of it was saved by the pinned versions."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from transformers_omnivinci.cli import app

from .conftest import CLIP, PARITY

BEFORE = PARITY.parent / "written-before"


def test_a_run_goes_on(load_checkpoint, tmp_path, monkeypatch):
    """Its data, its parameters and the state of its optimizer are the same: so are the losses that follow."""
    shutil.copytree(BEFORE / "training", tmp_path, dirs_exist_ok=True)
    shutil.copy(CLIP, tmp_path / "clip.mp4")
    model, _ = load_checkpoint("published-tiny")
    model.save_pretrained(tmp_path / "run" / "checkpoint-1")
    monkeypatch.chdir(tmp_path)  # rows without an `id` are named by the path of their file
    options = ["--recipe", "omni", "--data", "data.jsonl", "--model", PARITY / "published-tiny", "--output", "run"]
    options += ["--num-frames", 4, "--share-media", "--use-cpu", "--optim", "adafactor", "--learning-rate", "1e-2"]
    options += ["--warmup-steps", 2, "--max-steps", 5, "--save-steps", 1, "--logging-steps", 1]
    options += ["--per-device-train-batch-size", 1, "--resume-from-checkpoint", "True"]
    result = CliRunner().invoke(app, ["train", *map(str, options)])
    assert result.exit_code == 0, result.stderr
    then, now = BEFORE / "training" / "run", tmp_path / "run"
    histories = [json.loads((run / "trainer_state.json").read_text())["log_history"] for run in (then, now)]
    curves = [[entry["loss"] for entry in history if "loss" in entry] for history in histories]
    assert len(curves[1]) == 5 and curves[1] == pytest.approx(curves[0], abs=1e-3)
    first, last = then / "checkpoint-1" / "omnivinci_run.json", now / "checkpoint-5" / "omnivinci_run.json"
    assert json.loads(last.read_text()) == json.loads(first.read_text())
