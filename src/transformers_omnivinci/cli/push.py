"""`omnivinci push`: publishes a checkpoint on the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Traceback
from .terminal import plain_errors


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the checkpoint.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="owner/name; created if missing.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch to commit to. Default: the main branch.")
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    commit_message: Annotated[str | None, typer.Option(metavar="TEXT", help="Subject of the commit.")] = None,
    traceback: Traceback = False,
) -> None:
    """
    Publish a checkpoint on the Hub in one commit.

    Nothing is published if the folder does not load.
    """
    with plain_errors(traceback):
        from ..conversion.push import push

        options = {"private": private, "revision": revision, "create_pr": create_pr}
        done = push(folder, repo_id, commit_message=commit_message, **options)
        typer.echo(done.pr_url or done.commit_url)
