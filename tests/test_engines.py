"""The environments in which engines are tested."""

import pytest

from engines import run
from engines.run import ENVIRONMENTS, Environment, main, read_environments

TABLES = """
everywhere = ["one==2.0"]

[engine]
requirements = ["two<3"]
extras = ["dev", "train"]
variables = { SETTING = "1" }
"""


def test_an_environment_has_the_package_with_its_extras():
    environments, everywhere = read_environments(TABLES)
    assert everywhere == ["one==2.0"]
    assert environments["engine"].package == ".[dev,train]"
    assert Environment("plain").package == "."


def test_those_of_the_repository_are_read():
    _, everywhere = read_environments(ENVIRONMENTS.read_text())
    assert any(line.startswith("torch==") for line in everywhere)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    made = []

    class Done:
        returncode = 0

    def record(command, **options):
        made.append(([str(word) for word in command], options))
        (tmp_path / ".engines" / "engine").mkdir(parents=True, exist_ok=True)
        return Done

    described = tmp_path / "environments.toml"
    described.write_text(TABLES)
    (tmp_path / "setup.cfg").write_text("")
    for name, value in (("ROOT", tmp_path), ("ENVIRONMENTS", described), ("FOLDER", tmp_path / ".engines")):
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run.subprocess, "run", record)
    return made


def test_an_environment_is_filled_once_and_runs_its_tests(calls):
    assert main(["engine", "-k", "one"]) == 0
    assert [call[0][-1] for call in calls[:2]] == [str(run.FOLDER / "engine"), ".[dev,train]"]
    command, options = calls[-1]
    assert command[-3:] == ["engines/engine", "-k", "one"]
    assert options["env"]["SETTING"] == "1" and "PYTHONPATH" not in options["env"]
    number = len(calls)
    main(["engine"])
    assert len(calls) == number + 1


def test_a_command_takes_the_place_of_pytest(calls):
    main(["engine", "--", "a-program", "--option"])
    assert calls[-1][0] == ["a-program", "--option"]


def test_an_unknown_environment_is_named_with_those_that_exist(calls):
    with pytest.raises(SystemExit, match="engine"):
        main(["another"])
    assert not calls
