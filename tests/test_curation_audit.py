"""The audit of the data engine: claims counted against events that are known."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.data_engine.assembly import build_stages
from transformers_omnivinci.data_engine.engine import apply
from transformers_omnivinci.data_engine.split import Split
from transformers_omnivinci.data_engine.truth_audit import Tally, audit, tally
from transformers_omnivinci.data_engine.world_claims import tell
from transformers_omnivinci.synthetic import Event, WorldConfig, claims_of, read_events, write_reels

from .test_curation import CONFIG, configured, films  # noqa: F401


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Films of enough events for shares to be what is asked for; small, as nobody looks at them."""
    config = WorldConfig(height=32, width=32, fps=4)
    return [str(path) for path in write_reels(tmp_path_factory.mktemp("many"), 6, 60, config=config)]


def audited(films, captioner=(), **changes):  # noqa: F811
    config = configured(captioner, split={"segment_seconds": 60, "clip_seconds": 12, "silence": None}, **changes)
    return audit(apply(build_stages(config), Split(config.split)([{"source": film} for film in films])))


STAR = Event("visual", "blue star", 1.0, 3.0, "left")
RING = Event("visual", "red ring", 5.0, 7.0, "nowhere")
CHORD = Event("audio", "chord", 2.0, 3.0)


def test_claims_are_right_late_invented_or_of_a_sense_that_is_lacking():
    text = (
        "From 1.5 to 3.0 seconds, the blue star moves left. From 1.0 to 3.0 seconds, the blue star moves left. "
        "From 9.0 to 10.0 seconds, the red ring stands still. From 2.0 to 4.0 seconds, the pink cross moves up. "
        "At 2.0 seconds, the chord is heard."
    )
    truth = [STAR, RING, CHORD]
    assert tally(claims_of(text), truth, lacks="audio") == Tally(2, 5, 1, invented=2, wrong_time=1, wrong_modality=1)
    assert tally(claims_of(text), truth) == Tally(3, 5, 2, invented=2, wrong_time=1)
    assert tally([], truth).precision == 1 and tally([], truth).recall == 0
    assert tally(claims_of("From 1.0 to 3.0 seconds, the blue star moves right."), truth).invented == 1


def test_captions_are_read_back_as_they_are_told(films):  # noqa: F811
    for film in films:
        events = read_events(film)
        told = claims_of(tell(events))
        assert [event.sentence for event in told] == [event.sentence for event in events]
        assert tally(told, events).precision == tally(told, events).recall == 1
    assert claims_of("A dog barks at 3 seconds.") == []


def test_mistakes_are_found_at_the_rates_at_which_they_are_made(many):
    found = audited(many)
    assert all(one.precision == one.recall == 1 for one in found.captions.values())
    assert found.rejected == 0
    found = audited(many, {"drop": 0.3})
    assert found.captions["both"].recall == pytest.approx(0.7, abs=0.1)
    assert found.captions["both"].precision == 1
    found = audited(many, {"mistime": 0.4})
    before = found.captions["both"]
    assert before.wrong_time / before.claims == pytest.approx(0.4, abs=0.12) and before.invented <= 3


def test_the_correction_takes_out_what_one_sense_imagined_of_the_other(many):
    found = audited(many, {"imagine": 0.8})
    before, after = found.captions["both"], found.captions["corrected"]
    number = 2 * 5 * len(many)  # two captions of each of five clips of a film, at least
    assert before.wrong_modality == pytest.approx(0.8 * number, rel=0.35)
    assert after.wrong_modality == 0 and after.precision == 1 and after.recall == 1
    assert found.rejected >= 0.9 * before.wrong_modality and found.rightly_rejected == found.rejected
    worse = audited(many, {"imagine": 0.8, "invent": 0.8})
    assert worse.captions["both"].invented > 0
    assert worse.captions["corrected"].precision > worse.captions["both"].precision


def test_answers_are_audited(many):
    backends = {
        "captioner": {"type": "test-captioner", "mistime": 0.3, "drop": 0.3},
        "corrector": {"type": "test-reasoner"},
    }
    stages = {
        "visual_caption": {"backend": "captioner"},
        "audio_caption": {"backend": "captioner"},
        "cross_modal_correction": {"backend": "corrector"},
        "questions": {"backend": "corrector"},
    }
    found = audited(many, backends=backends, stages=stages)
    assert 0 < found.right_answers < found.answers
    backends["captioner"] = {"type": "test-captioner"}
    found = audited(many, backends=backends, stages=stages)
    assert found.right_answers == found.answers > 10


def test_the_command_prints_the_audit_and_refuses_films_without_events(films, tmp_path):  # noqa: F811
    (tmp_path / "engine.yaml").write_text(CONFIG.replace("test-captioner}", "test-captioner, imagine: 0.5}"))
    arguments = ["--config", str(tmp_path / "engine.yaml"), "--output", str(tmp_path / "out"), "--here", "--audit"]
    result = CliRunner().invoke(app, ["curate", *films, *arguments])
    assert result.exit_code == 0, result.output
    assert "corrected" in result.output and "100.0%" in result.output
    shutil.copy(films[0], tmp_path / "film.mp4")
    events = Path(films[0]).with_suffix(".events.json")
    shutil.copy(events, tmp_path / "film.events.json")
    arguments[3] = str(tmp_path / "other")
    assert CliRunner().invoke(app, ["curate", str(tmp_path / "film.mp4"), *arguments]).exit_code == 0
    (tmp_path / "film.events.json").unlink()
    result = CliRunner().invoke(app, ["curate", str(tmp_path / "film.mp4"), *arguments])
    assert result.exit_code == 1 and "There is no list of events" in result.stderr
