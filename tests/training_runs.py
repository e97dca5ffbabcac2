"""How tests train: small models, few steps, on a CPU."""

from transformers import TrainingArguments

from transformers_omnivinci.training import OmniVinciTrainer, get_recipe

from .conftest import PARITY

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


def loss_and_gradients(model, batch, num_items):
    model.zero_grad()
    batch = {name: value for name, value in batch.items() if name not in ("sample_ids", "skipped")}
    loss = model(**batch, num_items_in_batch=num_items, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
