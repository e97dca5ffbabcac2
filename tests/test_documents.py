"""What the documents show works as written, and what they say of versions is what is installed."""

import re
import shlex
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
from typer.testing import CliRunner

from compat.run import read_floors
from compat.wheel import CLIP, snippets
from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.publishing.paper_results import PAPER_RESULTS

pytestmark = pytest.mark.compat

ROOT = Path(__file__).parent.parent
DOCUMENTS = {str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
SNIPPETS = {name: snippets(path.read_text()) for name, path in DOCUMENTS.items()}
COMMANDS = {
    line for path in DOCUMENTS.values() for line in re.findall(r"^omnivinci (.+)$", path.read_text(), re.MULTILINE)
}
SERVED_AT = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `omnivinci demo demo/new.mp4` was run, as the documents say."""
    folder = tmp_path_factory.mktemp("folder")
    assert CliRunner().invoke(app, ["demo", str(folder / CLIP)]).exit_code == 0
    return folder


@contextmanager
def served_nano():
    """The address of the server of `docs/serving.md`, which loads the models that requests name."""
    pytest.importorskip("openai", reason="the snippets use the client of OpenAI, of the extra `dev`")
    uvicorn = pytest.importorskip("uvicorn", reason="the snippets need a server, of the extra `serve`")
    from transformers_omnivinci.endpoint import EndpointHandler, Limits
    from transformers_omnivinci.serving.app import build_app
    from transformers_omnivinci.serving.models import Models

    models = Models(lambda path, name: EndpointHandler(path, Limits(), name=name))
    server = uvicorn.Server(uvicorn.Config(build_app(models, 10_000_000), log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if SNIPPETS[name]])
def test_snippets_print_what_stands_below_them(document, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    namespace = {"__name__": "__main__"}
    for snippet, printed in SNIPPETS[document]:
        if SERVED_AT in snippet:
            with served_nano() as address:
                exec(compile(snippet.replace(SERVED_AT, address), document, "exec"), namespace)
        else:
            exec(compile(snippet, document, "exec"), namespace)
        assert capsys.readouterr().out == printed, snippet


def test_no_snippet_of_the_documents_is_overlooked():
    assert {name for name in SNIPPETS if SNIPPETS[name]} >= {"README.md", "docs/inference.md", "docs/architecture.md"}
    for name, path in DOCUMENTS.items():
        assert len(re.findall("^ *```python", path.read_text(), re.MULTILINE)) == len(SNIPPETS[name])
        assert all(printed for _, printed in SNIPPETS[name]), f"A snippet of {name} does not say what it prints."


def test_the_readme_is_short_and_its_example_has_ten_lines():
    assert len(DOCUMENTS["README.md"].read_text().splitlines()) <= 100
    ((example, _),) = SNIPPETS["README.md"]
    lines = [line for line in example.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document):
    text = re.sub(r"^```.*?^```$", "", DOCUMENTS[document].read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = unquote(link).partition("#")
        target = DOCUMENTS[document].parent / path if path else DOCUMENTS[document]
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, link


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_commands_of_the_documents_have_the_options_that_they_show(line):
    name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(app).commands[name]
    assert command.make_context(name, arguments)


def test_the_tree_of_the_architecture_is_that_of_the_package():
    package, page = Path(NANO).parent.parent, DOCUMENTS["docs/architecture.md"].read_text()
    tree = re.search(r"^## The tree$.*?^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for path in package.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"\n{path.name}/ " in f"\n{tree[1]}", path.name
        elif path.suffix == ".py" and not path.name.startswith("_"):
            assert path.name in tree[1], path.name
    folders = [package, ROOT / "tests", ROOT / "conformance"]
    modules = {path.name for folder in folders for path in folder.rglob("*.py")}
    assert set(re.findall(r"\w+\.py", page)) <= modules


@pytest.mark.parametrize("document", ["README.md", "model_card.md", "docs/compatibility.md"])
def test_the_lowest_versions_of_the_documents_are_those_of_the_package(document):
    floors = read_floors((ROOT / "setup.cfg").read_text())
    text = (ROOT / document).read_text()
    assert f"transformers {floors['transformers']}" in text


def test_the_page_on_evaluation_has_a_command_for_each_figure_of_the_paper():
    page = DOCUMENTS["docs/evaluation.md"].read_text()
    for table in PAPER_RESULTS:
        text = re.search(rf"^Table {table.number}, (?:.+\n)+\n((?:\|.+\n)+)", page, re.MULTILINE)[1]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
        assert [" | ".join(row[:4]) for row in rows] == table.rows
        for *_, value, here, command in rows:
            assert here == "not run" and re.match(r"`omni --tasks [a-z0-9_]+(,[a-z0-9_]+)*`", command), value
