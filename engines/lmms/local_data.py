"""
Small data sets of synthetic clips in the schemas of WorldSense, OmniBench, DailyOmni, LibriSpeech and SPORTU-video, with
tasks that include the real ones.

Nano knows the words of its world alone: it answers by the text of an option, not by its letter, and is asked the
question without the sentences around it. So the tasks replace `doc_to_text` of those that they include, and where the
real task looks for letters, lmms-eval's own filter `multi_choice_regex` finds the option by its text, for which it wants
a column `choices`. Everything else is the real task's.
"""

import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

import lmms_eval.tasks
import yaml
from datasets import Audio, Dataset, Image

from transformers_omnivinci.inference.lmms_eval import TASKS
from transformers_omnivinci.synthetic import SyntheticDataset, write_dataset
from transformers_omnivinci.synthetic.scenes import COLOURS, FORMS

INCLUDED = Path(lmms_eval.tasks.__file__).parent
BY_TEXT = [
    {
        "name": "by_text",
        "filter": [
            {"function": "multi_choice_regex", "regex_pattern": r"\(([A-Z])\)", "ignore_case": True},
            {"function": "take_first"},
        ],
    }
]


@dataclass
class LocalTask:
    """
    A task with its data.

    Attributes:
        name (`str`): Of the task.
        folder (`Path`): Of its YAML, for `include_path`.
        questions (`list[dict]`): `text` and `answer` of each question, its `options` where it has any, and its `media`,
            paths in their order.
    """

    name: str
    folder: Path
    questions: list[dict] = field(default_factory=list)


def write_task(folder: Path, name: str, include: Path, data_file: Path, **changes) -> LocalTask:
    """Writes the YAML of a task that includes another one, with local data."""
    folder.mkdir(parents=True, exist_ok=True)
    builder = {".parquet": "parquet", ".json": "json"}[data_file.suffix]
    task = {
        "include": str(include),
        "task": name,
        "dataset_path": builder,
        "dataset_kwargs": {"data_files": {"test": str(data_file)}},
        "test_split": "test",
        **changes,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    return LocalTask(name, folder)


def clips(folder: Path, num_clips: int, forms: tuple[str, ...], **options) -> list[dict]:
    """Questions about rendered clips: `path`, `text`, `answer`, `form`, `type` and `held_out`."""
    path = write_dataset(folder, SyntheticDataset("test", num_clips, forms=forms, **options))
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        medium, question = row["messages"][0]["content"]
        found.append(
            {
                "path": folder / medium["path"],
                "text": question["text"],
                "answer": row["messages"][1]["content"][0]["text"],
                "form": row["question_form"],
                "type": row["question_type"],
            }
        )
    return found


def options_of(question: dict, number: int, first: int = 0) -> list[str]:
    """Four options of a question about colours, shapes or counts, the right one not before place `first`."""
    words = next(words for words in (COLOURS, FORMS, "1234") if question["answer"] in words)
    draw = random.Random(number)
    others = draw.sample(sorted(set(words) - {question["answer"]}), 3)
    others.insert(draw.randint(first, 3), question["answer"])
    return others


def lettered(options: list[str]) -> list[str]:
    return [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options)]


def world_sense(home: Path, folder: Path, num_clips: int = 20) -> LocalTask:
    """
    WorldSense: two questions about each video. Its own scoring takes an answer that names no option for A: the right
    option is never the first one here.
    """
    forms = ("first_colour", "last_form", "colour_during_sound", "count_of_sounds")
    found, rows, questions = clips(home / "WorldSense", num_clips, forms, questions_per_clip=2), [], []
    for number, question in enumerate(found):
        options = options_of(question, number, first=1)
        rows.append(
            {
                "index": number,
                "video_path": str(question["path"].relative_to(home / "WorldSense")),
                "question": question["text"],
                "candidates": lettered(options),
                "choices": options,
                "answer": ascii_uppercase[options.index(question["answer"])],
                "task_type": question["form"],
                "task_domain": question["type"],
                "duration": "<1min",
                "audio_class": ["Event"],
            }
        )
        questions.append({**question, "options": options, "media": [question["path"]], "category": question["form"]})
    Dataset.from_list(rows).to_parquet(folder / "world_sense.parquet")
    task = write_task(
        folder / "tasks",
        "world_sense_local",
        INCLUDED / "worldsense" / "worldsense.yaml",
        folder / "world_sense.parquet",
        doc_to_text="question",
        doc_to_target="answer",
        filter_list=BY_TEXT,
    )
    task.questions = questions
    return task


def omni_bench(home: Path, folder: Path, num_clips: int = 20) -> LocalTask:
    """OmniBench: a sound and a picture for each question, the media of which stand in the data set itself."""
    pictures = clips(folder / "pictures", num_clips, ("colour_of_shape", "form_of_shape"), modality="image")
    sounds = clips(folder / "sounds", num_clips, ("first_sound",), modality="audio")
    rows, questions = [], []
    for number, (picture, sound) in enumerate(zip(pictures, sounds, strict=True)):
        options = options_of(picture, number)
        rows.append(
            {
                "index": number,
                "task type": picture["form"],
                "audio type": "Sound",
                "question": picture["text"],
                "options": options,
                "choices": options,
                "answer": picture["answer"],
                "audio": str(sound["path"]),
                "image": str(picture["path"]),
            }
        )
        media = [sound["path"], picture["path"]]
        questions.append({**picture, "options": options, "media": media, "category": picture["form"]})
    data = Dataset.from_list(rows).cast_column("audio", Audio()).cast_column("image", Image())
    data.to_parquet(folder / "omni_bench.parquet")
    task = write_task(
        folder / "tasks",
        "omni_bench_local",
        INCLUDED / "omni_bench" / "omni_bench.yaml",
        folder / "omni_bench.parquet",
        doc_to_text="question",
        filter_list=BY_TEXT,
    )
    task.questions = questions
    return task


def daily_omni(home: Path, folder: Path, num_clips: int = 20) -> LocalTask:
    """DailyOmni: two questions about each video, not one after the other."""
    forms = ("first_form", "last_colour", "form_during_sound", "count_of_shapes")
    found = clips(folder / "daily_omni", num_clips, forms, questions_per_clip=2, seed=1)
    rows, questions = [], []
    for number, question in enumerate(found[::2] + found[1::2]):
        options, name = options_of(question, number), question["path"].stem
        video = home / "DailyOmni" / "Videos" / name / f"{name}_video.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(question["path"], video)
        rows.append(
            {
                "Question": question["text"],
                "Choice": lettered(options),
                "Answer": ascii_uppercase[options.index(question["answer"])],
                "video_id": name,
                "Type": {"synchrony": "AV Event Alignment"}.get(question["type"], "Context understanding"),
                "content_parent_category": "Synthetic",
                "content_fine_category": "Shapes",
                "video_category": question["form"],
                "video_duration": ("30s", "60s")[number % 2],
                "Explanation": None,
            }
        )
        questions.append({**question, "options": options, "media": [video], "category": question["form"]})
    data_file = folder / "qa.json"
    data_file.write_text(json.dumps(rows))
    include = Path(TASKS) / "daily_omni" / "daily_omni.yaml"
    task = write_task(folder / "tasks", "daily_omni_local", include, data_file, doc_to_text="Question")
    task.questions = questions
    return task


def libri_speech(home: Path, folder: Path, num_clips: int = 12) -> LocalTask:
    """LibriSpeech: sounds, and as their transcripts when which sound is heard."""
    forms = ("sound_start_each", "sound_after_sound_each")
    found, rows = clips(folder / "speech", num_clips, forms, modality="audio", seed=2), []
    for number, question in enumerate(found):
        rows.append(
            {
                "source": "test_clean",
                "task": "asr_en",
                "audio": str(question["path"]),
                "gt": question["answer"],
                "id": number,
                "question": question["text"],
            }
        )
    Dataset.from_list(rows).cast_column("audio", Audio()).to_parquet(folder / "libri_speech.parquet")
    task = write_task(
        folder / "tasks",
        "libri_speech_local",
        INCLUDED / "librispeech" / "librispeech_test_clean.yaml",
        folder / "libri_speech.parquet",
        dataset_name=None,
        doc_to_text="question",
    )
    task.questions = [{**question, "media": [question["path"]]} for question in found]
    return task
