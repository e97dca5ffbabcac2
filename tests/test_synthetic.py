"""The synthetic world: scenes keep their promises, files show them, and what cannot be is refused."""

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from transformers_omnivinci import media
from transformers_omnivinci.cli import app
from transformers_omnivinci.synthetic import (
    CLOSED_TYPES,
    COLOURS,
    FORMS,
    QUESTION_TYPES,
    SOUNDS,
    SPLITS,
    SyntheticDataset,
    WorldConfig,
    contexts_of,
    events_of,
    held_out,
    plan_scene,
    render,
    write_clip,
    write_dataset,
)
from transformers_omnivinci.synthetic.scenes import MIN_SOUND_SECONDS, SOUND_OF

from .chats import rows_of
from .checkpoints import files_of
from .synthetic_facts import answer, listen, look

WORLD = WorldConfig()
SMALL = WorldConfig(height=32, width=32, clip_seconds=(6.0, 7.0))
ACROSS = ("synchrony", "order")


@pytest.fixture(scope="module")
def dataset():
    """Three clips that begin with each type of question, each clip with all questions that it answers."""
    return SyntheticDataset("test", 24, seed=5, questions_per_clip=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, dataset):
    """All that `write_dataset` writes."""
    folder = tmp_path_factory.mktemp("world")
    write_dataset(folder, dataset)
    return folder


# ---------------------------------------------------------------------------------------------------------- planning


worlds = st.builds(
    WorldConfig,
    clip_seconds=st.sampled_from([(4.0, 12.0), (2.0, 2.0), (6.5, 9.0)]),
    slot_seconds=st.sampled_from([(2.0, 3.0), (2.0, 2.0), (2.0, 8.0)]),
    max_slots=st.integers(1, 6),
    jitter=st.sampled_from([0.0, 0.05, 0.1]),
    sound_probability=st.floats(0.1, 1.0),
    shape_probability=st.floats(0.1, 1.0),
    repeat_probability=st.floats(0.0, 1.0),
    match_probability=st.sampled_from([0.0, 0.5, 1.0]),
)


@given(worlds, st.sampled_from(SPLITS), st.integers(0, 2**32))
@settings(max_examples=150)
def test_scenes_keep_what_they_promise(world, split, seed):
    scene = plan_scene(world, split, random.Random(seed))
    assert world.clip_seconds[0] <= scene.seconds <= world.clip_seconds[1]
    ends = [0.0, *(end for _, end in scene.slots)]
    assert all(end <= start for end, (start, _) in zip(ends, scene.slots))
    assert ends[-1] <= scene.seconds
    assert all(world.slot_seconds[0] <= end - start <= world.slot_seconds[1] for start, end in scene.slots)
    for events in (scene.shapes, scene.sounds):
        assert events
        places = [event.slot for event in events]
        assert places == sorted(set(places))
        for event in events:
            start, end = scene.slots[event.slot]
            assert start <= event.start < event.end <= end
            assert abs(2 * event.start - round(2 * event.start)) <= 2 * world.jitter + 1e-6
    assert all(shape.end - shape.start >= world.min_shape_seconds - 1e-6 for shape in scene.shapes)
    for sound in scene.sounds:
        assert sound.kind == "click" or sound.end - sound.start >= MIN_SOUND_SECONDS - 1e-6
        shape = scene.shape_in(sound.slot)
        assert shape is None or shape.start < sound.start < sound.end <= shape.end
    assert len({shape.colour for shape in scene.shapes}) == len({shape.form for shape in scene.shapes})
    assert len({shape.colour for shape in scene.shapes}) == len(scene.shapes)
    assert bool(scene.combinations & held_out(split)) == (split != "train")
    assert not any(scene.combinations & held_out(other) for other in SPLITS if other != split)
    if world.match_probability == 1:
        pairs = [(scene.shape_in(sound.slot), sound) for sound in scene.sounds]
        assert all(shape is None or sound.kind == SOUND_OF[shape.form] for shape, sound in pairs)


def test_uniform_sampling_misses_no_shape():
    for sample in SyntheticDataset("train", 200):
        num_frames = round(sample.scene.seconds * WORLD.fps)
        seconds = np.linspace(0, num_frames - 1, WORLD.min_num_frames).round() / WORLD.fps
        for shape in sample.scene.shapes:
            assert ((shape.start <= seconds) & (seconds < shape.end)).any()


@pytest.mark.slow
def test_splits_hold_combinations_out_but_no_single_value():
    validation, test = held_out("validation"), held_out("test")
    assert not held_out("train") and not validation & test and len(validation) == len(test) == 16
    for combinations in (validation, test):
        assert [set(values) for values in zip(*combinations)] == [set(COLOURS), set(FORMS), set(SOUNDS)]
    met = {
        split: [sample.scene.combinations for sample in SyntheticDataset(split, 1000 if split == "train" else 250)]
        for split in SPLITS
    }
    seen = set().union(*met["train"])
    assert not seen & (validation | test)
    assert len(seen) == len(COLOURS) * len(FORMS) * len(SOUNDS) - 32
    assert all(scene & validation and not scene & test for scene in met["validation"])
    assert all(scene & test and not scene & validation for scene in met["test"])


def test_splits_and_seeds_give_unlike_clips():
    scenes = [SyntheticDataset(split, 50, seed)[i].scene for split in SPLITS for seed in (0, 1) for i in range(50)]
    assert len(set(scenes)) == len(scenes)


# ---------------------------------------------------------------------------------------------------------- rendering


@pytest.mark.compat
def test_the_same_seed_gives_the_same_bytes():
    samples = [SyntheticDataset("train", 30, seed=3)[index] for index in (4, 29)]
    again = SyntheticDataset("train", 1000, seed=3)
    for sample in samples:
        other = again[int(sample.id.split("-")[-1])]
        assert other == sample
        assert render(other.scene, WORLD).frames.tobytes() == render(sample.scene, WORLD).frames.tobytes()
        assert render(other.scene, WORLD).waveform.tobytes() == render(sample.scene, WORLD).waveform.tobytes()


@pytest.mark.slow
def test_what_is_planned_does_not_depend_on_the_process():
    script = "from transformers_omnivinci.synthetic import SyntheticDataset as D; print(D('test', 9)[:])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{SyntheticDataset('test', 9)[:]}\n"


def test_clips_are_arrays_as_described():
    dataset = SyntheticDataset("train", 1, config=replace(WORLD, height=48, width=80))
    clip, seconds = dataset.render(dataset[0]), dataset[0].scene.seconds
    assert clip.frames.shape == (round(seconds * WORLD.fps), 48, 80, 3) and clip.frames.dtype == np.uint8
    assert clip.waveform.shape == (round(seconds * 16_000),) and clip.waveform.dtype == np.float32
    assert 0.1 < np.abs(clip.waveform).max() <= 1
    assert (clip.fps, clip.sampling_rate, clip.modality) == (WORLD.fps, 16_000, "video")


@pytest.mark.slow
@pytest.mark.compat
def test_mp4_files_show_and_sound_as_the_arrays_and_make_answers_true(dataset, folder):
    for sample in dataset:
        clip = dataset.render(sample)
        video = media.load_video(folder / "media" / "test" / f"{sample.id}.mp4", load_audio=True)
        frames = video.frames.permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(video.metadata.timestamps, np.arange(len(clip.frames)) / clip.fps, atol=1e-6)
        assert np.abs(frames.astype(np.float64) - clip.frames).mean() < 4
        assert len(video.waveform) == len(clip.waveform)
        # The encoder's priming samples are cut off: to the sample, and the more so to a millisecond.
        spectra = np.fft.rfft(video.waveform), np.fft.rfft(clip.waveform)
        correlation = np.fft.irfft(spectra[0] * spectra[1].conj(), len(clip.waveform))
        assert correlation.argmax() == 0
        assert correlation.max() > 0.9 * (clip.waveform**2).sum()
        decoded, question = replace(clip, frames=frames, waveform=video.waveform), sample.questions[0]
        if question.type in CLOSED_TYPES:
            assert answer(question, look(decoded), listen(decoded)) == question.answer, (sample.id, question)


# ---------------------------------------------------------------------------------------------------- folders, command


@pytest.mark.compat
def test_rows_are_chats_that_the_processor_takes(folder, processor):
    rows = rows_of(folder / "test.jsonl")
    first = [row for row in rows if row["id"].endswith("-0")]
    assert [row["question_type"] for row in first] == [*QUESTION_TYPES] * 3
    assert len({row["id"] for row in rows}) == len(rows)
    question, reply = first[2]["messages"]
    video, text = question["content"]
    assert (video["type"], text["type"], question["role"], reply["role"]) == ("video", "text", "user", "assistant")
    assert reply["content"][0]["text"] in FORMS + COLOURS + SOUNDS
    chat = [{"role": "user", "content": [video | {"path": str(folder / video["path"])}, text]}]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", load_audio_from_video=True, num_frames=4
    )
    assert len(inputs["pixel_values_videos"]) == 4 and "input_features" in inputs


def test_rows_tell_which_questions_relate_what_was_held_out():
    rows = [row for sample in SyntheticDataset("test", 120, types=("visual", *ACROSS)) for row in sample.rows("")]
    marked = 0
    for row in rows:
        told = " ".join(message["content"][-1]["text"] for message in row["messages"])
        named = {value for value in COLOURS + FORMS + SOUNDS if re.search(rf"\b{value}\b", told)}
        could_be = any(named <= set(combination) for combination in held_out("test"))
        assert could_be or not row["is_held_out"]
        if row["question_form"].startswith("sound"):
            assert row["is_held_out"] == could_be
        marked += row["is_held_out"]
    assert marked and not any(row["is_held_out"] for row in rows if row["question_type"] == "visual")


@pytest.mark.slow
def test_an_interrupted_run_is_completed_with_the_same_bytes(tmp_path):
    dataset = SyntheticDataset("validation", 6, config=SMALL, types=("visual", "order"))
    write_dataset(tmp_path / "whole", dataset)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "again", dataset, on_clip=stop)
    left = {Path(name).name for name in files_of(tmp_path / "again")}
    assert left == {"validation.json", "validation-0-000000.mp4"}
    (tmp_path / "again" / "media" / "validation" / ".validation-0-000003.0a.incomplete.mp4").write_bytes(b"killed")
    kept = (tmp_path / "again" / "media" / "validation" / "validation-0-000000.mp4").stat().st_mtime_ns
    write_dataset(tmp_path / "again", dataset, num_workers=2)
    assert (tmp_path / "again" / "media" / "validation" / "validation-0-000000.mp4").stat().st_mtime_ns == kept
    assert files_of(tmp_path / "again") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_leaves_no_part_of_a_file(tmp_path):
    script = (
        "import resource, sys\n"
        "from transformers_omnivinci.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.argv = ['omnivinci', 'synthesize', '--num-clips', '3', '--output', sys.argv[1]]\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "cannot be written to" in done.stderr
    assert set(files_of(tmp_path / "out")) == {"train.json"}


def test_two_processes_do_not_write_one_split(tmp_path):
    dataset = SyntheticDataset("train", 1, config=SMALL, types=("visual",))
    messages = []

    def write_too():
        with pytest.raises(OSError, match="Another process") as refused:
            write_dataset(tmp_path, dataset)
        messages.append(refused)

    write_dataset(tmp_path, dataset, on_clip=write_too)
    assert messages and set(files_of(tmp_path)) == {
        "train.json",
        "train.jsonl",
        "media/train/train-0-000000.mp4",
    }


def test_a_folder_of_another_data_set_is_refused(folder):
    before = files_of(folder)
    with pytest.raises(ValueError, match="a data set with other settings"):
        write_dataset(folder, SyntheticDataset("test", 20, seed=5))
    assert files_of(folder) == before


@pytest.mark.compat
def test_the_command_writes_a_data_set(tmp_path):
    world = tmp_path / "world.json"
    world.write_text(json.dumps({"height": 32, "width": 32, "clip_seconds": [6, 7]}))
    options = ["--num-clips", "2", "--split", "test", "--type", "visual", "--type", "order"]
    arguments = ["synthesize", "--output", str(tmp_path / "out"), "--world", str(world), *options]
    result = CliRunner().invoke(app, [*arguments, "--questions-per-clip", "2", "--seed", "4"])
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "out" / "test.jsonl")
    expected = SyntheticDataset("test", 2, 4, SMALL, ("visual", "order"), 2)
    assert rows == [row for sample in expected for row in sample.rows(f"media/test/{sample.id}.mp4")]
    write_clip(tmp_path / "clip.mp4", expected.render(expected[0]))
    assert (tmp_path / "out" / f"media/test/{expected[0].id}.mp4").read_bytes() == (tmp_path / "clip.mp4").read_bytes()


def test_unrolled_chats_tell_what_is_seen_heard_and_both_before_the_answer(tmp_path):
    options = ["--num-clips", "1", "--split", "test", "--seed", "4", "--questions-per-clip", "3", "--unroll"]
    result = CliRunner().invoke(app, ["synthesize", "--output", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    see, hear, timeline, *asked = rows_of(tmp_path / "test.jsonl")
    [sample] = SyntheticDataset("test", 1, 4, questions_per_clip=3)
    for row in (see, hear, timeline):  # the events as reels tell them, which are tested on their own
        told = row["messages"][1]["content"][0]["text"].split(", ")
        senses = {"see": ["visual"], "hear": ["audio"], "timeline": ["visual", "audio"]}[row["question_type"]]
        events = [event for event in events_of(sample.scene) if event.sense in senses]
        assert len(told) == len(events)
        for text, event in zip(told, events):
            words = event.sentence.replace(",", "").split()
            assert event.what in text and set(re.findall(r"[\d.]+", text)) <= set(words)
            assert text.endswith(event.motion or event.what) or row is timeline
    shown = [row["messages"][0]["content"][0] for row in (see, hear, timeline, *asked)]
    assert [one["type"] for one in shown] == ["video", "audio", "video", "video", "video", "video"]
    silent, clip = (media.probe_video(tmp_path / one["path"]) for one in shown[::2][:2])
    assert (silent.audio_duration, silent.duration) == (None, clip.duration) and clip.audio_duration
    for number, (row, question) in enumerate(zip(asked, sample.questions, strict=True)):
        text = row["messages"][0]["content"][1]["text"]
        assert text.endswith(f"\n{question.text}") and row["messages"][1]["content"][0]["text"] == question.answer
        told = [context for context in contexts_of(sample.scene).values() if f"\n{context}\n" in text]
        assert len(told) == 3 - number


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"height": 33}, "odd"),
        ({"width": 8}, "out of range"),
        ({"fps": "8"}, "wrong type"),
        ({"fps": 8.0}, "wrong type"),
        ({"clip_seconds": 4.0}, "pair"),
        ({"clip_seconds": (12.0, 4.0)}, "out of range"),
        ({"clip_seconds": (4.2, 12.0)}, "half a second"),
        ({"clip_seconds": (2.0, 12.0), "slot_seconds": (3.0, 3.0)}, "too short for slots"),
        ({"num_frames": 8}, "can miss a shape"),
        ({"noise": float("nan")}, "out of range"),
        ({"sampling_rate": 16_001}, "AAC"),
    ),
)
def test_worlds_that_cannot_be(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        WorldConfig(**fields)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("dev", 1), "Unknown split 'dev'"),
        (("train", 0), "at least one clip"),
        (("train", 1, 0, None, ("smell",)), "Types"),
        (("train", 1, 0, None, ("visual", "visual")), "Types"),
        (("train", 1, 0, None, ("caption",), 2), "from 1 to 1"),
        (("train", 1, 0, None, None, 1, "smell"), "Unknown modality 'smell'"),
        (("train", 1, 0, None, ("audio",), 1, "image"), r"some of \['visual', 'caption'\]"),
        (("train", 1, 0, None, None, 7, "image"), "from 1 to 6"),
        (("train", 1, 0, None, None, 3, "video", ["motion", "first_form"]), "from 1 to 2"),
        (("train", 1, 0, None, None, 1, "audio", ["motion"]), "Forms .'motion'.: some of .'first_sound', "),
        (("train", 1, 0, None, ["audio"], 1, "video", ["motion"]), "Types .'audio'.: some of .'visual'. are"),
        (("train", 1, 0, None, None, 1, "image", None, True), "'image' have no contexts: video, audio have some"),
    ),
)
def test_data_sets_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticDataset(*arguments)


def test_samples_past_the_end():
    dataset = SyntheticDataset("train", 3)
    assert dataset[-1] == dataset[2] and len(dataset[1:]) == 2
    for index in (3, -4):
        with pytest.raises(IndexError, match="of 3"):
            dataset[index]


def test_an_answer_that_no_scene_of_a_world_has_is_named(monkeypatch):
    monkeypatch.setattr("transformers_omnivinci.synthetic.dataset._MAX_ATTEMPTS", 100)
    dataset = SyntheticDataset("train", 12, config=replace(WORLD, max_slots=1), types=("counting",))
    with pytest.raises(ValueError, match="hardly any clip has the answer"):
        dataset[:]


def test_files_that_are_no_clips_leave_nothing_behind(tmp_path):
    clip = render(plan_scene(SMALL, "train", random.Random(0)), SMALL)
    for name, damaged, message in (
        ("clip.avi", clip, "'video': .mp4 is accepted"),
        ("clip.mp4", replace(clip, waveform=None), "'image': .png is accepted"),
        ("clip.wav", clip, "'video': .mp4 is accepted"),
        ("clip.png", replace(clip, waveform=None), "one frame"),
    ):
        with pytest.raises(ValueError, match=message):
            write_clip(tmp_path / name, damaged)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"), (("{", "not JSON"), ("[]", "holds []: an object"), ('{"size": 3}', "unknown fields: size"))
)
def test_the_command_refuses_worlds_in_a_sentence(tmp_path, content, message):
    (tmp_path / "world.json").write_text(content)
    arguments = ["--output", str(tmp_path / "out"), "--num-clips", "1", "--world", str(tmp_path / "world.json")]
    result = CliRunner().invoke(app, ["synthesize", *arguments])
    assert result.exit_code == 1 and message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_other_arguments_of_writing(tmp_path):
    dataset = SyntheticDataset("train", 1)
    with pytest.raises(ValueError, match="at least one process"):
        write_dataset(tmp_path / "out", dataset, num_workers=0)
    with pytest.raises(ValueError, match="Unknown modality"):
        render(dataset[0].scene, WORLD, modality="smell")
    with pytest.raises(ValueError, match="Unknown split"):
        plan_scene(WORLD, "dev", random.Random(0))
