"""Training in several processes, on CPUs and through gloo."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import AutoModel
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.training.muon import MuonWithAdamW
from transformers_omnivinci.training.trainer import _exact_seconds

from .conftest import CLIP, PARITY
from .processes import run_python

TINY = str(PARITY / "published-tiny")
SOURCE = Path(__file__).parents[1] / "src"


def rows():
    """Samples of unlike modalities, lengths and numbers of answer tokens."""
    for count in range(1, 5):
        for content in ([{"type": "video", "path": CLIP}], [{"type": "audio", "path": CLIP}], []):
            question = [*content, {"type": "text", "text": "What? " * count}]
            answer = "A square. " * (count + len(content))
            yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def options(folder, output, *more):
    return [
        *("train", "--recipe", "omni", "--data", folder / "data.jsonl", "--model", TINY, "--output", folder / output),
        *("--use-cpu", "--num-frames", 2, "--max-steps", 6, "--learning-rate", "1e-3", "--logging-steps", 1),
        *("--save-steps", 3, "--report-to", "none", "--traceback", *more),
    ]


def losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.compat
def test_two_processes_with_sharded_weights_learn_as_one(tmp_path):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    alone = options(tmp_path, "alone", "--per-device-train-batch-size", 2)
    result = CliRunner().invoke(app, list(map(str, alone)), catch_exceptions=False)
    assert result.exit_code == 0
    command = [
        *("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", 2, "-m", "transformers_omnivinci.cli"),
        *options(tmp_path, "sharded", "--per-device-train-batch-size", 1, "--fsdp", "--ddp-backend", "gloo"),
    ]
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    result = run_python("from torch.distributed.run import main; main()", *command, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(losses(tmp_path / "alone")) == 6
    assert losses(tmp_path / "sharded") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    # This file is written where weights are sharded; replicas have none.
    assert (tmp_path / "sharded" / "checkpoint-3" / "pytorch_model_fsdp.bin").is_file()
    one, two = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("alone", "sharded"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-4, rtol=1e-3, msg=name)


def test_muon_refuses_sharded_matrices(process_group):
    model = AutoModel.from_pretrained(TINY)
    fully_shard(model.model.vision_projector)
    with pytest.raises(ValueError, match="the parameters are sharded: train without FSDP"):
        MuonWithAdamW(model, lr=1e-2, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)


@pytest.fixture
def process_group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Seconds(torch.nn.Linear):
    def forward(self, video_timestamps):
        self.seen = video_timestamps
        return super().forward(video_timestamps.to(self.weight.dtype))


def test_seconds_stay_exact_where_sharding_casts_all_inputs(process_group):
    model = fully_shard(Seconds(2, 1), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    inputs = {"video_timestamps": torch.tensor([[100.0, 100.2]])}
    model(**inputs)
    assert model.seen.dtype == torch.bfloat16 and model.seen[0, 0] == model.seen[0, 1]
    with _exact_seconds(model, inputs):
        model(**inputs)
    assert torch.equal(model.seen, inputs["video_timestamps"])
