"""
Runs the common tests of transformers on OmniVinci: those for models, configurations and processors.

They are those of the installed version. Pip fetches its source distribution into `conformance/.cache`, and nothing
of it is committed; what it lacks is in `stand_ins`. Tests that do not apply are listed in `not_applicable.py`: each
must fail, and in the way said there. Arguments are passed to pytest:

    python conformance/run.py [-k EXPRESSION] ...
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from not_applicable import NOT_APPLICABLE

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
COMMON_TESTS = ("modeling", "configuration", "processing", "image_processing", "video_processing")
PARAMETERIZED = "parameterized==0.9.0"  # which the tests import


def pip(*arguments: str | Path):
    """Runs pip, quietly."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    if subprocess.run(command).returncode:
        sys.exit(f"pip could not fetch {arguments[-1]}, which the conformance tests need.")


def fetch(version: str) -> list[Path]:
    """Fetches what is not there yet. Returns the folders to import from."""
    unpacked, packages = CACHE / f"transformers-{version}", CACHE / "packages"
    if not (packages / "parameterized").is_dir():
        pip("install", "--no-deps", "--target", packages, PARAMETERIZED)
    archive = unpacked.with_suffix(unpacked.suffix + ".tar.gz")
    if not archive.is_file():
        options = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", CACHE)
        pip("download", *options, f"transformers=={version}")
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.copytree(HERE / "stand_ins", unpacked, ignore=shutil.ignore_patterns("__pycache__"))
    with tarfile.open(archive) as tar:
        for name in (f"test_{kind}_common.py" for kind in COMMON_TESTS):
            source = tar.extractfile(f"transformers-{version}/tests/{name}")
            (unpacked / "transformers_tests" / name).write_bytes(source.read())
    return [unpacked, packages]


def short_name(report) -> str:
    """The class and the name of a test."""
    return report.nodeid.partition("::")[2] or report.nodeid


def does_not_apply(report) -> bool:
    """Whether a test fails as `not_applicable.py` says."""
    reason = NOT_APPLICABLE.get(short_name(report))
    return report.failed and reason is not None and reason.error in report.longreprtext


class Recorder:
    """A plugin of pytest that keeps what became of each test."""

    def __init__(self):
        self.outcomes: dict[str, str] = {}
        self.skips: dict[str, str] = {}
        self.failures: dict[str, list[str]] = defaultdict(list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report):
        if does_not_apply(report):
            return "not applicable", "n", "NOT APPLICABLE"
        if self._is_subtest(report) and not report.failed:
            return "", "", ""

    def pytest_runtest_logreport(self, report):
        name = short_name(report)
        before = self.outcomes.get(name)
        if report.failed and not does_not_apply(report):
            self.outcomes[name] = "failed"
            self.failures[name].append(report.longreprtext)
        elif before == "failed":
            pass
        elif report.failed:
            self.outcomes[name] = "not applicable"
        elif report.skipped and before is None:
            self.outcomes[name] = "skipped"
            self.skips[name] = report.longrepr[2].removeprefix("Skipped: ")
        elif (
            report.passed
            and report.when == "call"
            and (before is None or before == "skipped" and self._is_subtest(report))
        ):
            self.outcomes[name] = "passed"  # a test all of whose subtests are skipped remains so

    def pytest_collectreport(self, report):
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
            self.failures[report.nodeid].append(report.longreprtext)

    @staticmethod
    def _is_subtest(report) -> bool:
        return hasattr(report, "context")

    def wrong_entries(self) -> list[str]:
        """What is wrong in the table of tests that do not apply."""
        said = {None: "there is no such test", "passed": "the test passes", "failed": "the test fails otherwise"}
        outcomes = {name: self.outcomes.get(name) for name in NOT_APPLICABLE}
        return [f"{name}: {said[outcome]}" for name, outcome in outcomes.items() if outcome in said]


def main(arguments: list[str]) -> int:
    version = importlib.metadata.version("transformers")
    # The processes of pytest-xdist take over the path of this one, those that tests start only the environment.
    sys.path += [*map(str, fetch(version)), str(HERE.parent / "src")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    os.environ |= {"HF_HUB_OFFLINE": "1", "RUN_SLOW": os.environ.get("RUN_SLOW", "1"), "OMP_NUM_THREADS": "1"}
    options = ["-q", "--tb=short", "--no-summary", "--disable-warnings", "-p", "no:cacheprovider", "-o", "addopts="]
    tests = sorted(map(str, HERE.glob("test_*.py")))
    recorder = Recorder()
    print(f"The common tests of transformers {version} on OmniVinci:", flush=True)
    code = pytest.main([*options, "-n", "auto", "--maxprocesses", "8", *tests, *arguments], plugins=[recorder])

    count = Counter(recorder.outcomes.values())
    print(f"\n{count['passed']} passed.")
    print(f"\n{count['skipped']} skipped by the tests themselves:")
    skips = Counter(reason for name, reason in recorder.skips.items() if recorder.outcomes[name] == "skipped")
    for reason, number in skips.most_common():
        print(f"  {number:3} {reason}")
    print(f"\n{count['not applicable']} not applicable:")
    for name, reason in NOT_APPLICABLE.items():
        if recorder.outcomes.get(name) == "not applicable":
            print(f"  {name}\n    {reason.why}")
    wrong = [] if arguments else recorder.wrong_entries()
    if wrong:
        print("\nWrong in not_applicable.py:", *wrong, sep="\n  ")
    print(f"\n{count['failed']} failed" + (":" if recorder.failures else "."))
    for name, texts in recorder.failures.items():
        print(f"\n{'_' * 20} {name}", *texts, sep="\n")
    return 1 if wrong or recorder.failures or code not in (0, 1) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
