"""`omnivinci transcribe`: writes down what is said in sounds and videos of any length."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..nano import NANO
from ..new_file import new_file
from .ask import load_with_processor
from .options import AttnImplementation, Device, DType, Model, Traceback, WeightDType
from .sources import check_model
from .terminal import introduce_nano, plain_errors, show_progress

Format = StrEnum("Format", ["txt", "srt", "vtt", "json"])


def transcribe(
    *,
    sounds: Annotated[list[str], typer.Argument(metavar="AUDIO", help="Sounds, or videos with sound: files or URLs.")],
    model: Model = NANO,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another recogniser, whose text enters the prompt: whisper, whisper:MODEL, pocketsphinx, the URL of "
            "a server of /v1/audio/transcriptions, or a file with a transcript; with --decide repeatable.",
        ),
    ] = None,
    decide: Annotated[
        bool,
        typer.Option(
            "--decide",
            help="The model writes down each stretch by itself, and decides whether to correct it by what the others "
            "heard. It must have been trained to, by the recipe asr-decision.",
        ),
    ] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="Write down what the external recogniser hears, without the model.")
    ] = False,
    translate: Annotated[
        str | None, typer.Option(metavar="LANG", help="Translate the speech into this language, such as German.")
    ] = None,
    format: Annotated[
        Format, typer.Option(help="Text, subtitles, or JSON with the seconds of segments.")
    ] = Format.txt,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for a file of each sound. Default: the terminal.")
    ] = None,
    window: Annotated[
        float, typer.Option(metavar="S", min=1.0, help="Longest stretch that is written down at a time, in seconds.")
    ] = 30.0,
    segment: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Shortest stretch, which ends at the next pause, in seconds.")
    ] = 5.0,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Most tokens of a stretch.")] = 256,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    traceback: Traceback = False,
) -> None:
    """
    Write down what is said in sounds or videos, and when.

    Sound of any length is cut at pauses. Nano understands no speech: give --model.
    """
    with plain_errors(traceback):
        from ..inference.speech.recognisers import ModelRecogniser, make_recogniser
        from ..inference.speech.transcribing import load_speech
        from ..inference.speech.transcribing import transcribe as write_down

        if segment > window:
            raise ValueError(f"`--segment {segment:g}` is longer than `--window {window:g}`.")
        _check_externals(external or [], decide, alone, translate)
        targets = _targets(sounds, output, format.value)
        others = [make_recogniser(name) for name in external or []]
        if alone:
            [recogniser] = others
        else:
            check_model(model)
            introduce_nano(model)
            if decide:
                _check_decides(model)
            hearing = load_hearing(model, max_new_tokens, device, dtype, attn_implementation)
            if decide:
                from ..inference.speech.deciding import DecidingRecogniser

                recogniser = DecidingRecogniser(hearing, others)
            else:
                recogniser = ModelRecogniser(hearing, others[0] if others else None, translate)
        for sound, target in zip(sounds, targets, strict=True):
            samples = load_speech(_content(sound))
            _write(write_down(samples, recogniser, segment, window), len(samples), format.value, target, sound)
        if decide:
            from ..inference.speech.decisions import ACCEPT, INTEGRATE

            taken = recogniser.counts
            text = f"Stretches: {taken[ACCEPT]} as the model heard them, {taken[INTEGRATE]} corrected by the others."
            typer.secho(text, dim=True, err=True)


def _check_externals(external: list[str], decide: bool, alone: bool, translate: str | None) -> None:
    """A ValueError where options about other recognisers do not go together."""
    if alone and (not external or translate is not None):
        raise ValueError("`--alone` needs an `--external` recogniser, which translates nothing.")
    if decide and (not external or alone or translate is not None):
        raise ValueError("`--decide` needs an `--external` recogniser, without `--alone` and `--translate`.")
    if decide:
        from ..inference.speech.decisions import check_number

        check_number(len(external))
    elif len(external) > 1:
        raise ValueError(f"Without `--decide`, one `--external` recogniser is accepted, got {len(external)}.")


def _check_decides(model: str) -> None:
    """A ValueError unless the tokenizer of a checkpoint has the decisions: it is there before the weights are."""
    from ..inference.speech.decisions import check_decision_tokens
    from ..processing import OmniVinciProcessor

    check_decision_tokens(OmniVinciProcessor.from_pretrained(model).tokenizer)


def load_hearing(model: str, max_new_tokens: int, device: str, dtype: DType, attn_implementation: str | None):
    """The [`ModelHearing`] of a checkpoint, as the options of commands say."""
    from ..inference.speech.model_hearing import ModelHearing

    with show_progress() as progress:
        processor, loaded = load_with_processor(progress, model, device, dtype, attn_implementation)
    return ModelHearing(processor, loaded, max_new_tokens)


def _content(sound: str):
    from .. import media

    return media.download(sound) if media.is_url(sound) else sound


def _targets(sounds: list[str], folder: Path | None, format: str) -> list[Path | None]:
    """A file for each sound, or none; a ValueError if two would have the same name, an OSError without the folder."""
    if folder is None:
        if len(sounds) > 1 and format != "txt":
            raise ValueError(f"{len(sounds)} sounds as {format} need `--output DIR`, for a file of each.")
        return [None] * len(sounds)
    if not folder.is_dir():
        raise OSError(f"There is no folder {str(folder)!r:.200} for the transcripts.")
    names = [Path(sound.partition("?")[0]).stem for sound in sounds]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two of the sounds would be written to {twice[0]}.{format}: give one of them another name.")
    return [folder / f"{name}.{format}" for name in names]


def _write(segments, num_samples: int, format: str, target: Path | None, sound: str) -> None:
    """Prints segments as they come, or writes them to a file once all are there."""
    from ..inference.speech.recognisers import HEARING_RATE
    from ..inference.speech.transcripts import write_transcript

    seconds, heard = num_samples / HEARING_RATE, []
    with show_progress() as progress:
        task = progress.add_task(os.path.basename(sound), total=round(seconds))
        for one in segments:
            heard.append(one)
            progress.update(task, completed=round(one.end))
            if target is None and format == "txt":
                typer.echo(one.text)
                sys.stdout.flush()
    if not heard:
        typer.secho(f"Nothing is said in {sound}.", dim=True, err=True)
    text = write_transcript(heard, format, seconds)
    if target is None:
        if format != "txt":
            typer.echo(text, nl=False)
        return
    with new_file(target) as part:
        part.write_text(text, encoding="utf-8")
    typer.echo(f"{target}")
