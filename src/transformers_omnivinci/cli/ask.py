"""`omnivinci ask`: answers a question about media."""

import os
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
    WeightDType,
)
from .sources import check_model, content_item
from .terminal import count_watched, introduce_nano, plain_errors, show_progress


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
    max_new_tokens: MaxNewTokens = 512,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    traceback: Traceback = False,
) -> None:
    """
    Answer a question about videos, images and sounds.

    The answer is printed while it is generated.
    """
    with plain_errors(traceback):
        if os.path.isfile(question):
            raise ValueError(f"The last argument is the question, but {question!r} is a file.")
        content = [content_item(source) for source in media or []]
        check_model(model)
        introduce_nano(model)
        from transformers import TextStreamer

        from ..sessions.prefix import positions_at_once

        with show_progress() as progress:
            processor, loaded = load_with_processor(progress, model, device, dtype, attn_implementation)
            with count_watched(processor, loaded, progress):
                inputs = processor.apply_chat_template(
                    [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
                    tokenize=True,
                    return_dict=True,
                    add_generation_prompt=True,
                    load_audio_from_video=audio,
                    return_tensors="pt",
                    num_frames=num_frames,
                    fps=fps,
                    video_start=start,
                    video_end=end,
                    return_evidence=evidence,
                    media_encoder=loaded,
                ).to(loaded.device)
        rests_on, length = inputs.pop("evidence", []), inputs["input_ids"].shape[1]
        options, at_once = {"max_new_tokens": max_new_tokens}, positions_at_once(loaded.device, length)
        if at_once < length:
            options["prefill_chunk_size"] = at_once
        streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        loaded.generate(**inputs, streamer=streamer, **options)
        for one in rests_on:
            typer.echo("\n" + "\n".join(describe_evidence(one, media or [])))


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
