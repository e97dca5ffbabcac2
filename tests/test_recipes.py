"""The recipes, without running them: they use public names alone, and each is whole."""

import ast
from pathlib import Path

import pytest

from recipes.results import read_timed, run_timed

ROOT = Path(__file__).parent.parent / "recipes"
FILES = sorted(ROOT.rglob("*.py"))
FOLDERS = sorted(path.parent for path in ROOT.glob("*/data.py"))


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def private_uses(source: str) -> list[str]:
    """Names with a leading underscore that a source imports, or takes from anything but its own `self` and `cls`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
            found += [name for name in names if is_private(name)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and is_private(name.value):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_recipes_use_public_names_alone(path):
    assert private_uses(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from a._b import c", ["a._b"]),
        ("from a import _b", ["_b"]),
        ("import a._b.c", ["a._b.c"]),
        ("from a import b\nb._c()", ["b._c"]),
        ("getattr(b, '_c')", ["getattr(b, '_c')"]),
        ("class A:\n    def f(self):\n        self._b = self._c()\n        return self.__class__", []),
        ("from __future__ import annotations\nimport a\na.__file__", []),
    ],
)
def test_private_names_are_found(source, found):
    assert private_uses(source) == found


def test_each_recipe_is_whole_and_stands_in_the_gallery():
    gallery = (ROOT.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    for folder in FOLDERS:
        wanted = ["__init__.py", "README.md", "Makefile", "data.py", "table.py", "results.png", "results.json"]
        wanted.append(f"test_{folder.name}.py")
        assert [name for name in wanted if not (folder / name).is_file()] == [], folder.name
        assert f"](../recipes/{folder.name}/results.png)" in gallery
        assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_a_recipe_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_times_of_commands_are_kept_without_their_paths(tmp_path):
    path = tmp_path / "train.json"
    assert read_timed(path) is None
    command = ["python", "-c", "import sys, time; time.sleep(0.2); sys.exit(len(sys.argv) != 5)"]
    assert run_timed([*command, "--max-steps", "3", "--data", str(tmp_path)], path) == 0
    timed = read_timed(path)
    assert timed["wall_seconds"] > 0 <= timed["cpu_seconds"] and timed["options"] == {"max_steps": 3}
    assert run_timed([*command, "too few"], path) == 1 and read_timed(path) == timed
