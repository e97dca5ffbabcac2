"""
Builds what is published, installs it outside of the repository with nothing pinned but torch, and runs there what the
README shows first, and tests of the source distribution.

    python compat/wheel.py

It runs before anything is installed, so it needs the standard library alone, and git.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EVERYWHERE = tomllib.loads((ROOT / "compat" / "environments.toml").read_text())["everywhere"]
NOT_PUBLISHED = {".ci/run", ".gitignore"}
MADE_BY_SETUPTOOLS = re.compile(r"^PKG-INFO$|\.egg-info/")
# These read what stands beside the package: documents, demo, fixtures, benchmarks, this folder.
TESTS = ["documents", "model_card", "parity", "nano", "compat"]
TOOLS = ["hypothesis", "pytest", "soundfile"]

CLIP = "demo/new.mp4"
# What nano answers about it, which is right. Its captions begin well.
ANSWERS = {
    "What happens?": "From 0.0 to 1.5 seconds, the yellow square moves ",
    "Which sound is heard first?": "noise\n",
}
"""How nano's answers begin."""


def run(*command: str | Path, folder: Path) -> str:
    """What a command writes to its standard output. The rest goes to the terminal."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    print("$", " ".join(str(part).splitlines()[0] for part in command), flush=True)
    done = subprocess.run([*map(str, command)], cwd=folder, env=variables, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nIt failed with status {done.returncode}.")
    return done.stdout


def check(what: str, right: bool, seen: str):
    if not right:
        sys.exit(f"{what} is not right:\n{seen}")
    print(f"{what}: right", flush=True)


def make_environment(folder: Path) -> Path:
    """A fresh environment. Returns its folder of programs."""
    run(sys.executable, "-m", "venv", folder, folder=folder.parent)
    return folder / ("Scripts" if os.name == "nt" else "bin")


def build(folder: Path) -> tuple[Path, Path]:
    """The source distribution of what git knows, and the wheel that is built from it."""
    programs = make_environment(folder / "builder")
    run(programs / "python", "-m", "pip", "install", "--quiet", "build", folder=folder)
    run(programs / "python", "-m", "build", "--quiet", "--outdir", folder / "dist", ROOT, folder=folder)
    (source,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return source, wheel


def unpack(source: Path, folder: Path) -> Path:
    with tarfile.open(source) as tar:
        tar.extractall(folder, filter="data")
    return folder / source.name.removesuffix(".tar.gz")


def snippets(document: str) -> list[tuple[str, str | None]]:
    """The Python snippets of a document, each with what it prints: the block of text below it, or `None`."""
    found = re.finditer(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```$)?", document, re.DOTALL | re.MULTILINE)
    return [match.groups() for match in found]


def try_readme(programs: Path, readme: str, folder: Path):
    python, omnivinci = programs / "python", programs / "omnivinci"
    rows = [re.split(r"\s{2,}", line.strip()) for line in run(omnivinci, "demo", CLIP, folder=folder).splitlines()]
    asked = [row for row in rows if row[0].endswith("?")]
    check("omnivinci demo", len(asked) == 3 and all(answer == truth for _, answer, truth in asked), f"{asked}")
    for question, begins in ANSWERS.items():
        answer = run(omnivinci, "ask", CLIP, question, folder=folder)
        check(question, answer.startswith(begins), answer)
    for snippet, printed in snippets(readme):
        answer = run(python, "-c", snippet, folder=folder)
        check("The snippet of the README", answer == printed, answer)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, wheel = build(folder)
        unpacked = unpack(source, folder)
        tracked = set(run("git", "ls-files", folder=ROOT).split("\n")[:-1])
        published = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
        other = {path for path in published ^ tracked if not MADE_BY_SETUPTOOLS.search(path)} - NOT_PUBLISHED
        check("The source distribution", not other, f"These are in it or in git alone: {', '.join(sorted(other))}")
        programs = make_environment(folder / "user")
        pip = [programs / "python", "-m", "pip"]
        run(*pip, "install", "--quiet", *EVERYWHERE, wheel, folder=folder)
        run(*pip, "check", folder=folder)
        try_readme(programs, (unpacked / "README.md").read_text(), folder)
        run(*pip, "install", "--quiet", *TOOLS, folder=folder)
        tests = [f"tests/test_{name}.py" for name in TESTS]
        print(run(programs / "python", "-m", "pytest", "-q", *tests, folder=unpacked))


if __name__ == "__main__":
    main()
