"""`omnivinci convert`: converts a checkpoint to another layout."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from .options import DType, Traceback, WeightDType
from .terminal import plain_errors, print_table

Layout = StrEnum("Layout", ["transformers", "published"])


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Checkpoint in either layout: a folder, or a repository of the Hub.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder to create.")],
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the repository.")
    ] = None,
    to: Annotated[Layout, typer.Option(help="Layout to convert to.")] = Layout.transformers,
    dtype: WeightDType = DType.auto,
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Maximum size of a file of weights.")] = "5GB",
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Add the code to load the result where this package is not installed.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every weight bit for bit, and the logits of a forward pass.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, without writing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing checkpoint at DST.")] = False,
    traceback: Traceback = False,
) -> None:
    """Convert a checkpoint to the transformers layout, or back."""
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

        logging.disable_progress_bar()  # that of loading; the conversion shows its own
        if dry_run:
            _show_settings(settings_of(source, revision))
            plan = plan_conversion(source, headers_only=True, **options)
            _show_files(plan, destination, plan.other_files(with_code))
            return
        done = convert(source, destination, with_code=with_code, verify=verify, force=force, **options)
        files = "1 file" if len(done.shards) == 1 else f"{len(done.shards)} files"
        size = f"{done.num_parameters:,} parameters, {decimal(done.num_bytes)} in {files}"
        typer.echo(f"Converted {done.source} to {destination}: {size}.")
        if verify:
            typer.echo("Verified: every weight equals the source's bit for bit, and the logits agree.")


def _show_settings(settings) -> None:
    """Lists which settings of a published checkpoint are understood, ignored, unknown and refused."""
    if settings is None:
        return
    for verdict in ("understood", "ignored", "unknown"):
        for key, value in getattr(settings, verdict).items():
            typer.echo(f"{verdict:10}  {key} = {value!r}")
    for sentence in settings.refused.values():
        typer.secho(f"refused     {sentence}", fg="red")


def _show_files(conversion, destination: Path, others: list[str]) -> None:
    blank, shards = [""] * len(others), conversion.shards
    columns = {
        f"{destination}/": [shard.name for shard in shards] + others,
        "weights": [f"{len(shard.tensors):,}" for shard in shards] + blank,
        "size": [decimal(shard.num_bytes) for shard in shards] + blank,
    }
    print_table(columns, numbers=("weights", "size"))
    typer.echo(f"{conversion.num_parameters:,} parameters, {decimal(conversion.num_bytes)}. Nothing was written.")
