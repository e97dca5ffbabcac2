"""`omnivinci synthesize`: clips, pictures and sounds of the synthetic world, with questions and answers."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .options import Traceback, Types, World
from .terminal import plain_errors, show_progress


class Split(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class Modality(StrEnum):
    video = "video"
    image = "image"
    audio = "audio"


class Media(StrEnum):
    mp4 = "mp4"
    png = "png"
    wav = "wav"
    arrays = "arrays"


_PLURALS = {Modality.video: "clips", Modality.image: "pictures", Modality.audio: "sounds"}


def synthesize(
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder to write; other splits and modalities may be in it.")
    ],
    num_clips: Annotated[int, typer.Option(metavar="N", min=1, help="Number of clips, pictures or sounds.")],
    split: Annotated[Split, typer.Option(help="Each has combinations of its own.")] = Split.train,
    modality: Annotated[
        Modality, typer.Option(help="Clips with sound, pictures of one shape, or sounds without picture.")
    ] = Modality.video,
    seed: Annotated[int, typer.Option(metavar="S", help="The same gives the same clips.")] = 0,
    media: Annotated[
        Media | None, typer.Option(help="Of files. Default: mp4, png or wav, as the modality is; or NumPy arrays.")
    ] = None,
    types: Types = None,
    forms: Annotated[
        list[str] | None,
        typer.Option("--form", metavar="FORM", help="Of questions, within the types; may be repeated. Default: all."),
    ] = None,
    questions_per_clip: Annotated[int, typer.Option(metavar="N", min=1, help="At most; of all types in turn.")] = 1,
    world: World = None,
    num_workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that render.")] = 1,
    traceback: Traceback = False,
) -> None:
    """Write short clips in which it is known what is seen and heard when, and chats about them.

    Or pictures or sounds from such clips, with the questions that these alone answer.

    Run again to complete what was interrupted."""
    with plain_errors(traceback):
        from ..synthetic import SyntheticDataset, WorldConfig, write_dataset

        config = WorldConfig() if world is None else WorldConfig.from_json(world)
        dataset = SyntheticDataset(
            split.value, num_clips, seed, config, types or None, questions_per_clip, modality.value, forms or None
        )
        with show_progress() as progress:
            task = progress.add_task("Rendering", total=num_clips)
            path = write_dataset(
                output, dataset, media and media.value, num_workers, on_clip=lambda: progress.advance(task)
            )
        Console(highlight=False).print(Text(f"{path}: {num_clips} {_PLURALS[modality]}."))
