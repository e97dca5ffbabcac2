"""The recipe from end to end at toy size, and its parts: readers, generator, baselines."""

import io
import json
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from recipes.wafers import table
from recipes.wafers.baselines import classify, locate
from recipes.wafers.data import main, named, numbered, questions
from recipes.wafers.generated import generate
from recipes.wafers.maps import BLANK, FAILING, PATTERNS, clustered, draw, quadrant, ring
from recipes.wafers.published import MIXED_COLUMNS, read_mixedwm38, read_wm811k, split_of

ROOT = Path(__file__).parents[2]


def lswmd(path: Path, rows: list[tuple], columns=("waferMap", "trianTestLabel", "failureType"), swap=()) -> Path:
    """
    A file in the format of `LSWMD.pkl`: the DataFrame of a pandas of Python 2 in protocol 2, whose blocks are in the
    state of its manager; labels are arrays in arrays, or empty. Classes of those names stand in for those of pandas.
    """
    modules = {name: types.ModuleType(name) for name in ("pandas", "pandas.core", "pandas.core.frame")}
    modules |= {name: types.ModuleType(name) for name in ("pandas.core.internals", "pandas.indexes")}
    modules |= {name: types.ModuleType(name) for name in ("pandas.indexes.base", "pandas.indexes.range")}
    for module, names in {
        "pandas.core.frame": ["DataFrame"],
        "pandas.core.internals": ["BlockManager"],
        "pandas.indexes.base": ["Index"],
        "pandas.indexes.range": ["RangeIndex"],
    }.items():
        for name in names:
            setattr(modules[module], name, type(name, (), {"__module__": module}))

    def _new_Index(kind, content):
        raise AssertionError("only written")

    _new_Index.__module__, _new_Index.__qualname__ = "pandas.indexes.base", "_new_Index"
    vars(modules["pandas.indexes.base"])["_new_Index"] = _new_Index

    def index(kind, content):
        return type("Reduced", (), {"__reduce__": lambda self: (_new_Index, (kind, content))})()

    class Frame(modules["pandas.core.frame"].DataFrame):
        pass

    values = np.empty((len(columns), len(rows)), dtype=object)
    for number, row in enumerate(rows):
        for place, value in enumerate(row):
            values[place, number] = value
    axes = [
        index(modules["pandas.indexes.base"].Index, {"data": np.array(columns, dtype=object), "name": None}),
        index(modules["pandas.indexes.range"].RangeIndex, {"start": 0, "stop": len(rows), "step": 1, "name": None}),
    ]
    blocks = [{"values": values, "mgr_locs": slice(0, len(columns), 1)}]
    manager = modules["pandas.core.internals"].BlockManager()
    state = (axes, [values], [axes[0]], {"0.14.1": {"axes": axes, "blocks": blocks}})
    frame = modules["pandas.core.frame"].DataFrame()
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        copied = {type(manager): (state,), type(frame): ({"_data": manager, "_typ": "dataframe", "_metadata": []},)}

        class Pickler(pickle.Pickler):
            def reducer_override(self, one):
                if type(one) in copied:
                    return object.__reduce_ex__(one, 2)[:2] + copied[type(one)]
                return NotImplemented

        file = io.BytesIO()
        Pickler(file, 2).dump(frame)
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    content = file.getvalue()
    for old, new in swap:
        content = content.replace(old, new)
    path.write_bytes(content)
    return path


def labelled(text: str) -> np.ndarray:
    return np.array([[text]]) if text else np.zeros((0, 0))


def test_wm811k_is_read_as_it_is_published(tmp_path):
    maps = [generate("train", number).dies for number in range(3)]
    rows = [
        (maps[0], labelled("Training"), labelled("Edge-Ring")),
        (maps[1], labelled(""), labelled("")),  # without a label, as most
        (maps[2], labelled("Test"), labelled("none")),
    ]
    path = lswmd(tmp_path / "LSWMD.pkl", rows)
    assert b"cpandas.core.frame\nDataFrame" in path.read_bytes()
    read = read_wm811k(path)
    assert [(one.patterns, one.split) for one in read] == [(("edge-ring",), "train"), ((), "test")]
    assert np.array_equal(read[0].dies, maps[0]) and np.array_equal(read[1].dies, maps[2])
    with pytest.raises(ValueError, match="no wafer with a label"):
        read_wm811k(lswmd(tmp_path / "none.pkl", rows[1:2]))
    with pytest.raises(ValueError, match="row 0: 'spiral' is no pattern"):
        read_wm811k(lswmd(tmp_path / "other.pkl", [(maps[0], labelled("Test"), labelled("Spiral"))]))
    with pytest.raises(ValueError, match="no column failureType"):
        read_wm811k(lswmd(tmp_path / "short.pkl", [(maps[0],)], columns=("waferMap",)))
    with pytest.raises(ValueError, match="row 0: a map has 2 dimensions"):
        read_wm811k(lswmd(tmp_path / "flat.pkl", [(maps[0][0], labelled("Test"), labelled("Loc"))]))


def test_a_pickle_runs_nothing(tmp_path):
    trap = tmp_path / "trap"
    wicked = type("Wicked", (), {"__reduce__": lambda self: (Path.touch, (trap,))})()
    (tmp_path / "LSWMD.pkl").write_bytes(pickle.dumps(wicked))
    with pytest.raises(ValueError, match="is not read: it asks for .*pathlib.* does not need. Its columns can be"):
        read_wm811k(tmp_path / "LSWMD.pkl")
    swapped = lswmd(tmp_path / "swapped.pkl", [], swap=[(b"cpandas.core.internals\nBlockManager", b"cos\nsystem")])
    with pytest.raises(ValueError, match="asks for os.system"):
        read_wm811k(swapped)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"abc", pickle.dumps([1, 2]), pickle.dumps({"waferMap": 1})])
def test_other_files_are_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "LSWMD.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="LSWMD.pkl .*(no pickle of a table|not a table of pandas)"):
        read_wm811k(tmp_path / "LSWMD.pkl")


def test_mixedwm38_is_read_as_it_is_published(tmp_path):
    maps = np.ones((3, 52, 52), np.int32)
    maps[0, 3, 3] = 3  # as a few of the published ones
    labels = np.zeros((3, 8), np.int64)
    labels[0, [0, 6]] = labels[1, 3] = 1
    np.savez(tmp_path / "mixed.npz", maps, labels)
    read = read_mixedwm38(tmp_path / "mixed.npz")
    assert [one.patterns for one in read] == [("center", "scratch"), ("edge-ring",), ()]
    assert read[0].dies[3, 3] == FAILING and {*MIXED_COLUMNS} == {*PATTERNS}
    assert [answer for _, _, answer in questions(read[0])] == ["center, scratch"]
    assert {split_of(one) for one in read} <= {"train", "test"}
    np.savez(tmp_path / "odd.npz", maps, labels[:, :5])
    np.savez(tmp_path / "other.npz", maps=maps)
    np.savez(tmp_path / "objects.npz", np.array([{}], dtype=object), labels)
    (tmp_path / "text.npz").write_text("wafers")
    for name in ("odd", "other", "objects", "text"):
        with pytest.raises(ValueError, match=f"{name}.npz is not MixedWM38 as it is published"):
            read_mixedwm38(tmp_path / f"{name}.npz")


def test_generated_wafers_follow_their_descriptions():
    wafers = [generate("train", number) for number in range(160)]
    again = generate("train", 5)
    assert np.array_equal(again.dies, wafers[5].dies) and not np.array_equal(generate("test", 5).defect, again.defect)
    for wafer in wafers:
        assert set(np.unique(wafer.dies)) <= {0, 1, 2} and wafer.dies[0, 0] == BLANK
        assert not (wafer.defect & (wafer.dies == BLANK)).any() and draw(wafer.dies).size == (128, 128)
    shares = {name: [] for name in PATTERNS}
    for wafer in wafers:
        shares[wafer.patterns[0]].append((wafer.dies == FAILING).sum() / (wafer.dies != BLANK).sum())
    assert min(shares["near-full"]) > 0.9 > 0.5 > max(shares["random"]) and max(shares["scratch"]) < 0.25


def test_places_of_defects():
    mask = np.zeros((40, 40), bool)
    assert quadrant(mask) is None and ring(mask) is None
    mask[5:9, 28:33] = True
    assert (quadrant(mask), ring(mask)) == ("up right", "3")
    mask[:] = False
    mask[18:22, 10:13] = True  # on the border of two quadrants
    assert quadrant(mask) is None and quadrant(mask, margin=-1) is not None and ring(mask) == "2"
    dies = np.ones((40, 40), np.uint8)
    dies[30:34, 8:12] = FAILING
    dies[2, 30] = FAILING  # by chance
    assert clustered(dies).sum() == 16 and locate("quadrant", dies) == "down left" and locate("radius", dies)


def test_baselines_are_better_than_chance():
    known, asked = ([generate(split, number) for number in range(160)] for split in ("train", "test"))
    labels = [one.patterns[0] for one in known]
    said = classify([one.dies for one in known], labels, [one.dies for one in asked])
    for answers in said.values():
        assert np.mean([answer == one.patterns[0] for answer, one in zip(answers, asked)]) > 0.6


def test_from_end_to_end(tmp_path):
    out = tmp_path / "out"
    wanted = [f"OUT={out}", f"PYTHON={sys.executable}", "STEPS=2", "DATA=--train 24 --test 16"]
    done = subprocess.run(
        ["make", "-C", str(ROOT / "recipes" / "wafers"), "eval", *wanted], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- end -->\n")
    table.main([str(out), "--folder", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["scores"]["pattern"]["model"]["questions"] == 16
    assert sum(map(sum, results["confusion"]["counts"])) == 16 and results["training"]["cpu_seconds"] > 0
    assert "| pattern | 16 | 12.5% |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_real_wafers_take_the_place_of_generated_ones(tmp_path, capsys):
    rows = [
        (generate("train", n).dies, labelled(split), labelled("Loc")) for n, split in ((4, "Training"), (12, "Test"))
    ]
    lswmd(tmp_path / "LSWMD.pkl", rows)
    main([str(tmp_path), "--wm811k", str(tmp_path / "LSWMD.pkl")])
    read = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert (read[0]["answer"], read[0]["pattern"]) == ("1", "loc") and {one["about"] for one in read} <= {
        "pattern",
        "quadrant",
        "radius",
    }
    main([str(tmp_path / "names"), "--wm811k", str(tmp_path / "LSWMD.pkl"), "--names"])
    assert '"answer": "loc"' in (tmp_path / "names" / "test.jsonl").read_text()
    assert named(numbered("loc, scratch")) == "loc, scratch" and named("odd") == "odd" and numbered("none") == "0"
    with pytest.raises(SystemExit, match="No such file"):
        main([str(tmp_path), "--mixedwm38", str(tmp_path / "missing.npz")])
