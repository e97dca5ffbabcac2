"""`omnivinci synthesize`: clips, pictures and sounds of the synthetic world, with questions and answers."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import Split, Traceback, Types, World
from .terminal import plain_errors, show_progress

Modality = StrEnum("Modality", ["video", "image", "audio"])
_PLURALS = {Modality.video: "clips", Modality.image: "pictures", Modality.audio: "sounds"}


def synthesize(
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write to; it can hold several splits and modalities.")
    ],
    num_clips: Annotated[int, typer.Option(metavar="N", min=1, help="Number of clips, pictures or sounds.")],
    split: Annotated[Split, typer.Option(help="Split; each has its own combinations of events.")] = Split.train,
    modality: Annotated[
        Modality, typer.Option(help="Clips with sound, pictures of one shape, or sound alone.")
    ] = Modality.video,
    seed: Annotated[int, typer.Option(metavar="S", help="Random seed; the same seed gives the same files.")] = 0,
    types: Types = None,
    forms: Annotated[
        list[str] | None,
        typer.Option("--form", metavar="FORM", help="Form of question within the types; repeatable. Default: all."),
    ] = None,
    questions_per_clip: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum number of questions about each clip.")
    ] = 1,
    unroll: Annotated[
        bool, typer.Option("--unroll", help="Write what is seen, heard and both in order before each answer.")
    ] = False,
    world: World = None,
    num_workers: Annotated[int, typer.Option(metavar="N", min=1, help="Number of rendering processes.")] = 1,
    traceback: Traceback = False,
) -> None:
    """
    Write a synthetic data set of clips and questions.

    All events of a clip are known, and so are the right answers. Clips are mp4 files, and questions with their answers
    are chats in a JSONL file. --modality gives PNG pictures or WAV sounds instead of clips. --unroll asks about each
    clip what is seen, heard, and both in their order, and writes these contexts before the questions.

    Run the same command again to complete an interrupted data set.
    """
    with plain_errors(traceback):
        from ..synthetic import SyntheticDataset, WorldConfig, write_dataset

        config = WorldConfig() if world is None else WorldConfig.from_json(world)
        dataset = SyntheticDataset(
            split, num_clips, seed, config, types or None, questions_per_clip, modality, forms or None, unroll
        )
        with show_progress() as progress:
            task = progress.add_task("Rendering", total=num_clips)
            path = write_dataset(output, dataset, num_workers, on_clip=lambda: progress.advance(task))
        typer.echo(f"{path}: {num_clips} {_PLURALS[modality]}.")
