"""What the documents show works as written."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transformers_omnivinci.cli import app

ROOT = Path(__file__).parent.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `omnivinci demo demo/new.mp4` was run, as the README says."""
    folder = tmp_path_factory.mktemp("folder")
    assert CliRunner().invoke(app, ["demo", str(folder / "demo" / "new.mp4")]).exit_code == 0
    return folder


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[-1][:30])
def test_snippets_of_the_readme(snippet, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    namespace: dict = {}
    exec(compile(snippet, "README.md", "exec"), namespace)
    if "print(" in snippet:
        assert capsys.readouterr().out.strip()
    else:
        assert namespace["pipe"].task == "video-text-to-text"


def test_the_first_example_has_ten_lines():
    lines = [line for line in SNIPPETS[0].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10
