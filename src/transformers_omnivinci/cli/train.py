"""`omnivinci train`: a stage of training."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .options import Audio, Fps, NumFrames, Traceback
from .sources import check_model
from .terminal import plain_errors

Data = typer.Option(metavar="FILE[:WEIGHT]", help="Chats, one JSON object a line; may be given several times.")


def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(metavar="NAME", help="vision-1 to -5, audio-1 and -2, omni, scratch, full.")],
    data: Annotated[list[str], Data],
    model: Annotated[str, typer.Option(metavar="DIR", help="Checkpoint: a folder, or a repository of the Hub.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the run.")],
    eval_data: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Chats to evaluate on; the best checkpoint is kept.")
    ] = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    audio: Audio = None,
    max_length: Annotated[int | None, typer.Option(metavar="N", min=1, help="The most positions of a sample.")] = None,
    packing: Annotated[bool, typer.Option("--packing", help="Put several samples in a row of --max-length.")] = False,
    share_media: Annotated[
        bool, typer.Option("--share-media", help="Encode media once for the chats about them that follow each other.")
    ] = False,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank additions to the language model.")] = False,
    lora_rank: Annotated[int, typer.Option(metavar="N", min=1, help="Their rank.")] = 16,
    muon: Annotated[
        bool, typer.Option("--muon", help="Muon for the matrices and AdamW for the rest, in place of --optim.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad samples, and list them.")] = False,
    traceback: Traceback = False,
) -> None:
    """
    Train a model on chats with media, as one of the stages of the paper.

    All options of transformers' TrainingArguments are accepted as well, such as --learning-rate, --max-steps,
    --per-device-train-batch-size, --bf16, --activation-checkpointing and --resume-from-checkpoint.
    """
    with plain_errors(traceback):
        check_model(model)
        from transformers.utils import logging

        try:
            from ..compat import end_training
            from ..training import DataSource, command, get_recipe
        except ImportError as error:
            raise ImportError(
                f"Training needs more: pip install 'transformers-omnivinci[train]' ({error})."
            ) from error

        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        chosen = get_recipe(recipe)
        trainer = command.train(
            chosen,
            [DataSource.parse(source) for source in data],
            model,
            command.training_arguments(chosen, output, context.args, with_evaluation=bool(eval_data)),
            eval_sources=[DataSource.parse(source) for source in eval_data or []],
            skip_bad=skip_bad,
            max_length=max_length,
            packing=packing,
            share_media=share_media,
            lora_rank=lora_rank if lora else None,
            muon=muon,
            load_audio_from_video=audio,
            num_frames=num_frames,
            fps=fps,
        )
        end_training(trainer)
        if trainer.is_world_process_zero():
            console = Console(highlight=False)
            console.print(Text(f"{output} holds the model after {trainer.state.global_step:,} steps."), soft_wrap=True)
            skipped = trainer.skipped.values()
            if skipped:
                count = "1 sample was" if len(skipped) == 1 else f"{len(skipped):,} samples were"
                console.print(Text(f"{count} left out:"), soft_wrap=True)
                for bad in skipped:
                    console.print(Text(f"  {bad}"), soft_wrap=True)
        if trainer.args.world_size > 1:
            # Threads of gloo that still hold tensors abort a process that ends in the usual way, now and then.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
