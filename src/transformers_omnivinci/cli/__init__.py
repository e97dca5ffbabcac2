"""The command `omnivinci`, with a module for each subcommand."""

from typing import Annotated

import typer

from ..version import __version__
from .ask import ask
from .asr_data import asr_data
from .assemble import assemble
from .chat import chat
from .convert import convert
from .curate import curate
from .demo import demo
from .eval import evaluate
from .grpo import grpo
from .push import push
from .quantize import quantize
from .serve import serve
from .synthesize import synthesize
from .timeline import timeline
from .train import train
from .transcribe import transcribe
from .watch import watch
from .web import web

# torch and transformers are imported inside the commands, so that `omnivinci --help` is fast.

app = typer.Typer(
    name="omnivinci",
    help="OmniVinci, a model that understands videos, images, sounds and text.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # in rich's boxes, four columns share 80 characters
)
for command in (ask, chat, watch, web, timeline, demo, assemble, convert, quantize, push, serve, synthesize, curate):
    app.command()(command)
for command in (transcribe, asr_data):
    app.command()(command)
app.command("eval")(evaluate)
for command in (train, grpo):
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(command)


def main() -> None:
    """The entry point of the command; exits the process."""
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
