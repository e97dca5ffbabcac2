"""Training: what is read, what is learnt, what is frozen, and that a run goes on as if it had not stopped."""

import json
import math
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel, TrainingArguments
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.training import (
    RECIPES,
    BadSample,
    ChatDataset,
    DataSource,
    OmniVinciCollator,
    OmniVinciTrainer,
    SampleEncoder,
    get_recipe,
)
from transformers_omnivinci.training.encoding import Measure
from transformers_omnivinci.training.muon import Muon, MuonWithAdamW
from transformers_omnivinci.training.recipes import PARTS
from transformers_omnivinci.training.sampling import MixtureSampler, pack, strata_of

from .chats import CLIP_ITEM, chat, damaged_image, unlike_samples, write
from .conftest import CLIP, PARITY
from .media_samples import audio_item, image_item, video_item
from .processes import run_python

TINY = str(PARITY / "published-tiny")


def make_trainer(model, processor, data, folder, recipe="scratch", trainer=OmniVinciTrainer, **options):
    extra = {
        name: options.pop(name) for name in ("eval_dataset", "packed_length", "muon", "callbacks") if name in options
    }
    arguments = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
    } | options
    recipe = get_recipe(recipe) if recipe else None
    arguments = TrainingArguments(**arguments)
    return trainer(model, arguments, data, processing_class=processor, recipe=recipe, **extra)


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


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


def loss_and_gradients(model, batch, num_items):
    model.zero_grad()
    batch = {name: value for name, value in batch.items() if name not in ("sample_ids", "skipped")}
    loss = model(**batch, num_items_in_batch=num_items, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


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


# ------------------------------------------------------------------------------------------------------ shared media


IMAGE_ITEM, SILENT_ITEM, TONE_ITEM = image_item(), video_item(num_frames=3), audio_item()
TWO_TURNS = chat("Red.", CLIP_ITEM, question="What is its colour?")
TWO_TURNS["messages"] += chat("Yes.", question="Sure?")["messages"]
WITH_SYSTEM = chat("No.", CLIP_ITEM)
WITH_SYSTEM["messages"].insert(0, {"role": "system", "content": "Be short."})
MEDIUM_LATER = chat("A dog.", question="Who?")
MEDIUM_LATER["messages"] += chat("A cat.", IMAGE_ITEM)["messages"]

GROUPS = {
    "a video with sound": [
        [chat("A square.", CLIP_ITEM, question="What is it?"), TWO_TURNS, chat("It sinks.", CLIP_ITEM)]
    ],
    "an image": [[chat("Yes.", IMAGE_ITEM, question="Is it red?"), chat("A lot of noise.", IMAGE_ITEM)]],
    "a sound": [[chat("Yes.", TONE_ITEM), chat("No.", TONE_ITEM, question="Why?")]],
    "several media": [
        [chat("Yes.", CLIP_ITEM, IMAGE_ITEM), chat("No.", CLIP_ITEM, IMAGE_ITEM, question="Who is it?")]
    ],
    "one question with several answers": [[chat("Yes.", IMAGE_ITEM), chat("Yes, yes.", IMAGE_ITEM)]],
    "the same row twice": [[chat("Yes.", IMAGE_ITEM), chat("Yes.", IMAGE_ITEM)]],
    "several clips and a text": [
        [chat("A square.", CLIP_ITEM), chat("Red.", CLIP_ITEM, question="Which colour?")],
        [chat("A dog.")],
        [chat("Silent.", IMAGE_ITEM), chat("Loud.", IMAGE_ITEM, question="Is it silent?")],
        [chat("Noise.", SILENT_ITEM), chat("No.", SILENT_ITEM, question="Is it loud?")],
    ],
    "nothing in common": [
        [chat("A dog.", question="Who?")],
        [chat("A dog.", question="What?")],
        [chat("An image.", IMAGE_ITEM)],
        [chat("Another.", image_item(seed=1))],
        [chat("No.", CLIP_ITEM)],
        [WITH_SYSTEM],
        [chat("No.", {"type": "text", "text": "Look: "}, CLIP_ITEM)],
        [chat("No.", CLIP_ITEM, IMAGE_ITEM)],
        [MEDIUM_LATER],
        [MEDIUM_LATER],
    ],
}


@pytest.fixture
def groups(request):
    return GROUPS[request.param]


@pytest.fixture
def shared(dataset):
    return lambda groups, **options: dataset([row for group in groups for row in group], share_media=True, **options)


@pytest.mark.parametrize("groups", GROUPS, indirect=True)
def test_rows_about_the_same_media_follow_one_prefix(groups, shared, dataset):
    data = shared(groups)
    assert [[sample.id for sample in data.samples(index)] for index in range(len(data))] == [
        [f"row:{sum(map(len, groups[:index])) + row}" for row in range(len(group))]
        for index, group in enumerate(groups)
    ]
    for index, group in enumerate(groups):
        item, alone = data[index], [dataset([row])[0] for row in group]
        assert data.measures[index] == Measure(len(item["input_ids"]), dataset(group[:1]).measures[0].modalities)
        segments = item.get("segment_ids", torch.ones(len(item["input_ids"])))
        for number, row in enumerate(alone, start=1):
            chosen = (segments == 0) | (segments == number)
            assert torch.equal(item["input_ids"][chosen], row["input_ids"])
            assert torch.equal(item["labels"][chosen], row["labels"])
            if len(group) > 1:
                assert torch.equal(item["position_ids"][chosen], torch.arange(len(row["input_ids"])))
                assert len(item["input_ids"]) < sum(len(row["input_ids"]) for row in alone)


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize(
    ("attention", "collate", "groups"),
    [
        *(("sdpa", {}, name) for name in GROUPS),
        ("eager", {"padding_side": "left"}, "several clips and a text"),
        ("eager", {"packing": True}, "several clips and a text"),
        ("sdpa", {"packing": True}, "several clips and a text"),
    ],
    indirect=["groups"],
)
def test_rows_that_share_their_media_are_learnt_as_apart(
    attention, collate, groups, shared, dataset, processor, fresh
):
    fresh.set_attn_implementation(attention)
    apart, together = dataset([row for group in groups for row in group]), shared(groups)
    apart, together = ([data[index] for index in range(len(data))] for data in (apart, together))
    num_items = sum(int((sample["labels"] != IGNORED).sum()) for sample in apart)
    pad_token_id = processor.tokenizer.pad_token_id
    loss, gradients = loss_and_gradients(fresh, OmniVinciCollator(pad_token_id)(apart), num_items)
    batch = OmniVinciCollator(pad_token_id, **collate)(together)
    assert batch["sample_ids"] == [f"row:{index}" for index in range(len(apart))]
    assert (batch["labels"][:, 1:] != IGNORED).sum() == num_items
    shared_loss, shared_gradients = loss_and_gradients(fresh, batch, num_items)
    assert shared_loss == pytest.approx(loss, abs=1e-5)
    assert shared_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_shared_media_are_decoded_once(shared, processor, monkeypatch):
    rows = [chat(f"{number}.", CLIP_ITEM, question=f"How many? {number}") for number in range(5)]
    data = shared([rows])
    decoded, load = [], processor.video_processor.load_videos
    monkeypatch.setattr(
        type(processor.video_processor),
        "load_videos",
        lambda self, videos, **kwargs: decoded.extend(videos) or load(videos, **kwargs),
    )
    batch = OmniVinciCollator(0)([data[0]])
    assert decoded == [CLIP] and len(batch["video_timestamps"]) == 1 and len(batch["sample_ids"]) == 5


def test_what_is_asked_of_many_clips_is_tokenized_once(shared, processor, monkeypatch):
    read, template = [], processor.tokenizer.apply_chat_template
    monkeypatch.setattr(
        processor.tokenizer,
        "apply_chat_template",
        lambda messages, **options: read.append(messages) or template(messages, **options),
    )
    groups = [
        [chat(answer, item) for answer in ("Yes.", "No.")] for item in (IMAGE_ITEM, audio_item(), image_item(seed=1))
    ]
    data = shared(groups)
    assert len(read) == 4  # an image and a sound, with two answers each
    items = [data[index] for index in range(3)]
    assert len(read) == 4 and not torch.equal(items[0]["pixel_values"], items[2]["pixel_values"])


def test_a_group_is_as_long_as_a_sample_may_be(processor):
    rows = [chat("Yes. " * 4, IMAGE_ITEM, question=question) for question in ("Who is it?", "Where is it?", "Why?")]
    whole = ChatDataset([DataSource(rows)], SampleEncoder(processor), share_media=True)
    (measure,) = whole.measures
    fits = ChatDataset([DataSource(rows)], SampleEncoder(processor, measure.length), share_media=True)
    assert fits.measures == [measure] and fits.fingerprint == whole.fingerprint
    cut = ChatDataset([DataSource(rows)], SampleEncoder(processor, measure.length - 1), share_media=True)
    assert [len(cut.samples(index)) for index in range(len(cut))] == [2, 1]
    assert [measure.length for measure in cut.measures] == [len(cut[index]["input_ids"]) for index in range(2)]
    assert cut.fingerprint != whole.fingerprint


@pytest.mark.parametrize("other", [chat("A dog."), chat("A dog.", SILENT_ITEM), MEDIUM_LATER])
def test_samples_with_other_media_are_not_encoded_together(other, encoder, dataset):
    one, other = dataset([chat("Yes.", IMAGE_ITEM), other]), dataset([{**other, "id": "other"}])
    with pytest.raises(BadSample, match="Sample other: it does not begin with the media of sample row:0"):
        encoder.encode(*one.samples(0), *other.samples(0))


def test_groups_end_with_their_source(encoder):
    sources = [DataSource([chat("Yes.", IMAGE_ITEM)] * 2, name=name) for name in "ab"]
    assert ChatDataset(sources, encoder, share_media=True).source_of == [0, 1]


def test_a_bad_row_is_left_out_of_its_group(tmp_path, shared):
    rows = [chat("Yes.", CLIP_ITEM), {"id": "bad", **chat(" ", CLIP_ITEM)}, chat("No.", CLIP_ITEM, question="Who?")]
    with pytest.raises(BadSample, match="bad: its last message is no answer"):
        shared([rows])
    data = shared([rows], skip_bad=True)
    assert len(data) == 1 and data[0]["sample_ids"] == ["row:0", "row:2"]
    assert [bad.sample_id for bad in data.skipped] == ["bad"]


def test_all_rows_about_a_damaged_file_are_named(tmp_path, shared):
    rows = [chat("Yes.", damaged_image(tmp_path), id=name) for name in "ab"]
    with pytest.raises(BadSample, match="Sample a: "):
        shared([rows])[0]
    good = chat("No.", image_item(height=600, width=800), id="c")
    batch = OmniVinciCollator(0)([shared([rows, [good]], skip_bad=True)[0]])
    assert batch["sample_ids"] == ["c"] and [bad.sample_id for bad in batch["skipped"]] == ["a", "b"]


def test_attention_without_masks_is_refused_for_shared_media(fresh, processor, shared, tmp_path):
    data = shared([[chat("Yes.", IMAGE_ITEM), chat("No.", IMAGE_ITEM)]])
    batch = OmniVinciCollator(0)([data[0]])
    fresh.config.text_config._attn_implementation = "flash_attention_2"
    refusal = "'flash_attention_2' takes no mask .* use `attn_implementation='sdpa'` or 'eager'"
    with pytest.raises(ValueError, match=refusal):
        make_trainer(fresh, processor, data, tmp_path)
    with pytest.raises(ValueError, match=refusal):
        loss_and_gradients(fresh, batch, 1)


@pytest.mark.slow
def test_runs_with_shared_media_learn_and_are_judged_as_those_without(
    make_fresh, processor, shared, dataset, tmp_path
):
    rows = [chat("A square.", CLIP_ITEM), chat("Red.", CLIP_ITEM, question="Which colour?")]
    curves = []
    for data, batch_size in ((shared([rows]), 1), (dataset(rows), 2)):
        options = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": batch_size}
        trainer = make_trainer(
            *(make_fresh(), processor, data, tmp_path),
            **(options | {"eval_dataset": data, "per_device_train_batch_size": batch_size}),
        )
        trainer.train()
        curves.append([entry.get("loss", entry.get("eval_loss")) for entry in trainer.state.log_history[:-1]])
    assert len(curves[0]) == 4 and curves[0] == pytest.approx(curves[1], abs=1e-4)


@given(st.lists(st.integers(1, 20), max_size=40))
def test_rows_hold_every_sample_once_and_no_more_than_they_can(lengths):
    rows = pack(range(len(lengths)), lengths, 20)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 20 for row in rows)
    # First fit: at most one row is filled to less than a half.
    assert sum(sum(lengths[index] for index in row) <= 10 for row in rows) <= 1


def measures_of(**counts):
    kinds = {"text": (), "image": ("image",), "audio": ("audio",), "omni": ("video", "audio")}
    return [
        Measure(10 + index % 7, frozenset(kinds[kind])) for kind, count in counts.items() for index in range(count)
    ]


@pytest.mark.parametrize("capacity", [None, 40])
def test_groups_share_their_modalities_and_lose_no_sample(capacity):
    measures = measures_of(text=50, omni=33, audio=2)
    sampler = MixtureSampler(measures, [(range(85), 1.0)], 4, capacity, seed=1)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert epochs[-1] == list(sampler) and len(epochs[-1]) == len(sampler)
        units = [unit if capacity else (unit,) for unit in epochs[-1]]
        for start in range(0, len(units), 4):
            assert len({measures[index].modalities for unit in units[start : start + 4] for index in unit}) == 1
        if capacity is None or epoch == 0:
            assert {index for unit in units for index in unit} == set(range(85))
    assert epochs[0] != epochs[1]


def test_sources_are_mixed_by_their_weights():
    measures = measures_of(text=30, omni=10)
    sampler = MixtureSampler(measures, strata_of(measures, [0] * 30 + [1] * 10, [1.0, 3.0], {}), 1)
    drawn = list(sampler)
    assert sum(index >= 30 for index in drawn) == 30 and all(drawn.count(index) == 3 for index in range(30, 40))


def test_kinds_are_mixed_as_the_recipe_says_and_the_others_as_they_are():
    measures = measures_of(text=50, image=40, audio=10)
    strata = strata_of(measures, [0] * 100, [None], {"image": 0.1, "audio": 0.3, "video": 0.6})
    assert {measures[indices[0]].kind: round(share, 6) for indices, share in strata} == {
        "audio": 0.375,
        "image": 0.125,
        "text": 0.5,
    }


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
    rows += [chat(answer, TONE_ITEM, question=answer) for answer in ("One.", "Two.") if share_media]
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


# ------------------------------------------------------------------------------------------------------- command line


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
