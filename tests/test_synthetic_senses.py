"""What a single sense knows of the synthetic world: nothing of what relates two, and all that it is asked alone."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.baselines import Baseline
from transformers_omnivinci import media
from transformers_omnivinci.cli import app
from transformers_omnivinci.synthetic import (
    CLOSED_TYPES,
    MODALITIES,
    SPLITS,
    SyntheticDataset,
    WorldConfig,
    plan_scene,
    render,
    split_words,
    vocabulary,
    write_dataset,
)
from transformers_omnivinci.synthetic.rendering import draw_frames
from transformers_omnivinci.synthetic.scenes import freeze

from .chats import rows_of
from .checkpoints import files_of
from .synthetic_facts import answer, is_described, listen, look

WORLD = WorldConfig()
SMALL = WorldConfig(height=32, width=32, clip_seconds=(6.0, 7.0))
ACROSS = ("synchrony", "order")


# ------------------------------------------------------------------------------------------------ blind, deaf, neither


@pytest.fixture(scope="module")
def across():
    """Questions across the senses, to learn from and to be asked."""
    learn, asked = (SyntheticDataset("train", 1600, seed, types=ACROSS)[:] for seed in (11, 12))
    return {"learn": learn, "train": asked, "test": SyntheticDataset("test", 800, seed=13, types=ACROSS)[:]}


@pytest.mark.slow
@pytest.mark.parametrize("senses", ["text", "picture", "sound"])
def test_no_single_sense_beats_chance_across_senses(across, senses):
    baseline = Baseline(senses).fit(across["learn"])
    for split in ("train", "test"):
        for type, (accuracy, chance, total) in baseline.scores(across[split]).items():
            assert accuracy < chance + 3 * (chance * (1 - chance) / total) ** 0.5, (split, type)


@pytest.mark.slow
@pytest.mark.parametrize(("senses", "forms"), [("picture", ("colour", "form")), ("sound", ("sound",))])
def test_who_senses_all_that_may_be_the_answer_is_at_chance(across, senses, forms):
    questions = [
        (sample.scene, sample.questions[0]) for sample in across["train"] if sample.questions[0].form.startswith(forms)
    ]
    baseline = Baseline(senses).fit(across["learn"])
    right = np.mean([baseline.guess(scene, question) == question.answer for scene, question in questions])
    chance = np.mean([1 / question.num_candidates for _, question in questions])
    assert right == pytest.approx(chance, abs=3 * (chance * (1 - chance) / len(questions)) ** 0.5)


@pytest.mark.slow
def test_baselines_find_what_there_is_to_find(across):
    single = [SyntheticDataset("train", 600, seed, types=("visual", "audio"))[:] for seed in (1, 2)]
    seeing, hearing = (Baseline(senses).fit(single[0]).scores(single[1]) for senses in ("picture", "sound"))
    assert seeing["visual"][0] > 0.95 and hearing["audio"][0] > 0.9
    assert seeing["audio"][0] < 0.25 and hearing["visual"][0] < 0.25
    # Were the sound always that of the first shape, who only sees would know it.
    unfair = [
        sample
        for sample in across["learn"]
        if sample.questions[0].answer in (sample.scene.shapes[0].colour, sample.scene.shapes[0].form)
    ]
    accuracy, chance, _ = Baseline("picture").fit(unfair[::2]).scores(unfair[1::2])["synchrony"]
    assert accuracy > 0.95 > chance


# ---------------------------------------------------------------------------------------- pictures alone, sounds alone


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "suffix"), (("image", ".png"), ("audio", ".wav")))
def test_a_picture_or_a_sound_alone_is_written_and_answers_its_questions(tmp_path, modality, suffix):
    dataset = SyntheticDataset("test", 80, seed=2, modality=modality)
    rows = rows_of(write_dataset(tmp_path, dataset))
    forms = set()
    for sample, row in zip(dataset, rows, strict=True):
        medium, text = row["messages"][0]["content"]
        assert medium == {"type": modality, "path": f"media/test-{modality}/{sample.id}{suffix}"}
        (question,) = sample.questions
        assert text["text"] == question.text
        rendered, path = dataset.render(sample), tmp_path / medium["path"]
        if modality == "image":
            assert rendered.frames.shape == (1, 64, 64, 3) and rendered.waveform is None
            np.testing.assert_array_equal(media.load_image(path), rendered.frames[0])
            (seen,), heard = look(rendered), []
        else:
            np.testing.assert_allclose(media.load_audio(path), rendered.waveform, atol=1e-4)
            assert rendered.frames is None
            seen, heard = [], listen(rendered)
        if question.type == "caption":
            assert is_described(seen, question.answer), (sample.id, question)
        elif question.type in CLOSED_TYPES:
            assert answer(question, seen and [seen], heard) == question.answer, (sample.id, question)
        forms.add(question.form)
    assert forms == {form.name for form in MODALITIES[modality].forms}
    assert json.loads((tmp_path / f"test-{modality}.json").read_text())["modality"] == modality


@given(st.integers(0, 2**32), st.sampled_from([4, 8, 30]))
@settings(max_examples=20)
def test_a_still_is_the_frame_of_the_clip(seed, fps):
    world = replace(SMALL, fps=fps)
    rng = random.Random(seed)
    scene = plan_scene(world, "train", rng)
    shape = rng.choice(scene.shapes)
    second = next(frame / fps for frame in range(1000) if frame / fps >= shape.start)
    still = freeze(scene, second, 1 / fps)
    assert [(other.colour, other.form) for other in still.shapes] == [(shape.colour, shape.form)]
    np.testing.assert_array_equal(render(still, world).frames, draw_frames(scene, world, [second]))


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("modality", ["image", "audio"])
def test_answers_about_one_sense_are_equally_frequent_and_never_held_out(modality, split):
    forms = [form for form in MODALITIES[modality].forms if form.type in ("visual", "audio")]
    block = sum(len(form.answers(WORLD)) for form in forms)
    table = Counter()
    for sample in SyntheticDataset(split, block, 3, types=(forms[0].type,), modality=modality):
        (row,) = sample.rows("")
        table[row["question_form"], row["messages"][-1]["content"][0]["text"]] += 1
        assert not sample.scene.combinations and not row["is_held_out"]
    assert table == {(form.name, answer): 1 for form in forms for answer in form.answers(WORLD)}


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_the_vocabulary_covers_one_sense(modality):
    words = set(vocabulary())
    for sample in SyntheticDataset("train", 150, modality=modality):
        for question in sample.questions:
            assert words >= {*split_words(question.text), *split_words(question.answer)}


@pytest.mark.slow
def test_one_sense_answers_what_is_asked_about_it():
    for modality, senses in (("image", "picture"), ("audio", "sound")):
        types = [MODALITIES[modality].forms[0].type]
        learn, asked = (SyntheticDataset("train", 300, seed, None, types, 1, modality)[:] for seed in (1, 2))
        for known in (senses, "text"):
            ((accuracy, chance, _),) = Baseline(known).fit(learn).scores(asked).values()
            assert accuracy < chance + 0.08 if known == "text" else accuracy > 0.9


def test_one_folder_holds_all_modalities(tmp_path):
    datasets = [SyntheticDataset("train", 2, config=SMALL, modality=modality) for modality in MODALITIES]
    being_written = tmp_path / ".train-image.0a.incomplete.jsonl"
    being_written.write_text("")
    write_dataset(tmp_path, datasets[0])
    assert being_written.exists()
    paths = [write_dataset(tmp_path, dataset) for dataset in datasets]
    assert not being_written.exists()
    assert [path.name for path in paths] == ["train.jsonl", "train-image.jsonl", "train-audio.jsonl"]
    rows = [row for path in paths for row in rows_of(path)]
    assert len({row["id"] for row in rows}) == 6 and len({frozenset(row) for row in rows}) == 1
    for dataset in datasets:
        write_dataset(tmp_path / "again", dataset)
    again = files_of(tmp_path / "again")
    assert again and all((tmp_path / path).read_bytes() == content for path, content in again.items())


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_one_sense_through_the_command_and_the_processor(tmp_path, processor, modality):
    arguments = ["--output", str(tmp_path), "--num-clips", "1", "--modality", modality]
    result = CliRunner().invoke(app, ["synthesize", *arguments])
    assert result.exit_code == 0, result.output
    (row,) = rows_of(tmp_path / f"train-{modality}.jsonl")
    medium, text = row["messages"][0]["content"]
    chat = [{"role": "user", "content": [medium | {"path": str(tmp_path / medium["path"])}, text]}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert ("pixel_values" in inputs, "input_features" in inputs) == (modality == "image", modality == "audio")
