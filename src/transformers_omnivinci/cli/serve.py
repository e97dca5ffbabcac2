"""`omnivinci serve`: the server of transformers, with OmniVinci known to it."""

import typer

from .terminal import plain_errors


def serve(context: typer.Context) -> None:
    """Serve models over an OpenAI-compatible API: `transformers serve`, which knows OmniVinci here."""
    with plain_errors(with_traceback=False):
        from transformers.cli.transformers import app as transformers_app

        transformers_app(["serve", *context.args], prog_name="omnivinci")
