"""`omnivinci grpo` with TRL: what it learns, and that its numbers are those of the plain model."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.cli import app
from transformers_omnivinci.reinforcement.grpo_command import BATCH, grpo, grpo_arguments
from transformers_omnivinci.reinforcement.held_prompts import HeldPrompt
from transformers_omnivinci.reinforcement.problems import read_problems

SMALL = {
    "use-cpu": True,
    "per-device-train-batch-size": 16,
    "gradient-accumulation-steps": 1,
    "num-generations": 4,
    "max-completion-length": 8,
    "learning-rate": 1e-4,
    "lr-scheduler-type": "constant",
    "save-strategy": "no",
    "max-steps": 1,
    "gradient-checkpointing": False,
    "beta": 0,
}


def options(**changed):
    merged = SMALL | {name.replace("_", "-"): value for name, value in changed.items()}
    return [str(word) for name, value in merged.items() for word in (f"--{name}", value)]


def train(data, output, rewards=("accuracy",), trained=("language_model",), lora_rank=None, reference=None, **changed):
    return grpo(
        [data],
        str(NANO),
        grpo_arguments(output, options(**changed)),
        rewards=rewards,
        instruction="",
        trained=trained,
        lora_rank=lora_rank,
        reference=reference,
    )


def run(data, output, *words, **changed):
    words = ["grpo", "--model", str(NANO), "--data", str(data), "--output", str(output), *words, *options(**changed)]
    return CliRunner().invoke(app, words)


def weights_of(folder):
    return {
        name: tensor for path in sorted(Path(folder).glob("*.safetensors")) for name, tensor in load_file(path).items()
    }


def completions_of(folder):
    return pandas.concat(pandas.read_parquet(path) for path in sorted(Path(folder, "completions").glob("*.parquet")))


# --------------------------------------------------------------------------------------------------------- it learns


STEPS = 24


@pytest.fixture(scope="module")
def learned(hardest, tmp_path_factory):
    """A run that overfits on two questions, 16 completions each."""
    output = tmp_path_factory.mktemp("learned") / "run"
    words = ("--reward", "accuracy", "--instruction", "")
    changed = {"per_device_train_batch_size": 32, "num_generations": 16, "max_steps": STEPS, "learning_rate": 2e-4}
    result = run(hardest, output, *words, **changed)
    assert result.exit_code == 0, result.output
    return output, result.output


def test_the_reward_rises_from_below_04_to_above_09(learned):
    output, told = learned
    events = EventAccumulator(str(next(output.glob("runs/*")))).Reload()
    curve = [event.value for event in events.Scalars("train/rewards/accuracy/mean")]
    assert len(curve) == STEPS
    assert sum(curve[:2]) / 2 < 0.4, curve
    assert sum(curve[-5:]) / 5 > 0.9, curve
    assert f"holds the model after {STEPS} steps" in told
    # As learned, some groups have nothing left to tell.
    equal, groups = map(int, re.search(r"In (\d+) of (\d+) groups all completions earned the same", told).groups())
    shares = [event.value for event in events.Scalars("train/frac_reward_zero_std")]
    assert (equal, groups) == (round(sum(shares) * 2), STEPS * 2)


def test_completions_are_in_a_table_with_their_rewards_and_advantages(learned):
    table = completions_of(learned[0])
    assert len(table) == STEPS * 32
    assert {"step", "prompt", "completion", "accuracy", "advantage", "answer", "truncated"} <= set(table.columns)
    for _, group in table.groupby(["step", "prompt"]):
        rewards = torch.tensor(group["accuracy"].tolist())
        # Equation 7, with TRL's 1e-4 beside the deviation; where all are the same, 0 and not 0 / 0.
        expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        torch.testing.assert_close(torch.tensor(group["advantage"].tolist()), expected, atol=1e-4, rtol=0)
    for answer, completion, reward in table[["answer", "completion", "accuracy"]].itertuples(index=False):
        assert reward == (answer == completion.strip(" ."))


def test_the_result_answers_right(learned, hardest):
    model = OmniVinciForConditionalGeneration.from_pretrained(learned[0], dtype=torch.float32).eval()
    processor = OmniVinciProcessor.from_pretrained(learned[0])
    right = 0
    for problem in read_problems(hardest, ""):
        prompt = HeldPrompt.of(processor, problem.messages, num_frames=64)
        out = model.generate(prompt.input_ids[None], **prompt.media, max_new_tokens=8, do_sample=False)
        right += problem.accuracy(processor.decode(out[0, len(prompt.input_ids) :], skip_special_tokens=True))
    assert right == 2


# ------------------------------------------------------------------------------------------------------- its numbers


@pytest.fixture
def unlike(hard, tmp_path):
    """A video with sound, the same without questions in common, a sound alone, and text."""
    rows = [json.loads(line) for line in hard.read_text().splitlines()]
    clips = [str(hard.parent / row["messages"][0]["content"][0]["path"]) for row in rows]
    contents = [
        rows[0]["messages"][0]["content"],
        [{"type": "audio", "path": clips[1]}, {"type": "text", "text": "Which sound is heard first?"}],
        [{"type": "text", "text": "Which shape is red?"}],
        [{"type": "video", "path": clips[2]}, {"type": "audio", "path": clips[3]}, {"type": "text", "text": "What?"}],
    ]
    contents[0] = [{"type": "video", "path": clips[0]}, contents[0][1]]
    path = tmp_path / "unlike.jsonl"
    chats = [{"messages": [{"role": "user", "content": content}], "answer": "red"} for content in contents]
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return path


def batch_of(trainer, out):
    """What TRL makes of a rollout: prompts padded on the left, completions on the right."""
    ids = [torch.tensor(one) for one in out["completion_ids"]]
    ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    lengths = torch.tensor([len(one) for one in out["completion_ids"]])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    handles = torch.tensor(out["prompt_ids"])
    return handles, torch.ones_like(handles), ids, mask


def plain(model, trainer, problem, completion):
    """Log-probabilities of a completion, of its sample alone and by the plain forward pass."""
    prompt = HeldPrompt.of(trainer.processing_class, problem.messages, **trainer.media_options)
    ids = torch.cat([prompt.input_ids, torch.tensor(completion)])[None]
    logits = model(ids, **prompt.media).logits[0, len(prompt.input_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def test_log_probabilities_are_those_of_the_plain_forward(unlike, tmp_path):
    trainer = train(unlike, tmp_path / "run")
    prompts = [prompt for prompt in trainer.problems for _ in range(2)]
    trainer.model.train()
    out = trainer.roll_out(prompts)
    handles, handle_mask, ids, mask = batch_of(trainer, out)
    input_ids, attention = torch.cat([handles, ids], 1), torch.cat([handle_mask, mask], 1)
    labels = input_ids.masked_fill(attention == 0, -100)
    labels[:, :1] = -100
    with torch.no_grad():
        found = trainer.model(input_ids=input_ids, attention_mask=attention, labels=labels, fused_lm_head=True)
        for row, (prompt, completion) in enumerate(zip(prompts, out["completion_ids"], strict=True)):
            expected = plain(trainer.model, trainer, trainer.problems[prompt], completion)
            torch.testing.assert_close(found.log_probs[row, : len(completion)], expected, atol=1e-5, rtol=0)


def test_the_gradient_of_two_samples_is_that_of_equation_6(unlike, tmp_path):
    """With rewards 1 and 0 advantages are +-1/sqrt(2); on the policy itself the ratio is 1, and the KL has none."""
    trainer = train(unlike, tmp_path / "run", beta=0.04)
    model, problem = trainer.model, next(iter(trainer.problems.values()))
    model.train()
    out = trainer.roll_out([problem.prompt] * 2)
    out["completion_ids"] = [[20, 30, 2], [40, 2]]
    handles, handle_mask, ids, mask = batch_of(trainer, out)
    rewards = torch.tensor([1.0, 0.0])
    advantages = (rewards - rewards.mean()) / rewards.std()
    torch.testing.assert_close(advantages, torch.tensor([1, -1]) / math.sqrt(2))
    old = [plain(model, trainer, problem, one) for one in out["completion_ids"]]
    padded = torch.nn.utils.rnn.pad_sequence([one.detach() for one in old], batch_first=True)
    inputs = {"prompt_ids": handles, "prompt_mask": handle_mask, "completion_ids": ids, "completion_mask": mask}
    inputs |= {"advantages": advantages, "ref_per_token_logps": padded, "num_items_in_batch": mask.sum()}
    trainer.current_gradient_accumulation_steps = 1
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    (found,) = torch.autograd.grad(trainer.compute_loss(model, inputs), weight)
    means = torch.stack([one.mean() for one in old])
    (expected,) = torch.autograd.grad(-(advantages * means).mean(), weight)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)


def test_without_a_learning_rate_nothing_changes(hard, tmp_path):
    trainer = train(hard, tmp_path / "run", learning_rate=0, max_steps=2)
    before = OmniVinciForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).state_dict()
    after = weights_of(tmp_path / "run")
    assert trainer.state.global_step == 2
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_completion_that_is_cut_earns_nothing(hard, tmp_path):
    """`7.5 seconds` needs five tokens: after four, the number is there, and the end is not."""
    trainer = train(hard, tmp_path / "run", max_completion_length=4)
    table = completions_of(tmp_path / "run")
    assert table["truncated"].all()
    assert (table["accuracy"] == 0).all()
    assert (trainer.num_equal_groups, trainer.num_groups) == (4, 4)
    assert (table["advantage"] == 0).all()


# ------------------------------------------------------------------------------------------------------------- media


@pytest.fixture
def encoded(monkeypatch):
    """The frames that each call of `encode_media` is given."""
    from transformers_omnivinci.modeling.modeling_omnivinci import OmniVinciModel

    calls, encode = [], OmniVinciModel.encode_media

    def counted(self, **media):
        calls.append((torch.is_grad_enabled(), len(media["pixel_values_videos"])))
        return encode(self, **media)

    monkeypatch.setattr(OmniVinciModel, "encode_media", counted)
    return calls


def test_media_are_encoded_once_for_rollouts_and_all_policies(hard, tmp_path, encoded):
    """Two updates on the same completions, with a reference: old, new, new and reference probabilities."""
    trainer = train(hard, tmp_path / "run", num_iterations=2, max_steps=2, beta=0.04)
    assert trainer.encodes_once
    assert len(encoded) == 1
    assert trainer.state.log_history[1]["kl"] > 0


def test_media_that_learn_are_encoded_with_gradients(hard, tmp_path, encoded):
    before = weights_of(NANO)
    trainer = train(
        hard, tmp_path / "run", trained=["audio_projector", "language_model"], learning_rate=1e-3, beta=0.04
    )
    assert not trainer.encodes_once
    # For the rollouts, the reference and the new policy: each clip once.
    assert [with_gradient for with_gradient, _ in encoded] == [False, False, True]
    assert len({frames for _, frames in encoded}) == 1
    after = weights_of(tmp_path / "run")
    changed = {name for name in after if not torch.equal(after[name], before[name].float())}
    assert any("audio_projector" in name for name in changed)
    assert not any("audio_tower" in name or "vision" in name for name in changed)


def test_an_encoder_that_is_still_runs_once_where_a_projector_learns(hard, tmp_path, monkeypatch):
    """Its outputs are held for the rollouts, the reference and two updates; learning is as if it ran each time."""
    from transformers_omnivinci.modeling.vision_tower import OmniVinciVisionTower
    from transformers_omnivinci.reinforcement.grpo_trainer import OmniVinciGRPOTrainer

    calls, forward = [], OmniVinciVisionTower.forward

    def counted(self, pixel_values, **kwargs):
        calls.append(torch.is_grad_enabled())
        return forward(self, pixel_values, **kwargs)

    monkeypatch.setattr(OmniVinciVisionTower, "forward", counted)
    changed = {"trained": ["vision_projector", "language_model"], "beta": 0.04, "num_iterations": 2, "max_steps": 2}
    train(hard, tmp_path / "held", **changed)
    assert calls == [False]
    monkeypatch.setattr(OmniVinciGRPOTrainer, "still_encoders", ())
    train(hard, tmp_path / "each", **changed)
    assert len(calls) > 3
    held, each = weights_of(tmp_path / "held"), weights_of(tmp_path / "each")
    before = weights_of(NANO)
    assert any("vision_projector" in name and not torch.equal(held[name], before[name].float()) for name in held)
    for name, weight in each.items():
        torch.testing.assert_close(held[name], weight, atol=1e-6, rtol=1e-5, msg=name)


# -------------------------------------------------------------------------------------------------- ways to train it


def test_adapters_learn_with_gradient_checkpointing_and_resume_exactly(hard, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2, "gradient_checkpointing": True, "beta": 0.04}
    whole = train(hard, tmp_path / "whole", lora_rank=4, max_steps=4, **saved)
    train(hard, tmp_path / "parts", lora_rank=4, max_steps=2, **saved)
    parts = train(hard, tmp_path / "parts", lora_rank=4, max_steps=4, resume_from_checkpoint=True, **saved)
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert any("lora_B" in name and tensor.any() for name, tensor in first.items())
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert [whole.state.log_history[3][key] == parts.state.log_history[3][key] for key in ("reward", "kl", "loss")]


def in_two_processes(data, output, *words, **changed):
    """Two processes of torchrun, with 8 of 16 completions each unless told otherwise."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29617"]
    command += ["-m", "transformers_omnivinci.cli", "grpo", "--model", str(NANO), "--data", str(data), "--traceback"]
    command += ["--output", str(output), "--reward", "accuracy", "--instruction", "", "--ddp-backend", "gloo", *words]
    command += options(**{"per_device_train_batch_size": 8, "max_steps": 2, **changed})
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def numbers_of(folder, *names):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if "reward" in entry for name in names]


def test_two_processes_train_one_policy(hard, tmp_path):
    """Groups are cut by processes: 2 x 6 completions, 4 for each of 3 prompts."""
    told = in_two_processes(hard, tmp_path / "run", per_device_train_batch_size=6)
    assert told.count("holds the model after 2 steps") == 1
    table = completions_of(tmp_path / "run")
    assert table.groupby(["step", "prompt"]).size().tolist() == [4] * 6


def assert_learned_alike(one, other, atol):
    names = ("loss", "reward", "kl")
    assert numbers_of(other, *names) == pytest.approx(numbers_of(one, *names), rel=1e-3, abs=1e-6)
    weights, others = weights_of(one), weights_of(other)
    assert weights.keys() <= others.keys()  # where weights are sharded, tied ones are written twice
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, atol=atol, rtol=1e-3, msg=name)


def test_sharded_weights_learn_as_whole_ones_and_resume_exactly(hard, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "beta": 0.04}
    in_two_processes(hard, tmp_path / "whole", **saved)
    in_two_processes(hard, tmp_path / "sharded", "--fsdp", **saved)
    assert_learned_alike(tmp_path / "whole", tmp_path / "sharded", atol=2e-4)
    # Replicas have no such file.
    assert (tmp_path / "sharded" / "checkpoint-2" / "pytorch_model_fsdp.bin").is_file()
    shutil.copytree(tmp_path / "sharded" / "checkpoint-2", tmp_path / "parts" / "checkpoint-2")
    in_two_processes(hard, tmp_path / "parts", "--fsdp", "--resume-from-checkpoint", "True", **saved)
    first, second = weights_of(tmp_path / "sharded"), weights_of(tmp_path / "parts")
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_sharded_adapters_learn_with_gradient_checkpointing(hard, tmp_path):
    changed = {"gradient_checkpointing": True, "beta": 0.04}
    words = ["--lora", "--lora-rank", "4"]
    in_two_processes(hard, tmp_path / "whole", *words, **changed)
    in_two_processes(hard, tmp_path / "sharded", *words, "--fsdp", **changed)
    assert any("lora_B" in name and tensor.any() for name, tensor in weights_of(tmp_path / "sharded").items())
    assert_learned_alike(tmp_path / "whole", tmp_path / "sharded", atol=1e-5)


def test_sharded_projectors_learn_as_whole_ones(hard, tmp_path):
    """Media are encoded with gradients, inside of the sharded forward pass."""
    words = ["--train", "vision_projector", "--train", "audio_projector", "--train", "language_model"]
    in_two_processes(hard, tmp_path / "whole", *words, beta=0.04)
    in_two_processes(hard, tmp_path / "sharded", *words, "--fsdp", beta=0.04)
    assert_learned_alike(tmp_path / "whole", tmp_path / "sharded", atol=2e-4)


def test_defaults_are_those_of_the_paper(tmp_path):
    arguments = grpo_arguments(tmp_path, ["--use-cpu", "True"])
    assert arguments.generation_batch_size == BATCH * 8 == 512
    found = {name: getattr(arguments, name) for name in ("num_generations", "max_completion_length", "top_p")}
    assert found == {"num_generations": 8, "max_completion_length": 2048, "top_p": 0.99}
    assert (arguments.temperature, arguments.loss_type, arguments.scale_rewards) == (1.0, "grpo", "group")


# --------------------------------------------------------------------------------------------------------- bad input


def failing(completions, **_):
    raise RuntimeError("no luck")


def nan(completions, **_):
    return [float("nan")] * len(completions)


@pytest.mark.parametrize(
    ("words", "changed", "message"),
    [
        (["--reward", f"{__name__}:failing"], {}, "The reward 'failing' raised RuntimeError: no luck"),
        (["--reward", f"{__name__}:nan"], {}, "The reward 'nan' gave nan for an answer to"),
        (["--reward", "acuracy"], {}, "There is no reward 'acuracy'"),
        (["--train", "eyes"], {}, "There is no part 'eyes'"),
        (["--max-prompt-length", "3"], {}, "more than `--max-prompt-length` of 3"),
        ([], {"max_completion_length": 100_000}, "room for -"),
        ([], {"per_device_train_batch_size": 64}, "There are 4 problems, but a round of completions takes 16"),
        ([], {"use_vllm": True}, "`use_vllm` does not know of videos and sounds"),
        ([], {"no_such_option": 1}, "no-such-option"),
    ],
)
def test_bad_input_is_told_in_a_sentence(hard, tmp_path, words, changed, message):
    result = run(hard, tmp_path / "run", *words, **changed)
    assert (result.exit_code, message in result.output) == (1, True), result.output


def test_missing_media_and_too_many_frames_are_told(hard, tmp_path):
    row = {"messages": [{"role": "user", "content": [{"type": "video", "path": "gone.mp4"}]}], "answer": "red"}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    result = run(tmp_path / "data.jsonl", tmp_path / "run")
    assert result.exit_code == 1
    assert "data.jsonl:1" in result.output and "gone.mp4" in result.output
    result = run(hard, tmp_path / "run", "--num-frames", "5000")
    assert result.exit_code == 1
    assert "take fewer frames (`--num-frames`)" in result.output


def test_a_reference_of_another_architecture_is_refused(hard, tmp_path):
    other = Path(__file__).parents[2] / "tests" / "fixtures" / "parity" / "published-tiny"
    result = run(hard, tmp_path / "run", "--reference", str(other))
    assert result.exit_code == 1
    assert "another architecture than the policy" in result.output
