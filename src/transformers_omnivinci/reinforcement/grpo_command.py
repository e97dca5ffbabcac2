"""What `omnivinci grpo` does."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import set_seed
from transformers.integrations import is_tensorboard_available
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig

from ..configuration_omnivinci import OmniVinciConfig
from ..modeling.modeling_omnivinci import OmniVinciForConditionalGeneration
from ..modeling.parts import PARTS
from ..processing import OmniVinciProcessor
from ..training.command import ADAPTED_LAYERS, PlainParser, parse_options
from ..training.recipes import Recipe
from ..training.sharded_trainer import SHARDED_LAYERS
from .grpo_trainer import OmniVinciGRPOTrainer
from .problems import INSTRUCTION, Problem, read_problems
from .rewarding import RULES
from .rewards import TAGS

BATCH = 64
"""Prompts of an update (section 4.3), each with [`PAPER`]'s number of completions."""
NUM_FRAMES, MAX_PROMPT_LENGTH = 64, 1024
"""Frames of a video, and the most tokens of a prompt beside its media (section 4.3)."""
PAPER = {
    "num_generations": 8,
    "max_completion_length": 2048,
    "temperature": 1.0,
    "top_p": 0.99,
}
"""What section 4.3 says, by TRL's names."""
FROM_DEEPSEEKMATH = {
    "loss_type": "grpo",
    "importance_sampling_level": "token",
    "scale_rewards": "group",
    "epsilon": 0.2,
    "beta": 0.04,
    "learning_rate": 1e-6,
}
"""
What it leaves to the work that it builds on (arXiv 2402.03300, sections 4.1 and 4.2), or to equations 6 and 7. Neither
has a number for `epsilon`, which is TRL's.
"""


class _GRPOParser(PlainParser):
    options = "TRL's GRPOConfig"


def grpo_arguments(output: Path, arguments: Sequence[str], with_evaluation: bool = False) -> GRPOConfig:
    """
    TRL's options from the command line, with the paper's numbers where nothing is given.

    An update has 64 prompts with 8 completions each, over all processes: `gradient_accumulation_steps` follows from
    `per_device_train_batch_size`, in completions, and from the number of processes.

    Args:
        output (`Path`): The folder of the run.
        arguments (`Sequence[str]`): Options, such as `["--max-steps", "100"]`.
        with_evaluation (`bool`, *optional*, defaults to `False`): Whether there is data for it.

    Raises:
        ValueError: an option is unknown or has no such value.
    """
    parser = _GRPOParser(GRPOConfig, allow_abbrev=False)
    parser.set_defaults(
        output_dir=str(output),
        report_to=["tensorboard"] if is_tensorboard_available() else [],
        logging_steps=1,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not sys.stderr.isatty(),
        save_total_limit=2,
        eval_strategy=None,
        gradient_accumulation_steps=None,
        log_completions=True,
        num_completions_to_print=0,
        **PAPER,
        **FROM_DEEPSEEKMATH,
    )
    values = parse_options(parser, arguments, with_evaluation)
    if values["fsdp"] and not values["fsdp_config"]:
        values["fsdp_config"] = {"transformer_layer_cls_to_wrap": list(SHARDED_LAYERS)}
    if values["gradient_accumulation_steps"] is None:
        in_a_step = values["per_device_train_batch_size"] * int(os.environ.get("WORLD_SIZE", 1))
        wanted = BATCH * values["num_generations"]
        if wanted % in_a_step:
            raise ValueError(
                f"An update has {BATCH} prompts with {values['num_generations']} completions, which {in_a_step} at a "
                "time do not divide: give another `--per-device-train-batch-size`, or `--gradient-accumulation-steps`."
            )
        values["gradient_accumulation_steps"] = wanted // in_a_step
    return GRPOConfig(**values)


def grpo(
    data: Sequence[str | Path],
    model: str,
    arguments: GRPOConfig,
    eval_data: Sequence[str | Path] = (),
    rewards: Sequence[str] = RULES,
    instruction: str = INSTRUCTION,
    tags: Sequence[str] = TAGS,
    trained: Sequence[str] = ("language_model",),
    lora_rank: int | None = None,
    reference: str | None = None,
    max_prompt_length: int = MAX_PROMPT_LENGTH,
    rollout_batch_size: int | None = None,
    **media_options,
) -> OmniVinciGRPOTrainer:
    """
    Trains a checkpoint by GRPO and saves the result in the folder of the run.

    Args:
        data, eval_data (`Sequence[str | Path]`): Files, see [`read_problems`].
        model (`str`): A folder or repository.
        arguments ([`~trl.GRPOConfig`]): See [`grpo_arguments`].
        instruction (`str`, *optional*): What is written behind each question.
        trained (`Sequence[str]`, *optional*): Which of [`PARTS`] learn.
        lora_rank (`int`, *optional*): The language model learns low-rank additions instead of its weights.
        max_prompt_length (`int`, *optional*): The most tokens of a prompt beside its media.
        rewards, tags, reference, rollout_batch_size: As in [`OmniVinciGRPOTrainer`].
        media_options: Options of `apply_chat_template`, such as `num_frames`; `None` is as the processor says.

    Raises:
        ValueError: the data, or an option, cannot be used; it is named.
        OSError: a file cannot be read, or the folder holds a run already.
    """
    folder = Path(arguments.output_dir)
    if arguments.resume_from_checkpoint is None and folder.is_dir() and get_last_checkpoint(str(folder)):
        raise OSError(
            f"{folder} holds a run already: go on with it by `--resume-from-checkpoint True`, or name a new folder."
        )
    unknown = [part for part in trained if part not in PARTS]
    if unknown or not trained:
        raise ValueError(f"There is no part {(unknown or [''])[0]!r}: {', '.join(PARTS)} are accepted.")
    if lora_rank and set(trained) != {"language_model"}:
        raise ValueError("`--lora` trains the language model alone: leave `--train` out.")
    set_seed(arguments.seed)
    processor = OmniVinciProcessor.from_pretrained(model)
    config = OmniVinciConfig.from_pretrained(model)
    media_options = {name: value for name, value in media_options.items() if value is not None}
    media_options.setdefault("load_audio_from_video", processor.load_audio_from_video)
    problems = [problem for path in data for problem in read_problems(path, instruction)]
    eval_problems = [problem for path in eval_data for problem in read_problems(path, instruction)]
    most = config.text_config.max_position_embeddings - arguments.max_completion_length
    check_problems(processor, [*problems, *eval_problems], max_prompt_length, most, **media_options)
    network = OmniVinciForConditionalGeneration.from_pretrained(model, dtype="auto")
    # What learns is in float32; in mixed precision what is frozen, also below adapters, stays as it is stored.
    recipe = Recipe("grpo", "section 4.3", tuple(trained))
    recipe.freeze(network)
    is_mixed = arguments.bf16 or arguments.fp16
    learned = [] if lora_rank else recipe.trained_modules(network).values()
    for module in learned if is_mixed else [network]:
        module.float()
    peft_config = None
    if lora_rank:
        from peft import LoraConfig

        peft_config = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules=ADAPTED_LAYERS)
    trainer = OmniVinciGRPOTrainer(
        network,
        problems,
        arguments,
        processor,
        rewards,
        eval_problems,
        tags,
        media_options,
        reference,
        rollout_batch_size=rollout_batch_size,
        peft_config=peft_config,
    )
    resume = arguments.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model()
    trainer.save_state()
    return trainer


def check_problems(
    processor, problems: Sequence[Problem], max_prompt_length: int, max_length: int, **media_options
) -> None:
    """
    Checks that prompts can be read, from the headers of their media, before any time is spent.

    Args:
        processor ([`OmniVinciProcessor`]): What plans them.
        problems (`Sequence[Problem]`): The problems.
        max_prompt_length (`int`): The most tokens of a prompt beside its media.
        max_length (`int`): The most positions of a prompt, so that a completion has room behind it.
        media_options: Options of `plan`.

    Raises:
        ValueError: a medium is missing or damaged, or a prompt is too long; the problem is named.
    """
    for problem in problems:
        try:
            plan = processor.plan(problem.messages, **media_options)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{problem.name}: {' '.join(str(error).split())}") from error
        tokens = len(plan.text_ids) - len(plan.slots)
        if tokens > max_prompt_length:
            raise ValueError(
                f"{problem.name}: its text has {tokens:,} tokens, more than `--max-prompt-length` of "
                f"{max_prompt_length:,}."
            )
        if plan.length > max_length:
            raise ValueError(
                f"{problem.name}: it has {plan.length:,} positions, and the language model has room for "
                f"{max_length:,} before a completion: take fewer frames (`--num-frames`), shorter media or a smaller "
                "`--max-completion-length`."
            )
