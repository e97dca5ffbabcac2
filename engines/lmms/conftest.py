"""lmms-eval reads `HF_HOME` when its tasks are imported: here they find the data sets that are written for the tests."""

import os
import tempfile
from pathlib import Path

import pytest

FOLDER = tempfile.TemporaryDirectory(prefix="lmms-eval-")
os.environ["HF_HOME"] = FOLDER.name


@pytest.fixture(scope="session")
def home() -> Path:
    """The folder `HF_HOME`, where tasks look for videos."""
    return Path(FOLDER.name)
