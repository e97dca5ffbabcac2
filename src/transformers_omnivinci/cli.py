"""The command `omnivinci`: asks about media, and shows the timeline of a clip."""

import mimetypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlparse

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from . import __version__
from .registration import MODEL_TYPE

# torch and transformers are imported by the commands: `omnivinci --help` needs neither.

app = typer.Typer(
    name="omnivinci",
    help="OmniVinci: a model that sees, listens and reads.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

KINDS = ("image", "video", "audio")
MOST_LISTED = 10
"""Of more frames than this, the table lists only the first and the last ones."""


class DType(str, Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


NumFrames = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Frames to look at. Default: as in the checkpoint.")
]
Fps = Annotated[float | None, typer.Option(metavar="F", help="Frames per second to look at, instead.")]
Start = Annotated[float | None, typer.Option(metavar="S", help="Second from which videos are looked at.")]
End = Annotated[float | None, typer.Option(metavar="S", help="Second up to which videos are looked at.")]
NoAudio = Annotated[bool, typer.Option("--no-audio", help="Leave out the sound of videos.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")]


def main() -> None:
    """The entry point of the command."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"omnivinci {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------------------- commands


@app.command()
def ask(
    *,
    media: Annotated[
        list[str] | None,
        typer.Argument(metavar="MEDIA", help="Videos, images and sounds: files, URLs, folders of frames."),
    ] = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What is asked about them.")],
    model: Annotated[str, typer.Option(metavar="DIR", help="Checkpoint: a folder, or a repository of the Hub.")],
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    no_audio: NoAudio = False,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="The most tokens of the answer.")] = 512,
    device: Annotated[str, typer.Option(metavar="cpu|cuda|auto", help="Where the model runs.")] = "auto",
    dtype: Annotated[DType, typer.Option(help="Of the weights. auto: as stored.")] = DType.auto,
    attn_implementation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Such as sdpa, eager or flash_attention_2.")
    ] = None,
    traceback: Traceback = False,
) -> None:
    """Answer a question about videos, images and sounds. The answer is printed as it is generated."""
    with _plain_errors(traceback):
        if os.path.isfile(question):
            raise ValueError(f"The last argument is the question, but {question!r} is a file.")
        content = [_content_item(source) for source in media or []]
        _check_model(model)
        import torch
        from transformers import TextStreamer

        from .modeling.modeling_omnivinci import MEDIA_INPUTS, OmniVinciForConditionalGeneration
        from .processing import OmniVinciProcessor

        place = _choose_device(device)
        with _show_progress() as progress:
            task = progress.add_task("Loading the model", total=None)
            processor = OmniVinciProcessor.from_pretrained(model)
            options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
            loaded = OmniVinciForConditionalGeneration.from_pretrained(
                model, dtype="auto" if dtype == DType.auto else getattr(torch, dtype.value), **options
            ).to(place)
            progress.remove_task(task)
            with _count_decoded(processor.video_processor, progress):
                inputs = processor.apply_chat_template(
                    [{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
                    tokenize=True,
                    return_dict=True,
                    add_generation_prompt=True,
                    load_audio_from_video=not no_audio,
                    return_tensors="pt",
                    num_frames=num_frames,
                    fps=fps,
                    video_start=start,
                    video_end=end,
                ).to(loaded.device, loaded.dtype)
            tensors = {name: inputs.pop(name) for name in MEDIA_INPUTS if name in inputs}
            with _count_encoded(loaded, tensors, progress), torch.no_grad():
                encoded = loaded.encode_media(**tensors)
        if encoded:
            inputs["mm_encoder_outputs"] = encoded
        streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        loaded.generate(**inputs, max_new_tokens=max_new_tokens, streamer=streamer)


@app.command()
def timeline(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video: a file, a URL, a folder of frames.")],
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Checkpoint to plan for. Default: the 9B model.")
    ] = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    no_audio: NoAudio = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the timeline, too: .png, .svg or .pdf.")
    ] = None,
    traceback: Traceback = False,
) -> None:
    """Show which frames and sounds of a clip stand together, in temporal groups, and how many tokens they take."""
    with _plain_errors(traceback):
        kind = _content_item(clip)["type"]
        if kind != "video":
            raise ValueError(f"{clip!r} is {'an image' if kind == 'image' else 'a sound'}: a video is accepted.")
        if model is not None:
            _check_model(model)
        from .plotting import count_tokens, plot_timeline, timeline_groups

        processor = _processor_of(model)
        sampling_rate = processor.feature_extractor.sampling_rate
        options = {"num_frames": num_frames, "fps": fps, "video_start": start, "video_end": end}
        if plot is None:
            metadata = processor.video_processor.probe_video(clip, **options)
            num_samples = round((metadata.audio_duration or 0) * sampling_rate)
        else:
            with _show_progress() as progress, _count_decoded(processor.video_processor, progress):
                (video,) = processor.video_processor.load_videos(
                    clip,
                    load_audio=not no_audio,
                    sampling_rate=sampling_rate,
                    size={"height": 256, "width": 256},
                    **options,
                )
            metadata, num_samples = video.metadata, 0 if video.waveform is None else len(video.waveform)
        plan = processor.plan_video(metadata, num_samples if num_samples and not no_audio else None)
        groups = timeline_groups(processor, plan, metadata.duration)
        name = Path(urlparse(clip).path if _is_url(clip) else clip).name
        console = Console(highlight=False)
        facts = f"{metadata.width} x {metadata.height}, {metadata.duration:.2f} s at {metadata.fps:.2f} fps"
        console.print(Text.assemble((name, "bold"), f"  {facts}, {'no sound' if plan.windows is None else 'sound'}"))
        console.print(_table(groups, plan.timestamps))
        numbers = count_tokens(groups)
        parts = ", ".join(f"{number:,} {kind}" for kind, number in numbers.items())
        console.print(f"{sum(numbers.values()):,} tokens: {parts}")
        if model is None:
            console.print("Planned for the 9B model; --model plans for another checkpoint.", style="dim")
        if plot is not None:
            figure = plot_timeline(
                groups,
                plan.timestamps,
                video.frames,
                None if plan.windows is None else video.waveform,
                sampling_rate,
                aspect_ratio=metadata.width / metadata.height,
                title=name,
            )
            figure.savefig(plot)
            console.print(Text(f"The figure is in {plot}."), soft_wrap=True)


# Options, arguments and help are those of `transformers serve`.
@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(context: typer.Context) -> None:
    """Serve models over an OpenAI-compatible API: `transformers serve`, which knows OmniVinci here."""
    with _plain_errors(with_traceback=False):
        from transformers.cli.transformers import app as transformers_app

        transformers_app(["serve", *context.args], prog_name="omnivinci")


# --------------------------------------------------------------------------------------------------------- helpers


@contextmanager
def _plain_errors(with_traceback: bool) -> Iterator[None]:
    """Turns what the library raises into one red line and exit code 1."""
    try:
        yield
    except (ImportError, OSError, TypeError, ValueError) as error:
        if with_traceback or isinstance(error, BrokenPipeError):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        Console(stderr=True).print(Text(f"error: {message}", style="red"), soft_wrap=True)
        raise typer.Exit(1) from None


def _is_url(source: str) -> bool:
    return re.match(r"(https?|file|data):", source) is not None


def _content_item(source: str) -> dict:
    """A source as item of a message. What it is, its content tells, or the extension of a URL."""
    from .processing import media

    if os.path.isdir(source):
        return {"type": "video", "video": source}
    if _is_url(source):
        path = source if source.startswith("data:") else urlparse(source).path
        kind = (mimetypes.guess_type(path)[0] or "").partition("/")[0]
        if kind in KINDS:
            return {"type": kind, kind: source}
    try:
        num_frames = media.probe_video(source).total_num_frames
    except ValueError as no_video:
        try:
            media.probe_audio(source)
        except ValueError:
            raise ValueError(f"{source!r} is read neither as video nor as image or sound: {no_video}") from no_video
        return {"type": "audio", "audio": source}
    if num_frames == 1:
        try:
            media.probe_image(source)
        except ValueError:
            pass  # a video of one frame
        else:
            return {"type": "image", "image": source}
    return {"type": "video", "video": source}


def _check_model(model: str) -> None:
    """Refuses what is no folder of a checkpoint of OmniVinci; other names are left to the Hub."""
    if not os.path.isdir(model) and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model):
        raise ValueError(f"There is no folder {model!r}: `--model` is a folder, or a repository such as owner/name.")
    from transformers import AutoConfig

    model_type = AutoConfig.from_pretrained(model).model_type
    if model_type != MODEL_TYPE:
        raise ValueError(f"{model!r} holds a model of type {model_type!r}: a checkpoint of OmniVinci is accepted.")


def _choose_device(name: str):
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"`--device {name}` is not known: cpu, cuda and auto are accepted.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`--device {name}` is not there, as torch sees no CUDA device: cpu and auto are accepted.")
    return device


def _processor_of(model: str | None):
    """The processor of a checkpoint; without one, a processor that plans as that of the 9B model."""
    from .processing import OmniVinciImageProcessor, OmniVinciProcessor, OmniVinciVideoProcessor

    if model is not None:
        return OmniVinciProcessor.from_pretrained(model)
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

    from .configuration_omnivinci import OmniVinciConfig
    from .processing.chat_template import AUDIO_TOKEN, IMAGE_TOKEN, VIDEO_TOKEN

    # All that plans need of the tokenizer is that placeholders and newlines are one token each.
    words = ("<unk>", "\n", IMAGE_TOKEN, VIDEO_TOKEN, AUDIO_TOKEN)
    vocabulary = WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    config = OmniVinciConfig()
    return OmniVinciProcessor(
        OmniVinciImageProcessor(s2_scales=config.s2_scales),
        OmniVinciVideoProcessor(),
        WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins),
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), unk_token="<unk>"),
        **OmniVinciProcessor.settings_of(config),
    )


def _table(groups, timestamps: list[float]) -> Table:
    """The temporal groups with what stands in them, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, footer_style="bold")
    columns = {
        "group": [group.name.removeprefix("group ") for group in groups],
        "seconds": [f"{group.start:.1f} - {group.end:.1f}" for group in groups],
        "frames": [len(group.frames) for group in groups],
        "seconds of the frames": [_list_seconds([timestamps[index] for index in group.frames]) for group in groups],
        "mel frames": [len(group.mel_frames) for group in groups],
        "video tokens": [group.num_video_tokens for group in groups],
        "audio tokens": [group.num_audio_tokens for group in groups],
    }
    for name, cells in columns.items():
        is_number = isinstance(cells[0], int)
        footer = f"{sum(cells):,}" if is_number else "total" if name == "group" else ""
        table.add_column(name, footer=footer, justify="right" if is_number else "left")
    for row in zip(*columns.values()):
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else cell for cell in row))
    return table


def _list_seconds(seconds: list[float]) -> str:
    words = [f"{second:.2f}" for second in seconds]
    if len(words) > MOST_LISTED:
        words[MOST_LISTED // 2 : -MOST_LISTED // 2] = ["..."]
    return " ".join(words)


@contextmanager
def _show_progress() -> Iterator[Progress]:
    """Progress bars on stderr, if that is a terminal; they vanish at the end."""
    from transformers.utils import logging

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    logging.disable_progress_bar()
    try:
        with Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            yield progress
    finally:
        logging.enable_progress_bar()


@contextmanager
def _count_decoded(video_processor, progress: Progress) -> Iterator[None]:
    """Shows how many of the sampled frames of all videos are decoded: each is resized as it is."""
    task = progress.add_task("Decoding", total=None)
    total, sample_frames, resize = 0, video_processor.sample_frames, video_processor.resize

    def count_sampled(*args, **kwargs):
        nonlocal total
        indices = sample_frames(*args, **kwargs)
        total += len(set(indices.tolist()))
        progress.update(task, total=total)
        return indices

    def count_resized(frames, *args, **kwargs):
        progress.advance(task, frames.ndim == 3)
        return resize(frames, *args, **kwargs)

    video_processor.sample_frames, video_processor.resize = count_sampled, count_resized
    try:
        yield
    finally:
        del video_processor.sample_frames, video_processor.resize
        progress.remove_task(task)


@contextmanager
def _count_encoded(model, media: dict, progress: Progress) -> Iterator[None]:
    """Shows how many frames, tiles and windows of sound are encoded."""
    names = ("pixel_values", "pixel_values_videos", "input_features")
    task = progress.add_task("Encoding", total=sum(len(media[name]) for name in names if name in media))

    def advance(module, args, output):
        progress.advance(task, len(output.last_hidden_state))

    encoders = (model.model.vision_tower.encoder, model.model.audio_tower)
    hooks = [encoder.register_forward_hook(advance) for encoder in encoders]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        progress.remove_task(task)
