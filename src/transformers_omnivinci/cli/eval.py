"""`omnivinci eval`: measures how well a model answers."""

import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..nano import NANO
from .options import Model, Split, Traceback, Types, World
from .sources import check_model
from .terminal import plain_errors, print_table, show_progress

Suite = StrEnum("Suite", ["synthetic"])


def evaluate(
    model: Model = NANO,
    suite: Annotated[Suite, typer.Option(help="Questions to ask.")] = Suite.synthetic,
    clips_per_type: Annotated[int, typer.Option(metavar="N", min=1, help="Clips for each type of question.")] = 200,
    split: Annotated[Split, typer.Option(help="Split of the synthetic world.")] = Split.test,
    seed: Annotated[int, typer.Option(metavar="S", help="Random seed of the clips.")] = 0,
    senses: Annotated[
        list[str] | None,
        typer.Option(metavar="SENSES", help="both, deaf, blind or 'text only'; repeatable. Default: all four."),
    ] = None,
    types: Types = None,
    world: World = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Questions per batch.")] = 16,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to keep the clips in. Default: they are deleted.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file to write the scores to.")] = None,
    traceback: Traceback = False,
) -> None:
    """
    Measure how well a model answers questions about clips.

    The clips are rendered from the synthetic world, so the right answers are known. The questions are also asked
    without the picture, without the sound and without both, to show what the model needs them for.
    """
    with plain_errors(traceback):
        check_model(model)
        from ..evaluation import SENSES, evaluate_synthetic
        from ..modeling import OmniVinciForConditionalGeneration
        from ..processing import OmniVinciProcessor
        from ..synthetic import CLOSED_TYPES, WorldConfig

        types, senses = types or CLOSED_TYPES, senses or tuple(SENSES)
        with ExitStack() as stack:
            progress = stack.enter_context(show_progress())
            processor = OmniVinciProcessor.from_pretrained(model)
            loaded = OmniVinciForConditionalGeneration.from_pretrained(model).eval()
            task = progress.add_task("Answering", total=len(senses) * len(types) * clips_per_type)
            scores = evaluate_synthetic(
                loaded,
                processor,
                folder or stack.enter_context(tempfile.TemporaryDirectory()),
                clips_per_type=clips_per_type,
                split=split,
                seed=seed,
                senses=senses,
                types=types,
                config=None if world is None else WorldConfig.from_json(world),
                batch_size=batch_size,
                on_answers=lambda number: progress.advance(task, number),
            )
        _show_scores(scores)
        typer.secho("Deaf, blind and text only: the same model without the sound, the picture, or both.", dim=True)
        if output is not None:
            output.write_text(json.dumps([asdict(score) for score in scores], indent=2) + "\n", encoding="utf-8")


def _show_scores(scores) -> None:
    by_type = {score.type: score for score in scores}
    columns = {
        "question type": list(by_type),
        "questions": [str(score.num_questions) for score in by_type.values()],
        "chance": [f"{score.chance:.1%}" for score in by_type.values()],
    }
    for score in scores:
        columns.setdefault(score.senses, []).append(_cell(score))
    print_table(columns, numbers=list(columns)[1:])


def _cell(score) -> str:
    if score.median_error is None:
        return f"{score.accuracy:.1%}"
    return f"{score.accuracy:.1%}, ±{score.median_error:.1f} s"
