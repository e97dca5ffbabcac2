"""`omnivinci push`: a checkpoint on the Hub."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .options import Traceback
from .terminal import plain_errors


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a checkpoint.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="owner/name; made where it is missing.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="Default: the main branch.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    commit_message: Annotated[str | None, typer.Option(metavar="TEXT", help="Subject of the commit.")] = None,
    traceback: Traceback = False,
) -> None:
    """Publish a checkpoint: one commit, refused if the folder does not load."""
    with plain_errors(traceback):
        from ..conversion.push import push

        done = push(
            folder,
            repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )
        Console(highlight=False).print(Text(done.pr_url or done.commit_url), soft_wrap=True)
