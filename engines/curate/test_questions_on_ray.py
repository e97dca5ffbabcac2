"""All stages on Ray, those of questions, their filter and their speech too: it gives what one process gives."""

import json

import pytest

from transformers_omnivinci.data_engine.config import EngineConfig
from transformers_omnivinci.data_engine.engine import CHATS, HereRunner, curate
from transformers_omnivinci.data_engine.ray_runner import RayRunner
from transformers_omnivinci.data_engine.segment_ledger import FILE
from transformers_omnivinci.data_engine.spoken import FOLDER
from transformers_omnivinci.data_engine.typed import read
from transformers_omnivinci.synthetic import write_reels


def configured(**voice) -> EngineConfig:
    few = {"batch_size": 2, "num_cpus": 0.25}
    content = {
        "split": {"segment_seconds": 8, "clip_seconds": 4},
        "backends": {
            "captioner": {"type": "test-captioner", "imagine": 0.5, "invent": 0.2},
            "reasoner": {"type": "test-reasoner", "garbage": 0.3},
            "answerer": {"type": "test-answerer"},
            "voice": {"type": "espeak", "voices": ["en-us", "en-gb"], **voice},
        },
        "stages": {
            "visual_caption": {"backend": "captioner", **few},
            "audio_caption": {"backend": "captioner", **few},
            "cross_modal_correction": {"backend": "reasoner", **few},
            "questions": {"backend": "reasoner", **few},
            "filter": {"backend": "answerer", "support": "reasoner", **few, "workers": 2},
            "speech_prompts": {"voice": "voice", "share": 0.5, **few},
        },
    }
    return read(EngineConfig, content, "the config")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return [str(path) for path in write_reels(tmp_path_factory.mktemp("films"), 3, 24)]


def outcome(folder):
    """The rows by their names, the lines of chats, and the spoken questions by theirs."""
    rows = [json.loads(line) for line in (folder / FILE).read_text().splitlines()[1:]]
    for one in (one for row in rows for one in row.get("provenance", [])):
        one.pop("seconds")
    names = [row["id"] for row in rows]
    assert len(set(names)) == len(names)
    sounds = {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()}
    return {row["id"]: row for row in rows}, sorted((folder / CHATS).read_text().splitlines()), sounds


def test_questions_on_ray_are_those_of_one_process(films, tmp_path):
    curate(configured(), films, tmp_path / "here", HereRunner())
    expected = outcome(tmp_path / "here")
    rows, chats, sounds = expected
    finished = [row for row in rows.values() if not row.get("rejected")]
    assert 0 < len(finished) < len(rows), "some answers are garbage twice"
    assert {mark for row in finished for one in row["questions"] for mark in one["marks"]} >= {"deaf", "blind"}
    spoken = [one["speech"] for row in finished for one in row["questions"] if one["speech"]]
    assert len(spoken) == len(sounds) > 0 and all(sound.startswith(b"RIFF") for sound in sounds.values())
    report = curate(configured(), films, tmp_path / "ray", RayRunner())
    assert outcome(tmp_path / "ray") == expected
    assert (report.finished, report.rejected) == (len(finished), len(rows) - len(finished))
    assert sum(report.chats.values()) == len(chats)


def test_a_voice_that_fails_rejects_the_segment_and_not_the_run(films, tmp_path):
    report = curate(configured(voices=["xx-none"]), films[:1], tmp_path / "out", RayRunner())
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert report.rejected == len(rejects) > 0
    assert any(one["stage"] == "speech_prompts" and "espeak-ng says" in one["reason"] for one in rejects)
