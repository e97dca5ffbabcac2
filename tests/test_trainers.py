"""Others' trainers: labels made of `input_ids`, losses computed elsewhere, streams, and evaluation."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.training import OmniVinciTrainer

from .media_samples import audio_item, image_item, user, video_item

OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
CHATS = {
    "image": user(image_item(), "What?"),
    "video": user(video_item(num_frames=5), "What happens in the video, and how often?"),
    "sound": user(audio_item(), "What is heard?"),
    "text": user("What is the capital of France? And of Spain?"),
}
for chat in CHATS.values():
    chat.append({"role": "assistant", "content": "A ring."})


def placeholders(processor):
    return torch.tensor([processor.image_token_id, processor.video_token_id, processor.audio_token_id])


def prepared(processor, *chats):
    """As TRL and most scripts do: a clone of the tokens without padding."""
    batch = processor.apply_chat_template([CHATS[chat] for chat in chats], **OPTIONS)
    labels = batch["input_ids"].clone()
    labels[batch["attention_mask"] == 0] = IGNORED
    return batch, labels


def from_processor(processor, *chats):
    batch, batch["labels"] = prepared(processor, *chats)
    return dict(batch)


def from_elsewhere(processor, *chats):
    batch, labels = prepared(processor, *chats)
    return {**batch, "labels": labels}


def train(model, data, collate, folder, trainer=Trainer, **options):
    """One step that changes nothing: its loss and its gradients."""
    gradients = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            given = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
            gradients.update({name: gradient.clone() for name, gradient in given.items()})

    arguments = {"max_steps": 1, "per_device_train_batch_size": 1, "learning_rate": 0.0, "logging_steps": 1} | options
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        max_grad_norm=0.0,
        dataloader_pin_memory=False,
        **arguments,
    )
    trainer = trainer(model, arguments, train_dataset=data, data_collator=collate, callbacks=[Keep()])
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry), gradients


# ----------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "give",
    [
        lambda batch, labels: batch.__setitem__("labels", labels),
        lambda batch, labels: batch.update(labels=labels),
        lambda batch, labels: batch.__setitem__("labels", labels.numpy()),
        lambda batch, labels: batch.__setitem__("labels", labels.tolist()),
    ],
    ids=["item", "update", "numpy", "lists"],
)
@pytest.mark.parametrize(
    "duplicate", [lambda batch: batch, copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))]
)
def test_labels_given_to_what_the_processor_returns_lose_placeholders(processor, give, duplicate):
    batch, labels = prepared(processor, "image", "sound", "text")
    kept = labels.clone()
    batch = duplicate(batch)
    give(batch, labels)
    expected = labels.masked_fill(torch.isin(labels, placeholders(processor)), IGNORED)
    assert not torch.equal(expected, labels) and torch.equal(labels, kept)
    assert np.asarray(batch["labels"]).tolist() == expected.tolist()
    assert type(batch.to(torch.float16)["labels"]) in (torch.Tensor, np.ndarray, list)


def test_a_loss_from_the_logits_is_that_of_the_model(model, processor):
    batch = from_processor(processor, "image", "video")
    with torch.no_grad():
        outputs = model(**batch)
    shifted = batch["labels"][:, 1:].flatten()
    loss = nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), shifted, ignore_index=IGNORED)
    torch.testing.assert_close(loss, outputs.loss)


def mean_over_text(model, batches):
    """The mean over all targets that are text, and its gradients."""
    model.zero_grad()
    losses = []
    for batch in batches:
        logits = (
            model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1].flatten(0, 1)
        )
        labels = batch["labels"][:, 1:].flatten()
        ids = torch.tensor([model.config.image_token_id, model.config.video_token_id, model.config.audio_token_id])
        learned = (labels != IGNORED) & ~torch.isin(labels, ids)
        losses.append(nn.functional.cross_entropy(logits[learned], labels[learned], reduction="none"))
    loss = torch.cat(losses).mean()
    loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return loss.item(), gradients


@pytest.mark.slow
@pytest.mark.parametrize("steps", [["image"], ["video", "text"], ["sound", "text", "image"]], ids="+".join)
def test_the_stock_trainer_learns_the_mean_over_text(fresh, processor, tmp_path, steps):
    """Also over accumulated steps that hold unlike shares of media."""
    collate = lambda rows: from_processor(processor, *rows)  # noqa: E731
    loss, gradients = train(
        fresh, steps, collate, tmp_path, gradient_accumulation_steps=len(steps), train_sampling_strategy="sequential"
    )
    expected, right = mean_over_text(fresh.train(), [from_processor(processor, step) for step in steps])
    assert loss == pytest.approx(expected, abs=1e-4)
    for name, gradient in right.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("rows", [["image"], ["video", "text"]], ids="+".join)
def test_labels_from_elsewhere_are_scaled_by_what_is_learned(fresh, processor, tmp_path, rows):
    collate = lambda rows: from_elsewhere(processor, *rows)  # noqa: E731
    loss, gradients = train(fresh, rows, collate, tmp_path, per_device_train_batch_size=len(rows))
    expected, right = mean_over_text(fresh.train(), [from_elsewhere(processor, *rows)])
    assert loss == pytest.approx(expected, abs=1e-4)
    for name, gradient in right.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_labels_from_elsewhere_keep_the_scale_over_processes_and_steps(model, processor):
    """What Trainer adds up is a mean of the batches' means, whatever media they hold."""
    batches = [from_elsewhere(processor, chat) for chat in ("image", "text", "sound")]
    num_items = sum((batch["labels"][:, 1:] != IGNORED).sum() for batch in batches)
    with torch.no_grad():
        parts = [model(**batch, num_items_in_batch=num_items).loss for batch in batches]
        means = [model(**batch).loss for batch in batches]
    weights = [(batch["labels"][:, 1:] != IGNORED).sum() / num_items for batch in batches]
    torch.testing.assert_close(parts, [weight * mean for weight, mean in zip(weights, means, strict=True)])
    assert sum(weights) == pytest.approx(1)


def test_shifted_labels_lose_placeholders_too(model, processor):
    batch = from_elsewhere(processor, "image", "text")
    shifted = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    counted = (shifted != IGNORED).sum()
    with torch.no_grad():
        expected = model(**batch).loss
        for number in (None, counted, int(counted)):
            torch.testing.assert_close(model(**batch, shift_labels=shifted, num_items_in_batch=number).loss, expected)


def test_labels_of_embeddings_lose_placeholders(model, processor):
    batch = from_elsewhere(processor, "image")
    with torch.no_grad():
        expected = model(**batch).loss
        batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
        torch.testing.assert_close(model(**batch).loss, expected)


# ---------------------------------------------------------------------------------------------- streams, evaluation


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, *rows):
        super().__init__()
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [["video", "video"], ["sound", "image"], ["image", "text"]], ids="+".join)
def test_a_stream_that_is_cut_tells_what_to_set(fresh, processor, tmp_path, rows):
    collate = lambda rows: from_processor(processor, *rows)  # noqa: E731
    options = {"per_device_train_batch_size": 2}
    with pytest.raises(ValueError, match="dispatch_batches=False"):
        train(fresh, Stream(*rows), collate, tmp_path, **options)
    whole = {"accelerator_config": {"dispatch_batches": False}}
    loss, _ = train(fresh, Stream(*rows), collate, tmp_path, **options, **whole)
    expected, _ = mean_over_text(fresh.train(), [from_processor(processor, *rows)])
    assert loss == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("accelerator_config", [None, {"split_batches": True}], ids=str)
def test_our_trainer_reads_streams_as_they_are(fresh, processor, tmp_path, accelerator_config):
    collate = lambda rows: from_processor(processor, *rows)  # noqa: E731
    options = {"per_device_train_batch_size": 2, "accelerator_config": accelerator_config}
    loss, _ = train(fresh, Stream("video", "sound"), collate, tmp_path, OmniVinciTrainer, **options)
    expected, _ = mean_over_text(fresh.train(), [from_processor(processor, "video", "sound")])
    assert loss == pytest.approx(expected, abs=1e-4)


def test_our_trainer_refuses_to_cut_batches(fresh, processor, tmp_path):
    with pytest.raises(ValueError, match="`dispatch_batches=True` cuts every tensor"):
        train(fresh, [], None, tmp_path, OmniVinciTrainer, accelerator_config={"dispatch_batches": True})


def test_the_stock_trainer_evaluates_batches_of_unlike_media(fresh, processor, tmp_path):
    """What it gathers are logits: embeddings of media do not follow the batch size."""
    seen = {}
    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], remove_unused_columns=False, per_device_eval_batch_size=1
    )
    trainer = Trainer(
        fresh,
        arguments,
        eval_dataset=["image", "text", "video"],
        data_collator=lambda rows: from_processor(processor, *rows),
        compute_metrics=lambda prediction: seen.update(predictions=prediction.predictions) or {"count": 3},
    )
    metrics = trainer.evaluate()
    assert metrics["eval_count"] == 3 and isinstance(seen["predictions"], np.ndarray)
    assert len(seen["predictions"]) == 3
