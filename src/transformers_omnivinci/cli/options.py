"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DType(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


NumFrames = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Frames to look at. Default: as in the checkpoint.")
]
Fps = Annotated[float | None, typer.Option(metavar="F", help="Frames per second to look at, instead.")]
Model = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        show_default="nano, a small model of the synthetic world, for trying the software",
        help="Checkpoint: a folder, or a repository of the Hub such as nvidia/omnivinci.",
    ),
]
Start = Annotated[float | None, typer.Option(metavar="S", help="Second from which videos are looked at.")]
End = Annotated[float | None, typer.Option(metavar="S", help="Second up to which videos are looked at.")]
Audio = Annotated[
    bool | None,
    typer.Option("--audio/--no-audio", show_default="as in the checkpoint", help="Whether videos are heard, too."),
]
Types = Annotated[
    list[str] | None, typer.Option("--type", metavar="TYPE", help="Of questions; may be repeated. Default: all.")
]
World = Annotated[Path | None, typer.Option(metavar="FILE", help="JSON with fields of WorldConfig: size, difficulty.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")]
