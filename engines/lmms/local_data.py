"""
Small data sets of synthetic clips in the schemas of WorldSense, OmniBench, DailyOmni, LibriSpeech and SPORTU-video,
with tasks that include the real ones.

Nano knows the words of its world alone: it answers by the text of an option, not by its letter, and is asked the
question without the sentences around it. So the tasks replace `doc_to_text` of those that they include, and where the
real task looks for letters, lmms-eval's own filter `multi_choice_regex` finds the option by its text, for which it
wants a column `choices`. Everything else is the real task's.
"""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

import lmms_eval.tasks
import yaml
from datasets import Audio, Dataset, Image

from transformers_omnivinci.inference.lmms_eval import TASKS
from transformers_omnivinci.synthetic import SyntheticDataset, write_dataset
from transformers_omnivinci.synthetic.scenes import COLOURS, FORMS, MOTIONS

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
        metric (`str`): The one that is compared, with the name of its filter, as lmms-eval writes them.
        folder (`Path`): Of its YAML, for `include_path`.
        data_file (`Path`): Its questions.
        arguments (`list[str]`): With which `omnivinci eval` asks them.
        chats (`list[list[dict]]`): The same questions as chats, in the order of the task.
        num_media (`int`): Different media, or sets of media, among them.
    """

    name: str
    metric: str
    folder: Path
    data_file: Path
    arguments: list[str]
    chats: list[list[dict]]

    @property
    def num_media(self) -> int:
        return len({json.dumps(chat[0]["content"][:-1], default=str) for chat in self.chats})


def write_task(name: str, folder: Path, include: Path, data_file: Path, **changes) -> Path:
    """Writes the YAML of a task that includes another one, with local data, into `folder`, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    task = {
        "include": str(include),
        "task": name,
        "dataset_path": {".parquet": "parquet", ".json": "json"}[data_file.suffix],
        "dataset_kwargs": {"data_files": {"test": str(data_file)}},
        "dataset_name": None,
        "test_split": "test",
        **changes,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    return folder


def chat_of(text: str, *media: tuple[str, Path]) -> list[dict]:
    items = [{"type": kind, "path": str(path)} for kind, path in media]
    return [{"role": "user", "content": [*items, {"type": "text", "text": text}]}]


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
    """Four options of a question, the right one not before place `first`."""
    words = next(words for words in (COLOURS, FORMS, MOTIONS, tuple("1234")) if question["answer"] in words)
    draw = random.Random(number)
    options = draw.sample(sorted(set(words) - {question["answer"]}), 3)
    options.insert(draw.randint(first, 3), question["answer"])
    return options


def lettered(options: list[str]) -> list[str]:
    """Options as data sets write them that put letters in front."""
    return [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options)]


def world_sense(home: Path, folder: Path, num_clips: int = 20) -> LocalTask:
    """
    WorldSense: two questions about each video. Its own scoring takes an answer that names no option for A: the right
    option is never the first one here.
    """
    forms = ("last_colour", "motion", "colour_during_sound", "count_of_sounds")
    data, rows = home / "WorldSense", []
    found = clips(data, num_clips, forms, questions_per_clip=2)
    for number, question in enumerate(found):
        options = options_of(question, number, first=1)
        rows.append(
            {
                "index": number,
                "video_path": str(question["path"].relative_to(data)),
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
    data_file = data / "world_sense.parquet"
    Dataset.from_list(rows).to_parquet(data_file)
    name, include = "world_sense_local", INCLUDED / "worldsense" / "worldsense.yaml"
    changes = {"doc_to_text": "question", "doc_to_target": "answer", "filter_list": BY_TEXT}
    return LocalTask(
        name,
        "worldsense_score,by_text",
        write_task(name, folder / "tasks", include, data_file, **changes),
        data_file,
        ["--suite", "multiple-choice", "--prompt", "{question}", "--by", "task_type"],
        [chat_of(question["text"], ("video", question["path"])) for question in found],
    )


def omni_bench(home: Path, folder: Path, num_clips: int = 20) -> LocalTask:
    """OmniBench: a sound and a picture for each question; the media stand in the data set itself."""
    pictures = clips(folder / "pictures", num_clips, ("colour_of_form", "form_of_colour"), modality="image")
    sounds = clips(folder / "sounds", num_clips, ("first_sound",), modality="audio")
    rows, chats = [], []
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
        chats.append(chat_of(picture["text"], ("audio", sound["path"]), ("image", picture["path"])))
    data_file = folder / "omni_bench.parquet"
    Dataset.from_list(rows).cast_column("audio", Audio()).cast_column("image", Image()).to_parquet(data_file)
    name, include = "omni_bench_local", INCLUDED / "omni_bench" / "omni_bench.yaml"
    return LocalTask(
        name,
        "accuracy,by_text",
        write_task(name, folder / "tasks", include, data_file, doc_to_text="question", filter_list=BY_TEXT),
        data_file,
        ["--suite", "multiple-choice", "--prompt", "{question}"],
        chats,
    )


def daily_omni(home: Path, folder: Path, num_clips: int = 20) -> LocalTask:
    """DailyOmni: two questions about each video, which do not follow each other in the file."""
    forms = ("first_form", "motion", "form_during_sound", "count_of_sounds")
    found = clips(folder / "daily_omni", num_clips, forms, questions_per_clip=2, seed=1)
    data, rows, chats = home / "DailyOmni", [], {}
    for number, question in enumerate(found[::2] + found[1::2]):
        options, name = options_of(question, number), question["path"].stem
        video = data / "Videos" / name / f"{name}_video.mp4"
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
        chats.setdefault(name, []).append(chat_of(question["text"], ("video", video)))
    data_file = data / "qa.json"
    data_file.write_text(json.dumps(rows))
    name, include = "daily_omni_local", Path(TASKS) / "daily_omni" / "daily_omni.yaml"
    video = "video=Videos/{video_id}/{video_id}_video.mp4"
    return LocalTask(
        name,
        "accuracy,none",
        write_task(name, folder / "tasks", include, data_file, doc_to_text="Question"),
        data_file,
        ["--suite", "multiple-choice", "--prompt", "{question}", "--media", video, "--by", "Type"],
        [chat for name in sorted(chats) for chat in chats[name]],
    )


def libri_speech(home: Path, folder: Path, num_clips: int = 12) -> LocalTask:
    """
    LibriSpeech: sounds, and as their transcripts which sound follows which. Numbers are not among them: its task takes
    "3.5" for two.
    """
    text = "Which sound is next after each sound?"
    found = clips(folder / "speech", num_clips, ("sound_after_sound_each",), modality="audio", seed=2)
    rows = [
        {
            "source": "test_clean",
            "task": "asr_en",
            "audio": str(question["path"]),
            "gt": question["answer"],
            "id": number,
        }
        for number, question in enumerate(found)
    ]
    data_file = folder / "libri_speech.parquet"
    Dataset.from_list(rows).cast_column("audio", Audio()).to_parquet(data_file)
    name, include = "libri_speech_local", INCLUDED / "librispeech" / "librispeech_test_clean.yaml"
    return LocalTask(
        name,
        "wer,none",
        write_task(name, folder / "tasks", include, data_file, doc_to_text=text),
        data_file,
        ["--suite", "transcription", "--prompt", text],
        [chat_of(text, ("audio", question["path"])) for question in found],
    )


MAKERS = {"WorldSense": world_sense, "OmniBench": omni_bench, "DailyOmni": daily_omni, "LibriSpeech": libri_speech}
