"""`omnivinci train`: what it writes, how it goes on, and what it refuses."""

import json
import signal

import pytest
import torch
from transformers import AutoModel
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.training import OmniVinciTrainer

from .chats import CLIP_ITEM, chat, write
from .processes import run_python
from .training_runs import TINY


def omnivinci(*arguments):
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split()), " ".join(result.stderr.split())


@pytest.fixture
def command(tmp_path):
    def run(*arguments, rows=None, recipe="omni", output="run"):
        rows = [chat("A square.", CLIP_ITEM), chat("A dog.")] if rows is None else rows
        data = write(tmp_path / "data.jsonl", *rows)
        return omnivinci(
            *("--recipe", recipe, "--data", data, "--model", TINY, "--output", tmp_path / output),
            *("--num-frames", 2, "--use-cpu", "--max-steps", 2, *arguments),
        )

    return run


@pytest.mark.compat
def test_the_command_trains_evaluates_and_draws_curves(command, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = [chat("A square.", CLIP_ITEM), "{", chat("A dog.")]
    options = ("--eval-data", tmp_path / "data.jsonl", "--save-steps", 1, "--logging-steps", 1, "--skip-bad")
    code, output, _ = command(*options, "--learning_rate", "1e-4", "--per-device-train-batch-size", 1, rows=rows)
    assert code == 0
    assert "holds the model after 2 steps. 1 sample was left out: Sample " in output and "data.jsonl:2: " in output
    assert AutoModel.from_pretrained(tmp_path / "run").num_parameters() == 262_112
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["global_step"] == 2 and state["best_model_checkpoint"]
    (log,) = (tmp_path / "run" / "runs").iterdir()
    curves = EventAccumulator(str(log)).Reload()
    assert {"train/loss", "train/learning_rate", "eval/loss"} <= set(curves.Tags()["scalars"])
    assert max(event.value for event in curves.Scalars("train/learning_rate")) == pytest.approx(1e-4)


@pytest.mark.slow
def test_the_command_goes_on_with_a_run(command):
    assert command("--save-steps", 1, "--max-steps", 4)[0] == 0
    code, _, error = command("--max-steps", 4)
    assert code == 1 and "holds a run already" in error
    code, output, _ = command("--max-steps", 4, "--resume-from-checkpoint", "True")
    assert code == 0 and "after 4 steps" in output


KILLED = """
import os, signal, sys, torch
from transformers_omnivinci.cli import app

save, remaining = torch.save, int(sys.argv.pop(1))

def save_and_die(*arguments, **options):
    global remaining
    save(*arguments, **options)
    remaining -= 1
    if not remaining:
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save_and_die
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_saves_goes_on_from_the_checkpoint_before(command, tmp_path):
    """The files of each checkpoint that torch writes are four: the second checkpoint is half there."""
    data = write(tmp_path / "data.jsonl", chat("A square.", CLIP_ITEM), chat("A dog."))
    arguments = ["train", "--recipe", "omni", "--data", data, "--model", TINY, "--output", tmp_path / "run"]
    arguments += ["--num-frames", 2, "--use-cpu", "--max-steps", 3, "--save-steps", 1]
    killed = run_python(KILLED, 6, *arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-1"]
    assert list((tmp_path / "run").glob(".saving*/checkpoint-2/*"))
    options = ("--save-steps", 1, "--max-steps", 3, "--resume-from-checkpoint", "True")
    assert command(*options, rows=[chat("A square.", CLIP_ITEM), chat("A dog.")])[0] == 0
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert not list((tmp_path / "run").glob(".saving*"))


@pytest.mark.slow
def test_the_command_trains_with_another_attention(command, monkeypatch):
    attentions = []
    monkeypatch.setattr(
        OmniVinciTrainer, "train", lambda self, **kwargs: attentions.append(self.model.config._attn_implementation)
    )
    assert command("--attn-implementation", "eager")[0] == 0
    assert attentions == ["eager"]
    code, _, error = command("--attn-implementation", "nonsense")
    assert code == 1 and "nonsense" in error


@pytest.mark.slow
def test_the_command_freezes_parts(command, tmp_path):
    assert command("--freeze", "audio_encoder", "--learning-rate", "1e-2", recipe="audio-2")[0] == 0
    before, after = (AutoModel.from_pretrained(folder).state_dict() for folder in (TINY, tmp_path / "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("audio_projector" in name for name in changed) and not any("audio_tower" in name for name in changed)
    code, _, error = command("--freeze", "ears", recipe="audio-2", output="other")
    assert code == 1 and "There is no part 'ears' to freeze" in error and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_command_takes_muon(command, tmp_path):
    assert command("--muon", "--save-steps", 2)[0] == 0
    assert json.loads((tmp_path / "run" / "checkpoint-2" / "omnivinci_run.json").read_text())["optimizer"] == "muon"


@pytest.mark.slow
@pytest.mark.compat
def test_low_rank_additions_are_trained_with_the_other_parts(command, make_fresh, tmp_path):
    from peft import PeftModel

    rows = [chat("A square.", CLIP_ITEM), chat("Red.", CLIP_ITEM), chat("A dog.")]
    code, output, _ = command(
        "--lora", "--lora-rank", 2, "--packing", "--share-media", "--max-length", 2000, rows=rows
    )
    assert code == 0, output
    run = json.loads((tmp_path / "run" / "checkpoint-2" / "omnivinci_run.json").read_text())
    assert run["share_media"] is True and run["packed_length"] == 2000
    adapted = PeftModel.from_pretrained(make_fresh(), tmp_path / "run")
    before = make_fresh().state_dict()
    after = adapted.merge_and_unload().state_dict()
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"language_model", "vision_projector", "audio_projector"}


@pytest.mark.slow
def test_a_model_from_scratch_has_weights_of_its_own(command, make_fresh, tmp_path):
    assert command("--learning-rate", 0, recipe="scratch", output="a")[0] == 0
    assert command("--learning-rate", 0, recipe="scratch", output="b")[0] == 0
    one, two = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in "ab")
    given = make_fresh().state_dict()
    weight = "model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(one[weight], two[weight]) and not torch.equal(one[weight], given[weight])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "vision-6"), "There is no recipe 'vision-6'"),
        (("--lerning-rate", "1"), "unrecognized arguments: --lerning-rate 1"),
        (("--learning-rate", "fast"), "invalid float value: 'fast'"),
        (("--model", "/nowhere/model"), "There is no folder"),
        (("--data", "/nowhere.jsonl"), "The data file /nowhere.jsonl cannot be read"),
        (("--lora", "--recipe", "vision-1"), "which the recipe vision-1 does not train"),
        (("--max-length", "5"), "more than the limit of 5"),
        (("--resume-from-checkpoint", "/nowhere"), "no checkpoint that training can resume"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(arguments, message, command, tmp_path):
    code, _, error = command(*arguments)
    assert code == 1 and error.startswith("error: ") and message in error
    assert not list(tmp_path.glob("run/checkpoint-*"))


@pytest.mark.parametrize(
    ("arguments", "is_installed", "message"),
    [
        ((), True, "give `--lora`"),
        (("--lora", "--recipe", "scratch"), True, "a recipe that does not start from random weights"),
        (("--lora",), False, "`--quantization` needs bitsandbytes: pip install bitsandbytes."),
    ],
)
def test_weights_in_few_bits_are_refused_before_data_is_measured(
    arguments, is_installed, message, command, monkeypatch
):
    monkeypatch.setattr("transformers_omnivinci.training.command.is_bitsandbytes_available", lambda: is_installed)
    monkeypatch.setattr("transformers_omnivinci.training.command.ChatDataset", None)
    code, _, error = command("--quantization", "bnb-4bit", *arguments)
    assert code == 1 and error.startswith("error: ") and message in error
