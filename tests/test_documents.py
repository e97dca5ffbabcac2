"""What the documents show works as written, and what they say of versions is what is installed."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from compat.run import read_floors
from compat.wheel import CLIP, PRINTED, snippets
from transformers_omnivinci.cli import app

pytestmark = pytest.mark.compat

ROOT = Path(__file__).parent.parent
SNIPPETS = snippets((ROOT / "README.md").read_text())
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
COMMANDS = {line for path in DOCUMENTS for line in re.findall(r"^omnivinci (.+)$", path.read_text(), re.MULTILINE)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `omnivinci demo demo/new.mp4` was run, as the README says."""
    folder = tmp_path_factory.mktemp("folder")
    assert CliRunner().invoke(app, ["demo", str(folder / CLIP)]).exit_code == 0
    return folder


@pytest.mark.parametrize(
    ("snippet", "printed"), [*zip(SNIPPETS, PRINTED, strict=True)], ids=["chat", "pipeline", "many"]
)
def test_snippets_of_the_readme(snippet, printed, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith(printed)


def test_the_first_example_has_ten_lines():
    lines = [line for line in SNIPPETS[0].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_commands_of_the_documents_have_the_options_that_they_show(line):
    name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(app).commands[name]
    assert command.make_context(name, arguments)


@pytest.mark.parametrize("document", ["README.md", "model_card.md", "docs/compatibility.md"])
def test_the_lowest_versions_of_the_documents_are_those_of_the_package(document):
    floors = read_floors((ROOT / "setup.cfg").read_text())
    text = (ROOT / document).read_text()
    assert f"transformers {floors['transformers']}" in text
