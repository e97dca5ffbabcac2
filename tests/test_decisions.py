"""Transcription with a second opinion: data that teach decisions, their vocabulary, and decisions that are obeyed."""

import json
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from transformers_omnivinci.cli import app
from transformers_omnivinci.endpoint import EndpointHandler, Limits
from transformers_omnivinci.evaluation import AnswerFile
from transformers_omnivinci.inference.speech.corpora import Utterance, read_corpus
from transformers_omnivinci.inference.speech.deciding import DecidingRecogniser
from transformers_omnivinci.inference.speech.decision_data import write_decision_data
from transformers_omnivinci.inference.speech.decisions import (
    ACCEPT,
    DECISIONS,
    INTEGRATE,
    check_decision_tokens,
    decision_content,
)
from transformers_omnivinci.inference.speech.model_hearing import ModelHearing
from transformers_omnivinci.inference.speech.transcribing import transcribe
from transformers_omnivinci.media import encode_sound
from transformers_omnivinci.serving.second_opinion import RecogniserError, SecondOpinion
from transformers_omnivinci.serving.transcription import Transcription
from transformers_omnivinci.training import ChatDataset, DataSource, SampleEncoder
from transformers_omnivinci.training.vocabulary import add_embeddings, add_tokens

from .conftest import PARITY
from .speech_server import SpeechServer
from .test_transcribe import sound, wav

TINY = PARITY / "published-tiny"


class Parrot:
    """Hears texts by the length of the sound, or the same text always."""

    def __init__(self, name, texts):
        self.name, self.texts, self.asked = name, texts, 0

    def transcribe(self, samples, start=0.0):
        self.asked += 1
        if isinstance(self.texts, str):
            return self.texts
        return self.texts[round(len(samples) / 16_000)]


SAID = {1: "a dog barks", 2: "a cat sleeps", 3: "it rains"}


@pytest.fixture
def corpus(tmp_path):
    """A folder with sounds of one to three seconds, and what is said in them."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for seconds, text in SAID.items():
        wav(folder / f"{seconds}.wav", sound(seconds))
        (folder / f"{seconds}.txt").write_text(text)
    return folder


# Corpora


def test_corpora_are_files_and_folders(corpus, tmp_path):
    expected = [(str(corpus / f"{seconds}.wav"), text) for seconds, text in SAID.items()]

    def found(*arguments):
        return [(one.sound, one.text) for one in read_corpus(*arguments)]

    assert found(corpus) == expected and found(corpus, None, 2) == expected[:2]
    rows = [{"audio_filepath": f"{seconds}.wav", "text": text} for seconds, text in SAID.items()]
    (corpus / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found(corpus / "rows.jsonl") == expected
    lines = ["client_id\tpath\tsentence", *(f'"\t{seconds}.wav\t{text}' for seconds, text in SAID.items())]
    (tmp_path / "train.tsv").write_text("\n".join(lines))
    assert found(tmp_path / "train.tsv", "corpus/{path}") == expected
    for path in corpus.glob("*.txt"):
        path.unlink()
    (corpus / "84-1.trans.txt").write_text("".join(f"{seconds} {text}\n" for seconds, text in SAID.items()))
    assert found(corpus) == expected


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("nowhere", None, "There is no corpus"),
        ("rows.jsonl", "", "has no questions"),
        ("rows.jsonl", '{"audio": "lost.wav", "text": "a"}', r"rows.jsonl:1: there is no sound .*lost.wav"),
        ("rows.jsonl", '{"audio": ["1.wav", "2.wav"], "text": "a"}', "one sound is accepted"),
        ("rows.jsonl", '{"audio": "1.wav"}', "rows.jsonl:1 has no field `text`"),
        ("rows.tsv", "audio\ttext\n1.wav\ta\tb", "rows.tsv:2 has 3 columns, but 2 names"),
        ("1.trans.txt", "1 a\nlost b", "name lost, but there is no such sound"),
        ("4.wav", "", "4.wav has no transcript"),
        ("empty", None, "no sounds in"),
    ],
)
def test_what_is_no_corpus_is_refused(corpus, name, content, told):
    path = corpus / name
    if content is not None:
        path.write_text(content)
    elif name == "empty":
        path.mkdir()
    with pytest.raises((OSError, ValueError), match=told):
        read_corpus(path if path.suffix in (".jsonl", ".tsv", "") else corpus)


# Data


def test_data_have_the_right_decision_and_what_was_said(corpus, tmp_path):
    model = Parrot("model", {1: "a dog barks", 2: "a hat sleeps", 3: "it trains"})
    other = Parrot("other", {1: "a fog barks", 2: "a cat sleeps", 3: "it trails"})
    target = corpus / "decisions.jsonl"
    report = write_decision_data(read_corpus(corpus), model, {"other": other}, target)
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    answers = [row["messages"][1]["content"] for row in rows]
    assert answers == [f"{ACCEPT}a dog barks", f"{INTEGRATE}a cat sleeps", f"{ACCEPT}it rains"]
    assert [row["id"] for row in rows] == ["1.wav", "2.wav", "3.wav"]
    assert rows[1]["messages"][0]["content"] == decision_content(
        {"type": "audio", "path": "2.wav"}, "a hat sleeps", ["a cat sleeps"]
    )
    assert report.decisions == {ACCEPT: 2, INTEGRATE: 1} and report.words == 8
    assert report.errors == {"internal": 2, "other": 2}
    # A threshold that every hypothesis stays below: nothing is to be integrated.
    lenient = write_decision_data(read_corpus(corpus), model, {"other": other}, tmp_path / "all.jsonl", threshold=1)
    assert lenient.decisions == {ACCEPT: 3, INTEGRATE: 0}
    assert json.loads((tmp_path / "all.jsonl").read_text().splitlines()[0])["messages"][0]["content"][1] == {
        "type": "audio",
        "path": "corpus/1.wav",
    }


def test_what_was_heard_is_not_listened_to_again(corpus, tmp_path):
    model, other = Parrot("model", "a dog barks"), Parrot("other", "it rains")
    for attempt in range(2):
        kept = AnswerFile(tmp_path / "heard.jsonl", {"model": "parrot"})
        target = tmp_path / f"{attempt}.jsonl"
        write_decision_data(read_corpus(corpus), model, {"other": other}, target, kept=kept)
    assert (model.asked, other.asked) == (3, 3)
    assert (tmp_path / "0.jsonl").read_text() == (tmp_path / "1.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threshold": -0.1}, "threshold of -0.1"),
        ({"threshold": float("nan")}, "threshold of nan"),
        ({"externals": {}}, "0 external candidates"),
        ({"externals": {str(n): Parrot("", "a") for n in range(6)}}, "6 external candidates"),
        ({"externals": {"long": Parrot("", "word " * 2000)}}, "1.wav: .* have 10011 characters, where 8000 fit"),
        ({"externals": {"odd": Parrot("", f"a {ACCEPT}")}}, f"1.wav: .* holds the control token {ACCEPT}"),
        ({"utterances": []}, "None of 0 utterances"),
        ({"utterances": [Utterance("silence", "", " ")]}, "silence: There are no words"),
    ],
)
def test_data_that_cannot_be_made_leave_no_file(corpus, tmp_path, change, told):
    target, silent = tmp_path / "decisions.jsonl", wav(tmp_path / "silence.wav", np.zeros(8000))
    utterances = change.pop("utterances", read_corpus(corpus))
    utterances = [Utterance(one.name, one.sound or str(silent), one.text) for one in utterances]
    externals = change.pop("externals", {"other": Parrot("", "a")})
    with pytest.raises(ValueError, match=told):
        write_decision_data(utterances, Parrot("model", "a dog barks"), externals, target, **change)
    assert not list(tmp_path.glob("*decisions*")) and not list(tmp_path.glob(".*"))


def test_unusable_utterances_can_be_left_out(corpus, tmp_path):
    (corpus / "2.txt").write_text("...")
    (corpus / "3.wav").write_bytes(b"no sound")
    target, parrots = tmp_path / "decisions.jsonl", (Parrot("model", "a"), {"other": Parrot("", "b")})
    report = write_decision_data(
        read_corpus(corpus), *parrots, target, normalize=lambda text: text.strip("."), skip_bad=True
    )
    assert [reason.split(":")[0] for reason in report.skipped] == ["2.wav", "3.wav"]
    assert len(target.read_text().splitlines()) == 1
    with pytest.raises(OSError, match="is there already"):
        write_decision_data(read_corpus(corpus), *parrots, target)


# The vocabulary


@pytest.mark.compat
def test_new_tokens_have_the_mean_of_the_others(make_fresh):
    model, tokenizer = make_fresh(), AutoProcessor.from_pretrained(TINY).tokenizer
    before, known = model.get_input_embeddings().weight.clone(), len(tokenizer)
    ids = add_tokens(tokenizer, DECISIONS)
    assert ids == [known, known + 1] and add_tokens(tokenizer, DECISIONS) == []
    check_decision_tokens(tokenizer)
    add_embeddings(model, tokenizer, ids)
    after = model.get_input_embeddings().weight
    torch.testing.assert_close(after[known:], before[:known].mean(0).expand(len(after) - known, -1))
    assert torch.equal(after[:known], before[:known])
    assert len(after) == model.config.text_config.vocab_size >= known + 2
    logits = model(input_ids=torch.tensor([ids])).logits
    assert logits.shape[-1] == len(after) and torch.isfinite(logits[..., : known + 2]).all()


# Decisions


class Hearing:
    """Hears `internal`, and decides by a list."""

    def __init__(self, internal, *decided):
        self.internal, self.decided, self.asked = internal, list(decided), []

    def __call__(self, samples, prompt):
        return f" {self.internal} "

    def decide(self, samples, internal, candidates):
        self.asked.append((internal, candidates))
        return self.decided.pop(0)


def test_each_window_is_decided_about():
    hearing = Hearing("a hat sleeps", f"{INTEGRATE}a cat sleeps", ACCEPT)
    recogniser = DecidingRecogniser(hearing, [Parrot("one", "a cat sleeps"), Parrot("two", "a cat")])
    assert [one.text for one in transcribe(sound(6, 1, 2), recogniser)] == ["a cat sleeps", "a hat sleeps"]
    assert hearing.asked == [("a hat sleeps", ["a cat sleeps", "a cat"])] * 2
    assert recogniser.counts == Counter({ACCEPT: 1, INTEGRATE: 1})


@pytest.fixture(scope="module")
def decider(tmp_path_factory):
    """The tiny checkpoint with the vocabulary of decisions, and its folder."""
    folder = tmp_path_factory.mktemp("decider")
    model, processor = AutoModel.from_pretrained(TINY), AutoProcessor.from_pretrained(TINY)
    add_embeddings(model, processor.tokenizer, add_tokens(processor.tokenizer, DECISIONS))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder), folder


@contextmanager
def preferring(model, processor, decision):
    """Has a model like `decision`, and "x" even more. Gives a list with an entry for each of its steps."""
    likely, likeliest = processor.tokenizer.convert_tokens_to_ids([decision, "x"])
    steps = []

    def prefer(module, inputs, logits):
        steps.append(logits)
        logits[..., likely] += 50
        logits[..., likeliest] += 100

    handle = model.get_output_embeddings().register_forward_hook(prefer)
    try:
        yield steps
    finally:
        handle.remove()


@pytest.mark.compat
@pytest.mark.parametrize(("decision", "written"), [(ACCEPT, ACCEPT), (INTEGRATE, f"{INTEGRATE}xxxx")])
def test_the_first_token_decides(decider, decision, written):
    """The likelier decision counts, though another token is the likeliest; after an acceptance nothing is written."""
    model, processor, _ = decider
    with preferring(model, processor, decision) as steps:
        answer = ModelHearing(processor, model, max_new_tokens=5).decide(sound(1), "a hat", ["a cat"])
    assert answer == written and len(steps) == (1 if decision == ACCEPT else 5)


def test_the_server_decides(decider):
    handler = EndpointHandler(str(decider[2]), Limits(max_new_tokens=4), name="tiny", trust_remote_code=False)
    form = {"file": [encode_sound(sound(1), 16_000, "wav")]}
    with SpeechServer(heard="a cat sleeps") as server:
        opinion = SecondOpinion([server.url], decides=True)
        for decision, written in ((ACCEPT, "xxxx"), (INTEGRATE, "xxx")):
            with preferring(handler.pipeline.model, handler.pipeline.processor, decision):
                assert [one.text for one in Transcription(form, handler, opinion).segments()] == [written]
    with pytest.raises(RecogniserError, match="of this server fails"):
        list(Transcription(form, handler, opinion).segments())


def test_decisions_need_their_tokens(model, processor):
    with pytest.raises(ValueError, match=f"lacks {ACCEPT}.*asr-decision"):
        ModelHearing(processor, model).decide(sound(1), "a", ["b"])


def test_prompts_that_are_too_long_are_refused(decider, monkeypatch):
    model, processor, _ = decider
    monkeypatch.setattr(processor.tokenizer, "model_max_length", 300)
    with pytest.raises(ValueError, match="tokens, where the model has room for 44"):
        ModelHearing(processor, model).decide(sound(1), "a", ["b"])
    with pytest.raises(ValueError, match=r"holds the control token <\|im_end\|>"):
        ModelHearing(processor, model).decide(sound(1), "a", ["b <|im_end|>"])


# The commands


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.mark.compat
def test_the_commands_make_data_and_decide(corpus, decider, tmp_path):
    *_, folder = decider
    with SpeechServer(heard="a cat sleeps") as server:
        options = ("--model", folder, "--external", server.url, "--device", "cpu", "--max-new-tokens", 3)
        kept = ("--limit", 1, "--answers", tmp_path / "heard.jsonl")
        told = run("asr-data", corpus, tmp_path / "decisions.jsonl", *kept, *options)
        assert "decisions.jsonl has 1 row:" in told and "66.7%" in told and "All rows have the same" in told
        assert len((tmp_path / "heard.jsonl").read_text().splitlines()) == 1 + 2
        written = run("transcribe", corpus / "1.wav", "--decide", *options)
        assert "Stretches:" in written
    # What was written is data for the recipe, whose targets begin with a single token.
    data = ChatDataset([DataSource(tmp_path / "decisions.jsonl")], SampleEncoder(decider[1]))
    labels = data[0]["labels"]
    decision, *words = labels[labels >= 0].tolist()
    assert decision in decider[1].tokenizer.convert_tokens_to_ids(list(DECISIONS))
    assert decider[1].decode(words, skip_special_tokens=True) == "a dog barks"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["transcribe", "1.wav", "--decide"], "needs an `--external`"),
        (["transcribe", "1.wav", "--decide", "--external", "pocketsphinx", "--alone"], "without `--alone`"),
        (["transcribe", "1.wav", "--decide", *["--external", "pocketsphinx"] * 6], "6 external candidates"),
        (["transcribe", "1.wav", "--decide", "--external", "pocketsphinx"], "tokenizer lacks <accept_internal>"),
        (["transcribe", "1.wav", *["--external", "pocketsphinx"] * 2], "Without `--decide`, one"),
        (["asr-data", ".", "new.jsonl", *["--external", "pocketsphinx"] * 2], "is given twice"),
        (["serve", "nano", "--decide"], "0 external candidates"),
        (["serve", "nano", *["--external", "pocketsphinx"] * 2], "Without decisions, one"),
        (["asr-data", ".", "new.jsonl", "--external", "1.txt"], "transcript of one sound"),
        (["asr-data", ".", "1.txt", "--external", "pocketsphinx"], "is there already"),
        (["asr-data", ".", "no/new.jsonl", "--external", "pocketsphinx"], "no folder"),
        (["asr-data", "nowhere", "new.jsonl", "--external", "pocketsphinx"], "no corpus"),
    ],
)
def test_commands_that_make_no_sense_are_refused(corpus, monkeypatch, arguments, told):
    monkeypatch.chdir(corpus)
    assert told in run(*arguments, code=1)
    assert sorted(path.suffix for path in corpus.iterdir()) == [".txt"] * 3 + [".wav"] * 3


def test_thresholds_are_rates(corpus):
    options = ("--external", "pocketsphinx", "--threshold", 5)
    assert "--threshold" in run("asr-data", corpus, corpus / "new.jsonl", *options, code=2)


def test_adapters_need_room_for_the_tokens(corpus, tmp_path):
    arguments = ["--recipe", "asr-decision", "--model", TINY, "--data", "none.jsonl", "--output", tmp_path / "lora"]
    assert "makes no new embeddings" in run("train", *arguments, "--lora", "--use-cpu", code=1)
    assert not (tmp_path / "lora").exists()


@pytest.mark.slow
def test_the_recipe_adds_its_tokens(corpus, tmp_path):
    parrots = Parrot("model", "a"), {"other": Parrot("", "a dog")}
    write_decision_data(read_corpus(corpus, limit=1), *parrots, tmp_path / "data.jsonl")
    arguments = ["train", "--recipe", "asr-decision", "--model", TINY, "--data", tmp_path / "data.jsonl"]
    arguments += ["--use-cpu", "--report-to", "none", "--per-device-train-batch-size", 1, "--max-steps", 1]
    run(*arguments, "--output", tmp_path / "run")
    model, processor = AutoModel.from_pretrained(tmp_path / "run"), AutoProcessor.from_pretrained(tmp_path / "run")
    check_decision_tokens(processor.tokenizer)
    assert len(model.get_input_embeddings().weight) >= len(processor.tokenizer)
