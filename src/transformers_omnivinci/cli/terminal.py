"""What commands show on the terminal: plain errors and progress."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..nano import NANO


@contextmanager
def plain_errors(with_traceback: bool) -> Iterator[None]:
    """Turns what the library raises into one red line and exit code 1."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if with_traceback or isinstance(error, BrokenPipeError):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        Console(stderr=True).print(Text(f"error: {message}", style="red"), soft_wrap=True)
        raise typer.Exit(1) from None


def introduce_nano(model: str) -> None:
    """Says who answers where no model was named."""
    if model == NANO:
        text = "Nano answers: it knows the synthetic world alone. The 9B model: --model nvidia/omnivinci"
        Console(stderr=True, highlight=False).print(text, style="dim", soft_wrap=True)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Progress bars on stderr, if that is a terminal; they vanish at the end."""
    from transformers.utils import logging

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    logging.disable_progress_bar()
    try:
        progress = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        # rich before 14.3 ends a line that it has not begun, also where the bars are disabled.
        with nullcontext() if progress.disable else progress:
            yield progress
    finally:
        logging.enable_progress_bar()


@contextmanager
def count_decoded(video_processor, progress: Progress) -> Iterator[None]:
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


def format_size(num_bytes: int) -> str:
    """A size as "17.5 GB", in powers of ten."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"
