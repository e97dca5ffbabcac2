"""Training: what is learnt, what is frozen, and that a run goes on as if it had not stopped."""

import json
import math
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModel

from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.training import RECIPES, OmniVinciCollator, OmniVinciTrainer, get_recipe
from transformers_omnivinci.training.muon import Muon, MuonWithAdamW
from transformers_omnivinci.training.recipes import PARTS

from .chats import CLIP_ITEM, chat, unlike_samples
from .media_samples import audio_item, image_item
from .training_runs import loss_and_gradients, losses, make_trainer

# ------------------------------------------------------------------------------------------------------------ batches


def answers(processor, batch):
    rows = [ids[labels != IGNORED] for ids, labels in zip(batch["input_ids"], batch["labels"])]
    return [processor.tokenizer.decode(row) for row in rows]


@pytest.mark.compat
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_the_labels_are_the_answers_with_the_end_of_their_turns(padding_side, dataset, processor):
    data = dataset(unlike_samples())
    batch = OmniVinciCollator(processor.tokenizer.pad_token_id, padding_side)([data[i] for i in range(len(data))])
    expected = ["A dog.", "An image.", "A square sinks.", "Silent.", "A tone.", "It is red.<|im_end|>Yes."]
    assert answers(processor, batch) == [answer + "<|im_end|>" for answer in expected]
    learnt = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])
    assert not (learnt & (batch["attention_mask"] == 0)).any()
    assert batch["video_timestamps"].dtype == batch["audio_timestamps"].dtype == torch.float32


@pytest.mark.compat
@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_packed_samples_are_learnt_as_padded_ones(attention, padding_side, dataset, processor, fresh):
    fresh.set_attn_implementation(attention)
    data = dataset(unlike_samples())
    samples = [data[index] for index in range(len(data))]
    num_items = sum(int((sample["labels"] != IGNORED).sum()) for sample in samples)
    padded = OmniVinciCollator(processor.tokenizer.pad_token_id, padding_side)(samples)
    packed = OmniVinciCollator(processor.tokenizer.pad_token_id, packing=True)([samples[:4], samples[4:]])
    assert packed["input_ids"].shape == (1, sum(measure.length for measure in data.measures))
    loss, gradients = loss_and_gradients(fresh, padded, num_items)
    packed_loss, packed_gradients = loss_and_gradients(fresh, packed, num_items)
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


# ------------------------------------------------------------------------------------------------------------ recipes


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_its_parts_and_rests_the_others(name, fresh, processor, dataset, tmp_path):
    recipe = get_recipe(name)
    rows = [chat("Yes.", image_item()), chat("Yes.", CLIP_ITEM), chat("Yes.", audio_item())]
    trainer = make_trainer(fresh, processor, dataset(rows), tmp_path, name, max_steps=1, per_device_train_batch_size=1)
    trainer.create_optimizer()
    batch = OmniVinciCollator(0)([dataset(rows)[index] for index in range(3)])
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(fresh, batch)
    trainer.optimizer.step()
    modules = dict(fresh.named_modules())
    for part, names in PARTS.items():
        for module in (modules[name] for name in names if name in modules):
            trained = part in recipe.trained
            assert all((p.grad is not None) == trained for p in module.parameters()), part
            assert all((p in trainer.optimizer.state) == trained for p in module.parameters()), part
            if any(True for _ in module.parameters()):
                assert {child.training for child in module.modules()} == {trained}, part
    trained = {p for p in fresh.parameters() if p.grad is not None}
    assert trained and any(p.grad.abs().max() > 0 for p in trained)


def test_a_frozen_language_model_is_recomputed_all_the_same(fresh, processor, dataset, tmp_path):
    options = {"max_steps": 1, "activation_checkpointing": True}
    trainer = make_trainer(fresh, processor, dataset(unlike_samples()), tmp_path, "vision-1", **options)
    trainer.train()
    layer = fresh.model.language_model.layers[0]
    assert layer.training and not layer.self_attn.training and not fresh.model.vision_tower.training


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match="no recipe 'vision-6': vision-1, .*, scratch, full are accepted"):
        get_recipe("vision-6")


def test_a_recipe_without_a_part_trains_the_others():
    recipe = get_recipe("audio-2")
    assert recipe.without(["audio_encoder", "vision_encoder"]).trained == ("audio_projector", "language_model")
    assert recipe.without([]) == recipe
    with pytest.raises(ValueError, match="no part 'encoder' to freeze: vision_encoder, .* are accepted"):
        recipe.without(["encoder"])
    with pytest.raises(ValueError, match="Nothing is left to train: the recipe vision-1 trains vision_projector"):
        get_recipe("vision-1").without(["vision_projector"])


# --------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.slow
@pytest.mark.parametrize(("muon", "learning_rate"), [(False, 3e-3), (True, 1e-2)])
def test_the_loss_falls_on_a_few_samples(muon, learning_rate, fresh, processor, dataset, tmp_path):
    options = {"muon": muon, "learning_rate": learning_rate, "max_steps": 30}
    data = dataset([chat("A square.", CLIP_ITEM), chat("A dog.")])
    trainer = make_trainer(fresh, processor, data, tmp_path, **options)
    trainer.train()
    assert losses(trainer)[0] > 4 and losses(trainer)[-1] < 0.5


def test_muon_turns_the_matrices_of_layers_and_adamw_does_the_rest(fresh):
    fresh.requires_grad_(False)
    fresh.model.vision_projector.requires_grad_(True)
    fresh.get_input_embeddings().requires_grad_(True)
    optimizer = MuonWithAdamW(fresh, lr=1e-2, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)
    before = {name: weight.clone() for name, weight in fresh.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for parameter in fresh.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    steps = {name: weight - before[name] for name, weight in fresh.state_dict().items()}
    turned = torch.linalg.svdvals(steps["model.vision_projector.linear_1.weight"])
    assert turned.max() < 2.5 * turned.min()  # all directions alike, as no gradient is
    for name in ("model.vision_projector.linear_1.bias", "model.language_model.embed_tokens.weight"):
        torch.testing.assert_close(steps[name].abs(), torch.full_like(steps[name], 1e-2))  # the first step of Adam
    learned = ("vision_projector", "embed_tokens")
    assert all(step.any() == any(part in name for part in learned) for name, step in steps.items())


@pytest.mark.compat
@pytest.mark.parametrize("bf16", [False, True])
def test_muon_steps_as_torch_does(bf16):
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 64), (64, 24), (24, 64), (32, 32)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = (
        Muon(ours, lr=1e-2, weight_decay=0.1, bf16=bf16),
        torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(ours, theirs, start):
        assert (one - other).norm() < 0.02 * (other - before).norm() > 0  # theirs multiplies in bfloat16
        for optimizer, matrix in zip(optimizers, (one, other)):
            assert set(optimizer.state[matrix]) == {"momentum_buffer"}


def test_an_order_that_samples_would_not_be_in_is_refused(fresh, processor, dataset, tmp_path):
    data = dataset(unlike_samples())
    make_trainer(fresh, processor, data, tmp_path, train_sampling_strategy="group_by_length")
    with pytest.raises(ValueError, match="sequential.* means nothing"):
        make_trainer(fresh, processor, data, tmp_path, train_sampling_strategy="sequential")


def test_muon_without_matrices_is_refused(fresh):
    fresh.requires_grad_(False)
    fresh.model.vision_projector.norm.requires_grad_(True)
    with pytest.raises(ValueError, match="of which none is trained"):
        MuonWithAdamW(fresh, lr=1e-2, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packed_length", "share_media", "muon"),
    [pytest.param(None, True, False, marks=pytest.mark.compat), (1000, False, True)],
)
def test_a_resumed_run_is_the_run_that_never_stopped(
    packed_length, share_media, muon, make_fresh, processor, dataset, tmp_path
):
    rows = [*unlike_samples(), chat("One more.", question="And?")]
    rows += [chat(answer, audio_item(), question=answer) for answer in ("One.", "Two.") if share_media]
    data = dataset(rows, share_media=share_media)

    def make(folder):
        model = make_fresh()
        model.config.text_config.attention_dropout = 0.1
        for layer in model.model.language_model.layers:
            layer.self_attn.attention_dropout = 0.1  # so that random numbers matter
        options = {"save_strategy": "steps", "save_steps": 3, "warmup_steps": 0.1, "lr_scheduler_type": "cosine"}
        options |= {
            "packed_length": packed_length,
            "muon": muon,
            "gradient_accumulation_steps": 1 if packed_length else 2,
        }
        return make_trainer(model, processor, data, folder, max_steps=6, **options)

    straight, resumed = make(tmp_path / "straight"), make(tmp_path / "resumed")
    straight.train()
    torch.rand(7)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3"))
    assert losses(resumed) == losses(straight) and len(losses(straight)) == 6
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


class Poisoned(OmniVinciTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        return loss * math.nan if "bad" in self._sample_ids else loss


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(fresh, processor, dataset, tmp_path):
    data = dataset([chat(id=name) for name in ("good", "fine", "bad")])
    trainer = make_trainer(
        fresh, processor, data, tmp_path, trainer=Poisoned, max_steps=9, per_device_train_batch_size=1
    )
    with pytest.raises(ValueError, match=r"The loss is nan in step [123], in the batch of bad:"):
        trainer.train()
    assert all(p.isfinite().all() for p in fresh.parameters())


@pytest.mark.compat
def test_logits_are_computed_for_answers_alone_and_the_loss_is_the_same(fresh, processor, dataset, tmp_path):
    data = dataset(unlike_samples())
    trainer = make_trainer(fresh, processor, data, tmp_path)
    batch = OmniVinciCollator(0)([data[index] for index in range(len(data))])
    del batch["sample_ids"], batch["skipped"]
    fresh.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(fresh, batch, return_outputs=True)
        everything = fresh(**batch)
    assert loss == pytest.approx(everything.loss.item(), abs=1e-6)
    positions = (batch["labels"] != IGNORED).any(0).sum()
    assert outputs.logits.shape == (6, positions, everything.logits.shape[2]) and positions < 100


class TwoLosses(nn.Module):
    """As a model with OmniAlignNet: the loss has two parts."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, labels, **inputs):
        output = self.model(labels=labels, **inputs)
        output["language_loss"], output["align_loss"] = output["loss"], torch.tensor(3.0)
        output["loss"] = output["loss"] + 1.5
        return output


def test_both_parts_of_the_loss_are_logged(fresh, processor, dataset, tmp_path):
    trainer = make_trainer(
        TwoLosses(fresh), processor, dataset(unlike_samples()), tmp_path, None, max_steps=4, logging_steps=2
    )
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2
    for entry in logged:
        assert entry["align_loss"] == pytest.approx(3) and entry["language_loss"] > 4
        assert entry["language_loss"] + 1.5 == pytest.approx(entry["loss"], abs=1e-4)


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_loaded(fresh, processor, dataset, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    options |= {"load_best_model_at_end": True, "save_total_limit": 1, "max_steps": 3, "learning_rate": 0.3}
    data = dataset([chat("A dog.")])
    trainer = make_trainer(fresh, processor, data, tmp_path, eval_dataset=dataset([chat("Cats.")]), **options)
    trainer.train()
    curve = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    best = min(curve, key=curve.get)
    assert best < 3  # such a learning rate makes it worse
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{best}"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(curve[best])
    state = json.loads((tmp_path / f"checkpoint-{best}" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / f"checkpoint-{best}")
    assert AutoModel.from_pretrained(tmp_path / f"checkpoint-{best}").num_parameters() == fresh.num_parameters()


def test_a_full_disk_leaves_the_checkpoints_before_it(fresh, processor, dataset, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    fill = SimpleNamespace(limit=None)

    class Filling(OmniVinciTrainer):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, fill.limit[1]))
            return super().training_step(*args, **kwargs)

    trainer = make_trainer(fresh, processor, dataset([chat()]), tmp_path, trainer=Filling, **options)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fill.limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="Nothing was saved in .* in step 2"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, fill.limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert AutoModel.from_pretrained(tmp_path / "checkpoint-1").num_parameters() == fresh.num_parameters()


def test_what_a_killed_save_left_is_no_checkpoint_and_goes_away(fresh, processor, dataset, tmp_path):
    left = tmp_path / ".saving" / "checkpoint-1"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{")
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    trainer = make_trainer(fresh, processor, dataset([chat()]), tmp_path, **options)
    with pytest.raises(ValueError, match="no checkpoint in .* that could be resumed"):
        trainer.train(resume_from_checkpoint=True)
    trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "omni"}, "differs in recipe, trained parameters"),
        ({"per_device_train_batch_size": 1}, "differs in per_device_train_batch_size"),
        ({"rows": [chat("Another.")]}, "differs in data"),
        ({"share_media": True}, "differs in data, share_media"),
        ({"muon": True}, "differs in optimizer"),
        ({"model": "published-tiny-maxpool"}, "differs in shape of the model"),
        ({"checkpoint": "nowhere"}, "no checkpoint that training can resume"),
    ],
)
def test_a_checkpoint_of_another_run_is_not_resumed(change, message, make_fresh, processor, dataset, tmp_path):
    def make(folder, model="published-tiny", rows=None, share_media=False, **options):
        options |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
        model = make_fresh(model)
        if change.get("model") and folder.name == "again":
            model.model.language_model.layers = model.model.language_model.layers[:1]
        data = dataset(rows or [chat()], share_media=share_media)
        return make_trainer(model, processor, data, folder, **options)

    make(tmp_path / "before").train()
    change = dict(change)
    checkpoint = tmp_path / "before" / change.pop("checkpoint", "checkpoint-1")
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "again", **change).train(resume_from_checkpoint=str(checkpoint))
