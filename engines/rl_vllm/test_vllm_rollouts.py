"""Completions for GRPO that vLLM samples, in the process of the trainer."""

import json

import pandas
import pytest
from safetensors.torch import load_file

from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration
from transformers_omnivinci.reinforcement.grpo_command import grpo, grpo_arguments
from transformers_omnivinci.synthetic import SyntheticDataset, write_dataset

OPTIONS = {
    "use-cpu": True,
    "per-device-train-batch-size": 16,
    "gradient-accumulation-steps": 1,
    "num-generations": 4,
    "max-completion-length": 8,
    "learning-rate": 1e-4,
    "lr-scheduler-type": "constant",
    "save-strategy": "no",
    "max-steps": 2,
    "gradient-checkpointing": False,
    "beta": 0,
    "use-vllm": True,
    "vllm-mode": "colocate",
    "vllm-max-model-length": 1024,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps on questions about videos with sound. The trainer, and the folder."""
    folder = tmp_path_factory.mktemp("run")
    data = write_dataset(folder / "world", SyntheticDataset("train", 8, seed=7, types=("time", "counting")))
    words = [str(word) for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    arguments = grpo_arguments(folder / "out", words)
    return grpo([data], str(NANO), arguments, rewards=["accuracy"], instruction="", num_frames=16), folder / "out"


def test_the_policy_learns_from_completions_of_vllm(run):
    trainer, folder = run
    table = pandas.concat(pandas.read_parquet(path) for path in sorted((folder / "completions").glob("*.parquet")))
    assert len(table) == 32
    assert table.groupby(["step", "prompt"]).size().tolist() == [4] * 8
    # Nano knows these clips fairly well: what it is not shown, it could not answer.
    assert table["accuracy"].mean() > 0.3
    before = OmniVinciForConditionalGeneration.from_pretrained(NANO).state_dict()
    after = load_file(folder / "model.safetensors")
    assert any(not after[name].equal(before[name].float()) for name in after)


def test_log_probabilities_of_both_are_close(run):
    """So that TRL's correction for what sampled has little to do: vLLM is in bfloat16, the policy in float32."""
    history = json.loads((run[1] / "trainer_state.json").read_text())["log_history"]
    means = [entry["sampling/sampling_logp_difference/mean"] for entry in history if "reward" in entry]
    assert len(means) == 2 and max(means) < 0.05


def test_vllm_is_given_the_weights_of_each_step(run):
    """Greedily, the engine answers as the policy does after training."""
    trainer, _ = run
    trainer.vllm_generation.sync_weights()
    named = dict(trainer.model.named_parameters())
    engine = trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker.model_runner.model
    held = dict(engine.named_parameters())["language_model.model.layers.0.mlp.down_proj.weight"]
    weight = named["model.language_model.layers.0.mlp.down_proj.weight"]
    assert held.equal(weight.detach().to(held.dtype))
