"""`omnivinci synthesize`: clips of the synthetic world, with questions and answers."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .options import Traceback
from .terminal import plain_errors, show_progress


class Split(str, Enum):
    train = "train"
    validation = "validation"
    test = "test"


class Media(str, Enum):
    mp4 = "mp4"
    arrays = "arrays"


def synthesize(
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write; other splits may be in it.")],
    num_clips: Annotated[int, typer.Option(metavar="N", min=1, help="Number of clips.")],
    split: Annotated[Split, typer.Option(help="Each has combinations of its own.")] = Split.train,
    seed: Annotated[int, typer.Option(metavar="S", help="The same gives the same clips.")] = 0,
    media: Annotated[Media, typer.Option(help="mp4 files, or NumPy arrays.")] = Media.mp4,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Of questions; may be repeated. Default: all.")
    ] = None,
    questions_per_clip: Annotated[int, typer.Option(metavar="N", min=1, help="At most; each of another type.")] = 1,
    world: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON with fields of WorldConfig: size, difficulty.")
    ] = None,
    num_workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that render.")] = 1,
    traceback: Traceback = False,
) -> None:
    """Write short clips in which it is known what is seen and heard when, and chats about them.

    Run again to complete what was interrupted."""
    with plain_errors(traceback):
        from ..synthetic import SyntheticDataset, WorldConfig, write_dataset

        config = WorldConfig() if world is None else WorldConfig.from_json(world)
        dataset = SyntheticDataset(split.value, num_clips, seed, config, types or None, questions_per_clip)
        with show_progress() as progress:
            task = progress.add_task("Rendering", total=num_clips)
            path = write_dataset(output, dataset, media.value, num_workers, on_clip=lambda: progress.advance(task))
        Console(highlight=False).print(Text(f"{path}: {num_clips} clips."))
