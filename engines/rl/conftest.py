"""Problems about clips of the synthetic world, which nano answers right now and then."""

import json

import pytest
import torch

from transformers_omnivinci.synthetic import SyntheticDataset, write_dataset

HARD = (0, 8, 12, 14)
"""Of the clips below, those whose seconds nano names right in less than four of ten samples."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def hard(tmp_path_factory):
    """A file of four questions for seconds."""
    folder = tmp_path_factory.mktemp("world")
    data = write_dataset(folder, SyntheticDataset("train", 16, seed=7, types=("time", "counting")))
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    path = data.with_name("hard.jsonl")
    path.write_text("".join(json.dumps(rows[index]) + "\n" for index in HARD))
    return path


@pytest.fixture(scope="session")
def hardest(hard):
    """A file of two of them, of which nano answers less than two of ten samples right."""
    path = hard.with_name("hardest.jsonl")
    path.write_text("".join(hard.read_text().splitlines(keepends=True)[2:]))
    return path
