"""[`~transformers.Trainer`] for OmniVinci."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints

from ..labels import IGNORED
from ..modeling.modeling_omnivinci import OmniVinciForConditionalGeneration
from .collator import OmniVinciCollator
from .dataset import ChatDataset
from .muon import muon_of
from .recipes import Recipe
from .sampling import MixtureSampler, strata_of
from .sharded_trainer import ShardsOnCPU

STAGING = ".saving"
RUN_FILE = "omnivinci_run.json"
LOSSES = ("language_loss", "align_loss")


class OmniVinciTrainer(ShardsOnCPU, Trainer):
    """
    Trains OmniVinci on chats with media.

    Beyond [`~transformers.Trainer`]: batches of one combination of modalities each, mixed by weight; frozen parts stay
    in eval mode; seconds stay in float32 under any mixed precision; a loss that is not finite ends the run and names
    the samples; a checkpoint is there whole or not at all, and is resumed only by the run that it belongs to.

    Args:
        model ([`OmniVinciForConditionalGeneration`] or a PEFT model of one): What is trained.
        args ([`~transformers.TrainingArguments`]): As ever; `remove_unused_columns` is switched off.
        train_dataset, eval_dataset ([`ChatDataset`]): The data.
        processing_class ([`OmniVinciProcessor`]): Saved with each checkpoint.
        recipe ([`Recipe`], *optional*): What is trained. `None`: what has a gradient.
        packed_length (`int`, *optional*): Samples share rows of at most so many positions. `None`: one sample a row.
        muon (`bool`, *optional*, defaults to `False`): Whether [`MuonWithAdamW`] is the optimizer, not that of `args`.
        kwargs: As in [`~transformers.Trainer`].

    Attributes:
        skipped (`dict[str, BadSample]`):
            What was left out of the data, by the ids of samples: while it was read, and after training while it was
            trained on in any process.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train_dataset: ChatDataset | None = None,
        eval_dataset: ChatDataset | None = None,
        processing_class=None,
        recipe: Recipe | None = None,
        packed_length: int | None = None,
        muon: bool = False,
        **kwargs,
    ):
        args.remove_unused_columns = False
        if args.accelerator_config.dispatch_batches:
            raise ValueError(
                "`dispatch_batches=True` cuts every tensor to the batch size, which media do not follow: leave it "
                "out, and every process reads its own batches."
            )
        args.accelerator_config.dispatch_batches = False
        self.recipe, self.packed_length, self.muon = recipe, packed_length, muon
        datasets = [data for data in (train_dataset, eval_dataset) if isinstance(data, ChatDataset)]
        self.skipped = {bad.sample_id: bad for data in datasets for bad in data.skipped}
        # Releases of transformers without this setting have `group_by_length` alone.
        strategy = getattr(args, "train_sampling_strategy", "random")
        if isinstance(train_dataset, ChatDataset) and strategy not in ("random", "group_by_length"):
            raise ValueError(
                f"`train_sampling_strategy={strategy!r}` means nothing to a `ChatDataset`, whose sources are mixed by "
                "weight and whose samples are grouped by modality and length: leave it out."
            )
        self._sampler: MixtureSampler | None = None
        self._staging: Path | None = None
        self._sample_ids: list[str] = []
        self._losses = dict.fromkeys(LOSSES, 0.0)
        self._losses_since = 0
        if recipe is not None and not hasattr(model, "peft_config"):
            recipe.freeze(model)
        if kwargs.get("data_collator") is None:
            pad_token_id = processing_class.tokenizer.pad_token_id
            kwargs["data_collator"] = OmniVinciCollator(pad_token_id, packing=packed_length is not None)
        self._base = next(part for part in model.modules() if isinstance(part, OmniVinciForConditionalGeneration))
        if muon:
            kwargs["optimizer_cls_and_kwargs"] = muon_of(args)
        if any(data.share_media for data in datasets):
            self._base.model.check_attends_by_mask()
        self._frozen = [
            module
            for module in model.modules()
            if any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
        ]
        kwargs |= {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "processing_class": processing_class}
        super().__init__(model, args, **kwargs)
        self.add_callback(_FollowEpochs(self))

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, ChatDataset):
            return super()._get_train_sampler(train_dataset)
        weights = [source.weight for source in dataset.sources]
        data = self.recipe.data if self.recipe is not None else {}
        self._sampler = MixtureSampler(
            dataset.measures,
            strata_of(dataset.measures, dataset.source_of, weights, data),
            self.args.train_batch_size * self.args.world_size,
            self.packed_length,
            self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )
        return self._sampler

    def _get_eval_sampler(self, eval_dataset):
        """In order; where several processes share the work, grouped by modalities, as in training."""
        if self.args.world_size == 1 or not isinstance(eval_dataset, ChatDataset):
            return super()._get_eval_sampler(eval_dataset)
        strata = [(range(len(eval_dataset)), 1.0)]
        group_size = self.args.eval_batch_size * self.args.world_size
        return MixtureSampler(eval_dataset.measures, strata, group_size, shuffle=False)

    def _prepare_inputs(self, inputs: dict) -> dict:
        self._sample_ids = inputs.pop("sample_ids", self._sample_ids)
        self.skipped |= {bad.sample_id: bad for bad in inputs.pop("skipped", ())}
        prepared = super()._prepare_inputs(inputs)  # DeepSpeed casts here
        return prepared | {name: value.to(self.args.device) for name, value in _seconds(inputs).items()}

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss is {loss.item()} in step {self.state.global_step + 1}, in the batch of "
                f"{', '.join(self._sample_ids)}: training stopped before the weights took it in."
            )
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if model.training:
            self._rest_frozen_parts()
        if self.compute_metrics is None and self.label_smoother is None:
            inputs = _with_logits_of_answers(inputs)
        with _exact_seconds(self._base, inputs):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            self._note_losses(outputs, num_items_in_batch is not None)
        return (loss, outputs) if return_outputs else loss

    def _rest_frozen_parts(self) -> None:
        for module in self._frozen:
            module.eval()
        # A frozen language model may still hand gradients down. Its layers are recomputed only in training mode; they
        # have no dropout of their own.
        for layer in self._base.model.language_model.modules():
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                layer.training = True

    def _note_losses(self, outputs, is_share: bool) -> None:
        """The two parts of the loss, where there are two. Their sum is logged by Trainer."""
        num_batches = self.current_gradient_accumulation_steps
        for name in LOSSES:
            value = outputs.get(name)
            if value is None:
                return
            is_sum = is_share and name == "language_loss"  # over processes and accumulated batches
            scale = self.accelerator.num_processes if is_sum else 1 / num_batches
            self._losses[name] = self._losses[name] + scale * value.detach().float()
        self._losses_since += 1 / num_batches

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts of the loss to its curve."""
        if "loss" in logs and self._losses_since:
            for name, total in self._losses.items():
                logs[name] = self.accelerator.reduce(total, "mean").item() / round(self._losses_since)
            self._losses, self._losses_since = dict.fromkeys(LOSSES, 0.0), 0
        super().log(logs, start_time)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """
        As [`~transformers.Trainer.train`].

        Raises:
            ValueError: the checkpoint is not of this run, or the loss is not finite.
            OSError: a checkpoint cannot be saved; those before it are whole.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(f"There is no checkpoint in {self.args.output_dir} that could be resumed.")
        if resume_from_checkpoint:
            self._check_resumable(Path(resume_from_checkpoint))
        result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self.skipped = {bad.sample_id: bad for bad in gather_object(list(self.skipped.values()))}
        return result

    @property
    def run(self) -> dict:
        """What a run must share with the one that it resumes."""
        parameters = dict(self.model.named_parameters())
        data = self.train_dataset if isinstance(self.train_dataset, ChatDataset) else None
        return {
            "recipe": None if self.recipe is None else self.recipe.name,
            "shape of the model": _digest([(name, tuple(p.shape)) for name, p in parameters.items()]),
            "trained parameters": _digest([name for name, p in parameters.items() if p.requires_grad]),
            "data": data and data.fingerprint,
            "share_media": data and data.share_media,
            "weights of the data": data and [source.weight for source in data.sources],
            "packed_length": self.packed_length,
            "optimizer": "muon" if self.muon else str(self.args.optim),
            "per_device_train_batch_size": self.args.per_device_train_batch_size,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
            "number of processes": self.args.world_size,
            "seed": self.args.seed if self.args.data_seed is None else self.args.data_seed,
        }

    def _check_resumable(self, checkpoint: Path) -> None:
        try:
            before = json.loads((checkpoint / RUN_FILE).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{checkpoint} is no checkpoint that training can resume: its {RUN_FILE} cannot be read."
            ) from error
        run = self.run
        different = [name for name in run if before.get(name) != run[name]]
        if different:
            raise ValueError(
                f"{checkpoint} belongs to another run, which differs in {', '.join(different)}: a run is resumed with "
                "what it was started with. Its weights can be the model of a new run."
            )

    def _get_output_dir(self, trial=None) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model, trial) -> None:
        """Written beside the other checkpoints under a hidden name, and renamed when it is whole."""
        folder = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        best = f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        with self._staged(folder) as staging:
            self._staging = staging
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            if self.state.best_global_step and (best == name or (folder / best).is_dir()):
                self.state.best_model_checkpoint = str(folder / best)
            if self.args.should_save:
                self.state.save_to_json(str(staging / name / "trainer_state.json"))
                (staging / name / RUN_FILE).write_text(json.dumps(self.run, indent=2) + "\n")
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                if (folder / name).exists():
                    (folder / name).rename(staging / "replaced")
                (staging / name).rename(folder / name)
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As [`~transformers.Trainer.save_model`]; the files appear when all of them are written."""
        if _internal_call:
            return super().save_model(output_dir, _internal_call)
        folder = Path(output_dir or self.args.output_dir)
        with self._staged(folder) as staging:
            super().save_model(str(staging), _internal_call=True)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                # What loads the rest comes last.
                for path in sorted(staging.iterdir(), key=lambda path: path.name.endswith("config.json")):
                    os.replace(path, folder / path.name)
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    @contextmanager
    def _staged(self, folder: Path) -> Iterator[Path]:
        """An empty folder in `folder` that is gone afterwards, and gone before if a killed process left one."""
        staging = folder / STAGING
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            yield staging
        except (OSError, RuntimeError, SafetensorError) as error:
            raise OSError(
                f"Nothing was saved in {folder} in step {self.state.global_step}: {error}. What was there is whole."
            ) from error
        finally:
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()


class _FollowEpochs(TrainerCallback):
    """Tells the sampler which epoch it is. The data loader does not where accelerate skips batches on resuming."""

    def __init__(self, trainer: OmniVinciTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state: TrainerState, control, **kwargs):
        if self.trainer._sampler is not None:
            self.trainer._sampler.set_epoch(int(state.epoch or 0))


def _with_logits_of_answers(inputs: dict) -> dict:
    """The model is asked for the logits that the loss reads: most positions are media, and logits are large."""
    targets = nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)  # (batch, sequence)
    kept = (targets != IGNORED).any(0).nonzero()[:, 0]
    return {**inputs, "logits_to_keep": kept, "shift_labels": targets[:, kept]}


def _seconds(inputs: dict) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name.endswith("_timestamps")}


@contextmanager
def _exact_seconds(model: nn.Module, inputs: dict) -> Iterator[None]:
    """Gives the model its seconds as they are: FSDP and DeepSpeed cast every float, too coarsely for 100.2 s."""
    seconds = _seconds(inputs)
    handle = model.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, **seconds}), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _digest(value) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
