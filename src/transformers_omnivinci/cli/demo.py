"""`omnivinci demo`: questions about a new clip, with the right answers beside those of a model."""

import random
from pathlib import Path
from typing import Annotated

import typer

from ..nano import NANO
from .options import Model, Traceback
from .sources import check_model
from .terminal import introduce_nano, plain_errors, print_table, show_progress

TYPES = ("visual", "synchrony", "time")
FURTHER = ("caption", "absent_motion")


def demo(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="mp4 file to write.")] = Path("demo.mp4"),
    seed: Annotated[int, typer.Option(metavar="S", help="Random seed; another seed gives another clip.")] = 0,
    model: Model = NANO,
    traceback: Traceback = False,
) -> None:
    """
    Ask a model about a new clip and show the right answers.

    The clip is rendered from the synthetic world. The model describes it, and is asked what is seen and heard in it,
    and when; the last question is about something that is not there.
    """
    with plain_errors(traceback):
        check_model(model)
        introduce_nano(model)
        from ..evaluation.synthetic import CAPTION_TOKENS, answer
        from ..modeling import OmniVinciForConditionalGeneration
        from ..processing import OmniVinciProcessor
        from ..synthetic import ABSENT_FORMS, QUESTION_FORMS, SyntheticDataset, ask, write_clip

        dataset = SyntheticDataset("test", 1000, seed, types=TYPES, questions_per_clip=len(TYPES))
        sample = next(sample for sample in dataset if len(sample.questions) == len(TYPES))
        forms = {form.name: form for form in (*QUESTION_FORMS, *ABSENT_FORMS)}
        rng = random.Random(seed)
        caption, absent = (ask(sample.scene, forms[name], None, dataset.config, rng) for name in FURTHER)
        questions = (caption, *sample.questions, absent)
        with show_progress() as progress:
            progress.add_task(f"Rendering {output} and asking about it", total=None)
            output.parent.mkdir(parents=True, exist_ok=True)
            write_clip(output, dataset.render(sample))
            processor = OmniVinciProcessor.from_pretrained(model)
            loaded = OmniVinciForConditionalGeneration.from_pretrained(model).eval()
            medium = {"type": "video", "video": str(output)}
            chats = [
                [{"role": "user", "content": [medium, {"type": "text", "text": question.text}]}]
                for question in questions
            ]
            (described,) = answer(loaded, processor, chats[:1], CAPTION_TOKENS)
            answers = answer(loaded, processor, chats[1:])
        typer.echo(f"Rendered {output} ({sample.scene.seconds:g} seconds).")
        typer.echo(f"\n{caption.text}\n  {described}\nTruth:\n  {caption.answer}")
        asked, truths = zip(*((question.text, question.answer) for question in questions[1:]))
        print_table({"question": asked, "answer": answers, "truth": truths})
