"""
The task `daily_omni` of lmms-eval.

An entry of `qa.json` has `Question`, `Choice` (["A. ...", ...]), `Answer` (a letter), `video_id`, `Type`,
`video_category` and `video_duration` ("30s" or "60s"); the video with its sound is
`Videos/<video_id>/<video_id>_video.mp4`. The wording of the question and what accuracy is split by are those of the
benchmark's own evaluation (github.com/Lliar-liar/Daily-Omni, `test_model/`).
"""

import os
from pathlib import Path

from transformers_omnivinci.evaluation import choice_letter
from transformers_omnivinci.inference.lmms_eval.scoring import (  # noqa: F401, some for the YAML alone
    accuracy,
    accuracy_by_group,
    scores_of,
)

FOLDER = "DailyOmni"
"""The `cache_dir` of the task, in `$HF_HOME`."""


def by_video(documents):
    """The questions about a video after each other, so that it is read and encoded once."""
    return documents.sort("video_id")


def doc_to_visual(doc: dict) -> list[str]:
    """
    The video of a question.

    Raises:
        FileNotFoundError: it is not there.
    """
    home = Path(os.path.expanduser(os.getenv("HF_HOME", "~/.cache/huggingface")))
    name = doc["video_id"]
    path = home / FOLDER / "Videos" / name / f"{name}_video.mp4"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {str(path)!r}, where the video of the question should be")
    return [str(path)]


def doc_to_text(doc: dict) -> str:
    """The question, with its options."""
    return (
        "Your task is to accurately answer multiple-choice questions based on the given video and audio together.\n"
        "Select the single most accurate answer from the given choices.\n"
        f"Question: {doc['Question']}\nChoices:\n" + "\n".join(doc["Choice"]) + "\n"
        "Your answer should be a capital letter representing your choice: A, B, C, or D. "
        "Don't generate any other text."
    )


def process_results(doc: dict, results: list[str]) -> dict:
    """What an answer scores in each of the metrics."""
    is_right = choice_letter(results[0], doc["Choice"]) == doc["Answer"].strip().upper()
    groups = {"type": doc["Type"], "category": doc["video_category"], "duration": doc["video_duration"]}
    return scores_of(is_right, doc["video_id"], groups)
