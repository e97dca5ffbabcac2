"""`omnivinci serve`: an OpenAI-compatible API."""

import typer

from .terminal import plain_errors


def serve(context: typer.Context) -> None:
    """Serve models over an OpenAI-compatible API: `transformers serve`, which knows OmniVinci here."""
    with plain_errors(with_traceback=False):
        from transformers.cli.transformers import app

        app(["serve", *context.args], prog_name="omnivinci")
