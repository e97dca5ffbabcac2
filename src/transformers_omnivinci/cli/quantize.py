"""`omnivinci quantize`: writes a checkpoint with smaller weights."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..quantization.recipes import MAX_CHATS
from .options import Device, Fps, NumFrames, Traceback
from .terminal import plain_errors


def quantize(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Checkpoint in either layout: a folder, or a repository of the Hub.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder to create.")],
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="paper: encoders W8A8, language model W4A16. w4a16: language model W4A16. w8a8, fp8: all three.",
        ),
    ] = "paper",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSONL file of chats with media, as for training. fp8 works without."),
    ] = None,
    max_chats: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many of the chats to take, spread over the file.")
    ] = MAX_CHATS,
    num_frames: NumFrames = None,
    fps: Fps = None,
    device: Device = "auto",
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Maximum size of a file of weights.")] = "5GB",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing checkpoint at DST.")] = False,
    traceback: Traceback = False,
) -> None:
    """
    Quantize a checkpoint part by part, for vLLM and transformers.

    Projectors, time embeddings, embeddings and lm_head keep their weights. transformers and vLLM load the result.

    llm-compressor does the work. Where it is not installed, it runs in an environment of its own, which is made once.
    """
    with plain_errors(traceback):
        if not sys.stderr.isatty():
            os.environ.setdefault("TQDM_DISABLE", "1")  # which is read when tqdm is imported
        from rich.filesize import decimal
        from torch import accelerator
        from transformers.utils import logging

        from ..quantization.compressor import Request, quantize
        from ..quantization.environment import engine_for, environment_folder, installed_engine, run_elsewhere, suits

        logging.disable_progress_bar()  # that of loading; llm-compressor shows its own
        request = Request(source, destination, recipe, calibration, max_chats, num_frames, fps, force)
        has_accelerator = accelerator.is_available() and device != "cpu"
        is_here = suits(installed_engine(), request.recipe, has_accelerator)
        if is_here:
            chats = f", calibrating with {len(request.chats)} chats" if request.chats else ""
            typer.secho(f"Quantizing {source} by the recipe {recipe}{chats} ...", dim=True, err=True)
            done = quantize(request, device, max_shard_size)
            layers = ", ".join(f"{number} of the {name}" for name, number in done.num_layers.items())
            typer.echo(f"Quantized {source} to {destination}, linear layers: {layers}.")
            typer.echo(f"Its weights take {decimal(done.num_bytes)}, which were {decimal(done.num_bytes_before)}.")
        else:
            engine = engine_for(has_accelerator)
            typer.secho(f"Runs llm-compressor {engine} in {environment_folder(engine)}.", dim=True, err=True)
            code = run_elsewhere(engine, sys.argv[1:])
    if not is_here:
        raise typer.Exit(code)
