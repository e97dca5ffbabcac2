"""Speech translation from end to end at toy size, the reader of CoVoST 2, and BLEU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recipes.speech_translation import data, toy
from recipes.speech_translation.bleu import bleu, pair, tokenizer_of
from recipes.speech_translation.covost import languages_of, read_split
from transformers_omnivinci.inference.speech import SPEECH_RATE, Spoken
from transformers_omnivinci.media import load_audio

ROOT = Path(__file__).parents[2]


class Tones:
    """Says a tone for each letter: a voice that every machine has."""

    name = "tones"

    def check(self):
        pass

    def synthesize(self, texts):
        time = np.arange(SPEECH_RATE // 20) / SPEECH_RATE
        text = "".join(texts)
        yield Spoken(text, np.concatenate([0.5 * np.sin(9 * ord(letter) * time) for letter in text]).astype("f4"))


@pytest.fixture(scope="module")
def covost(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "toy"
    toy.write_toy(folder, Tones(), limit=16)
    return folder


def test_from_data_to_bleu(covost, tmp_path):
    variables = {"FOLDER": tmp_path, "OUT": covost.parent, "STEPS": 2, "BATCH": 2, "PYTHON": sys.executable}
    make = ["make", "-C", str(ROOT / "recipes/speech_translation"), "all"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    subprocess.run([*make, *(f"{name}={value}" for name, value in variables.items())], check=True, env=environment)
    results = json.loads((tmp_path / "results.json").read_text())
    rows = [json.loads(line) for line in (covost.parent / "data/train.jsonl").read_text().splitlines()]
    assert {row["question"] for row in rows} == {"Translate the English speech to German.", data.TRANSCRIBE}
    assert results["sentences"] + len(rows) / 2 == 16
    assert all(0 <= score["bleu"] <= 100 for score in results["scores"].values())
    assert len(results["scores"]) == 3
    assert (tmp_path / "results.png").stat().st_size > 5_000
    answers, references = pair(covost.parent / "data/test.jsonl", covost.parent / "answers.jsonl")
    assert len(answers) == len(references) == results["sentences"]
    assert all(reference.split()[2] in toy.NUMBERS.values() for reference in references)


def test_toy_is_what_it_says(covost):
    spoken = read_split(covost / toy.COVOST, "train", covost / toy.CLIPS, covost / toy.VALIDATED)
    of_sentence = {sentence: translation for sentence, translation, _ in toy.sentences()}
    assert all(of_sentence[one.sentence] == one.translation for one in spoken)
    seconds = len(load_audio(spoken[0].path, sampling_rate=16_000)) / 16_000
    assert seconds == pytest.approx(len(spoken[0].sentence) / 20, abs=0.1)
    test = {sentence for sentence, _, split in toy.sentences() if split == "test"}
    assert len(test) == 16 and test.isdisjoint(sentence for sentence, _, split in toy.sentences() if split == "train")


def test_files_of_single_splits_and_of_training_on_covost(tmp_path):
    (tmp_path / "one.mp3").touch()
    path = tmp_path / "covost_v2.sv-SE_en.train.tsv"
    path.write_text('path\tsentence\ttranslation\tclient_id\none.mp3\tHej "du\tHello "you\tx\n')
    (only,) = read_split(path, "train", tmp_path)
    assert (only.sentence, only.translation) == ('Hej "du', 'Hello "you')
    assert languages_of(path) == ("sv-SE", "en")
    whole = tmp_path / "covost_v2.en_ja.tsv"
    whole.write_text("path\ttranslation\tsplit\none.mp3\t家\ttrain_covost\none.mp3\t猫\ttest\n")
    assert [one.translation for one in read_split(whole, "train", tmp_path)] == ["家"]
    assert data.write(tmp_path / "out", [whole], tmp_path) == {"train": 1, "test": 1}
    assert "to Japanese." in (tmp_path / "out/test.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("covost_v2.en_de.tsv", "path\tsplit\n", "has no column 'translation'"),
        ("covost_v2.en_de.tsv", "path\ttranslation\tsplit\na.mp3\n", "tsv:2 has not as many values"),
        ("covost_v2.en_de.tsv", "path\ttranslation\tsplit\na.mp3\t \ttrain\n", "tsv:2 has no translation"),
        ("covost_v2.en_de.tsv", "path\ttranslation\tsplit\na.mp3\tHaus\ttrain\n", "which is not in"),
        ("covost_v2.en_de.tsv", "path\ttranslation\tsplit\na.mp3\tHaus\tdev\n", "no sentences of the split 'train'"),
        ("covost_v2.en_de.tsv", b"path\ttranslation\tsplit\na.mp3\t\xff\ttrain\n", "is not UTF-8"),
        ("covost_v2.en_xx.tsv", "path\ttranslation\tsplit\n", "names no two languages"),
        ("sentences.tsv", "path\ttranslation\tsplit\n", "names no two languages"),
    ],
)
def test_bad_files_get_a_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, OSError), match=message):
        data.write(tmp_path / "out", [path], tmp_path)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match="Error: "):
        data.main([str(tmp_path / "out"), "--covost", str(path), "--clips", str(tmp_path)])


def test_sentences_that_common_voice_lacks(covost, tmp_path):
    validated = tmp_path / "validated.tsv"
    validated.write_text("path\tsentence\nother.mp3\tHello\n")
    with pytest.raises(ValueError, match=r"covost_v2.en_de.tsv:\d+ names .*, which validated.tsv does not have"):
        read_split(covost / toy.COVOST, "train", covost / toy.CLIPS, validated)
    with pytest.raises(ValueError, match="no sentence to write down"):
        data.write(tmp_path / "out", [covost / toy.COVOST], covost / toy.CLIPS, transcribes=True)


def test_without_a_voice_a_sentence_tells_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="No voice is installed"):
        toy.main([str(tmp_path / "toy")])
    assert not (tmp_path / "toy").exists()


def test_bleu_is_that_of_sacrebleu():
    references = ["drei rote Häuser stehen dort", "zwei weiße Katzen schlafen hier"]
    assert bleu(references, references, "13a")["bleu"] == pytest.approx(100)
    assert bleu(["nichts davon", "gar nichts"], references, "13a")["bleu"] < 5
    assert "tok:zh" in bleu(["红色的房子"], ["红色的房子"], "zh")["signature"]
    assert tokenizer_of("Translate the English speech to Japanese.") == "char"
    assert tokenizer_of("Translate the Chinese speech to English.") == "13a"
