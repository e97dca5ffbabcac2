"""What the tests of fine-tuning frameworks share: data of the synthetic world, and what this package makes of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoProcessor

from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration
from transformers_omnivinci.integrations.frameworks import COLUMNS
from transformers_omnivinci.integrations.rows import write_rows
from transformers_omnivinci.training.collator import OmniVinciCollator
from transformers_omnivinci.training.data import Sample
from transformers_omnivinci.training.encoding import SampleEncoder

ANSWER = "low tone"
"""What is taught: an answer that nano does not give by itself, so that it tells whether weights were trained."""

MODALITIES = {"video": "train", "image": "train-image", "audio": "train-audio"}


def run_command(*words: str, succeeds: bool = True, **variables: str) -> str:
    """Runs a command of the environment. Returns what it printed."""
    offline = {"HF_HUB_OFFLINE": "1", "USE_HF": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words],
        env=os.environ | offline | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode == 0) == succeeds, done.stdout[-8000:]
    return done.stdout


def make_rows(folder: Path, num_clips: int = 8) -> dict[str, list[dict]]:
    """Rows of the frameworks about new clips with sound, pictures and sounds, by modality."""
    rows = {}
    for modality, name in MODALITIES.items():
        words = ("synthesize", "--output", folder, "--num-clips", num_clips, "--modality", modality)
        run_command(sys.executable, "-m", "transformers_omnivinci.cli", *words)
        write_rows(folder / f"{name}.jsonl", folder / f"{name}-rows.jsonl")
        rows[modality] = read_lines(folder / f"{name}-rows.jsonl")
    return rows


def mixed_rows(rows: dict[str, list[dict]]) -> list[dict]:
    """Rows of several media and turns, of several images, with a system message, and without media."""
    images, videos, audios = ([row[COLUMNS[name]][0] for row in rows[name]] for name in ("image", "video", "audio"))
    ask, answer = "Which shape is red?", {"role": "assistant", "content": "the cyan square"}
    many = [
        {"role": "user", "content": f"<audio>\nWhich sound is heard first?<video>\n<image>{ask}"},
        answer,
        {"role": "user", "content": f"<video>\n\n{ask} <audio>"},
        answer,
    ]
    system = {"role": "system", "content": "What is the last sound?"}
    return [
        {"messages": many, "images": images[:1], "videos": videos[:2], "audios": audios[:2]},
        {"messages": [{"role": "user", "content": f"<image><image>{ask}"}, answer], "images": images[1:3]},
        {"messages": [system, {"role": "user", "content": f"{ask}<video>"}, answer], "videos": videos[2:3]},
        {"messages": [{"role": "user", "content": ask}, answer]},
    ]


def taught_rows(rows: list[dict]) -> list[dict]:
    """The same questions with [`ANSWER`]."""
    return [{**row, "messages": [row["messages"][0], {"role": "assistant", "content": ANSWER}]} for row in rows]


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sample_of(row: dict) -> Sample:
    """A row as this package trains on it."""
    left = {kind: iter(row.get(column, [])) for kind, column in COLUMNS.items()}
    messages = []
    for message in row["messages"]:
        parts = re.split("<(image|video|audio)>", message["content"])
        items = [
            {"type": part, part: next(left[part])} if place % 2 else {"type": "text", "text": part}
            for place, part in enumerate(parts)
            if part
        ]
        messages.append({"role": message["role"], "content": items})
    return Sample("row", messages)


def expected_samples(rows: list[dict], **options) -> list[dict]:
    """
    What this package trains on. The newline behind the last answer is left out, as frameworks do not write it: nothing
    is learned there, and no token attends to it.
    """
    encoder = SampleEncoder(AutoProcessor.from_pretrained(NANO), **options)
    samples = [encoder.encode(sample_of(row)) for row in rows]
    for sample in samples:
        assert encoder.processor.decode(sample["input_ids"][-1:]) == "\n" and sample["labels"][-1] == -100
        sample["input_ids"], sample["labels"] = sample["input_ids"][:-1], sample["labels"][:-1]
    return samples


def expected_batch(rows: list[dict], packing: bool = False, **options) -> dict[str, torch.Tensor]:
    """A batch of [`expected_samples`]."""
    pad_token_id = AutoProcessor.from_pretrained(NANO).tokenizer.pad_token_id
    batch = OmniVinciCollator(pad_token_id, packing=packing)(expected_samples(rows, **options))
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}


def assert_same(found: dict, expected: dict) -> None:
    """Compares batches, bit for bit."""
    assert sorted(found) == sorted(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def answers_of(model: OmniVinciForConditionalGeneration, rows: list[dict], folder: Path = NANO) -> list[str]:
    """What a model says to the first message of each row, by this package."""
    processor, answers = AutoProcessor.from_pretrained(folder), []
    for row in rows:
        inputs = processor.apply_chat_template(
            sample_of(row).messages[:1],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
        )
        tokens = model.eval().generate(**inputs, max_new_tokens=16, do_sample=False)
        answers.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


def are_taught(answers: list[str]) -> bool:
    """Whether most answers, three of four, are what was taught in a few steps."""
    return answers.count(ANSWER) >= 0.75 * len(answers)


def changed_parts(model: torch.nn.Module, other: torch.nn.Module) -> set[str]:
    """The parts, such as `language_model`, whose weights differ between two models."""
    weights = dict(other.named_parameters())
    return {
        name.removeprefix("model.").split(".")[0]
        for name, weight in model.named_parameters()
        if not torch.equal(weight, weights[name])
    }
