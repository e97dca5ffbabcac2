"""The recipe from end to end at toy size, and its parts: volume, scroll, questions, narration."""

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from recipes.readings import table
from recipes.readings.data import main, rows_of
from recipes.readings.narration import WORDS, Narrator
from recipes.readings.questions import CATEGORIES, CEILINGS, FORMS_OF, WAYS, ask_reading
from recipes.readings.scroll import CONFIG, NUM_MARKS, SCROLLS, SECONDS, depth_at, plan_reading, render_reading
from recipes.readings.volume import SIDES, Finding, draw_slices

ROOT = Path(__file__).parents[2]
# In the place of espeak-ng: a tone whose pitch follows from the text, between two stretches of silence.
SPEAKER = """#!{python}
import array, math, sys, wave
arguments = sys.argv[1:]
pitch = 200 + 40 * (sum(sys.stdin.buffer.read()) % 20)
tone = [int(20000 * math.sin(2 * math.pi * pitch * n / 16000)) for n in range(8000)]
with wave.open(arguments[arguments.index("-w") + 1], "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(16000)
    file.writeframes(array.array("h", [0] * 2000 + tone + [0] * 3000).tobytes())
"""


@pytest.fixture
def speaker(tmp_path, monkeypatch) -> Path:
    """A folder in front of PATH with a program that speaks."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "espeak-ng").write_text(SPEAKER.format(python=sys.executable))
    (folder / "espeak-ng").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_slices_show_organs_and_findings():
    depths = np.linspace(0, 1, 21)
    bare, found = draw_slices(depths, (), 1), draw_slices(depths, (Finding(0.5, "right", 0.5),), 1)
    assert found.shape == (21, 64, 64, 3) and found.dtype == np.uint8
    changed = (bare != found).any(axis=(1, 2, 3))
    assert changed[10] and not changed[7] and not changed[13]
    columns = (bare != found).any(axis=(0, 1, 3)).nonzero()[0]
    assert abs(columns.mean() / 64 - SIDES["right"]) < 0.03
    assert (bare[2] > 50).sum() < (bare[18] > 50).sum()  # the neck is narrower


@pytest.mark.parametrize("scroll", SCROLLS)
def test_scrolls_go_their_way(scroll):
    depths = depth_at(scroll, np.linspace(0, SECONDS, 9))
    turns = np.sign(np.diff(depths))
    assert (
        depths.min() >= 0 and depths.max() <= 1 and set(turns) == {"down": {1}, "up": {-1}}.get(WAYS[scroll], {1, -1})
    )


def test_readings_are_planned_by_the_seed_and_without_overlaps():
    for number in range(40):
        reading = plan_reading("train", number)
        assert reading == plan_reading("train", number) != plan_reading("test", number)
        assert len({mark.word for mark in reading.marks}) == len({mark.colour for mark in reading.marks}) == NUM_MARKS
        for mark, following in zip(reading.marks, reading.marks[1:]):
            assert 0 <= mark.start < mark.spoken < mark.end < following.start < SECONDS
            assert depth_at(reading.scroll, (mark.start + mark.end) / 2) == mark.finding.depth


def test_clips_show_marks_and_say_words(speaker):
    narrator = Narrator()
    reading = plan_reading("train", 3)
    clip = render_reading(reading, narrator)
    coloured = (np.ptp(clip.frames.astype(int), axis=3) > 40).any(axis=(1, 2))
    loud = np.abs(clip.waveform)
    for mark in reading.marks:
        middle = (mark.start + mark.end) / 2
        assert coloured[int(middle * CONFIG.fps)] or mark.colour == "white"
        first = int(mark.spoken * CONFIG.sampling_rate)
        assert loud[first - 400 : first].max() == 0 < 0.3 < loud[first : first + 4000].max()
    assert not coloured[: int(reading.marks[0].start * CONFIG.fps)].any() and narrator.names == ["espeak-ng"]


def questions_of(number: int, per_category: int = 3) -> list:
    rng = random.Random(number)
    return list(ask_reading(plan_reading("train", number), per_category, rng, [{"type": "video", "path": "a.mp4"}]))


def test_questions_have_three_options_of_which_none_is_likelier():
    rows = rows_of([one for number in range(300) for one in questions_of(number)], 0)
    assert {row["form"] for row in rows} == set(CEILINGS) and {row["category"] for row in rows} == set(CATEGORIES)
    letters = Counter(row["answer"] for row in rows)
    assert max(letters.values()) - min(letters.values()) <= 1
    shares = defaultdict(Counter)
    for row in rows:
        assert len(set(row["options"])) == 3
        shares[row["form"]][table.plain(row["options"]["ABC".index(row["answer"])])] += 1
        assert row["messages"][-1]["content"][0]["text"] in row["options"]
    for form in ("side_of_mark", "direction", "place_of_mark", "last_word"):
        assert max(shares[form].values()) / sum(shares[form].values()) < 0.45, form


def test_what_is_said_about_sides_must_not_be_trusted():
    right = [
        mark.word == mark.finding.side
        for number in range(400)
        for mark in plan_reading("train", number).marks
        if mark.word in SIDES
    ]
    assert 0.26 < np.mean(right) < 0.41 and {*SIDES} < {*WORDS}


def test_ceilings_are_those_of_the_plan():
    """The first and the second mark are never asked for as what is next, and a third of the marks are absent."""
    nothing, order = [], Counter()
    for number in range(600):
        reading = plan_reading("train", number)
        for one in questions_of(number):
            if one.fields["form"] == "word_or_none":
                nothing.append(one.answer.startswith("There is no"))
            if one.fields["form"] == "next_word":
                order[[mark.word for mark in reading.marks].index(one.answer)] += 1
    assert 0.27 < np.mean(nothing) < 0.4 and not order[0] and abs(order[1] / order[2] - 1) < 0.25
    assert CEILINGS["word_or_none"][0] == pytest.approx(1 / 3 + 2 / 3 / 2) and CEILINGS["next_word"] == (1 / 3, 1 / 2)
    assert {form for forms in FORMS_OF.values() for form in forms} == set(CEILINGS)


def test_no_voice_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="No voice is installed, of piper, espeak-ng, festival, flite: `apt install"):
        main([str(tmp_path / "out"), "--train", "1", "--test", "1"])
    with pytest.raises(SystemExit, match="festival"):
        main([str(tmp_path / "out"), "--train", "1", "--test", "1", "--voice", "festival"])


def test_from_end_to_end(tmp_path, speaker):
    out = tmp_path / "out"
    wanted = [f"OUT={out}", f"PYTHON={sys.executable}", "STEPS=1", "DATA=--train 8 --test 5"]
    done = subprocess.run(
        ["make", "-C", str(ROOT / "recipes" / "readings"), "eval", *wanted],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- end -->\n")
    table.main([str(out), "--folder", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["scores"]["all"]["questions"] == 20 and results["scores"]["AVS"]["best deaf"] == pytest.approx(
        1 / 3
    )
    assert "| LH: long horizon | 5 | 33.3% |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 10_000
