"""`omnivinci demo`: questions about a new clip, with the right answers beside those of a model."""

from pathlib import Path
from typing import Annotated

import typer

from ..nano import NANO
from .options import Model, Traceback
from .sources import check_model
from .terminal import introduce_nano, plain_errors, print_table, show_progress

TYPES = ("visual", "synchrony", "time")


def demo(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="mp4 file to write.")] = Path("demo.mp4"),
    seed: Annotated[int, typer.Option(metavar="S", help="Random seed; another seed gives another clip.")] = 0,
    model: Model = NANO,
    traceback: Traceback = False,
) -> None:
    """
    Ask a model about a new clip and show the right answers.

    The clip is rendered from the synthetic world. The questions are what is seen and heard in it, and when.
    """
    with plain_errors(traceback):
        check_model(model)
        introduce_nano(model)
        from ..evaluation.synthetic import answer, chat_of
        from ..modeling import OmniVinciForConditionalGeneration
        from ..processing import OmniVinciProcessor
        from ..synthetic import SyntheticDataset, write_clip

        dataset = SyntheticDataset("test", 1000, seed, types=TYPES, questions_per_clip=len(TYPES))
        sample = next(sample for sample in dataset if len(sample.questions) == len(TYPES))
        with show_progress() as progress:
            progress.add_task(f"Rendering {output} and asking about it", total=None)
            output.parent.mkdir(parents=True, exist_ok=True)
            write_clip(output, dataset.render(sample))
            processor = OmniVinciProcessor.from_pretrained(model)
            loaded = OmniVinciForConditionalGeneration.from_pretrained(model).eval()
            chats = [chat_of(row, output.parent) for row in sample.rows(output.name)]
            answers = answer(loaded, processor, chats)
        questions, truths = zip(*((question.text, question.answer) for question in sample.questions))
        typer.echo(f"Rendered {output} ({sample.scene.seconds:g} seconds).")
        print_table({"question": questions, "answer": answers, "truth": truths})
