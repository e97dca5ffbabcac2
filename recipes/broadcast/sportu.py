"""
SPORTU's questions as `omnivinci eval` reads them:
`python -m recipes.broadcast.sportu OUT.jsonl --questions SportU_Video_mc.json --videos DIR`.

The files are those of github.com/chili-lab/SPORTU: lists of entries with `id`, `question`, `answer` and `difficulty
level`, those of multiple choice with `options`, {"A": ..., "B": ...}. The videos are to be downloaded from the folder
that it names. That they are called by the id of their question, `<id>.mp4`, is what users of the data set rely on; its
authors do not say so.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from transformers_omnivinci.tasks import task_row, write_rows

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


def list_videos(folder: Path) -> dict[str, Path]:
    """The videos of a folder and of those in it, by their names in lower case, without suffix."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} with the videos of SPORTU.")
    return {path.stem.lower(): path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}


def read_sportu(path: Path, videos: Path) -> list[dict]:
    """
    The questions of a file as rows, those about a video after each other, with `sport` and `difficulty` to score by.
    The answer is a letter where there are options.

    Args:
        path (`Path`): `SportU_Video_mc.json` or `SportU_video_oe.json`.
        videos (`Path`): The folder of the videos, in folders of sports or not.

    Raises:
        ValueError: the file is no such list, or an entry lacks something; the message names the file and the entry.
        OSError: the file or a video is missing.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} holds {type(entries).__name__}, but a list of SPORTU's questions is accepted.")
    found, rows = list_videos(videos), []
    for number, entry in enumerate(entries, start=1):
        name = f"{path.name}, entry {number}"
        fields = ("id", "question", "answer", "difficulty level")
        missing = [field for field in fields if not (isinstance(entry, dict) and isinstance(entry.get(field), str))]
        sport = None if missing else re.match(r"[a-z]+(?:_[a-z]+)*", entry["id"].lower())
        if missing or not sport:
            raise ValueError(
                f"{name} has no {missing[0] if missing else 'sport in its id'}, as SPORTU's entries have."
            )
        if entry["id"].lower() not in found:
            raise FileNotFoundError(f"{name}: {videos} and its folders hold no video called {entry['id']!r}.")
        about = {"sport": sport[0], "difficulty": entry["difficulty level"]}
        if "options" in entry:
            about["options"] = _options(name, entry)
        media = [{"type": "video", "path": str(found[entry["id"].lower()].resolve())}]
        rows.append(task_row(f"{entry['id']}-{number}", media, entry["question"], entry["answer"], about))
    if len({"options" in row for row in rows}) > 1:
        raise ValueError(f"{path} has questions with options and without: SPORTU has a file of each.")
    return sorted(rows, key=lambda row: row["video_path"])


def _options(name: str, entry: dict) -> list[str]:
    options = entry["options"]
    if not isinstance(options, dict) or len(options) < 2 or [*options] != list(ascii_uppercase[: len(options)]):
        raise ValueError(
            f'{name}: the options are {options!r:.80}, but an object such as {{"A": "2", "B": "3"}} is accepted.'
        )
    if entry["answer"] not in options:
        raise ValueError(f"{name}: the answer {entry['answer']!r:.40} is none of the letters {', '.join(options)}.")
    return [str(text) for text in options.values()]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.broadcast.sportu", description="SPORTU's questions as rows."
    )
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="FILE", help="SportU_Video_mc.json or _oe.json"
    )
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR")
    given = parser.parse_args(arguments)
    try:
        rows = read_sportu(given.questions, given.videos)
        write_rows(given.out, rows)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    suite = "multiple-choice" if "options" in rows[0] else "short-answer"
    print(f"{given.out} has {len(rows)} questions: omnivinci eval --suite {suite} --data {given.out} --num-frames 128")


if __name__ == "__main__":
    main()
