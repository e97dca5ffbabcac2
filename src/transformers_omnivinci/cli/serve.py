"""`omnivinci serve`: an OpenAI-compatible API."""

import typer

from .terminal import plain_errors

# The options and the help are those of `transformers serve`.
SETTINGS = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


def serve(context: typer.Context) -> None:
    """Serve models over an OpenAI-compatible API: `transformers serve`, which knows OmniVinci here."""
    with plain_errors(with_traceback=False):
        from transformers.cli.transformers import app

        app(["serve", *context.args], prog_name="omnivinci")
