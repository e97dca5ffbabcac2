"""Structure: no circle of imports, the published layout in one folder, nothing heavy at once, and no long file."""

import ast
import graphlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import transformers_omnivinci

ROOT = Path(transformers_omnivinci.__file__).parent


def modules_of(root: Path) -> dict[str, Path]:
    """The files of a package by the dotted names of their modules."""
    names = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(root: Path) -> dict[str, set[str]]:
    """
    The modules of a package that each of them imports, wherever the statement stands: in functions and under
    `TYPE_CHECKING`, too.
    """
    modules, graph = modules_of(root), {}
    for name, path in modules.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*base, *filter(None, [node.module])])
                inner = {f"{base}.{alias.name}" for alias in node.names}
                found |= {one if one in modules else base for one in inner}
        graph[name] = found & modules.keys() - {name}
    return graph


def folders_of(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """What folders import of each other. A module beside them counts as one, and so does the package itself."""
    folder_of = {name: ".".join(name.split(".")[:2]) for name in graph}
    folders = {folder: set() for folder in folder_of.values()}
    for name, found in graph.items():
        folders[folder_of[name]] |= {folder_of[one] for one in found} - {folder_of[name]}
    return folders


def circle_in(graph: dict[str, set[str]]) -> str | None:
    """A circle as "a -> b -> a", each importing the next; `None` if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return None


@pytest.fixture(scope="module")
def graph():
    return imports_of(ROOT)


def test_no_modules_import_each_other_in_a_circle(graph):
    assert circle_in(graph) is None


def test_no_folders_import_each_other_in_a_circle(graph):
    assert circle_in(folders_of(graph)) is None


IN_A_FUNCTION = {"a": "from .b import x", "b": "def f():\n    from . import a"}
FOR_TYPES_ALONE = {"a": "if TYPE_CHECKING:\n    import made_up.b", "b": "from made_up import a"}
IN_ONE_FOLDER = {"a.one": "from .two import x", "a.two": "from . import three", "a.three": "from .one import y"}
BETWEEN_FOLDERS = {"a.one": "from ..b.one import x", "b.one": "", "b.two": "from ..a import two", "a.two": ""}
NOWHERE = {"a": "from . import b, c", "b": "from .c import x", "c": "import json"}


@pytest.mark.parametrize(
    ("files", "circle", "between_folders"),
    [
        (IN_A_FUNCTION, {"a", "b"}, {"a", "b"}),
        (FOR_TYPES_ALONE, {"a", "b"}, {"a", "b"}),
        (IN_ONE_FOLDER, {"a.one", "a.two", "a.three"}, None),
        (BETWEEN_FOLDERS, None, {"a", "b"}),
        (NOWHERE, None, None),
    ],
)
def test_circles_are_found_and_named(tmp_path, files, circle, between_folders):
    root = tmp_path / "made_up"
    for name, text in files.items():
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graph = imports_of(root)
    for found, expected in ((circle_in(graph), circle), (circle_in(folders_of(graph)), between_folders)):
        names = found and {name.removeprefix("made_up.") for name in found.split(" -> ")}
        assert names == expected, found


@cache
def names_in(path: Path) -> set[str]:
    """What the statements of a module bind outside of functions and classes, and the files beside a package's own."""
    names = {one.stem for one in path.parent.iterdir()} if path.name == "__init__.py" else set()
    waiting = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            names |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            waiting += [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt | ast.ExceptHandler)]
    return names


BESIDE = ("benchmarks", "compat", "conformance", "engines")


def test_what_scripts_beside_the_package_import_of_it_is_there():
    """Most of them run for hours, in environments of their own, and so too seldom to tell of a name that has moved."""
    modules, lost = modules_of(ROOT), []
    for path in (one for folder in BESIDE for one in (ROOT.parents[1] / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == ROOT.name:
                known = names_in(modules[node.module]) if node.module in modules else set()
                known |= set(dir(transformers_omnivinci)) if node.module == ROOT.name else set()
                told = f"{path.relative_to(ROOT.parents[1])}: {node.module}."
                lost += [told + alias.name for alias in node.names if alias.name not in known]
    assert not lost


def test_no_file_is_longer_than_500_lines():
    root, lengths = Path(__file__).parents[1], {}
    for folder in ("src", "tests", "recipes", *BESIDE):
        for path in (one for one in (root / folder).rglob("*") if one.suffix in (".py", ".js", ".css", ".html")):
            lengths[path.relative_to(root).as_posix()] = len(path.read_text(encoding="utf-8").splitlines())
    assert len(lengths) > 500 and {path: length for path, length in lengths.items() if length > 500} == {}


def test_one_folder_knows_the_published_layout():
    """Others know of the model type at most that it is registered, and nothing of folders, keys and settings."""
    inside = ROOT / "conversion"
    layout = re.compile(r"\b(PUBLISHED_MODEL_TYPE|sound_tower|sound_mm_projector|mm_projector|published_layout)\b")
    told = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if not path.is_relative_to(inside) and layout.search(path.read_text(encoding="utf-8"))
    }
    assert told == {"__init__.py", "checkpoint_formats.py"}


def test_only_commands_ask_for_a_conversion(graph):
    inside = f"{ROOT.name}.conversion"
    askers = {name for name, found in graph.items() if any(one.startswith(inside) for one in found)}
    outside = {name.removeprefix(f"{ROOT.name}.") for name in askers if not name.startswith(inside)}
    assert outside == {"cli.convert", "cli.push"}


LIGHT = ["", ".checkpoint_formats", ".hub_options", ".nano", ".planning", ".quantization.recipes"]
IMPORT_LIGHT = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module("transformers_omnivinci" + module)
    heavy = {"torch", "transformers", "huggingface_hub", "av", "PIL", "numpy", "typer"}
    print(module, *heavy & set(sys.modules))
"""


@pytest.mark.compat
def test_import_brings_no_heavy_library():
    result = subprocess.run([sys.executable, "-c", IMPORT_LIGHT, *LIGHT], capture_output=True, text=True)
    assert (result.returncode, [line.strip() for line in result.stdout.splitlines()]) == (0, LIGHT), result.stderr
