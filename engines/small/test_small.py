"""The small model of real parts: its voices, its parts, a short training that is interrupted, and its evaluation."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, AutoTokenizer

from benchmarks.small import parts, stages
from benchmarks.small.alignment import Aligner
from benchmarks.small.data import SpeechSet, to_row, write_set
from benchmarks.small.evaluation import QUESTIONS, answer_questions, evaluate, transcribe_by_whisper, word_error_rate
from benchmarks.small.recordings import fetch_arctic, list_librivox
from benchmarks.small.remembering import remember
from benchmarks.small.voices import UNSEEN, Voice, check_voices, gather_foreign, gather_voices
from benchmarks.small.warm_up import share_heard, warm_up
from transformers_omnivinci.media import load_audio

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "The old man walked slowly along the river."


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def plan(work):
    return stages.Plan(work, utterances=16, workers=1, encoder=parts.LISTENER)  # the smaller one


@pytest.fixture(scope="session")
def packages(work):
    return parts.unpack_packages(work / "packages")


@pytest.fixture(scope="session")
def assembled(plan):
    return stages.prepare_parts(plan)


@pytest.fixture(scope="session")
def voices(work):
    return gather_voices(work)


def test_all_voices_are_installed(voices, work):
    never_heard = (UNSEEN, *gather_foreign(work))
    check_voices((*voices, *never_heard))
    assert len(never_heard) == 27 and not {*never_heard} & {*voices}
    assert len({str(voice) for voice in voices}) == len(voices)
    assert sum(voice.share for voice in voices) == pytest.approx(1)


@pytest.mark.parametrize("program", ["espeak-ng", "flite", "festival", "piper", "kokoro"])
def test_a_voice_reads_at_the_speed_that_was_asked_for(voices, program, tmp_path):
    voice = next(voice for voice in voices if voice.program == program)
    seconds = []
    for speed in (0.85, 1.2):
        voice.speak(SENTENCE, speed, tmp_path / "read.wav")
        seconds.append(len(load_audio(tmp_path / "read.wav", sampling_rate=16_000)) / 16_000)
    assert 1.5 < seconds[1] < seconds[0] < 5


@pytest.mark.parametrize("voice", [Voice("espeak-ng", "en-us+nobody", 1), Voice("flite", "nobody", 1)])
def test_a_voice_that_a_program_lacks_is_an_error(voice):
    with pytest.raises(OSError, match=r"has no voice .*nobody"):
        check_voices((voice,))


def test_packages_have_texts_and_recordings(packages):
    fortunes, verses, examples, novels = parts.read_texts(packages)
    assert len(fortunes) > 8_000 and len(verses) > 30_000 and len(examples) > 30_000 and len(novels) > 25_000
    assert "In the beginning God created the heaven and the earth." in verses
    assert any("Highbury" in clause for clause in novels) and not any("Dashwood" in clause for clause in novels)
    recordings = list_librivox(packages)
    assert len(recordings) == 5 and all(Path(row["messages"][0]["content"][0]["path"]).is_file() for row in recordings)


def test_whisper_hears_the_recordings(plan, packages):
    recordings = [*list_librivox(packages), fetch_arctic(plan.work / "recordings")]
    heard = transcribe_by_whisper(parts.make_whisper(plan.work), recordings)
    assert word_error_rate(recordings, heard) < 0.1


def test_whisper_hears_speakers_and_their_mixture(plan, voices, work, tmp_path):
    named = {voice.name: voice for voice in (*voices, *gather_foreign(work)) if voice.program == "kokoro"}
    assert len(named) == 246 + 26
    rows = []
    for name in ("am_michael", "bf_emma", "if_sara", "af_heart+am_puck"):
        named[name].speak(SENTENCE, 1.0, tmp_path / f"{name}.wav")
        rows.append(to_row(str(tmp_path / f"{name}.wav"), SENTENCE))
    heard = transcribe_by_whisper(parts.make_whisper(plan.work), rows)
    assert word_error_rate(rows, heard) < 0.1


def test_the_encoder_of_whisper_base_hears_in_its_place(plan):
    larger = replace(plan, encoder="base")
    assert stages.count_encoder(larger) > 2 * stages.count_encoder(plan)
    heard = AutoModel.from_pretrained(stages.prepare_parts(larger)).model.audio_tower.state_dict()
    own = AutoModel.from_pretrained(parts.make_whisper(plan.work, "base")).encoder.state_dict()
    assert [name for name, weight in own.items() if name not in heard or not heard[name].equal(weight)] == [
        "embed_positions.weight"  # cut to the window
    ]


def test_errors_are_those_of_words_alone():
    rows = [{"messages": [{"role": "assistant", "content": "It's a dog, isn't it?"}]}]
    assert (
        word_error_rate(rows, ["its a dog isn't it"]) < 0.5 and word_error_rate(rows, ["It is a dog; is not it."]) == 0
    )
    assert word_error_rate(rows, [""]) == 1


def test_text_is_answered_as_by_the_original(assembled):
    answers = dict(zip(QUESTIONS, answer_questions(assembled), strict=True))
    assert "Paris" in answers["What is the capital of France?"]


def test_the_language_model_asks_and_answers_itself(assembled, work):
    path = remember(work / "chats.jsonl", assembled, ["The bridge is old."], 6, seed=0)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    asked = [row["messages"][0]["content"][0]["text"] for row in rows]
    assert len(rows) >= 5 and asked[0] == "Describe bridge." and len({*asked}) == len(asked)
    assert all(row["messages"][1]["content"].endswith((".", "!", "?", "*", '"', ")")) for row in rows)


def test_whisper_tells_when_words_are_said(plan, packages, assembled):
    _, recording, *_ = list_librivox(packages)
    text = recording["messages"][-1]["content"]
    samples = load_audio(recording["messages"][0]["content"][0]["path"], sampling_rate=16_000)
    align = Aligner(parts.make_whisper(plan.work), assembled).align
    spans, later = align(samples, text), align(np.concatenate([np.zeros(16_000, np.float32), samples]), text)
    decode = AutoTokenizer.from_pretrained(assembled).decode
    assert decode([token for token, _, _ in spans]).strip() == text
    assert max(end - start for _, start, end in spans) < 1.0 and spans[-1][2] <= len(samples) / 16_000
    # With a second of silence before it, each word but the first, which takes the silence, is said a second later.
    shifts = [one[1] - other[1] for one, other in zip(later[1:], spans[1:], strict=True)]
    assert np.median(shifts) == pytest.approx(1.0, abs=0.05)


def test_the_projector_learns_what_is_said(plan, packages, assembled, work):
    trained, _ = parts.split_texts(parts.read_texts(packages))
    path = write_set(work / "heard", SpeechSet(trained, (UNSEEN,), varied=False), 16)
    found = stages.align_rows(plan, assembled, path)
    options = {"use_cpu": True, "max_steps": 20, "learning_rate": 1e-3, "per_device_train_batch_size": 16}
    warm = warm_up(assembled, *found, work / "warm", **options)
    assert share_heard(assembled, *found) < 0.02 and share_heard(warm, *found) > 0.04


def test_training_that_is_interrupted_goes_on_and_learns(plan, packages, assembled, work):
    trained, _ = parts.split_texts(parts.read_texts(packages))
    path = write_set(work / "few", SpeechSet(trained, (UNSEEN,), varied=False), 2)
    options = ("--max-steps", "4", "--save-steps", "2", "--save-total-limit", "2", "--logging-steps", "1")
    options += ("--learning-rate", "3e-4", "--warmup-steps", "0", "--per-device-train-batch-size", "2")
    output = work / "run"
    stages.train("audio-1", assembled, [path], output, plan, *options)
    whole = {name: value.clone() for name, value in AutoModel.from_pretrained(output).state_dict().items()}
    # As a run leaves it that is killed in its third step.
    shutil.rmtree(output / "checkpoint-4")
    for name in ("config.json", "model.safetensors"):
        (output / name).unlink()
    stages.train("audio-1", assembled, [path], output, plan, *options)
    resumed = AutoModel.from_pretrained(output).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [e["loss"] for e in json.loads((output / "trainer_state.json").read_text())["log_history"] if "loss" in e]
    assert losses[-1] < losses[0]


def test_a_model_is_evaluated_and_published(plan, assembled, packages, work):
    rows = list_librivox(packages)[1:2]
    found = evaluate(assembled, {"real": rows}, parts.make_whisper(plan.work))["real"]
    assert found["wer"] > 0.5  # nothing is trained yet
    assert found["whisper_wer"] < 0.5 and found["transcripts"][0]["said"].startswith("he was not")
    published = stages.publish(assembled, work / "small")
    assert stages.publish(assembled, work / "small") == published  # again, in its place
    assert AutoProcessor.from_pretrained(published) and not list(work.glob(".small*"))


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--hours", "-1"], "--hours"), (["evaluate"], "holds no model yet")]
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.small",
        *arguments,
        "--work",
        tmp_path / "w",
        "--output",
        tmp_path / "o",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and message in done.stderr and not re.search("Traceback", done.stderr)
    assert not (tmp_path / "w").exists()
