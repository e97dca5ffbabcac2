"""
Fixtures that several test files share. What takes long to import is imported by those that need it: the process that
hands tests out to others reads this file too, and starts them after it.
"""

import copy
import gc
import json
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

import transformers_omnivinci  # noqa: F401

from .hub_server import HubServer
from .media_clips import clip, decode_all, many_seeks, no_leftovers  # noqa: F401

# Properties are about values: how long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

PARITY = Path(__file__).parent / "fixtures" / "parity"
CLIP = str(Path(__file__).parents[1] / "demo" / "clip.mp4")
CASES = {case["name"]: case for case in json.loads((PARITY / "cases.json").read_text())}


def pytest_collection_finish():
    # Half a million objects of imported modules stay to the end: no collection, of which each run of the Trainer asks
    # for several, need look at them.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

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


@pytest.fixture(scope="session")
def make_fresh():
    """Models as they are loaded, which a test may train and change: copies, since these take an eighth of the time."""
    from transformers import AutoModel

    untouched = {}

    def make(name="published-tiny"):
        if name not in untouched:
            untouched[name] = AutoModel.from_pretrained(PARITY / name)
        return copy.deepcopy(untouched[name])

    return make


@pytest.fixture
def fresh(make_fresh):
    return make_fresh()


@pytest.fixture
def model(load_checkpoint):
    return load_checkpoint()[0]


@pytest.fixture
def processor(load_checkpoint):
    return load_checkpoint()[1]


@pytest.fixture
def encoder(processor):
    from transformers_omnivinci.training import SampleEncoder

    return SampleEncoder(processor, num_frames=2)


@pytest.fixture
def dataset(encoder):
    """Makes a dataset of rows or of a file of them."""
    from transformers_omnivinci.training import ChatDataset, DataSource

    return lambda rows, **options: ChatDataset([DataSource(rows)], encoder, **options)


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a parity checkpoint that a test may change."""
    shutil.copytree(PARITY / "published-tiny", tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local Hub that `huggingface_hub` and transformers of this process speak to, with an empty cache.

    Processes get there with `hub.environment()`."""
    import huggingface_hub
    import transformers

    home = tmp_path / "huggingface"
    with HubServer(tmp_path / "hub") as server:
        # Both read the environment once, on import: these are the places where it has gone.
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_ASSETS_CACHE": str(home / "assets"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)  # since 5.18
        monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(home / "modules"))
        monkeypatch.setattr(sys, "path", sys.path[:])
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        # The client waits up to half a minute between its attempts.
        for module in (huggingface_hub.utils._http, huggingface_hub.file_download):
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
        yield server
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]
