"""`omnivinci eval`: measures how well a model answers."""

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..nano import NANO
from .ask import choose_device, load_model
from .options import (
    AttnImplementation,
    Device,
    DType,
    Fps,
    Model,
    NumFrames,
    Split,
    Traceback,
    Types,
    WeightDType,
    World,
)
from .sources import check_model
from .terminal import plain_errors, print_table, show_progress

Suite = StrEnum("Suite", ["synthetic", "multiple-choice", "short-answer", "transcription"])
Metric = StrEnum("Metric", ["exact", "relaxed", "anls", "vqa"])

OWN_OPTIONS = {
    "synthetic": ("clips_per_type", "split", "seed", "types", "world", "folder"),
    "multiple-choice": ("data", "media", "by", "prompt", "audio", "limit"),
    "short-answer": ("data", "media", "by", "prompt", "audio", "limit", "metric"),
    "transcription": ("data", "media", "by", "prompt", "audio", "limit", "spellings"),
}
"""Parameters that not all suites have."""


def evaluate(
    context: typer.Context,
    model: Model = NANO,
    suite: Annotated[Suite, typer.Option(help="Questions to ask.")] = Suite.synthetic,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Questions of the suites that have none: .jsonl, .json or .parquet."),
    ] = None,
    media: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=PATH",
            help="Where media are, if not in fields of their own, such as 'video=videos/{video_id}.mp4'; repeatable.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Score each value of this field, too; repeatable.")
    ] = None,
    metric: Annotated[Metric, typer.Option(help="How short answers are compared.")] = Metric.exact,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Another prompt; {question} and {options} stand for those of a row, \\n for a new line.",
        ),
    ] = None,
    spellings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="normalizer.json of a Whisper checkpoint: American for British spellings."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Ask the first questions only.")] = None,
    clips_per_type: Annotated[int, typer.Option(metavar="N", min=1, help="Clips for each type of question.")] = 200,
    split: Annotated[Split, typer.Option(help="Split of the synthetic world.")] = Split.test,
    seed: Annotated[int, typer.Option(metavar="S", help="Random seed of the clips.")] = 0,
    types: Types = None,
    world: World = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to keep the clips in. Default: they are deleted.")
    ] = None,
    senses: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SENSES",
            help="both, deaf, blind or 'text only'; repeatable. Default: all four of the synthetic world, else both.",
        ),
    ] = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    audio: Annotated[
        bool | None,
        typer.Option(
            "--audio/--no-audio",
            show_default=False,
            help="All videos must have sound, or that of none is used. Default: the sound of those that have it.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Maximum length of an answer. Default: 16, 32 or, of transcripts, 256."),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Questions per batch.")] = 16,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSONL file to keep answers in. The same command goes on where it stopped."),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file to write the scores to.")] = None,
    traceback: Traceback = False,
) -> None:
    """
    Measure how well a model answers questions about clips.

    The clips of the suite synthetic are rendered from the synthetic world, so the right answers are known. The other
    suites take questions and right answers from --data. Questions can also be asked without the picture, without the
    sound and without both, to show what the model needs them for.
    """
    with plain_errors(traceback):
        for name in sorted({name for names in OWN_OPTIONS.values() for name in names} - {*OWN_OPTIONS[suite]}):
            if context.get_parameter_source(name).name != "DEFAULT":
                option = "type" if name == "types" else name.replace("_", "-")
                raise ValueError(f"`--{option}` is no option of the suite {suite}.")
        if data is None and suite != Suite.synthetic:
            raise ValueError(f"The suite {suite} asks the questions of a file: name it with `--data FILE`.")
        if output is not None and not output.parent.is_dir():
            raise OSError(f"{output} cannot be written: there is no folder {output.parent}.")
        check_model(model)
        from transformers import AutoConfig

        from ..evaluation import SENSES, SUITES, AnswerFile, check_senses, checkpoint_version
        from ..processing import OmniVinciProcessor

        is_synthetic = suite == Suite.synthetic
        senses = check_senses(tuple(senses or (SENSES if is_synthetic else ["both"])))
        place, options = choose_device(device), {"num_frames": num_frames, "fps": fps}
        options["max_new_tokens"] = max_new_tokens or (16 if is_synthetic else SUITES[suite].max_new_tokens)
        asked = {"suite": suite.value, "model": model, "weights": checkpoint_version(model), **options}
        asked |= {"dtype": dtype.value, "attn_implementation": attn_implementation}

        with ExitStack() as stack:
            progress = stack.enter_context(show_progress())
            task = progress.add_task("Loading", total=None)
            run = _Run(
                processor=OmniVinciProcessor.from_pretrained(model),
                max_length=AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings,
                load=lambda: load_model(model, place, dtype, attn_implementation),
                keep=lambda settings: None if answers is None else AnswerFile(answers, asked | settings),
                senses=senses,
                count=lambda number: progress.update(task, description="Answering", completed=0, total=number),
                on_clip=lambda n, total: progress.update(task, description="Checking", completed=n, total=total),
                options={**options, "batch_size": batch_size, "on_answers": lambda n: progress.advance(task, n)},
            )
            if is_synthetic:
                folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
                world = {"clips_per_type": clips_per_type, "split": split.value, "seed": seed, "config": world}
                scores = _ask_about_clips(run, folder, types, world)
            else:
                prompt = SUITES[suite].prompt if prompt is None else prompt.replace("\\n", "\n")
                reading = {"prompt": prompt, "media": _templates(media)}
                reading |= {"by": by or [], "limit": limit}
                metric = metric.value if suite == Suite["short-answer"] else SUITES[suite].metrics[0]
                scores = _ask_about_data(run, data, suite.value, metric, reading, spellings, audio)
        (_show_types if is_synthetic else _show_categories)(scores)
        if output is not None:
            output.write_text(json.dumps([asdict(score) for score in scores], indent=2) + "\n", encoding="utf-8")


@dataclass
class _Run:
    """How questions are asked, whatever they are."""

    processor: object
    max_length: int
    load: Callable[[], object]
    keep: Callable[[dict], object]  # the file of answers of a run with these settings, if any
    senses: tuple[str, ...]
    count: Callable[[int], object]  # is told the number of questions
    on_clip: Callable[[int, int], object]
    options: dict


def _ask_about_clips(run: _Run, folder: Path, types: list[str] | None, world: dict) -> list:
    from ..evaluation import evaluate_synthetic
    from ..synthetic import CLOSED_TYPES, WorldConfig

    types, config = types or list(CLOSED_TYPES), world.pop("config")
    config = None if config is None else WorldConfig.from_json(config)
    kept = run.keep({**world, "types": types, "world": config and asdict(config)})
    run.count(len(run.senses) * len(types) * world["clips_per_type"])
    world |= {"types": types, "config": config, "senses": run.senses}
    return evaluate_synthetic(run.load(), run.processor, folder, answers=kept, **world, **run.options)


def _ask_about_data(
    run: _Run, data: Path, suite: str, metric: str, reading: dict, spellings: Path | None, audio: bool | None
) -> list:
    from ..evaluation import answer_questions, check_questions, digest_file, make_marker, read_questions, score

    questions = read_questions(data, suite, **reading)
    mark = make_marker(metric, None if spellings is None else json.loads(spellings.read_text(encoding="utf-8")))
    settings = {"data": data.name, "sha256": digest_file(data), "audio": audio}
    kept = run.keep(settings | {name: reading[name] for name in ("prompt", "media")})
    seen = {name: run.options[name] for name in ("max_new_tokens", "num_frames", "fps")}
    seen |= {"load_audio_from_video": audio}
    silent = check_questions(run.processor, questions, max_length=run.max_length, on_clip=run.on_clip, **seen)
    run.count(len(run.senses) * len(questions))
    known = {} if kept is None else kept.known
    is_left = any((name, question.name) not in known for name in run.senses for question in questions)
    model, scores = run.load() if is_left else None, []
    for name in run.senses:
        given = answer_questions(
            model,
            run.processor,
            questions,
            mark,
            name,
            silent=silent,
            answers=kept,
            load_audio_from_video=audio,
            **run.options,
        )
        marks = [mark(question, text) for question, text in zip(questions, given, strict=True)]
        scores += score(questions, marks, metric, name, reading["by"])
    return scores


def _templates(media: list[str] | None) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in media or ()]
    for kind, equals, path in pairs:
        if not (kind and equals and path):
            raise ValueError(
                f"`--media {kind}{equals}{path}`: KIND=PATH is accepted, such as 'video={{video_id}}.mp4'."
            )
    return {kind: path for kind, _, path in pairs} or None


def _show_types(scores) -> None:
    by_type = {score.type: score for score in scores}
    columns = {
        "question type": list(by_type),
        "questions": [str(score.num_questions) for score in by_type.values()],
        "chance": [f"{score.chance:.1%}" for score in by_type.values()],
    }
    for score in scores:
        columns.setdefault(score.senses, []).append(_type_cell(score))
    print_table(columns, numbers=list(columns)[1:])
    if "caption" in by_type:
        typer.secho("Captions: precision, recall, and the share of what is told that is invented.", dim=True)
    typer.secho("Deaf, blind and text only: the same model without the sound, the picture, or both.", dim=True)


def _type_cell(score) -> str:
    if score.precision is not None:
        return f"{score.precision:.1%} / {score.recall:.1%} / {score.invention:.1%}"
    if score.median_error is None:
        return f"{score.accuracy:.1%}"
    return f"{score.accuracy:.1%}, ±{score.median_error:.1f} s"


def _show_categories(scores) -> None:
    by_category = {score.category: score for score in scores}
    columns = {
        "category": list(by_category),
        "questions": [str(score.num_questions) for score in by_category.values()],
    }
    if scores[0].chance is not None:
        columns["chance"] = [f"{score.chance:.1%}" for score in by_category.values()]
    for score in scores:
        columns.setdefault(score.senses, []).append(_category_cell(score))
    print_table(columns, numbers=list(columns)[1:])
    for score in scores:
        if score.category == "all" and score.num_unclear:
            asked = "" if score.senses == "both" else f" ({score.senses})"
            typer.echo(
                f"{score.num_unclear} of {score.num_questions} answers{asked} name no option, or several: they count "
                "as wrong."
            )
    what = "Word error rate" if scores[0].metric == "wer" else "Score"
    typer.secho(f"{what}, with its 95% interval.", dim=True)


def _category_cell(score) -> str:
    return "-" if score.value is None else f"{score.value:.1%} ({100 * score.low:.1f}–{100 * score.high:.1f})"
