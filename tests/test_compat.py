"""What decides which versions are tried, and what is said of them."""

import pytest

from compat.run import Environment, Result, Share, constraints_of, count, read_environments, read_floors, render

SETUP = """
[options]
install_requires =
    one>=1.5,<3
    two

[options.extras_require]
extra =
    # Where there are wheels.
    three-four>=0.6; sys_platform == "linux"
    five[six]
dev =
    seven>=7
"""

TABLES = """
everywhere = ["one==2.0"]

[oldest]
floors = true

[later]
requirements = ["two<3"]
engines = { "engine 1.0" = ["three-four<1", "two>=1"] }
"""


def test_floors_are_those_of_what_users_get():
    assert read_floors(SETUP) == {"one": "1.5", "three-four": "0.6"}


def test_an_environment_is_held_to_its_floors_and_to_its_engines():
    environments, everywhere = read_environments(TABLES)
    assert constraints_of(environments["oldest"], everywhere, SETUP) == ["one==2.0", "three-four==0.6"]
    assert constraints_of(environments["later"], everywhere, SETUP) == ["one==2.0", "two<3", "three-four<1", "two>=1"]


def test_pins_of_a_file():
    assert "torch==2.13.0" in constraints_of(Environment("pinned", constraints="constraints.txt"), [], SETUP)


REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_parity" name="test_prompt[a]"/>
<testcase classname="tests.test_parity" name="test_prompt[b]"/>
<testcase classname="tests.test_parity" name="test_logits[b]"><failure/></testcase>
<testcase classname="tests.test_cli" name="test_version"/>
<testcase classname="tests.test_cli" name="test_version"><error/></testcase>
<testcase classname="tests.test_cli" name="test_of_a_gpu"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_case_of_parity_passes_if_all_its_tests_do():
    assert count(REPORT) == (Share(1, 2), Share(2, 4))


@pytest.mark.parametrize(("is_consistent", "said"), [(True, "passes"), (False, "fails")])
def test_results_are_a_row_of_the_table(is_consistent, said):
    result = Result("x", "2026-01-01", ["engine 1.0", "tool 2"], {"av": "15.0.0"}, is_consistent, Share(1, 2))
    row = render([result]).splitlines()[-1]
    assert row.startswith("| x | - |") and f"| 15.0.0 | {said} | 1 of 2 | 0 of 0 | engine 1.0, tool 2 |" in row
