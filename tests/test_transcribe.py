"""Speech that is written down: windows, transcripts, other recognisers, and `omnivinci transcribe`."""

import copy
import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.inference.speech.decisions import (
    ACCEPT,
    DECISIONS,
    INTEGRATE,
    apply_decision,
    check_decision_tokens,
    decision_content,
    label_decision,
    write_target,
)
from transformers_omnivinci.inference.speech.recognisers import ModelRecogniser, make_recogniser, write_prompt
from transformers_omnivinci.inference.speech.transcribing import load_speech, measure_levels, transcribe
from transformers_omnivinci.inference.speech.transcripts import Segment, describe, read_transcript, write_transcript
from transformers_omnivinci.inference.speech.windows import SILENCE, STEP, plan_windows
from transformers_omnivinci.media import encode_sound

from .speech_server import SpeechServer

LOUD, PAUSE = -20.0, -70.0


def levels(*lengths: float) -> list[float]:
    """Levels of sound and pauses in turn, of so many seconds."""
    return [
        LOUD if not place % 2 else PAUSE for place, length in enumerate(lengths) for _ in range(round(length / STEP))
    ]


def sound(*lengths: float) -> np.ndarray:
    """A tone and silence in turn, of so many seconds at 16 kHz."""
    parts = [0.4 * np.sin(np.arange(round(16_000 * length)) / 3) * (1 - n % 2) for n, length in enumerate(lengths)]
    return np.concatenate(parts).astype(np.float32)


def wav(path, samples, format="wav"):
    path.write_bytes(encode_sound(samples, 16_000, format))
    return path


# Windows


@pytest.mark.parametrize(
    ("given", "windows"),
    [
        (levels(4), [(0, 4)]),
        (levels(6, 1, 2), [(0, 6.15), (7, 9)]),
        (levels(2, 1, 4, 1, 1), [(0, 7.15), (8, 9)]),  # the first pause comes before 5 s
        (levels(0, 3, 2, 40, 1), [(3, 5.15), (45, 46)]),  # silence in front and between is in no window
        (levels(0, 20), []),
        ([], []),
    ],
)
def test_windows_end_at_pauses(given, windows):
    assert [tuple(pytest.approx(edge, abs=STEP / 2) for edge in window) for window in windows] == plan_windows(given)


def test_speech_without_pauses_is_cut_where_it_is_quietest():
    given = levels(70)
    given[round(25 / STEP)] = -30.0
    assert plan_windows(given)[0] == (0, pytest.approx(25, abs=0.1))
    assert all(end - start <= 30 for start, end in plan_windows(given))


@given(st.lists(st.floats(-90, 0), max_size=400), st.floats(0.1, 3), st.floats(3, 8))
def test_windows_hold_all_that_is_loud(given, least, most):
    windows = plan_windows(given, least, most)
    edges = [edge for window in windows for edge in window]
    assert edges == sorted(edges) and all(0 < end - start <= most + STEP for start, end in windows)
    loudest = max(given, default=-math.inf)
    if loudest > SILENCE:
        place = (given.index(loudest) + 0.5) * STEP
        assert any(start <= place <= end for start, end in windows)


def test_levels_are_in_decibels():
    measured = measure_levels(np.concatenate([np.full(800, 0.1), np.zeros(1200)]).astype(np.float32))
    assert measured == pytest.approx([-20, -200, -200], abs=0.01)


# Transcripts

SEGMENTS = [Segment(0.5, 3.25, "A dog barks."), Segment(3661.0, 3662.5, "Then – silence.")]


def test_transcripts_in_all_formats():
    assert write_transcript(SEGMENTS, "txt") == "A dog barks.\nThen – silence.\n"
    assert write_transcript(SEGMENTS, "srt").startswith(
        "1\n00:00:00,500 --> 00:00:03,250\nA dog barks.\n\n2\n01:01:01"
    )
    assert write_transcript(SEGMENTS, "vtt").startswith("WEBVTT\n\n00:00:00.500 --> 00:00:03.250\nA dog barks.\n")
    assert json.loads(write_transcript(SEGMENTS, "json", 3700)) == describe(SEGMENTS, 3700)
    with pytest.raises(ValueError, match="txt, srt, vtt, json"):
        write_transcript(SEGMENTS, "docx")


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 10**5), st.sampled_from(["a", "two words", "é – 5"]))))
def test_subtitles_are_read_back(told):
    segments = [Segment(start / 1000, (start + length) / 1000, text) for start, length, text in told]
    for format in ("srt", "vtt", "json") if segments else ("json",):
        assert read_transcript(write_transcript(segments, format), "it") == segments


@pytest.mark.parametrize(
    ("content", "told"), [(" ", "empty"), ('{"words": 1}', "no transcript"), ("{", "no transcript")]
)
def test_what_is_no_transcript_is_refused(content, told):
    with pytest.raises(ValueError, match=f"notes.*{told}"):
        read_transcript(content, "notes")


# Recognisers


def test_each_window_is_asked_about_with_what_others_heard(tmp_path):
    asked = []

    def ask(samples, prompt):
        asked.append((len(samples) / 16_000, prompt))
        return f" text {len(asked)} "

    (tmp_path / "other.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\none\n\n2\n00:00:08,000 --> 00:00:09,000\ntwo\n"
    )
    model = ModelRecogniser(ask, make_recogniser(str(tmp_path / "other.srt")))
    segments = list(transcribe(sound(6, 1, 2, 10), model))
    assert [one.text for one in segments] == ["text 1", "text 2"]
    assert [seconds for seconds, _ in asked] == pytest.approx([6.15, 2.15], abs=0.06)
    assert ["one" in asked[0][1], "two" in asked[0][1], "two" in asked[1][1]] == [True, False, True]
    assert write_prompt() in asked[0][1] and "German" in write_prompt("x", "German")
    with pytest.raises(ValueError, match="5000 characters"):
        write_prompt("word " * 1000)
    with pytest.raises(ValueError, match="longer"):
        list(transcribe(sound(1), model, 5, 2))


def test_a_server_and_a_plain_text_are_recognisers(tmp_path):
    with SpeechServer(heard="a dog barks") as server:
        recogniser = make_recogniser(f"{server.url}?model=whisper-1&language=en")
        assert recogniser.transcribe(sound(1)) == "a dog barks"
        assert b"RIFF" in server.asked[0] and b'name="language"' in server.asked[0]
    with pytest.raises(OSError, match="cannot be asked"):
        recogniser.transcribe(sound(1))
    with SpeechServer(heard={"error": "none"}) as server, pytest.raises(ValueError, match="is no transcript"):
        make_recogniser(server.url).transcribe(sound(1))
    (tmp_path / "heard.txt").write_text("A cat\nsleeps.")
    assert make_recogniser(str(tmp_path / "heard.txt")).transcribe(sound(1)) == "A cat sleeps."
    (tmp_path / "heard.bin").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        make_recogniser(str(tmp_path / "heard.bin"))
    with pytest.raises(ValueError, match="pocketsphinx, the URL"):
        make_recogniser("parrot")


def test_missing_packages_of_recognisers_are_named(monkeypatch, tmp_path):
    for name in ("pocketsphinx", "faster_whisper"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install pocketsphinx"):
        make_recogniser("pocketsphinx").transcribe(sound(1))
    (tmp_path / "model.bin").touch()
    with pytest.raises(ImportError, match="pip install faster-whisper"):
        make_recogniser(f"whisper:{tmp_path}").transcribe(sound(1))


# The command


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["transcribe", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.compat
def test_sounds_become_files(tmp_path):
    talk, silence = (
        wav(tmp_path / "talk.wav", sound(6, 1, 2)),
        wav(tmp_path / "silence.flac", np.zeros(16_000), "flac"),
    )
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "other.txt").write_text("low tone")
    options = ("--format", "json", "--output", out, "--max-new-tokens", 4, "--external", tmp_path / "other.txt")
    result = run(talk, silence, *options, "--device", "cpu", "--translate", "German")
    told = json.loads((out / "talk.json").read_text())
    assert [(one["start"], one["end"]) for one in told["segments"]] == [(0.0, 6.15), (7.0, 9.0)]
    assert told["duration"] == 9 and json.loads((out / "silence.json").read_text())["segments"] == []
    assert "Nothing is said in" in result.output and sorted(path.name for path in out.iterdir()) == [
        "silence.json",
        "talk.json",
    ]


def test_another_recogniser_alone_writes_subtitles(tmp_path):
    talk = wav(tmp_path / "talk.wav", sound(6, 1, 2))
    with SpeechServer(heard="a dog barks") as server:
        told = run(talk, "--external", server.url, "--alone", "--format", "srt").stdout
    assert [one.text for one in read_transcript(told, "it")] == ["a dog barks"] * 2
    # It is down: nothing is written.
    result = run(talk, "--external", server.url, "--alone", "--output", tmp_path, code=1)
    assert "cannot be asked" in result.output and [path.name for path in tmp_path.iterdir()] == ["talk.wav"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--external", "parrot"], "is no recogniser"),
        (["--alone"], "needs an `--external`"),
        (["--segment", "9", "--window", "3"], "longer than `--window 3`"),
        (["--output", "/nowhere/at/all"], "no folder"),
        (["twin/talk.wav", "--output", "."], "talk.txt"),
        (["other.wav", "--format", "srt"], "need `--output DIR`"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, arguments, told):
    assert told in " ".join(run(tmp_path / "talk.wav", *arguments, code=1).output.split())


def test_long_sound_is_not_held_in_memory(tmp_path):
    hours = wav(tmp_path / "long.flac", np.tile(sound(3, 1), 90), "flac")
    samples = load_speech(hours)
    assert not isinstance(samples, np.ndarray) and len(samples) == 360 * 16_000

    class Counter:
        name = "counter"
        longest = 0

        def transcribe(self, window, start=0.0):
            self.longest = max(self.longest, len(window))
            return f"{start:.0f}"

    counter = Counter()
    starts = [int(one.text) for one in transcribe(samples, counter)]
    assert starts == list(range(0, 360, 8)) and counter.longest <= 30 * 16_000


# Decisions


@pytest.mark.parametrize(
    ("internal", "candidates", "decision"),
    [
        ("a dog barks", ["a dog barks"], ACCEPT),  # nothing to correct
        ("a dog parks", ["a dog barks"], INTEGRATE),
        ("a dog parks", ["a cat parks", "the dog barked"], ACCEPT),  # others are no better
        ("a dog parks", ["no idea", "a dog barks loud"], ACCEPT),  # as many errors
        ("", ["a cat barks"], INTEGRATE),
    ],
)
def test_decisions_are_labelled_by_word_errors(internal, candidates, decision):
    assert label_decision("A dog barks", internal, candidates, normalize=str.lower) == decision
    assert label_decision("A dog barks", internal, candidates, 1.1, str.lower) == ACCEPT


def test_decisions_are_asked_for_taught_and_obeyed():
    sound = {"type": "audio", "audio": "talk.wav"}
    before, item, after = decision_content(sound, " a dog parks ", ["a dog\nbarks", "a cat"])
    assert item is sound and before["text"].endswith("Acoustic Evidence: ") and ACCEPT in before["text"]
    assert "1. a dog barks\n2. a cat\nInternal Hypothesis:\na dog parks\n--\nOutput:" in after["text"]
    target = write_target(INTEGRATE, "A dog barks.")
    assert target == "<integrate_reference>A dog barks."
    assert apply_decision(target, "A dog parks.") == (INTEGRATE, "A dog barks.")
    assert apply_decision(f"{ACCEPT} anything", "A dog parks.") == (ACCEPT, "A dog parks.")


def test_decisions_that_make_no_sense_are_refused(processor):
    for wrong, told in [
        (lambda: decision_content({}, "", []), "0 external candidates"),
        (lambda: decision_content({}, "", ["a"] * 6), "6 external candidates"),
        (lambda: label_decision(" ", "a", ["b"]), "no words"),
        (lambda: label_decision("a", "a", ["b"], -1), "threshold of -1"),
        (lambda: write_target("<maybe>", "a"), "no decision"),
        (lambda: apply_decision("A dog barks.", "a"), "begins with no decision"),
        (lambda: check_decision_tokens(processor.tokenizer), f"lacks {ACCEPT}, {INTEGRATE}"),
    ]:
        with pytest.raises(ValueError, match=told):
            wrong()
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.add_tokens(list(DECISIONS), special_tokens=True)
    check_decision_tokens(tokenizer)
