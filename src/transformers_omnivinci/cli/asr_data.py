"""`omnivinci asr-data`: data that teach a model to decide between what it and other recognisers hear."""

from pathlib import Path
from typing import Annotated

import typer

from ..nano import NANO
from .options import AttnImplementation, Device, DType, Model, Traceback, WeightDType
from .sources import check_model
from .terminal import introduce_nano, plain_errors, print_table, show_progress
from .transcribe import load_hearing


def asr_data(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="Speech with transcripts: JSONL, JSON, TSV or parquet, or a folder of sounds with texts beside them.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL file to write, for `omnivinci train`.")],
    external: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Another recogniser, as of `omnivinci transcribe --external`; repeatable, up to five.",
        ),
    ],
    model: Model = NANO,
    audio: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where sounds are, with columns of the file, such as 'clips/{path}'."),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            metavar="WER", min=0.0, max=1.0, help="Word error rate below which the model's own text is accepted."
        ),
    ] = 0.05,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use the first utterances only.")] = None,
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep what was heard: the same command goes on where it stopped."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what cannot be used, and list it.")] = False,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Most tokens of a transcript.")] = 256,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    traceback: Traceback = False,
) -> None:
    """
    Make data that teach a model when to take a second opinion.

    Each utterance is written down by the model and by the others. Where the model's word error rate is at least
    --threshold and another one's is lower, the right decision is to integrate the references, else to accept its own.
    `omnivinci train --recipe asr-decision` trains on the result. Take speech that the model was not trained on.
    """
    with plain_errors(traceback):
        check_model(model)
        from ..evaluation import AnswerFile, checkpoint_version, english_normalizer
        from ..inference.speech.corpora import read_corpus
        from ..inference.speech.decision_data import INTERNAL, check_target_file, write_decision_data
        from ..inference.speech.decisions import ACCEPT, INTEGRATE, check_number
        from ..inference.speech.recognisers import ModelRecogniser, make_listeners
        from ..processing.tokenization import control_tokens

        check_number(len(external))
        check_target_file(output)
        others = make_listeners(external)
        utterances = read_corpus(corpus, audio, limit)
        kept = None
        if answers is not None:
            settings = {"corpus": str(corpus.resolve()), "model": model, "version": checkpoint_version(model)}
            kept = AnswerFile(answers, settings | {"max_new_tokens": max_new_tokens})
        introduce_nano(model)
        hearing = load_hearing(model, max_new_tokens, device, dtype, attn_implementation)
        reserved = control_tokens(hearing.processor.tokenizer, hearing.processor.chat_template)
        with show_progress() as progress:
            task = progress.add_task("Listening", total=len(utterances))
            report = write_decision_data(
                utterances,
                ModelRecogniser(hearing),
                others,
                output,
                threshold=threshold,
                normalize=english_normalizer(),
                control_tokens={*reserved, ACCEPT, INTEGRATE},
                kept=kept,
                skip_bad=skip_bad,
                on_utterance=lambda: progress.advance(task),
            )
        names = ["the model" if name == INTERNAL else name for name in report.errors]
        rates = [f"{errors / report.words:.1%}" for errors in report.errors.values()]
        print_table({"recogniser": names, "word error rate": rates}, numbers=["word error rate"])
        taken = report.decisions
        rows = "1 row" if taken.total() == 1 else f"{taken.total():,} rows"
        typer.echo(f"{output} has {rows}: {taken[ACCEPT]:,} accept, {taken[INTEGRATE]:,} integrate.")
        if not all(taken.values()):
            typer.secho("All rows have the same decision: a model learns to take it always.", dim=True, err=True)
        if report.skipped:
            typer.echo(f"{len(report.skipped):,} of {len(utterances):,} utterances were left out:")
            for reason in report.skipped:
                typer.echo(f"  {reason}")
