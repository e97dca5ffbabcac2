"""
Runs the tests that are marked `compat` beside other versions of what the package depends on.

Each environment of `environments.toml` is made in `.compat/NAME` and kept while what is asked for stays the same (what
takes the newest versions: while the day does). What came out is printed, kept in `.compat/results.json` and, after a
run of all environments, written into `docs/compatibility.md`. The exit status is 1 where anything failed.

    python compat/run.py [NAME ...]

It runs before anything is installed, so it needs the standard library alone.
"""

import configparser
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / "compat" / "environments.toml"
FOLDER = ROOT / ".compat"
RESULTS = FOLDER / "results.json"
DOCUMENT = ROOT / "docs" / "compatibility.md"
START, END = "<!-- results -->", "<!-- end -->"
SECONDS_PER_TEST = 300  # then a test that waits in vain ends as a failure
SHOWN = ("transformers", "torch", "huggingface_hub", "tokenizers", "accelerate", "peft", "numpy", "pillow", "av")


@dataclass(frozen=True)
class Environment:
    """What `environments.toml` says of an environment."""

    name: str
    floors: bool = False
    constraints: str = ""
    requirements: list[str] = field(default_factory=list)
    engines: dict[str, list[str]] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return FOLDER / self.name / ("Scripts" if os.name == "nt" else "bin") / "python"


@dataclass(frozen=True)
class Share:
    passed: int = 0
    of: int = 0

    def __str__(self) -> str:
        return f"{self.passed} of {self.of}"


@dataclass
class Result:
    """What came out of an environment. What could not be done remains as it is here."""

    name: str
    day: str
    engines: list[str]
    versions: dict[str, str] = field(default_factory=dict)
    is_consistent: bool = False
    parity: Share = Share()
    tests: Share = Share()
    seconds: int = 0
    is_passed: bool = False


def read_environments(text: str) -> tuple[dict[str, Environment], list[str]]:
    """The environments by name, and what all of them ask for."""
    tables = tomllib.loads(text)
    everywhere = tables.pop("everywhere")
    return {name: Environment(name, **table) for name, table in tables.items()}, everywhere


def read_floors(setup: str) -> dict[str, str]:
    """The lowest versions of what users get, from the text of `setup.cfg`."""
    parser = configparser.ConfigParser()
    parser.read_string(setup)
    extras = [value for name, value in parser["options.extras_require"].items() if name != "dev"]
    lines = "\n".join([parser["options"]["install_requires"], *extras])
    return dict(re.findall(r"^([\w.-]+)>=([\w.]+)", lines, re.MULTILINE))


def constraints_of(environment: Environment, everywhere: list[str], setup: str) -> list[str]:
    """What pip is held to, in its notation. What holds everywhere takes the place of floors."""
    lines = [*everywhere]
    if environment.floors:
        named = {re.match(r"[\w.-]+", line)[0] for line in everywhere}
        lines += [f"{name}=={floor}" for name, floor in read_floors(setup).items() if name not in named]
    if environment.constraints:
        lines += (ROOT / environment.constraints).read_text().splitlines()
    return lines + environment.requirements + [line for lines in environment.engines.values() for line in lines]


def install(environment: Environment, constraints: list[str], setup: str) -> bool:
    """Makes the environment unless it is there. Returns whether pip could resolve it."""
    folder = FOLDER / environment.name
    stamp, file = folder / "stamp", folder / "constraints.txt"
    day = "" if environment.floors or environment.constraints else f"{datetime.date.today()}"
    wanted = "\n".join([sys.version, day, *constraints, setup])
    if stamp.is_file() and stamp.read_text() == wanted:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    file.write_text("\n".join(constraints) + "\n")
    command = [environment.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", file]
    if subprocess.run([*command, "-e", ".[dev]"], cwd=ROOT).returncode:
        return False
    stamp.write_text(wanted)
    return True


def versions_of(environment: Environment) -> dict[str, str]:
    command = [environment.python, "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    versions = {package["name"].lower().replace("-", "_"): package["version"] for package in packages}
    return {name: versions[name].partition("+")[0] for name in SHOWN}


def count(report: str) -> tuple[Share, Share]:
    """The cases of parity and the tests in pytest's report in JUnit's format."""
    cases: dict[str, bool] = {}
    tests: dict[str, bool] = {}
    for entry in ElementTree.fromstring(report).iter("testcase"):
        if entry.find("skipped") is not None:
            continue
        module, name = entry.get("classname"), entry.get("name")
        # A test that fails and cannot be torn down has two entries.
        passed = entry.find("failure") is None and entry.find("error") is None
        tests[f"{module}::{name}"] = tests.get(f"{module}::{name}", True) and passed
        if module == "tests.test_parity":
            case = re.search(r"\[(.+)\]$", name)[1]
            cases[case] = cases.get(case, True) and passed
    return Share(sum(cases.values()), len(cases)), Share(sum(tests.values()), len(tests))


def run(environment: Environment, constraints: list[str], setup: str) -> Result:
    """Makes the environment and runs the tests in it. What they print goes to the terminal."""
    result = Result(environment.name, f"{datetime.date.today()}", [*environment.engines])
    start = time.monotonic()
    if not install(environment, constraints, setup):
        return result
    result.versions = versions_of(environment)
    print(*(f"{name} {version}" for name, version in result.versions.items()), sep=", ", flush=True)
    result.is_consistent = not subprocess.run([environment.python, "-m", "pip", "check"]).returncode
    report = FOLDER / environment.name / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-m", "compat", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}"]
    options += ["-n", "auto", "--maxprocesses", "8"]
    for name, value in (("faulthandler_timeout", SECONDS_PER_TEST), ("faulthandler_exit_on_timeout", "true")):
        options += ["-o", f"{name}={value}"]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    variables.pop("PYTHONPATH", None)  # it would win over what the environment has installed
    code = subprocess.run([environment.python, "-m", "pytest", *options], cwd=ROOT, env=variables).returncode
    if report.is_file():
        result.parity, result.tests = count(report.read_text())
    result.seconds = round(time.monotonic() - start)
    result.is_passed = code == 0 and result.is_consistent and result.parity.of > 0
    return result


def render(results: list[Result]) -> str:
    """The results as a table in Markdown."""
    rows = [["environment", *SHOWN, "`pip check`", "parity", "tests", "engines that fit in"]]
    rows.append(["---"] * len(rows[0]))
    for result in results:
        versions = [result.versions.get(name, "-") for name in SHOWN]
        check = "passes" if result.is_consistent else "fails"
        engines = ", ".join(result.engines) or "-"
        rows.append([result.name, *versions, check, f"{result.parity}", f"{result.tests}", engines])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(names: list[str]) -> int:
    environments, everywhere = read_environments(ENVIRONMENTS.read_text())
    unknown = [name for name in names if name not in environments]
    if unknown:
        sys.exit(f"No such environment: {', '.join(unknown)}. There are {', '.join(environments)}.")
    setup = (ROOT / "setup.cfg").read_text()
    results = []
    for name in names or environments:
        print(f"\n{name}:", flush=True)
        results.append(run(environments[name], constraints_of(environments[name], everywhere, setup), setup))
    print(f"\n{render(results)}\n")
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(known | {result.name: asdict(result) for result in results}, indent=2) + "\n")
    if not names:
        table = f"{START}\n\n{render(results)}\n\n{END}"
        text = DOCUMENT.read_text()
        DOCUMENT.write_text(re.sub(f"{START}.*?{END}", lambda _: table, text, flags=re.DOTALL))
    for result in results:
        print(f"{result.name}: {'passed' if result.is_passed else 'FAILED'} in {result.seconds} s")
    return not all(result.is_passed for result in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
