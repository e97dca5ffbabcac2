"""Decisions are learnt from what real recognisers hear of real speech, and taken: the commands one after another."""

import json

import pytest
import torch
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from benchmarks import _harness, decisions
from benchmarks.voices import joe, whisper_folder
from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.inference.speech import SPEECH_RATE, make_voice, speak_all
from transformers_omnivinci.inference.speech.decisions import ACCEPT, DECISIONS, INTEGRATE
from transformers_omnivinci.inference.speech.model_hearing import ModelHearing
from transformers_omnivinci.inference.speech.recognisers import HEARING_RATE
from transformers_omnivinci.media import encode_sound, load_audio, resample
from transformers_omnivinci.training.vocabulary import add_embeddings, add_tokens

SAID = {"one": "A small dog runs across the street.", "two": "The old man reads a letter."}


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with two sentences of a neural voice."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, text in SAID.items():
        samples = resample(speak_all(make_voice(f"piper:{joe()}"), text), SPEECH_RATE, HEARING_RATE)
        (folder / f"{name}.wav").write_bytes(encode_sound(samples, HEARING_RATE, "wav"))
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def data(corpus):
    """What nano, Whisper tiny.en and pocketsphinx hear, with the right decisions."""
    path = corpus / "decisions.jsonl"
    externals = ("--external", f"whisper:{whisper_folder()}", "--external", "pocketsphinx")
    told = run("asr-data", corpus, path, *externals, "--model", NANO, "--max-new-tokens", 12).output
    assert "0 accept, 2 integrate" in told and "pocketsphinx" in told
    return path


def test_data_have_what_recognisers_heard(data):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["one.wav", "two.wav"]
    for row, text in zip(rows, SAID.values(), strict=True):
        assert row["messages"][1]["content"] == INTEGRATE + text
        internal, whisper, _ = row["heard"].values()
        assert len(set(whisper.lower().strip(".").split()) & set(text.lower().strip(".").split())) >= 4
        assert whisper in row["messages"][0]["content"][2]["text"] and internal != whisper


def test_decisions_that_are_learnt_are_taken(data, corpus, tmp_path):
    """Nano learns two answers by heart, and the command then writes them, of the same windows."""
    options = ("--use-cpu", "--report-to", "none", "--per-device-train-batch-size", 2, "--logging-steps", 20)
    arguments = ("train", "--recipe", "asr-decision", "--model", NANO, "--data", data, "--output", tmp_path / "run")
    run(*arguments, *options, "--max-steps", 20, "--learning-rate", 3e-3)
    model, processor = AutoModel.from_pretrained(tmp_path / "run"), AutoProcessor.from_pretrained(tmp_path / "run")
    hearing = ModelHearing(processor, model.eval(), max_new_tokens=60)
    heard = json.loads(data.read_text().splitlines()[0])["heard"]
    samples = load_audio(str(corpus / "one.wav"), sampling_rate=HEARING_RATE)
    decided = hearing.decide(samples, heard.pop("internal"), list(heard.values()))
    assert decided.startswith(INTEGRATE) and len(decided) > len(INTEGRATE)
    externals = ("--external", f"whisper:{whisper_folder()}", "--external", "pocketsphinx")
    command = ("transcribe", corpus / "one.wav", "--decide", "--model", tmp_path / "run", "--device", "cpu")
    told = run(*command, *externals, "--segment", 20, "--max-new-tokens", 60)
    assert "0 as the model heard them, 1 corrected by the others" in told.output


def test_adapters_learn_the_tokens_where_there_is_room(data, tmp_path):
    """A model whose vocabulary is large enough, as that of the release is, learns them beside its adapters."""
    model, processor = AutoModel.from_pretrained(NANO, dtype="float32"), AutoProcessor.from_pretrained(NANO)
    add_embeddings(model, processor.tokenizer, add_tokens(processor.tokenizer, DECISIONS))
    model.save_pretrained(tmp_path / "base")
    AutoProcessor.from_pretrained(NANO).save_pretrained(tmp_path / "base")  # which lacks the tokens
    arguments = ["train", "--recipe", "asr-decision", "--model", tmp_path / "base", "--data", data, "--lora"]
    arguments += ["--use-cpu", "--report-to", "none", "--per-device-train-batch-size", 1, "--learning-rate", 1e-2]
    run(*arguments, "--output", tmp_path / "run", "--max-steps", 2)
    loaded = AutoModel.from_pretrained(tmp_path / "run", dtype="float32")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "run").tokenizer
    ids = torch.tensor(tokenizer.convert_tokens_to_ids([ACCEPT, INTEGRATE]))
    others = torch.arange(int(ids.min()))
    hidden = torch.ones(1, model.config.text_config.hidden_size)
    with torch.no_grad():
        new, old = loaded.get_input_embeddings(), model.get_input_embeddings()
        torch.testing.assert_close(new(others), old(others))
        assert not torch.isclose(new(ids), old(ids)).all(-1).any()
        new, old = loaded.get_output_embeddings()(hidden)[0], model.get_output_embeddings()(hidden)[0]
    torch.testing.assert_close(new[others], old[others])
    assert not torch.isclose(new[ids], old[ids]).any()


def test_the_benchmark_measures_each_way(corpus, tmp_path, monkeypatch):
    """Table 19 in small, of the smallest model and two sentences."""
    monkeypatch.setattr(_harness, "RESULTS", tmp_path / "repository" / "results")
    (tmp_path / "repository").mkdir()
    sets = ("--train", corpus, "--test", f"piper={corpus}", "--external", "pocketsphinx", "--output", tmp_path / "out")
    sizes = ("--limit", 1, "--noise", "inf", "--epochs", 1, "--rows", 2)
    decisions.main([str(one) for one in ("--model", NANO, *sets, *sizes)])
    told = json.loads((tmp_path / "repository" / "results" / "decisions.json").read_text())
    rates, decided, learnt = (table["rows"] for table in told["tables"])
    assert {"internal", "cascade", "taught, alone", "decisions", "pocketsphinx"} < rates[0].keys()
    assert sum(row["taken"] for row in decided) == 1 and learnt == [{"rows": 2, "integrate": 2}]
