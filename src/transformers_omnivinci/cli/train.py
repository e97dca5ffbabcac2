"""`omnivinci train`: trains a model."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import AttnImplementation, Audio, Fps, NumFrames, Quantization, Traceback, quantization_config
from .sources import check_model
from .terminal import plain_errors

Data = typer.Option(
    metavar="FILE[:WEIGHT]", help="Chats: JSONL, parquet or WebDataset, with a sampling weight; repeatable."
)


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Stage: vision-1 to -5, audio-1 or -2, omni, asr-decision, scratch or full."
        ),
    ],
    data: Annotated[list[str], Data],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Checkpoint to start from: a folder, or a repository of the Hub.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the trained model to.")],
    eval_data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Chats to evaluate on, keeping the best model; repeatable."),
    ] = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    audio: Audio = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Part that stays as it is, such as audio_encoder; repeatable."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Maximum number of tokens in a sample.")
    ] = None,
    packing: Annotated[bool, typer.Option("--packing", help="Pack samples into sequences of --max-length.")] = False,
    share_media: Annotated[
        bool, typer.Option("--share-media", help="Encode media once for consecutive chats about them.")
    ] = False,
    lora: Annotated[bool, typer.Option("--lora", help="Train LoRA adapters of the language model.")] = False,
    lora_rank: Annotated[int, typer.Option(metavar="N", min=1, help="Rank of the adapters.")] = 16,
    quantization: Quantization = None,
    muon: Annotated[bool, typer.Option("--muon", help="Optimize matrices with Muon and the rest with AdamW.")] = False,
    attn_implementation: AttnImplementation = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable samples, and list them.")] = False,
    traceback: Traceback = False,
) -> None:
    """
    Train a model on chats with media.

    A recipe is a training stage of the paper, from vision-1 to omni; asr-decision teaches what `omnivinci transcribe
    --decide` decides, on data of `omnivinci asr-data`; scratch and full train all parts at once.

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
                f"Training needs an extra: pip install 'transformers-omnivinci[train]' ({error})."
            ) from error

        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        chosen = get_recipe(recipe).without(freeze or ())
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
            quantization_config=quantization_config(quantization),
            muon=muon,
            attn_implementation=attn_implementation,
            load_audio_from_video=audio,
            num_frames=num_frames,
            fps=fps,
        )
        end_training(trainer)
        if trainer.is_world_process_zero():
            typer.echo(f"{output} holds the model after {trainer.state.global_step:,} steps.")
            skipped = trainer.skipped.values()
            if skipped:
                typer.echo(f"{'1 sample was' if len(skipped) == 1 else f'{len(skipped):,} samples were'} left out:")
                for bad in skipped:
                    typer.echo(f"  {bad}")
        if trainer.args.world_size > 1:
            # A normal exit sometimes aborts, as threads of gloo still hold tensors.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
