"""
The task `sportu_video_mc` of lmms-eval.

The authors' `SportU_Video_mc.json` is a list of entries with `id` ("soccer_260_2"), `question`, `options`
({"A": ..., "B": ...}, two or four, some of them numbers), `answer` (a letter) and `difficulty level`; several have the
same id. That the video is called by its id, `<id>.mp4`, is what users of the data set rely on; the authors do not say
so.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from string import ascii_uppercase

from transformers_omnivinci.evaluation import choice_letter
from transformers_omnivinci.inference.lmms_eval.scoring import (  # noqa: F401, some for the YAML alone
    accuracy,
    accuracy_by_group,
    scores_of,
)

VIDEOS = "SPORTU_VIDEOS"
"""The environment variable with the folder of the videos, in folders of sports or not."""
SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"}


def read_questions(documents):
    """
    The questions of the file, those about a video after each other.

    Args:
        documents: A data set of one row, whose `text` is the file.
    """
    from datasets import Dataset

    return Dataset.from_list(parse_questions(documents[0]["text"]))


def parse_questions(text: str) -> list[dict]:
    """The entries of the file as rows, whose `options` are a list of strings."""
    rows = []
    for entry in json.loads(text):
        rows.append(
            {
                "id": entry["id"],
                "question": entry["question"],
                "options": [str(text) for text in entry["options"].values()],
                "answer": entry["answer"],
                "difficulty": entry["difficulty level"],
                "sport": re.match(r"[a-z_]*[a-z]", entry["id"].lower())[0],
            }
        )
    return sorted(rows, key=lambda row: row["id"])


def doc_to_visual(doc: dict) -> list[str]:
    """
    The video of a question.

    Raises:
        FileNotFoundError: it is not there, or there is no folder of videos.
    """
    folder = os.getenv(VIDEOS)
    if not folder or not Path(folder).is_dir():
        raise FileNotFoundError(f"{VIDEOS} is {folder!r}, where it should name the folder of the videos")
    videos = _list_videos(folder)
    if doc["id"].lower() not in videos:
        raise FileNotFoundError(f"{folder!r} and its folders hold no video called {doc['id']!r}")
    return [videos[doc["id"].lower()]]


@cache
def _list_videos(folder: str) -> dict[str, str]:
    """The videos of a folder by their names in lower case, without suffix."""
    files = sorted(Path(folder).rglob("*"))
    return {path.stem.lower(): str(path) for path in files if path.suffix.lower() in SUFFIXES}


def doc_to_text(doc: dict) -> str:
    """The question, with its options."""
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, doc["options"]))
    return f"{doc['question']}\n{options}\nAnswer with the option's letter from the given choices directly."


def process_results(doc: dict, results: list[str]) -> dict:
    """What an answer scores in each of the metrics."""
    is_right = choice_letter(results[0], doc["options"]) == doc["answer"]
    return scores_of(is_right, doc["id"], {"difficulty": doc["difficulty"], "sport": doc["sport"]})
