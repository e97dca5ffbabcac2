"""lmms-eval reads `HF_HOME` when its tasks are imported: there they find the data that is written for the tests."""

import os
import tempfile
from functools import cache
from pathlib import Path

import pytest

FOLDER = tempfile.TemporaryDirectory(prefix="lmms-eval-")
os.environ["HF_HOME"] = FOLDER.name


@pytest.fixture(scope="session")
def home() -> Path:
    """The folder `HF_HOME`, where tasks look for videos."""
    return Path(FOLDER.name)


@pytest.fixture(scope="session")
def task_of(home, tmp_path_factory):
    """The local task of a benchmark, written when it is first asked for."""
    from engines.lmms.local_data import MAKERS

    return cache(lambda name: MAKERS[name](home, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def results_of(task_of):
    """What lmms-eval's evaluator says of nano in the local task of a benchmark, run when it is first asked for."""
    from engines.lmms.run import run_lmms_eval

    return cache(lambda name: run_lmms_eval(task_of(name)))
