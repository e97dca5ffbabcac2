"""`omnivinci convert`: a checkpoint in another layout."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .options import DType, Traceback
from .terminal import format_size, plain_errors


class Layout(StrEnum):
    transformers = "transformers"
    published = "published"


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder in either layout, or a repository.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The folder to be made.")],
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the repository.")
    ] = None,
    to: Annotated[Layout, typer.Option(help="The layout of the result.")] = Layout.transformers,
    dtype: Annotated[DType, typer.Option(help="Of the weights. auto: each as stored.")] = DType.auto,
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Of the largest file of weights.")] = "5GB",
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Add what loads it where this package is not installed.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every weight bit for bit, and a forward pass.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint at DST.")] = False,
    traceback: Traceback = False,
) -> None:
    """Convert a checkpoint: from the published layout into that of transformers, or back."""
    with plain_errors(traceback):
        options = {
            "revision": revision,
            "to": to.value,
            "dtype": None if dtype == DType.auto else dtype.value,
            "max_shard_size": max_shard_size,
        }
        from transformers.utils import logging

        from ..conversion.conversion_plan import plan_conversion, settings_of
        from ..conversion.converter import convert

        logging.disable_progress_bar()  # of loading; there are bars of ours
        console = Console(highlight=False)
        if dry_run:
            _show_settings(settings_of(source, revision), console)
            plan = plan_conversion(source, headers_only=True, **options)
            _show_files(plan, destination, plan.other_files(with_code), console)
            return
        done = convert(source, destination, with_code=with_code, verify=verify, force=force, **options)
        files = "1 file" if len(done.shards) == 1 else f"{len(done.shards)} files"
        size = f"{done.num_parameters:,} parameters, {format_size(done.num_bytes)} in {files}"
        console.print(Text(f"{destination} holds {done.source}: {size}."), soft_wrap=True)
        if verify:
            console.print("Verified: every weight is the source's bit for bit, and the logits agree.")


def _show_settings(settings, console: Console) -> None:
    """What of a published checkpoint's settings is understood, ignored, unknown and refused."""
    if settings is None:
        return
    for verdict, values in (
        ("understood", settings.understood),
        ("ignored", settings.ignored),
        ("unknown", settings.unknown),
    ):
        for key, value in values.items():
            console.print(Text(f"{verdict:10}  {key} = {value!r}"), soft_wrap=True)
    for sentence in settings.refused.values():
        console.print(Text(f"refused     {sentence}", style="red"), soft_wrap=True)


def _show_files(conversion, destination: Path, others: list[str], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{destination}/", overflow="fold")
    table.add_column("weights", justify="right")
    table.add_column("size", justify="right")
    for shard in conversion.shards:
        table.add_row(Text(shard.name), f"{len(shard.tensors):,}", format_size(shard.num_bytes))
    for name in others:
        table.add_row(Text(name), "", "")
    console.print(table)
    console.print(
        f"{conversion.num_parameters:,} parameters, {format_size(conversion.num_bytes)}. Nothing was written."
    )
