"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DType = StrEnum("DType", ["auto", "float32", "bfloat16", "float16"])
Split = StrEnum("Split", ["train", "validation", "test"])
Bits = StrEnum("Bits", {"bnb_4bit": "bnb-4bit", "bnb_8bit": "bnb-8bit"})

NumFrames = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Frames to sample from a video. Default: as in the checkpoint.")
]
Fps = Annotated[float | None, typer.Option(metavar="F", help="Frames to sample per second, instead of --num-frames.")]
Model = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        show_default=False,
        help="Checkpoint: a folder, or a repository of the Hub such as nvidia/omnivinci. Default: nano, a small model "
        "of the synthetic world that comes with the package.",
    ),
]
Start = Annotated[float | None, typer.Option(metavar="S", help="Start videos at this second.")]
End = Annotated[float | None, typer.Option(metavar="S", help="End videos at this second.")]
Audio = Annotated[
    bool | None,
    typer.Option(
        "--audio/--no-audio",
        show_default=False,
        help="Use the sound of videos, or not. Default: as in the checkpoint.",
    ),
]
Evidence = Annotated[
    bool, typer.Option("--evidence", help="Tell after each answer what it rests on, and what was left out.")
]
MaxNewTokens = Annotated[int, typer.Option(metavar="N", min=1, help="Maximum length of an answer.")]
Types = Annotated[
    list[str] | None, typer.Option("--type", metavar="TYPE", help="Type of question; repeatable. Default: all.")
]
World = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSON file with fields of WorldConfig: size and difficulty.")
]
Device = Annotated[str, typer.Option(metavar="cpu|cuda|auto", help="Device to run on.")]
WeightDType = Annotated[DType, typer.Option(help="Data type of the weights; auto keeps the stored one.")]
AttnImplementation = Annotated[
    str | None, typer.Option(metavar="NAME", help="Attention kernels, such as sdpa, eager or flash_attention_2.")
]
Quantization = Annotated[
    Bits | None,
    typer.Option(help="Quantize the language model's weights with bitsandbytes while loading."),
]
Voice = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Who speaks: auto, piper, espeak-ng, festival or flite, with a voice as in flite:slt, or the URL of a "
        "server of /v1/audio/speech.",
    ),
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")]


def quantization_config(bits: Bits | None):
    """The config for `from_pretrained`; `None` without quantization."""
    if bits is None:
        return None
    from transformers import BitsAndBytesConfig

    if bits is Bits.bnb_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
