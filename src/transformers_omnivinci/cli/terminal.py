"""What commands show on the terminal: errors in one line, and progress."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..nano import NANO

TOLD_ERRORS = (ImportError, OSError, RuntimeError, TypeError, ValueError)
"""Errors of the library, which have a sentence for the user."""


@contextmanager
def plain_errors(with_traceback: bool) -> Iterator[None]:
    """
    Reports errors of the library in one line on stderr, with exit code 1.

    Args:
        with_traceback (`bool`): Whether to let errors through instead.
    """
    try:
        yield
    except TOLD_ERRORS as error:
        if with_traceback or isinstance(error, BrokenPipeError):
            raise
        tell(error)
        raise typer.Exit(1) from None


def tell(error: Exception) -> None:
    """Reports an error in one line on stderr."""
    message = " ".join(str(error).split()) or type(error).__name__
    typer.secho(f"error: {message}", fg="red", err=True)


def introduce_nano(model: str) -> None:
    """Tells on stderr that nano answers, if `model` is the path of nano."""
    if model == NANO:
        text = "Answered by nano, which only knows the synthetic world. For the 9B model: --model nvidia/omnivinci"
        typer.secho(text, dim=True, err=True)


def print_table(columns: dict[str, Sequence[str]], numbers: Sequence[str] = (), footer: Sequence[str] = ()) -> None:
    """
    Prints a table.

    Args:
        columns (`dict[str, Sequence[str]]`): The cells of each column, by its heading.
        numbers (`Sequence[str]`): Headings of columns that are set right.
        footer (`Sequence[str]`): A last row.
    """
    table = Table(box=box.SIMPLE_HEAD, show_footer=bool(footer), pad_edge=False, footer_style="bold")
    for index, name in enumerate(columns):
        justify = "right" if name in numbers else "left"
        table.add_column(name, footer=footer[index] if footer else "", justify=justify, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yields progress bars on stderr that vanish at the end. They are disabled if stderr is not a terminal."""
    from transformers.utils import logging

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    logging.disable_progress_bar()
    try:
        progress = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        # Before 14.3, rich prints an empty line at the end even if the bars are disabled.
        with nullcontext() if progress.disable else progress:
            yield progress
    finally:
        logging.enable_progress_bar()


@contextmanager
def count_decoded(
    video_processor, progress: Progress, expect: Callable[[int], None] = lambda number: None
) -> Iterator[None]:
    """
    Shows how many of the sampled frames of all videos have been decoded: each is resized right after.

    Args:
        video_processor ([`OmniVinciVideoProcessor`]): The processor that loads the videos in this context.
        progress (`rich.progress.Progress`): Where the bar is shown.
        expect (`Callable`, *optional*): Called with the number of frames that are sampled of each video.
    """
    task = progress.add_task("Decoding", total=None)
    total, sample_frames, resize = 0, video_processor.sample_frames, video_processor.resize

    def count_sampled(*args, **kwargs):
        nonlocal total
        indices = sample_frames(*args, **kwargs)
        number = len(set(indices.tolist()))
        total += number
        progress.update(task, total=total)
        expect(number)
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
def count_watched(processor, model, progress: Progress) -> Iterator[None]:
    """
    Shows how many of the sampled frames have been decoded, and how many frames, tiles and audio windows were encoded
    meanwhile.

    Args:
        processor ([`OmniVinciProcessor`]): The processor that reads media in this context.
        model ([`OmniVinciForConditionalGeneration`]): The model that encodes them.
        progress (`rich.progress.Progress`): Where the bars are shown.
    """
    inner, total = model.model, 0
    encode_media, encode_windows = inner.encode_media, inner.encode_windows

    def expect(number: int) -> None:
        nonlocal total
        total += number
        progress.update(task, total=total)

    def count_tiles(**media):
        expect(len(media.get("pixel_values", ())))
        return encode_media(**media)

    def count_windows(pieces, num_windows: int):
        expect(num_windows)
        return encode_windows(pieces, num_windows)

    def advance(module, args, output):
        progress.advance(task, len(output.last_hidden_state))

    with ExitStack() as decoding:
        decoding.enter_context(count_decoded(processor.video_processor, progress, expect))
        task = progress.add_task("Encoding", total=None)
        encoders = (inner.vision_tower.encoder, inner.audio_tower)
        hooks = [encoder.register_forward_hook(advance) for encoder in encoders]
        inner.encode_media, inner.encode_windows = count_tiles, count_windows
        try:
            yield
        finally:
            del inner.encode_media, inner.encode_windows
            for hook in hooks:
                hook.remove()
            decoding.close()
            progress.remove_task(task)
