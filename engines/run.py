"""
Tests an engine that needs versions of its own: makes its environment, in `.engines/NAME`, and runs its tests there.

    python engines/run.py NAME [argument of pytest ...]
    python engines/run.py NAME -- COMMAND [argument ...]

The environment is described in `environments.toml` and kept while its description and `setup.cfg` stay the same. A
command after `--` is run in the place of pytest; its first word is looked up among the environment's programs.

It runs before anything is installed, so it needs the standard library alone.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / "engines" / "environments.toml"
FOLDER = ROOT / ".engines"


@dataclass(frozen=True)
class Environment:
    """What `environments.toml` says of an environment."""

    name: str
    requirements: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    tests: str = ""

    @property
    def programs(self) -> Path:
        return FOLDER / self.name / ("Scripts" if os.name == "nt" else "bin")

    @property
    def package(self) -> str:
        """This package as pip is asked for it."""
        return f".[{','.join(self.extras)}]" if self.extras else "."


def read_environments(text: str) -> tuple[dict[str, Environment], list[str]]:
    """The environments by name, and what all of them ask for."""
    tables = tomllib.loads(text)
    everywhere = tables.pop("everywhere")
    return {name: Environment(name, **table) for name, table in tables.items()}, everywhere


def install(environment: Environment, everywhere: list[str]) -> bool:
    """Makes the environment unless it is there. Returns whether all could be installed."""
    folder = FOLDER / environment.name
    stamp = folder / "stamp"
    wanted = "\n".join([sys.version, *everywhere, repr(environment), (ROOT / "setup.cfg").read_text()])
    if stamp.is_file() and stamp.read_text() == wanted:
        return True
    print(f"Filling {folder.relative_to(ROOT)} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [environment.programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # In one call, so that everything is resolved together.
    calls = [["install", *everywhere, *environment.requirements, "-e", environment.package]]
    if environment.without:
        calls.append(["install", "--no-deps", *environment.without])
    if environment.removed:
        calls.append(["uninstall", "--yes", *environment.removed])
    for call in calls:
        if subprocess.run([*pip, *call], cwd=ROOT).returncode:
            return False
    stamp.write_text(wanted)
    return True


def main(arguments: list[str]) -> int:
    environments, everywhere = read_environments(ENVIRONMENTS.read_text())
    if not arguments or arguments[0] not in environments:
        sys.exit(f"Name one of the environments: {', '.join(environments)}.")
    environment, arguments = environments[arguments[0]], arguments[1:]
    if not install(environment, everywhere):
        sys.exit(f"The environment {environment.name} could not be filled.")
    variables = os.environ | environment.variables
    variables["PATH"] = os.pathsep.join([str(environment.programs), variables.get("PATH", "")])
    variables.pop("PYTHONPATH", None)  # it would win over what the environment has installed
    if arguments[:1] == ["--"]:
        command = [shutil.which(arguments[1], path=variables["PATH"]) or arguments[1], *arguments[2:]]
    else:
        tests = environment.tests or f"engines/{environment.name}"
        command = [environment.programs / "python", "-m", "pytest", "-p", "no:cacheprovider", tests, *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
