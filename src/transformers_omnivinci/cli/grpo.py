"""`omnivinci grpo`: trains a model by reinforcement learning."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import Audio, Fps, Traceback
from .sources import check_model
from .terminal import plain_errors


def grpo(
    context: typer.Context,
    data: Annotated[
        list[str],
        typer.Option(metavar="FILE", help="Questions with right answers, JSONL, JSON or parquet; repeatable."),
    ],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Checkpoint to start from: a folder, or a repository of the Hub.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the trained model to.")],
    eval_data: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Questions to evaluate on; repeatable.")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="format, accuracy, or the import path of a function, module:function; repeatable. Default: both.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Part of an answer in the format; repeatable. Default: think, answer."),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text behind each question. Default: asks for the format.")
    ] = None,
    num_frames: Annotated[int | None, typer.Option(metavar="N", min=1, help="Frames of a video. Default: 64.")] = None,
    fps: Fps = None,
    audio: Audio = None,
    max_prompt_length: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum number of tokens of a prompt beside its media.")
    ] = 1024,
    train: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Part of the model to train; repeatable. Default: language_model."),
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train LoRA adapters of the language model.")] = False,
    lora_rank: Annotated[int, typer.Option(metavar="N", min=1, help="Rank of the adapters.")] = 16,
    reference: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Checkpoint to stay near to. Default: that of --model.")
    ] = None,
    rollout_batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Maximum number of completions sampled at a time.")
    ] = None,
    traceback: Traceback = False,
) -> None:
    """
    Train a model by GRPO on chats with media, rewarded by rule.

    Defaults are those of the paper's section 4.3: 64 prompts an update, 8 completions each.

    All options of TRL's GRPOConfig are accepted as well, such as --num-generations, --beta, --loss-type,
    --max-completion-length, --learning-rate, --max-steps and --resume-from-checkpoint.
    """
    with plain_errors(traceback):
        check_model(model)
        if reference is not None:
            check_model(reference)
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # of `rollout_func`
        from transformers.utils import logging

        try:
            from ..compat import end_training
            from ..reinforcement import grpo_command
        except ImportError as error:
            raise ImportError(f"GRPO needs an extra: pip install 'transformers-omnivinci[rl]' ({error}).") from error

        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        given = {"rewards": reward, "tags": tag, "instruction": instruction, "trained": train}
        trainer = grpo_command.grpo(
            data,
            model,
            grpo_command.grpo_arguments(output, context.args, with_evaluation=bool(eval_data)),
            eval_data=eval_data or [],
            **{name: value for name, value in given.items() if value is not None},
            lora_rank=lora_rank if lora else None,
            reference=reference,
            max_prompt_length=max_prompt_length,
            rollout_batch_size=rollout_batch_size,
            load_audio_from_video=audio,
            num_frames=num_frames or (None if fps else grpo_command.NUM_FRAMES),
            fps=fps,
        )
        end_training(trainer)
        if trainer.is_world_process_zero():
            typer.echo(f"{output} holds the model after {trainer.state.global_step:,} steps.")
            if trainer.num_equal_groups:
                typer.echo(
                    f"In {trainer.num_equal_groups:,} of {trainer.num_groups:,} groups all completions earned the "
                    "same, and taught nothing."
                )
        if trainer.args.world_size > 1:
            # A normal exit sometimes aborts, as threads of gloo still hold tensors.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
