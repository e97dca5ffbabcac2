"""`omnivinci watch`: asks again and again about a video that goes on."""

from typing import Annotated

import typer

from ..nano import NANO
from .ask import load_with_processor
from .evidence_text import print_evidence
from .options import AttnImplementation, Device, DType, Evidence, MaxNewTokens, Model, Traceback, WeightDType
from .sources import check_model
from .terminal import introduce_nano, plain_errors, show_progress


def watch(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A stream (rtsp://, http://, HLS), a camera (camera:0), a file that may still grow, or - for a pipe.",
        ),
    ],
    question: Annotated[list[str], typer.Option("--ask", metavar="QUESTION", help="What to ask; repeatable.")],
    every: Annotated[float, typer.Option(metavar="S", help="Seconds of the source between questions.")] = 10.0,
    fps: Annotated[float, typer.Option(metavar="F", help="Frames to look at per second, at most.")] = 1.0,
    remember: Annotated[float, typer.Option(metavar="S", help="Forget what is older than this, in seconds.")] = 300.0,
    timeout: Annotated[
        float,
        typer.Option(metavar="S", help="Seconds without data after which a stream is opened again and a file ends."),
    ] = 10.0,
    evidence: Evidence = False,
    model: Model = NANO,
    max_new_tokens: MaxNewTokens = 128,
    device: Device = "auto",
    dtype: WeightDType = DType.auto,
    attn_implementation: AttnImplementation = None,
    traceback: Traceback = False,
) -> None:
    """
    Watch a video that goes on, and answer questions about it.

    Questions are asked whenever so many seconds of the source have passed, and once more at its end if a second or
    more has come since. While they are answered, the source is read on: if answering takes longer than that, the next
    ones come right after. What happens to the source, such as dropped frames, is told on stderr.
    """
    with plain_errors(traceback):
        for name, value in (("--every", every), ("--remember", remember)):
            if not 0 < value < float("inf"):
                raise ValueError(f"`{name} {value:g}` is not accepted: it must be a positive number of seconds.")
        from ..media import LiveSource

        # Before the model is loaded, which takes long, but not opened: nothing may wait, or be dropped, meanwhile.
        opened = LiveSource(source, fps=fps, chunk_seconds=min(1.0, every), timeout=timeout)
        check_model(model)
        introduce_nano(model)
        from ..sessions import Policy, Session

        with show_progress() as progress:
            processor, loaded = load_with_processor(progress, model, device, dtype, attn_implementation)
        with opened, Session(loaded, processor, policy=Policy(max_seconds=remember)) as session:
            second, asked, due = 0.0, 0.0, every
            for chunk in opened:
                session.feed(*chunk.media, source_fps=opened.frame_rate)
                second = chunk.end
                if second >= due:
                    _ask(session, question, second, max_new_tokens, evidence)
                    asked, due = second, (second // every + 1) * every
            if second - asked >= min(every, 1.0):
                _ask(session, question, second, max_new_tokens, evidence)


def _ask(session, questions: list[str], second: float, max_new_tokens: int, evidence: bool) -> None:
    for question in questions:
        prefix = f"[{second:.1f} s] " + (f"{question} " if len(questions) > 1 else "")
        typer.echo(prefix, nl=False)
        stream = session.ask(question, stream=True, max_new_tokens=max_new_tokens, return_evidence=evidence)
        for text in stream:
            typer.echo(text, nl=False)
        typer.echo("")
        if evidence:
            print_evidence(stream.answer, session)
