"""`omnivinci ask`: answers a question about media."""

import os
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from ..nano import NANO
from .evidence_text import describe_evidence
from .options import (
    AttnImplementation,
    Audio,
    Device,
    DType,
    End,
    Evidence,
    Fps,
    MaxNewTokens,
    Model,
    NumFrames,
    Start,
    Traceback,
    Voice,
    WeightDType,
)
from .sources import check_model, content_item
from .terminal import count_watched, introduce_nano, plain_errors, show_progress

Spoken = StrEnum("Spoken", ["native", "transcript", "rendered"])
Position = StrEnum("Position", ["prefix", "mid", "suffix"])


def ask(
    *,
    media: Annotated[
        list[str] | None,
        typer.Argument(metavar="MEDIA", help="Videos, images or sounds: files, URLs or folders of frames."),
    ] = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Question about them.")],
    model: Model = NANO,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    audio: Audio = None,
    evidence: Evidence = False,
    unroll: Annotated[
        bool, typer.Option("--unroll", help="Write what is seen, heard and both in order before the answer.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="With --unroll: stop as soon as the answer has this probability, 0 to 1."),
    ] = None,
    max_rounds: Annotated[
        int | None, typer.Option(metavar="N", help="With --unroll: the most contexts that are written. Default: 3.")
    ] = None,
    speak: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Speak the answer into this file: .wav, .mp3, .flac or .ogg.")
    ] = None,
    voice: Voice = "auto",
    spoken: Annotated[
        Spoken | None,
        typer.Option(
            help="QUESTION is a sound, which is asked as it is, as the text that --recogniser hears, or as that text "
            "spoken anew by --voice."
        ),
    ] = None,
    recogniser: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who hears a spoken question, as of `omnivinci transcribe --external`."),
    ] = None,
    position: Annotated[
        Position, typer.Option(help="Where the question stands: before, among or behind the media.")
    ] = Position.suffix,
    max_new_tokens: MaxNewTokens = 512,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    traceback: Traceback = False,
) -> None:
    """
    Answer a question about videos, images and sounds.

    The answer is printed while it is generated; with --unroll, contexts go to standard error while they are written.
    """
    with plain_errors(traceback):
        if spoken is None and os.path.isfile(question):
            raise ValueError(
                f"The last argument is the question, but {question!r} is a file. A spoken one needs `--spoken`."
            )
        speaking = nullcontext() if speak is None else prepare_speech(speak, voice)
        content = [content_item(source) for source in media or []]
        options = _unroll_options(unroll, threshold, max_rounds)
        if options is not None and not content:
            raise ValueError("--unroll tells what is seen and heard, but no video, image or sound is given.")
        if options is not None and (spoken is not None or position != Position.suffix):
            raise ValueError("--unroll writes contexts before a question in words, which stands behind the media.")
        check_model(model)
        asked = {"type": "text", "text": question}
        if spoken is not None or recogniser is not None:
            asked = _hear_question(question, spoken, recogniser, voice)
        introduce_nano(model)
        chat = [{"role": "user", "content": _place(content, asked, position)}]
        watching = {"load_audio_from_video": audio, "num_frames": num_frames, "fps": fps, "return_evidence": evidence}
        watching |= {"video_start": start, "video_end": end}
        with show_progress() as progress:
            processor, loaded = load_with_processor(progress, model, device, dtype, attn_implementation)
            if options is None:
                with count_watched(processor, loaded, progress):
                    inputs = processor.apply_chat_template(
                        chat,
                        tokenize=True,
                        return_dict=True,
                        add_generation_prompt=True,
                        return_tensors="pt",
                        media_encoder=loaded,
                        **watching,
                    ).to(loaded.device)
        with speaking as aloud:
            if options is None:
                rests_on = inputs.pop("evidence", [])
                _answer(loaded, processor, inputs, max_new_tokens, aloud)
            else:
                rests_on = _answer_unrolled(loaded, processor, chat, options, watching, max_new_tokens, aloud)
        for one in rests_on:
            typer.echo("\n" + "\n".join(describe_evidence(one, media or [])))


def _hear_question(sound: str, form: Spoken | None, recogniser: str | None, voice: str) -> dict:
    """The content item of a question that is the sound of a file or URL, see [`spoken_question`]."""
    from ..inference.speech import make_voice
    from ..inference.speech.prompts import spoken_question
    from ..inference.speech.recognisers import make_recogniser
    from ..inference.speech.transcribing import load_speech
    from ..media import download, is_url

    if (recogniser is None) != (form in (None, Spoken.native)):
        raise ValueError("`--recogniser` is for `--spoken transcript` and `--spoken rendered`, which need it.")
    listener = None if recogniser is None else make_recogniser(recogniser)
    speaker = make_voice(voice) if form == Spoken.rendered else None
    if not is_url(sound) and not os.path.isfile(sound):
        raise OSError(f"There is no sound {sound!r:.200}, which is the question of `--spoken {form.value}`.")
    samples = load_speech(download(sound) if is_url(sound) else sound)[:]
    return spoken_question(samples, form.value, listener, speaker)


def _place(media: list[dict], question: dict, position: Position) -> list[dict]:
    """The content of the message."""
    from ..inference.speech.prompts import place_question

    return place_question(media, question, position.value)


def _answer(loaded, processor, inputs, max_new_tokens: int, spoken=None) -> None:
    """Prints the answer, and has it `spoken`, while it is generated."""
    from transformers import TextStreamer

    from ..sessions.prefix import positions_at_once

    length = inputs["input_ids"].shape[1]
    options, at_once = {"max_new_tokens": max_new_tokens}, positions_at_once(loaded.device, length)
    if at_once < length:
        options["prefill_chunk_size"] = at_once

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False):
            super().on_finalized_text(text, stream_end)
            if spoken is not None:
                spoken.say(text)

    streamer = Streamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    loaded.generate(**inputs, streamer=streamer, **options)


def _unroll_options(unroll: bool, threshold: float | None, max_rounds: int | None):
    """What --unroll, --threshold and --max-rounds say; `None` without them."""
    from ..reasoning.contexts import UnrollOptions

    given = {"threshold": threshold, "max_rounds": max_rounds}
    given = {name: value for name, value in given.items() if value is not None}
    if not unroll:
        if given:
            raise ValueError("--threshold and --max-rounds are for contexts: give --unroll with them.")
        return None
    return UnrollOptions("full" if threshold is None else "auto", **given)


def _answer_unrolled(
    loaded, processor, chat: list[dict], options, watching: dict, max_new_tokens: int, spoken=None
) -> list:
    """
    Prints contexts and the answer, which is `spoken`, while they are written; returns what the answer rests on, if it
    is wanted.
    """
    from ..reasoning.unrolling import ANSWER, Unroller
    from ..reasoning.views import ReadChat

    told = ""

    def tell(name: str, text: str) -> None:
        nonlocal told
        if name != told:
            typer.echo(("\n" if told else "") + (f"{name}: " if name != ANSWER else ""), nl=False, err=True)
            told = name
        typer.echo(text, nl=False, err=name != ANSWER)
        if name == ANSWER and spoken is not None:
            spoken.say(text)

    read = ReadChat.of(processor, chat, **watching)
    unroller = Unroller(loaded, processor, read, options, max_new_tokens=max_new_tokens)
    answered = unroller.answer(tell)
    typer.echo("")
    for name, reason in answered.skipped.items():
        typer.echo(f"{name}: not written. {reason}", err=True)
    for name in answered.cut:
        typer.echo(f"{name}: cut at {options.context_tokens} tokens.", err=True)
    typer.echo(
        f"Contexts: {answered.rounds}. Confidence: {answered.confidence:.3f}. "
        f"Tokens: {answered.prompt_tokens:,} read, {answered.generated_tokens:,} written.",
        err=True,
    )
    return [] if answered.evidence is None else [answered.evidence]


def prepare_speech(path: Path, voice: str):
    """A [`SpokenAnswer`] that is written to a file; ValueError or OSError if it cannot be, or there is no voice."""
    from ..inference.speech import check_target, make_voice, write_spoken
    from .speaking import SpokenAnswer

    check_target(path)
    return SpokenAnswer(make_voice(voice), lambda spoken: write_spoken(spoken, path, "the answer"))


def load_with_processor(progress: Progress, model: str, device: str, dtype: DType, attn_implementation: str | None):
    """The processor and the model of a checkpoint, as the options of commands say; `progress` shows that it loads."""
    from ..processing import OmniVinciProcessor

    place = choose_device(device)
    task = progress.add_task("Loading the model", total=None)
    processor = OmniVinciProcessor.from_pretrained(model)
    loaded = load_model(model, place, dtype, attn_implementation)
    progress.remove_task(task)
    return processor, loaded


def load_model(model: str, device, dtype: DType, attn_implementation: str | None):
    """
    Loads a checkpoint onto a `torch.device` of [`choose_device`]; the other arguments are options of commands. Raises
    ValueError if it lacks weights or has them in another shape.
    """
    import torch

    from ..modeling import OmniVinciForConditionalGeneration

    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    loaded, found = OmniVinciForConditionalGeneration.from_pretrained(
        model,
        dtype="auto" if dtype == DType.auto else getattr(torch, dtype.value),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below
        **options,
    )
    unfit = sorted({*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])})
    if unfit:
        raise ValueError(f"{model} lacks these weights or has them in another shape: {', '.join(unfit)}.")
    return loaded.eval().to(device)


def choose_device(name: str):
    """
    The `torch.device` that `--device` names: one of torch, or `"auto"` for the accelerator if there is one, else the
    CPU. Raises ValueError if there is no such device.
    """
    import torch

    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"`--device {name}` is unknown: cpu, cuda and auto are accepted.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`--device {name}` is not available: torch finds no CUDA device. cpu and auto are accepted.")
    return device
