"""What `omnivinci train` does."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import HfArgumentParser, TrainingArguments, set_seed
from transformers.integrations import is_tensorboard_available
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import is_bitsandbytes_available, is_peft_available

from ..compat import fsdp_options
from ..configuration_omnivinci import OmniVinciConfig
from ..modeling.modeling_omnivinci import OmniVinciForConditionalGeneration
from ..processing import OmniVinciProcessor
from .data_sources import DataSource
from .dataset import ChatDataset
from .encoding import SampleEncoder
from .recipes import PARTS, Recipe
from .trainer import OmniVinciTrainer
from .vocabulary import add_embeddings, add_tokens

ADAPTED_LAYERS = r".*language_model\.layers\..*_proj"
"""What LoRA adds to, as a pattern of names."""


class PlainParser(HfArgumentParser):
    """Says what is wrong in one sentence, without 150 options."""

    options = "transformers' TrainingArguments"

    def error(self, message: str):
        raise ValueError(f"{message}. Options beyond those of `--help` are those of {self.options}.")


def training_arguments(
    recipe: Recipe, output: Path, arguments: Sequence[str], with_evaluation: bool
) -> TrainingArguments:
    """
    [`~transformers.TrainingArguments`] from the command line, with the numbers of a recipe where nothing is given.

    Args:
        recipe ([`Recipe`]): Learning rate and schedule.
        output (`Path`): The folder of the run.
        arguments (`Sequence[str]`): Options, such as `["--max-steps", "100"]`.
        with_evaluation (`bool`):
            Whether there is data for it: then the model is evaluated whenever it is saved, and the best one is kept.

    Raises:
        ValueError: an option is unknown or has no such value.
    """
    parser = PlainParser(TrainingArguments, allow_abbrev=False)
    parser.set_defaults(
        output_dir=str(output),
        report_to=["tensorboard"] if is_tensorboard_available() else [],
        logging_steps=10,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not sys.stderr.isatty(),
        save_total_limit=2,
        eval_strategy=None,
        load_best_model_at_end=with_evaluation,
        **recipe.training_arguments,
    )
    return TrainingArguments(**parse_options(parser, arguments, with_evaluation))


def parse_options(parser: PlainParser, arguments: Sequence[str], with_evaluation: bool) -> dict:
    """The values of options: where evaluation is not spoken of, it comes whenever the model is saved, or never."""
    values = vars(parser.parse_args(fsdp_options(arguments)))
    if values["eval_strategy"] is None:
        values["eval_strategy"] = values["save_strategy"] if with_evaluation else "no"
    if values["eval_steps"] is None:
        values["eval_steps"] = values["save_steps"]
    return values


def train(
    recipe: Recipe,
    sources: Sequence[DataSource],
    model: str,
    arguments: TrainingArguments,
    eval_sources: Sequence[DataSource] = (),
    skip_bad: bool = False,
    max_length: int | None = None,
    packing: bool = False,
    share_media: bool = False,
    lora_rank: int | None = None,
    quantization_config=None,
    muon: bool = False,
    attn_implementation: str | None = None,
    **media_options,
) -> OmniVinciTrainer:
    """
    Trains a checkpoint and saves the result, and with evaluation the best of it, in the folder of the run.

    Args:
        recipe ([`Recipe`]): What is trained.
        sources, eval_sources (`Sequence[DataSource]`): The data.
        model (`str`): A folder or repository. Of its weights nothing is read where the recipe starts from scratch.
        arguments ([`~transformers.TrainingArguments`]): See [`training_arguments`].
        max_length (`int`, *optional*): The most positions of a sample, with `packing` of a row. `None`: as many as
            the language model has.
        packing (`bool`, *optional*, defaults to `False`): Whether samples share rows.
        lora_rank (`int`, *optional*): The language model learns low-rank additions instead of its weights.
        quantization_config (`BitsAndBytesConfig`, *optional*):
            How the language model's weights are held while adapters learn (QLoRA).
        attn_implementation (`str`, *optional*): Of all parts, as in `from_pretrained`.
        skip_bad, share_media, muon: As in [`ChatDataset`] and [`OmniVinciTrainer`].
        media_options: Options of [`SampleEncoder`].
    """
    folder = Path(arguments.output_dir)
    if arguments.resume_from_checkpoint is None and folder.is_dir() and get_last_checkpoint(str(folder)):
        raise OSError(
            f"{folder} holds a run already: go on with it by `--resume-from-checkpoint True`, or name a new folder."
        )
    if lora_rank:
        _check_peft()
    if quantization_config is not None and not is_bitsandbytes_available():
        raise ImportError("`--quantization` needs bitsandbytes: pip install bitsandbytes.")
    if quantization_config is not None and (recipe.from_scratch or not lora_rank):
        raise ValueError(
            "`--quantization` holds the stored weights of the language model still: give `--lora`, and a recipe that "
            "does not start from random weights."
        )
    set_seed(arguments.seed)
    processor = OmniVinciProcessor.from_pretrained(model)
    new_ids = add_tokens(processor.tokenizer, recipe.tokens)
    config = OmniVinciConfig.from_pretrained(model)
    if lora_rank and new_ids:
        _check_room(processor, config)
    max_length = max_length or config.text_config.max_position_embeddings
    encoder = SampleEncoder(processor, max_length, **media_options)
    train_dataset = ChatDataset(sources, encoder, skip_bad, share_media)
    eval_dataset = ChatDataset(eval_sources, encoder, skip_bad, share_media) if eval_sources else None
    if recipe.from_scratch:
        network = OmniVinciForConditionalGeneration(config)
    elif quantization_config is not None:
        from peft import prepare_model_for_kbit_training

        network = OmniVinciForConditionalGeneration.from_pretrained(
            model, dtype="auto", quantization_config=quantization_config
        )
        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    else:  # what learns is in float32; in mixed precision what is frozen stays as it is stored
        network = OmniVinciForConditionalGeneration.from_pretrained(model, dtype="auto")
        is_mixed = arguments.bf16 or arguments.fp16
        for module in recipe.trained_modules(network).values() if is_mixed else [network]:
            module.float()
    if attn_implementation is not None:
        network.set_attn_implementation(attn_implementation)
    add_embeddings(network, processor.tokenizer, new_ids)
    trainer = OmniVinciTrainer(
        _add_adapters(network, recipe, lora_rank, processor.tokenizer) if lora_rank else network,
        arguments,
        train_dataset,
        eval_dataset,
        processor,
        recipe=recipe,
        packed_length=max_length if packing else None,
        muon=muon,
    )
    resume = arguments.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model()
    trainer.save_state()
    return trainer


def _add_adapters(network: OmniVinciForConditionalGeneration, recipe: Recipe, rank: int, tokenizer):
    """
    LoRA in the linear layers of the language model; the other parts that learn do so as a whole, and so do the
    embeddings of the recipe's tokens.
    """
    from peft import LoraConfig, get_peft_model

    if "language_model" not in recipe.trained:
        raise ValueError(f"`--lora` is for the language model, which the recipe {recipe.name} does not train.")
    whole = {
        name.rpartition(".")[2]
        for name, module in recipe.trained_modules(network).items()
        if name not in PARTS["language_model"] and any(True for _ in module.parameters())
    }
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=ADAPTED_LAYERS,
        modules_to_save=sorted(whole) or None,
        trainable_token_indices=_token_rows(network, tokenizer.convert_tokens_to_ids(list(recipe.tokens))),
    )
    return get_peft_model(network, config)


def _token_rows(network: OmniVinciForConditionalGeneration, ids: list[int]) -> dict[str, list[int]] | None:
    """The rows that are trained, by the names of their matrices; of tied ones PEFT trains both."""
    if not ids:
        return None
    is_tied = network.get_output_embeddings().weight is network.get_input_embeddings().weight
    return {"embed_tokens": ids} if is_tied else {"embed_tokens": ids, "lm_head": ids}


def _check_room(processor: OmniVinciProcessor, config: OmniVinciConfig) -> None:
    """Adapters are loaded onto the weights as they are stored, which must have rows for new tokens."""
    have, needed = config.text_config.vocab_size, len(processor.tokenizer)
    if needed > have:
        raise ValueError(
            f"`--lora` makes no new embeddings: with the tokens of the recipe there are {needed:,}, but the model has "
            f"embeddings of {have:,}. Train it without `--lora` first."
        )


def _check_peft() -> None:
    if not is_peft_available():
        raise ImportError("`--lora` needs PEFT: pip install 'transformers-omnivinci[train]'.")
