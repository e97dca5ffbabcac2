"""The recipe of control charts: definitions, explanations and rules, and all of it at toy size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .charts import KINDS, LENGTH, NUM_BANDS, PLACES, Draw, make_chart
from .data import main
from .explaining import explain, read_explanation, score_explanation
from .rules import RULES, features, is_out_of_control, rule_classes, western_electric

ROOT = Path(__file__).parent.parent.parent


def charts(kind, count=40, seed=0, is_test=False):
    rng = np.random.default_rng(seed)
    return [make_chart(kind, rng, is_test) for _ in range(count)]


def third_of(places):
    return PLACES[int(3 * (places[0] + len(places) / 2) / LENGTH)]


def test_parameters_of_tests_are_those_that_training_never_sees():
    rng = np.random.default_rng(0)
    bands = [{int(NUM_BANDS * (Draw(rng, test).between(2, 4) - 2) / 2) for _ in range(200)} for test in (False, True)]
    assert bands == [{0, 2, 4}, {1, 3}]


@pytest.mark.parametrize("kind", KINDS)
def test_charts_are_drawn_by_their_seed(kind):
    one, other = charts(kind, 3), charts(kind, 3)
    for left, right in zip(one, other):
        assert np.array_equal(left.values, right.values, equal_nan=True) and left.facts == right.facts
        assert left.values.shape == (LENGTH,) and np.isnan(left.values).any() == (kind == "missing")


def test_missing_and_constant_values_are_where_the_facts_say():
    for chart in charts("missing"):
        gone = np.flatnonzero(np.isnan(chart.values))
        assert 5 <= len(gone) <= 18 and (np.diff(gone) == 1).all() and third_of(gone) == chart.facts["place"]
    for chart in charts("constant"):
        values, counts = np.unique(chart.values, return_counts=True)
        same = np.flatnonzero(chart.values == values[counts.argmax()])
        assert 12 <= len(same) <= 30 and third_of(same) == chart.facts["place"]


def test_shifts_trends_and_clusters_go_where_the_facts_say():
    def upwards(kind):
        """Charts as they would be if their fact was "up"."""
        return [chart.values * {"up": 1, "down": -1}[chart.facts["side"]] for chart in charts(kind)]

    assert min(values[46:].mean() - values[:15].mean() for values in upwards("shift")) > 0.5
    assert min(values[40:].mean() - values[:20].mean() for values in upwards("trending")) > 1
    assert min(np.sort(values)[-4:].mean() for values in upwards("cluster")) > 2


def test_cycles_and_peaks_are_as_many_as_the_facts_say():
    for chart in charts("cycling"):
        power = np.abs(np.fft.rfft(chart.values - chart.values.mean()))
        assert abs(power.argmax() - int(chart.facts["count"])) <= 1
    for chart in charts("periodic_patterns"):
        sign = 1 if chart.facts["side"] == "up" else -1
        assert int(chart.facts["count"]) <= 8 and np.sort(sign * chart.values)[-3] > 2


def test_uneven_charts_spread():
    spreads = [np.abs(np.diff(chart.values)).max() for chart in charts("uneven")]
    usual = [np.abs(np.diff(chart.values)).max() for chart in charts("in control")]
    assert np.mean(spreads) > 1.8 * np.mean(usual)


def test_unknown_classes_are_refused():
    with pytest.raises(ValueError, match="There is no class 'other': cluster, constant"):
        make_chart("other", np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
def test_explanations_are_read_back(kind):
    for chart in charts(kind, 10):
        text = explain(kind, chart.facts)
        assert read_explanation(text) == (kind, chart.facts)
        assert score_explanation(text, kind, chart.facts) == (1 + len(chart.facts), 1 + len(chart.facts))
        assert score_explanation("Nothing.", kind, chart.facts) == (0, 1 + len(chart.facts))


def test_facts_of_explanations_are_scored_one_by_one():
    facts = {"side": "up", "count": "5"}
    assert score_explanation(explain("period_trending", facts | {"count": "6"}), "period_trending", facts) == (3, 3)
    assert score_explanation(explain("period_trending", facts | {"count": "7"}), "period_trending", facts) == (2, 3)
    assert score_explanation(explain("period_trending", facts | {"side": "down"}), "period_trending", facts) == (2, 3)
    assert score_explanation(explain("periodic_patterns", facts), "period_trending", facts) == (0, 3)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ([0.5, -0.5, 3.1, 0], 0),
        ([0.5, 2.1, -0.1, 2.1, 0], 1),
        ([1.1, 1.1, -0.1, 1.1, 1.1, -0.1], 2),
        ([0.1] * 8, 3),
    ],
)
def test_each_rule_is_violated_on_its_side_alone(values, rule):
    above = western_electric(np.array(values))
    assert above[0, rule].any() and not above[1].any()
    assert [name for name, found in zip(RULES, above[0].any(axis=1)) if found] == [RULES[rule]]
    assert (western_electric(-np.array(values)) == above[::-1]).all()


def test_charts_in_control_alarm_as_rarely_as_the_rules_promise():
    """With all four rules, an alarm is false after 91.75 points on average (Champ and Woodall, 1987)."""
    rng = np.random.default_rng(0)
    lengths = []
    for _ in range(400):
        found = western_electric(rng.normal(size=1500)).any(axis=(0, 1))
        lengths.append(1 + found.argmax())
    assert 80 < np.mean(lengths) < 104
    assert not is_out_of_control(np.array([0.5, -0.5] * 20))


def test_the_rules_tell_most_classes():
    train = [chart for kind in KINDS for chart in charts(kind, 60)]
    test = [chart for kind in KINDS for chart in charts(kind, 20, seed=1, is_test=True)]
    (x, y), (x_test, y_test) = (
        (np.array([c.values for c in part]), np.array([c.kind for c in part])) for part in (train, test)
    )
    assert 0.6 < np.mean(rule_classes(x, y, x_test) == y_test) < 0.95
    assert features(np.array([1.0, 1.0, 1.0, np.nan]))[-2:].tolist() == [1, 2]


def test_no_charts_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="0 charts of each class: at least one is accepted"):
        main([str(tmp_path), "--train", "0"])


def test_from_data_to_table_at_toy_size(tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    (page / "README.md").write_text("<!-- results --><!-- end -->\n")
    command = ["make", "-C", "recipes/spc", "all", f"PYTHON={sys.executable}", f"OUT={tmp_path / 'out'}"]
    command += ["CHARTS=12", "TEST=1", f"TABLE_OPTIONS=--to {page}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((page / "results.json").read_text())
    assert np.sum(results["counts"]) == 9 == results["test"] and 0 <= results["facts_right"] <= 1
    assert results["train_seconds"]["cpu_seconds"] > 0 and 0.3 < results["false_alarms"] < 0.6
    assert "| chance | 11.1% |" in (page / "README.md").read_text()
    with Image.open(page / "results.png") as picture:
        assert picture.width > 500
