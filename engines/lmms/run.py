"""Runs lmms-eval's evaluator in this process."""

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from transformers_omnivinci import NANO


def evaluate(task, model: str = NANO, **options) -> dict:
    """
    The results of a [`LocalTask`], as lmms-eval's evaluator returns them.

    Args:
        task ([`LocalTask`]): Its name and folder.
        model (`str`, *optional*): A checkpoint.
        options: Arguments of the evaluator, and `arguments` of the model as a string.
    """
    arguments = options.pop("arguments", "")
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
