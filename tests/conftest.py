"""Fixtures that several test files share."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import transformers_omnivinci  # noqa: F401

# Properties are about values: how long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

PARITY = Path(__file__).parent / "fixtures" / "parity"
CLIP = str(Path(__file__).parents[1] / "demo" / "clip.mp4")
CASES = {case["name"]: case for case in json.loads((PARITY / "cases.json").read_text())}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Tests run in several processes; more threads than cores only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def load_checkpoint():
    """Model and processor of a parity checkpoint, loaded once."""
    from transformers import AutoModel, AutoProcessor

    loaded = {}

    def load(name="published-tiny"):
        if name not in loaded:
            loaded[name] = (AutoModel.from_pretrained(PARITY / name), AutoProcessor.from_pretrained(PARITY / name))
        return loaded[name]

    return load


@pytest.fixture
def model(load_checkpoint):
    return load_checkpoint()[0]


@pytest.fixture
def processor(load_checkpoint):
    return load_checkpoint()[1]
