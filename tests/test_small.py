"""What `make small` reads out, renders and plans, with a voice that is made up."""

import json
import struct
import subprocess
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.small import averaging, data, parts, recordings, remembering, stages
from benchmarks.small.averaging import ERRORS, SHARES, average_encoder
from benchmarks.small.data import SpeechSet, write_set
from benchmarks.small.evaluation import misses_by_count
from benchmarks.small.loading import load
from benchmarks.small.rooms import RATE, add_noise, place_in_room, vary
from benchmarks.small.texts import (
    FORMS,
    QUESTIONS,
    choose_sentences,
    is_held_out,
    read_strings,
    sentences_of_fortunes,
    sentences_of_novel,
    sentences_of_verses,
    sentences_of_wordnet,
)
from benchmarks.small.voices import Voice, check_voices
from benchmarks.small.wav import write_wav
from transformers_omnivinci.media import load_audio

from .chats import chat, rows_of
from .training_runs import TINY

TEXTS = (("A dog barks.", "The cat sleeps here.", "It rains."), ("And it was so.", "Let there be light."))


@dataclass(frozen=True)
class Hum:
    """A voice whose pitch is the text's, for half a second a word; it fails at a text that has `mute` in it."""

    name: str = "hum"
    share: float = 1.0
    mute: str = "nothing"

    def __str__(self):
        return self.name

    def speak(self, text, speed, path):
        if self.mute in text:
            raise OSError(f"The voice {self} did not read {text!r}")
        seconds = np.arange(round(len(text.split()) * RATE / 2 / speed)) / RATE
        write_wav(path, 0.5 * np.sin(2 * np.pi * (100 + len(text)) * seconds))


# ----------------------------------------------------------------------------------------------------------- texts


def test_fortunes_verses_and_examples_become_sentences():
    fortune = 'It was late.  "Go home!" she said.\nWe did\nso at once.\n\t\t-- A. Nonymous\n%\n640K is enough.\n%\n'
    assert list(sentences_of_fortunes(fortune))[:2] == ["It was late.", '"Go home!" she said.']
    assert "We did so at once." in list(sentences_of_fortunes(fortune))
    assert list(sentences_of_verses(["Ge1:3 And God said, Let there be light: and there was (light)."])) == [
        "And God said, Let there be light.",
        "And there was light.",
    ]
    novel = ["CHAPTER I", "", "It is a truth--he _said_ it;", 'and Mr. Bennet smiled: "Indeed?"', "", "She left."]
    assert list(sentences_of_novel(novel)) == [
        "CHAPTER I.",
        "It is a truth.",
        "He said it.",
        "And Mr Bennet smiled.",
        "Indeed.",
        "She left.",
    ]
    noun = '00015 03 n 01 dog 0 000 | a friend; "the dog barked all night" ;  "whose dog is it?"'
    assert list(sentences_of_wordnet(["  1 the licence", noun, "00016 03 n 01 cat 0 000 | an animal"])) == [
        "The dog barked all night.",
        "Whose dog is it?",
    ]


@pytest.mark.parametrize("novels", [[["Emma", "", "Très bien."], ["SENSE", "No."]], [[""]], []])
def test_strings_are_read_as_r_packs_them(novels, tmp_path):
    packed = b""
    for lines in novels:
        content = b"X\n" + struct.pack(">4i5s2i", 3, 0x40201, 0x30500, 5, b"UTF-8", 16, len(lines))
        for line in map(str.encode, lines):
            content += struct.pack(f">2i{len(line)}s", 0x40009, len(line), line)
        packed += struct.pack(">i", len(content)) + zlib.compress(content)
    (tmp_path / "Rdata.rdb").write_bytes(packed)
    assert list(read_strings(tmp_path / "Rdata.rdb")) == novels


@pytest.mark.parametrize("form", FORMS)
def test_what_is_asked_in_the_end_is_not_learned(form):
    start, end = form.lower().split("{}")
    assert not any(asked.lower().startswith(start) and asked.lower().endswith(end) for asked in QUESTIONS)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("It is Paris. And the", "It is Paris."),
        ("Some:\n\n1. **Bees**.\n2.", "Some:\n\n1. **Bees**."),
        ('He said "Go!" and we', 'He said "Go!"'),
        ("It costs 2.5 or", ""),
        ("Yes", ""),
        ("", ""),
    ],
)
def test_answers_lose_what_is_cut_off(said, kept):
    assert remembering.keep_sentences(said) == kept


def test_the_language_model_is_asked_by_us_and_by_itself(tmp_path, monkeypatch):
    own = ["How are bees?", QUESTIONS[0], "how are bees?", "Are you well?", "Never asked?"]

    def answer(model, processor, chats, most):
        asked.extend(chat[0]["content"][0]["text"] for chat in chats)
        return ["Cut off" if "bees" in asked[-1] else "So it is. And" for _ in chats]

    asked, path = [], tmp_path / "chats.jsonl"
    monkeypatch.setattr(remembering, "load", lambda checkpoint: (None, None))
    monkeypatch.setattr(remembering, "_ask", lambda model, processor: iter(own))
    monkeypatch.setattr(remembering, "answer", answer)
    monkeypatch.setattr(remembering, "TOGETHER", 1)
    for _ in range(2):
        assert remembering.remember(path, tmp_path, ["Bridges, I see."], 4, 0) == path
    assert asked == [FORMS[0].format("bridges"), FORMS[1].format("bridges"), "How are bees?", "Are you well?"]
    said = [row["messages"] for row in rows_of(path)]
    assert [chat[0]["content"][0]["text"] for chat in said] == [asked[0], asked[1], asked[3]]
    assert {chat[1]["content"] for chat in said} == {"So it is."}


def test_sentences_that_voices_read_in_different_ways_are_left_out():
    good = ["We did so at once.", "I have a dog."]
    bad = [
        "two dogs and a",
        "Two of 640 are enough.",
        "The NASA said so.",
        "By J. Smith it was.",
        "Too short.",
        "Mail a@b.c now.",
    ]
    assert choose_sentences([*good, *bad, "We did so at once"]) == good


def test_held_out_sentences_are_never_trained_on():
    sentences = [f"Number {word} is a word." for word in map("{:b}".format, range(2000))]
    trained, held_out = parts.split_texts([sentences])
    assert not set(trained[0]) & set(held_out[0]) and len(trained[0]) + len(held_out[0]) == len(sentences)
    assert 20 < len(held_out[0]) < 90
    trained, held_out = parts.split_texts([sentences, sentences, sentences])
    assert len(held_out) == 2 and trained[2] == trained[0]
    assert is_held_out("It Rains.") == is_held_out("it rains")


# ----------------------------------------------------------------------------------------------------------- rooms


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 5000), level=st.floats(0, 1))
def test_what_a_microphone_hears_is_finite_and_not_clipped(seed, length, level):
    heard = vary(np.full(length, level, np.float32), np.random.default_rng(seed))
    assert heard.dtype == np.float32 and len(heard) > length
    assert np.isfinite(heard).all() and np.abs(heard).max() < 0.99


@pytest.mark.parametrize("slope", [0, 1, 2])
def test_noise_has_the_power_that_was_asked_for(slope):
    samples = np.sin(np.arange(RATE) / 5).astype(np.float32)
    noise = add_noise(samples, np.random.default_rng(0), 10.0, slope) - samples
    assert 10 * np.log10((samples**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.1)


def test_a_room_echoes_what_was_said_before():
    click = np.zeros(RATE, np.float32)
    click[100] = 1
    heard = place_in_room(click, np.random.default_rng(0), 0.3, direct=4.0)
    assert np.abs(heard[:100]).max() < 1e-6 and heard[100] == pytest.approx(1)
    assert (heard[101:] ** 2).sum() == pytest.approx(1 / 4, rel=0.1)
    assert (heard[100:1000] ** 2).sum() > (heard[3000:3900] ** 2).sum()


# ------------------------------------------------------------------------------------------------------------ data


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(data, "SHARD", 2)


def test_an_utterance_depends_on_the_seed_and_its_number_alone(tmp_path, small_shards):
    one = write_set(tmp_path / "one", SpeechSet(TEXTS, (Hum("a"), Hum("b"))), 5)
    many = write_set(tmp_path / "many", SpeechSet(TEXTS, (Hum("a"), Hum("b"))), 9)
    assert rows_of(many)[:5] == rows_of(one)
    fewer = rows_of(write_set(tmp_path / "many", SpeechSet(TEXTS, (Hum("a"), Hum("b"))), 5))
    assert fewer == rows_of(one)
    many = write_set(tmp_path / "many", SpeechSet(TEXTS, (Hum("a"), Hum("b"))), 9)
    said = [row["messages"][1]["content"] for row in rows_of(many)]
    assert set(said[:6:2]) == set(TEXTS[0]) and set(said[1:4:2]) == set(TEXTS[1])
    assert {row["voice"] for row in rows_of(many)} == {"a", "b"}
    for row in rows_of(one):
        path = row["messages"][0]["content"][0]["path"]
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "many" / path).read_bytes()
        assert len(load_audio(tmp_path / "one" / path)) / RATE == pytest.approx(row["seconds"], abs=0.01)


def test_voices_are_raised_and_lowered_and_keep_their_speed(monkeypatch):
    def heard(pitch):
        monkeypatch.setattr(data, "PITCHES", (pitch, pitch))
        monkeypatch.setattr(data, "vary", lambda samples, rng: samples)
        _, _, samples = SpeechSet((("It rains here.",),), (Hum(),)).render(0)
        hertz = np.fft.rfftfreq(len(samples), 1 / RATE)[np.abs(np.fft.rfft(samples)).argmax()]
        return hertz, len(samples) / RATE

    (low, longer), (same, seconds), (high, shorter) = map(heard, (0.85, 1.0, 1.35))
    assert same == pytest.approx(114, abs=1) and low == pytest.approx(0.85 * same, abs=1.5)
    assert high == pytest.approx(1.35 * same, abs=1.5)
    assert longer == pytest.approx(seconds, abs=0.01) and shorter == pytest.approx(seconds, abs=0.01)


def test_rendering_goes_on_where_it_stopped(tmp_path, small_shards):
    good, bad = SpeechSet(TEXTS, (Hum(),)), SpeechSet(TEXTS, (Hum(mute="light"),))
    with pytest.raises(OSError, match="did not read 'Let there be light.'"):
        write_set(tmp_path / "set", bad, 10)
    whole = sorted(path.name for path in (tmp_path / "set").glob("0*"))
    assert len(whole) < 5 and not (tmp_path / "set" / "rows.jsonl").exists()
    times = {name: (tmp_path / "set" / name / "rows.jsonl").stat().st_mtime_ns for name in whole}
    path = write_set(tmp_path / "set", good, 10)
    assert rows_of(path) == rows_of(write_set(tmp_path / "again", good, 10))
    assert times == {name: (tmp_path / "set" / name / "rows.jsonl").stat().st_mtime_ns for name in whole}
    assert not list((tmp_path / "set").glob(".*"))
    before = path.stat().st_mtime_ns
    assert write_set(tmp_path / "set", good, 10).stat().st_mtime_ns == before


def test_a_set_that_was_begun_otherwise_is_not_mixed(tmp_path, monkeypatch):
    write_set(tmp_path, SpeechSet(TEXTS, (Hum(),)), 2)
    with pytest.raises(OSError, match="begun with other voices, seed"):
        write_set(tmp_path, SpeechSet(TEXTS, (Hum("other"),), seed=1), 2)
    monkeypatch.setattr("benchmarks.small.data.PITCHES", (1.0, 1.0))
    with pytest.raises(OSError, match="begun with other pitches"):
        write_set(tmp_path, SpeechSet(TEXTS, (Hum(),)), 2)


def test_utterances_that_do_not_fit_are_left_out(tmp_path):
    texts = (("Short it is.", " ".join(["long"] * 24)),)
    rows = rows_of(write_set(tmp_path, SpeechSet(texts, (Hum(),), varied=False), 2))
    assert [row["messages"][1]["content"] for row in rows] == ["Short it is."]


@pytest.mark.parametrize(("texts", "voices", "count"), [((), (Hum(),), 1), (((),), (Hum(),), 1), (TEXTS, (), 1),
                                                        (TEXTS, (Hum(),), 0)])  # fmt: skip
def test_nothing_to_read_is_refused(tmp_path, texts, voices, count):
    with pytest.raises(ValueError, match="at least one utterance, sentence and voice"):
        write_set(tmp_path / "set", SpeechSet(texts, voices), count)
    assert not (tmp_path / "set").exists()


def test_a_voice_that_is_not_installed_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for check in (lambda: check_voices((Voice("flite", "slt", 1),)),
                  lambda: Voice("flite", "slt", 1).speak("Hello.", 1.0, tmp_path / "a.wav")):  # fmt: skip
        with pytest.raises(OSError, match="apt install flite"):
            check()


# ------------------------------------------------------------------------------------------------------ evaluation


def test_missed_words_are_counted_by_how_often_they_were_trained_on():
    rows = [data.to_row("a.wav", said) for said in ("The dog barks at the zebra.", "A dog!")]
    trained = ["The cat."] * 64 + ["A dog."] * 3
    found = misses_by_count(rows, ["The fog barks at a the zeal.", "A dog."], trained)
    assert [row["times"] for row in found] == ["0", "1 to 3", "4 to 15", "16 to 63", "64 or more"]
    assert [(row["words"], row["missed"]) for row in found] == [(3, 1), (3, 1), (0, 0), (0, 0), (2, 0)]


# ------------------------------------------------------------------------------------------------- parts and stages


def test_packages_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    def download(command, cwd, **options):
        (tmp_path / "seen").write_text(str(list(tmp_path.iterdir())))
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package fortunes\n")

    monkeypatch.setattr(parts.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(parts.subprocess, "run", download)
    with pytest.raises(OSError, match="Unable to locate package fortunes.*apt-get update"):
        parts.unpack_packages(tmp_path / "packages")
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]
    monkeypatch.setattr(parts.shutil, "which", lambda program: None)
    with pytest.raises(OSError, match="apt-get is not there"):
        parts.unpack_packages(tmp_path / "packages")


def test_packages_are_fetched_once_and_again_when_one_is_missing(tmp_path, monkeypatch):
    commands = []

    def run(command, cwd=None, **options):
        commands.append(command[0])
        for name in parts.PACKAGES:
            if command[0] == "apt-get":
                (Path(cwd) / f"{name}_1_all.deb").touch()
            elif command[2].name.startswith(f"{name}_"):
                (command[3] / "usr/share/doc" / name).mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(parts.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(parts.subprocess, "run", run)
    folder = tmp_path / "packages"
    for _ in range(2):
        assert parts.unpack_packages(folder) == folder
    assert commands == ["apt-get", *["dpkg-deb"] * len(parts.PACKAGES)]
    (folder / "usr/share/doc" / parts.PACKAGES[0]).rmdir()
    parts.unpack_packages(folder)
    assert commands.count("apt-get") == 2 and (folder / "usr/share/doc" / parts.PACKAGES[0]).is_dir()


def test_recordings_are_read_with_what_is_said(tmp_path):
    folder = tmp_path / "usr/share/pocketsphinx/test/data/librivox"
    folder.mkdir(parents=True)
    (folder / "transcription").write_text("<s> he was not ill </s> (book-01)\n")
    write_wav(folder / "book-01.wav", np.zeros(3 * RATE // 2, dtype=np.float32))
    row = recordings.list_librivox(tmp_path)[0]
    assert row["messages"][0]["content"][0]["path"].endswith("librivox/book-01.wav")
    assert row["messages"][1]["content"] == "he was not ill" and row["seconds"] == 1.5


def test_training_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    asked = []

    def run(command, env):
        asked.append((command, env))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    plan, output = stages.Plan(tmp_path, utterances=3000, seed=7), tmp_path / "audio-1"
    with pytest.raises(OSError, match="audio-1 ended with an error"):
        stages.train("audio-1", tmp_path, [tmp_path / "rows.jsonl"], output, plan)
    (output / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(OSError, match="audio-1 ended with an error"):
        stages.train("audio-1", tmp_path, [tmp_path / "rows.jsonl"], output, plan)
    (first, env), (second, _) = asked
    assert second == [*first, "--resume-from-checkpoint", "True"]
    assert first[first.index("--seed") + 1] == "7" and env["OMP_NUM_THREADS"] == "2"
    (output / "config.json").write_text("{}")
    assert stages.train("audio-1", tmp_path, [], output, plan) == output and len(asked) == 2


def test_stages_share_the_utterances(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{number}\n" for number in range(3000)))
    plan = stages.Plan(tmp_path, 3000)
    files = stages.split_rows(plan, rows)
    counts = {name: len(path.read_text().splitlines()) for name, path in files.items()}
    assert sum(counts.values()) == 3000 and counts["audio-1"] == plan.aligned
    others = [
        replace(plan, **{name: value})
        for name, value in dict(utterances=6000, epochs=2, batch=32, encoder="tiny.en", pooling="max").items()
    ]
    assert len({plan.runs, *(other.runs for other in others)}) == 6


@pytest.mark.parametrize("best", SHARES)
def test_the_encoder_that_hears_others_best_is_an_average(best, tmp_path, monkeypatch):
    model, processor = load(TINY)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1
    model.save_pretrained(tmp_path / "trained")
    processor.save_pretrained(tmp_path / "trained")
    rows, asked = [chat("A dog barks."), chat("It rains.")], []
    said = [row["messages"][-1]["content"] for row in rows]

    def write(model, processor, given):
        asked.append(given)
        weight, old = next(model.model.audio_tower.parameters()), before["model.audio_tower.conv1.weight"]
        right = torch.allclose(weight, old + best, atol=1e-4)
        return said if right else ["something else"] * len(said)

    monkeypatch.setattr(averaging, "transcribe", write)
    output = average_encoder(tmp_path / "trained", TINY, rows, tmp_path / "averaged")
    for name, weight in load(output)[0].state_dict().items():
        share = best if "audio_tower" in name else 1
        assert torch.allclose(weight, before[name] + share, atol=1e-4), name
    errors = json.loads((output / ERRORS).read_text())
    assert errors[str(best)] == 0 and len(errors) == len(SHARES)
    assert average_encoder(tmp_path / "nothing", tmp_path, rows, output) == output and len(asked) == len(SHARES)


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OSError, match="holds no checkpoint"):
        stages.publish(tmp_path / "run", tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "mine"
