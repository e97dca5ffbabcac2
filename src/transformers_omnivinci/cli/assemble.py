"""`omnivinci assemble`: makes a checkpoint from pretrained parts."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from .options import DType, Traceback
from .terminal import plain_errors

VisionFrom = StrEnum("VisionFrom", ["weights", "random"])
Pooling = StrEnum("Pooling", ["none", "max", "avg", "conv"])


def assemble(
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder to create.")],
    language_model: Annotated[
        str,
        typer.Option(metavar="DIR|ID", help="Qwen2, Qwen2.5 or a Llama alike: a folder, a repository or a GGUF file."),
    ],
    audio: Annotated[
        str, typer.Option(metavar="DIR|ID", help="Whisper, Qwen2-Audio or AF-Whisper: a folder or a repository.")
    ],
    vision: Annotated[
        str | None, typer.Option(metavar="DIR|ID", help="SigLIP, or its image encoder: a folder or a repository.")
    ] = None,
    vision_from: Annotated[
        VisionFrom,
        typer.Option(help="random: a new image encoder, of --vision's sizes or small."),
    ] = VisionFrom.weights,
    audio_window: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds of a window of the audio encoder. Default: its own.")
    ] = None,
    audio_pooling: Annotated[Pooling, typer.Option(help="Compression of the audio sequence.")] = Pooling.none,
    image_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Pixels along a side of a tile. Default: the encoder's.")
    ] = None,
    s2_scales: Annotated[
        str | None, typer.Option(metavar="N,N", help="Scales of images in pixels. Default: 1, 2 and 3 tiles.")
    ] = None,
    align_loss_weight: Annotated[
        float, typer.Option(metavar="W", min=0, help="Weight of OmniAlignNet's loss; 0: without OmniAlignNet.")
    ] = 0.0,
    chat_template: Annotated[
        str | None, typer.Option(metavar="chatml|FILE", help="Default: the language model's, which must be ChatML.")
    ] = None,
    dtype: Annotated[
        DType, typer.Option(help="Data type of the weights; auto: that of the language model.")
    ] = DType.auto,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of new weights.")] = 0,
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Maximum size of a file of weights.")] = "5GB",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing checkpoint at DST.")] = False,
    traceback: Traceback = False,
) -> None:
    """
    Make a checkpoint from pretrained parts.

    They are a language model, an image encoder and an audio encoder.

    The projectors between them are new: train them with audio-1 and vision-1, the first recipes of `omnivinci train`.
    A repository may be named with a revision, as owner/name@revision.
    """
    with plain_errors(traceback):
        scales = None if s2_scales is None else _read_scales(s2_scales)
        from transformers.utils import logging

        from ..assembly import assemble

        logging.disable_progress_bar()  # that of loading; the command shows its own
        done = assemble(
            destination,
            language_model=language_model,
            audio=audio,
            vision=vision,
            vision_from=vision_from.value,
            audio_window=audio_window,
            audio_pooling=audio_pooling.value,
            image_size=image_size,
            s2_scales=scales,
            align_loss_weight=align_loss_weight,
            chat_template=chat_template,
            dtype=None if dtype == DType.auto else dtype.value,
            seed=seed,
            max_shard_size=max_shard_size,
            force=force,
        )
        for origin in done.origins:
            changes = "; ".join(origin.changes) or "as it is"
            typer.echo(f"{origin.part}: {origin.num_parameters:,} parameters, {origin.source or 'new'}, {changes}")
        files = "1 file" if len(done.shards) == 1 else f"{len(done.shards)} files"
        typer.echo(
            f"Assembled {destination}: {done.num_parameters:,} parameters, {decimal(done.num_bytes)} in {files}."
        )


def _read_scales(text: str) -> list[int]:
    try:
        return [int(scale) for scale in text.split(",")]
    except ValueError:
        raise ValueError(f"`--s2-scales {text}` is not accepted: pixels such as 448,896,1344 are.") from None
