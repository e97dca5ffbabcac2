"""How `make small` finds when words are said, and what an assembled model learns from that."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel, GenerationConfig

from benchmarks.small.alignment import Aligner, align_set, read_spans, spans_of, tokens_at, warp
from benchmarks.small.data import SpeechSet, read_rows, write_set
from benchmarks.small.rooms import RATE
from benchmarks.small.stages import Plan, align_rows
from benchmarks.small.warm_up import ENCODER_RATE, AlignedSpeech, likeness_loss, share_heard, warm_up
from transformers_omnivinci import OmniVinciProcessor
from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.training import SampleEncoder

from .assembly_parts import build_tokenizer, save_whisper
from .test_small import TEXTS, Hum
from .training_runs import TINY

# ------------------------------------------------------------------------------------------------------------ times


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_the_cheapest_path_begins_each_row_where_it_costs_nothing(lengths):
    rows = np.repeat(np.arange(len(lengths)), lengths)
    firsts = warp(1.0 - np.eye(len(lengths))[:, rows])
    assert firsts.tolist() == np.cumsum([0, *lengths[:-1]]).tolist()


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_path_leads_from_corner_to_corner(num_rows, num_columns, seed):
    firsts = warp(np.random.default_rng(seed).normal(size=(num_rows, num_columns)))
    assert firsts[0] == 0 and firsts[-1] < num_columns
    assert all(after >= before for before, after in pairwise(firsts))


def test_times_are_carried_over_by_characters():
    # " an apple" is " an", " apple" to one tokenizer, and " a", "n", " app", "le" to the other.
    spans = spans_of([5, 6, 7, 8], [(0, 2), (2, 3), (3, 7), (7, 9)], [0, 3], [1.0, 1.6], 2.2)
    assert spans == [(5, 1.0, 1.4), (6, 1.4, 1.6), (7, 1.6, 2.0), (8, 2.0, 2.2)]


def test_nothing_is_said_between_and_behind_tokens():
    seconds = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    assert tokens_at([(7, 0.5, 1.0), (8, 1.5, 2.0)], seconds).tolist() == [IGNORED, 7, IGNORED, 8, IGNORED]


# -------------------------------------------------------------------------------------------------------- alignment


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    tokenizer = build_tokenizer(None)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|startoftranscript|>", "<|notimestamps|>"]})
    save_whisper(folder, vocab_size=len(tokenizer), max_target_positions=60)
    tokenizer.save_pretrained(folder)
    GenerationConfig(alignment_heads=[[0, 0], [0, 1]]).save_pretrained(folder)
    return folder


def test_tokens_are_said_one_after_another_within_the_sound(whisper):
    samples = np.random.default_rng(0).normal(size=round(2.5 * RATE)).astype(np.float32)
    spans = Aligner(whisper, TINY).align(samples, "A dog barks.")
    tokenizer = OmniVinciProcessor.from_pretrained(TINY).tokenizer
    assert tokenizer.decode([token for token, _, _ in spans]) == " A dog barks."
    assert spans[0][1] == 0.0 and spans[-1][2] <= 2.5
    assert all(start <= end == after for (_, start, end), (_, after, _) in pairwise(spans))


def test_a_whisper_that_does_not_tell_the_time_is_refused(tmp_path):
    save_whisper(tmp_path)
    with pytest.raises(ValueError, match="alignment_heads"):
        Aligner(tmp_path, TINY)


@pytest.fixture
def spoken(tmp_path, monkeypatch):
    """Six utterances in three shards."""
    monkeypatch.setattr("benchmarks.small.data.SHARD", 2)
    return write_set(tmp_path / "set", SpeechSet(TEXTS, [Hum()], varied=False), 6)


def test_shards_are_aligned_once(spoken, whisper):
    align_set(spoken, whisper, TINY)
    files = sorted(spoken.parent.glob("*/spans.json"))
    said = [row["messages"][0]["content"][0]["path"] for row in map(json.loads, spoken.read_text().splitlines())]
    assert [path for file in files for path in read_spans(file.parent)] == said and len(files) == 3
    files[1].unlink()
    files[2].write_text("{}")
    kept = files[0].stat().st_mtime_ns
    align_set(spoken, whisper, TINY)
    assert files[0].stat().st_mtime_ns == kept and len(read_spans(files[2].parent)) == 2 and files[1].is_file()


def test_each_row_has_its_own_times(spoken, whisper, tmp_path):
    plan = Plan(tmp_path, utterances=6)
    shutil.copytree(whisper, tmp_path / "whisper-tiny.en")
    rows, spans = align_rows(plan, TINY, spoken)
    decode = OmniVinciProcessor.from_pretrained(TINY).tokenizer.decode
    said = [row["messages"][-1]["content"] for row in rows]
    assert [decode([token for token, _, _ in one]) for one in spans] == [f" {text}" for text in said]


# ---------------------------------------------------------------------------------------------------------- warm-up


def test_the_loss_is_that_of_what_is_heard_alone():
    table = torch.randn(9, 16, generator=torch.Generator().manual_seed(0))
    table = nn.functional.normalize(table, dim=1)
    vocabulary, tokens = torch.tensor([2, 4, 7]), torch.tensor([7, IGNORED, 2, 4])
    right, cosines = likeness_loss(table[[7, 0, 2, 4]], tokens, vocabulary, table)
    assert right < 0.01 and cosines.shape == (3, 3)
    torch.testing.assert_close(cosines.argmax(1), torch.tensor([2, 0, 1]))
    silence, _ = likeness_loss(table[[7, 5, 2, 4]], tokens, vocabulary, table)
    wrong, _ = likeness_loss(table[[4, 0, 2, 7]], tokens, vocabulary, table)
    longer, _ = likeness_loss(10 * table[[7, 0, 2, 4]], tokens, vocabulary, table)
    assert silence == right < longer < wrong


@pytest.mark.slow
def test_a_model_learns_what_is_heard_where(spoken, tmp_path):
    rows = read_rows(spoken)[:2]
    ids = OmniVinciProcessor.from_pretrained(TINY).tokenizer("dog cat", add_special_tokens=False)["input_ids"]
    spans = [[(ids[0], 0.0, 1.0), (ids[1], 1.0, 2.0)] for _ in rows]
    options = {"use_cpu": True, "max_steps": 60, "learning_rate": 1e-2, "per_device_train_batch_size": 2}
    run = warm_up(TINY, rows, spans, tmp_path / "run", **options, logging_steps=3)
    losses = [entry["loss"] for entry in json.loads((run / "trainer_state.json").read_text())["log_history"][:-1]]
    assert losses[-1] < 0.5 * losses[0]
    assert share_heard(run, rows, spans) > share_heard(TINY, rows, spans)
    before, after = (AutoModel.from_pretrained(folder).state_dict() for folder in (TINY, run))
    changed = {
        name.removeprefix("model.").split(".")[0]
        for name in before
        if not before[name].equal(after[name].to(before[name].dtype))
    }
    assert changed == {"audio_tower", "audio_projector"}
    written = (run / "config.json").stat().st_mtime_ns
    assert warm_up(TINY, rows, spans, run) == run and (run / "config.json").stat().st_mtime_ns == written


def test_the_encoder_learns_more_slowly_than_the_projector(spoken, tmp_path):
    spans = [[(5, 0.0, 1.0)], [(7, 0.0, 1.0)]]
    options = {"use_cpu": True, "max_steps": 1, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    run = warm_up(TINY, read_rows(spoken)[:2], spans, tmp_path / "run", **options, warmup_steps=0)
    before, after = (AutoModel.from_pretrained(folder).model for folder in (TINY, run))
    steps = {}
    for part in ("audio_tower", "audio_projector"):
        moved = [
            (one.float() - other.float()).abs().max().item()
            for one, other in zip(getattr(before, part).parameters(), getattr(after, part).parameters(), strict=True)
        ]
        steps[part] = max(moved)
    assert steps["audio_projector"] == pytest.approx(1e-3, rel=0.1)  # the first step of AdamW
    assert steps["audio_tower"] == pytest.approx(ENCODER_RATE * 1e-3, rel=0.1)


def test_each_embedding_has_the_token_of_its_second(spoken):
    rows = read_rows(spoken)[:1]
    encoder = SampleEncoder(OmniVinciProcessor.from_pretrained(TINY))
    dataset = AlignedSpeech(rows, [[(5, 0.2, 0.6), (3, 0.6, 1.0)]], encoder)
    item = dataset[0]
    seconds = item["audio_timestamps"][0]
    assert dataset.tokens.tolist() == [3, 5] and len(item["tokens"]) == len(seconds)
    for second, token in zip(seconds.tolist(), item["tokens"].tolist(), strict=True):
        assert token == (5 if 0.2 <= second < 0.6 else 3 if 0.6 <= second < 1.0 else IGNORED)
