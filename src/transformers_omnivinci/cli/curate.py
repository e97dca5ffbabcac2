"""`omnivinci curate`: videos become captions and questions to train on."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Traceback
from .terminal import plain_errors, print_table, show_progress


def curate(
    config: Annotated[Path, typer.Option(metavar="FILE", help="YAML file: back ends, stages and what is written.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write to. What an earlier run finished there is kept.")
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCES",
            help="Videos, URLs, folders of videos, .txt files that list them. None: write finished segments again.",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Write parquet, datasets or webdataset, too, instead of what the config says; repeatable.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Ray cluster to work on, such as auto. Default: Ray on this machine alone."),
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Work in this process, one batch after another, without Ray.")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Ask each server from this machine first whether it is there.", show_default=False)
    ] = True,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="Compare what was written about films of the synthetic world with what happens."),
    ] = False,
    traceback: Traceback = False,
) -> None:
    """
    Make training data of videos: captions that rest on both senses.

    Videos are split into segments of clips. One model sees each clip, another one hears it, and a language model
    corrects the captions of both by each other. DIR/chats.jsonl is what `omnivinci train` reads; DIR/rejects.jsonl
    lists what could not be used, with the reason, and DIR/README.md tells what is in the data.

    Run the same command again to complete an interrupted run, or to try what was rejected once more. Without SOURCES,
    what is finished is written again, such as in another format.
    """
    with plain_errors(traceback):
        from ..data_engine.config import read_config, with_formats
        from ..data_engine.engine import HereRunner
        from ..data_engine.engine import curate as run
        from ..data_engine.ray_runner import RayRunner
        from ..data_engine.split import list_sources

        if here and address is not None:
            raise ValueError("`--here` works without Ray, and `--address` on a cluster of it: give one of them.")
        settings = read_config(config)
        if formats:
            settings = with_formats(settings, formats)
        videos = list_sources(sources or [])
        with show_progress() as progress:
            task = progress.add_task("", total=None)

            def show(report) -> None:
                progress.update(task, description=report.throughput.line(), advance=1)

            runner = HereRunner() if here or not videos else RayRunner(address)
            report = run(settings, videos, output, runner, check=check, on_report=show)
        chats = ", ".join(f"{number} {category}" for category, number in sorted(report.chats.items())) or "none"
        typer.echo(
            f"{output}: {report.finished} segments finished, {report.known} known before, {report.rejected} rejected."
        )
        typer.echo(f"Chats: {chats}.")
        typer.echo(f"Throughput: {report.throughput.line()}.")
        for note in report.notes:
            typer.echo(note)
        if report.prompt_tokens or report.completion_tokens:
            cost = f", which cost {report.cost:.2f}" if report.cost else ""
            typer.echo(f"Tokens: {report.prompt_tokens} read, {report.completion_tokens} written{cost}.")
        if audit:
            from ..data_engine.assembly import settings_of
            from ..data_engine.truth_audit import audit_folder

            _print_audit(audit_folder(output, settings_of(settings), settings.write.drop))


def _print_audit(found) -> None:
    columns = {
        "captions": list(found.captions),
        "claims": [str(one.claims) for one in found.captions.values()],
        "precision": [f"{one.precision:.1%}" for one in found.captions.values()],
        "recall": [f"{one.recall:.1%}" for one in found.captions.values()],
        "wrong time": [str(one.wrong_time) for one in found.captions.values()],
        "invented": [str(one.invented) for one in found.captions.values()],
        "other sense": [str(one.wrong_modality) for one in found.captions.values()],
    }
    print_table(columns, numbers=[name for name in columns if name != "captions"])
    typer.echo(f"Rejected statements: {found.rejected}, of which {found.rightly_rejected} are false.")
    typer.echo(f"Answers: {found.answers}, of which {found.right_answers} are right.")
