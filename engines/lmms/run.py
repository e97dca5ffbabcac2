"""Runs lmms-eval's evaluator and `omnivinci eval` in this process."""

import json
from dataclasses import replace

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from typer.testing import CliRunner

from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.evaluation import answer_questions, make_marker, read_questions, score


def run_lmms_eval(task, model=NANO, arguments: str = "", **options) -> dict:
    """
    The results of lmms-eval's evaluator.

    Args:
        task ([`LocalTask`]): Its name and folder.
        model (`str` or `Path`, *optional*): A checkpoint.
        arguments (`str`, *optional*): Further `model_args`.
        options: Arguments of the evaluator.
    """
    return simple_evaluate(
        "omnivinci",
        model_args=",".join(filter(None, [f"pretrained={model}", arguments])),
        tasks=[task.name],
        task_manager=TaskManager(include_path=[str(task.folder)], model_name="omnivinci"),
        bootstrap_iters=0,
        **{"batch_size": 4, **options},
    )


def answers_of(results: dict, task) -> list[str]:
    """What the model answered to each question of the task, before any filter."""
    samples = sorted(results["samples"][task.name], key=lambda sample: sample["doc_id"])
    return [sample["resps"][0][0] for sample in samples]


def score_with_sound_first(task, model, processor) -> dict:
    """
    As [`run_omnivinci_eval`], but sounds stand in front of pictures, as in lmms-eval's OmniBench; the command has
    pictures first.
    """
    order, mark = ("audio", "image", "text"), make_marker("letter")
    questions = [
        replace(question, content=sorted(question.content, key=lambda item: order.index(item["type"])))
        for question in read_questions(task.data_file, "multiple-choice", prompt="{question}")
    ]
    answers = answer_questions(model, processor, questions, mark)
    marks = [mark(question, answer) for question, answer in zip(questions, answers, strict=True)]
    return {one.category: one.value for one in score(questions, marks, "letter")}


def run_omnivinci_eval(task, folder, *arguments: str) -> dict:
    """The scores of `omnivinci eval` by category; `all` is that of all questions."""
    output = folder / f"{task.name}.json"
    words = ["eval", *task.arguments, "--data", str(task.data_file), "--output", str(output), *arguments]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return {score["category"]: score["value"] for score in json.loads(output.read_text())}
