"""Data for training: what is read, what is measured, what is kept, and what takes the place of what is damaged."""

import hashlib
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import distributed
from transformers import AutoProcessor

from transformers_omnivinci.training import (
    BadSample,
    ChatDataset,
    DataSource,
    OmniVinciCollator,
    SampleEncoder,
    measuring,
)
from transformers_omnivinci.training.data import JsonLines
from transformers_omnivinci.training.encoding import Measure

from .chats import CLIP_ITEM, chat, damaged_image, damaged_video, unlike_samples, write
from .conftest import PARITY
from .media_samples import audio_item, image, image_item, video_item
from .processes import run_in_processes


@pytest.mark.parametrize(
    "row",
    [
        chat("Yes.", {"type": "image", "path": "a.png"}),
        chat("Yes.", {"type": "image", "url": None, "image": "a.png", "text": None}),
        chat("Yes.", {"type": "image_url", "image_url": {"url": "a.png"}}),
        chat("Yes.", {"type": "image"}, images=["a.png"]),
        {**chat("Yes."), "image": "a.png"},
        {
            "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Yes."}],
            "image": "a.png",
        },
    ],
)
def test_chats_of_the_ecosystem_are_read_with_paths_from_their_file(row, tmp_path, encoder):
    image().save(tmp_path / "a.png")
    file = write(tmp_path / "data.jsonl", "", {**row, "id": "one"})
    (sample,) = ChatDataset([DataSource(file)], encoder).samples(0)
    item, text = sample.messages[0]["content"]
    assert sample.id == "one" and text == {"type": "text", "text": "What?"}
    assert item["type"] == "image" and str(tmp_path / "a.png") in item.values()
    assert encoder.measure(sample) == Measure(len(encoder.encode(sample)["input_ids"]), frozenset({"image"}))


def test_any_sequence_of_rows_is_data(dataset):
    data = dataset(unlike_samples())
    assert [measure.kind for measure in data.measures] == ["text", "image", "omni", "video", "audio", "text"]
    assert [measure.length for measure in data.measures] == [len(data[index]["input_ids"]) for index in range(6)]


BAD = {
    "is not JSON": "{",
    "a row is list": [],
    "has no `messages`": {"text": "Hello"},
    "no answer": {"messages": chat()["messages"][:1]},
    "is no answer: a message of role 'assistant' with text": chat(" "),
    "has no `role`": {"messages": ["Hello"]},
    "an item of content is": chat("Yes.", {"type": "smell"}),
    "of type 'audio' has no source": chat("Yes.", {"type": "audio"}),
    "missing.png": chat("Yes.", {"type": "image", "path": "missing.png"}),
    "text.mp4": chat("Yes.", {"type": "video", "path": "text.mp4"}),
    "more than the limit of 60": chat("Yes. " * 60),
    "'<image>', which stands for a medium": chat("Yes.", question="<image>"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_lines_are_named_and_only_skipped_on_demand(message, tmp_path, processor):
    (tmp_path / "text.mp4").write_text("no video")
    file = write(tmp_path / "data.jsonl", chat("Yes."), BAD[message])
    encoder = SampleEncoder(processor, max_length=60)
    with pytest.raises(BadSample) as error:
        ChatDataset([DataSource(file)], encoder)
    assert str(error.value).startswith(f"Sample {file}:2: ") and message in str(error.value)
    data = ChatDataset([DataSource(file)], encoder, skip_bad=True)
    assert len(data) == 1 and [str(bad) for bad in data.skipped] == [str(error.value)]


def test_nothing_but_bad_lines_is_an_error(tmp_path, encoder):
    file = write(tmp_path / "data.jsonl", "{", "}")
    with pytest.raises(ValueError, match="nothing to train on: all 2 samples are bad"):
        ChatDataset([DataSource(file)], encoder, skip_bad=True)


@pytest.mark.parametrize(
    ("damaged", "good", "other"),
    [
        (damaged_image, image_item(height=600, width=800), video_item(num_frames=2)),
        (damaged_video, video_item(num_frames=2), audio_item(seconds=3)),
    ],
    ids=["image", "video"],
)
def test_a_file_that_is_damaged_inside_is_replaced_by_one_like_it(tmp_path, dataset, damaged, good, other):
    """By the next one that the same encoders read and that fits where it did: not by the next one at all."""
    rows = [
        *(chat("Yes.", damaged(tmp_path)), chat("No."), chat("Another.", other)),
        *(chat("Longer. " * 40, good), chat("No.", good), chat("Ok.", good)),
    ]
    data = dataset(rows)
    with pytest.raises(BadSample, match="row:0"):
        data[0]
    data.skip_bad = True
    for _ in range(2):
        batch = OmniVinciCollator(0)([data[0]])
        assert batch["sample_ids"] == ["row:4"] and [bad.sample_id for bad in batch["skipped"]] == ["row:0"]
        assert batch["input_ids"].shape[1] <= data.measures[0].length
    assert OmniVinciCollator(0)([data[1]])["sample_ids"] == ["row:1"]


@pytest.mark.parametrize(
    "others",
    [
        [chat("No."), chat("A tone.", audio_item())],
        [chat("A much longer answer than the other one is. " * 20, image_item(height=600, width=800))],
    ],
    ids=["other modalities", "longer"],
)
def test_a_damaged_file_that_nothing_can_replace_is_an_error(tmp_path, dataset, others):
    data = dataset([chat("Yes.", damaged_image(tmp_path)), *others], skip_bad=True)
    with pytest.raises(BadSample, match=r"row:0: .*damaged.*No other sample can take its place.*\(image\)"):
        data[0]


def test_what_replaces_a_damaged_file_fits_its_packed_row(tmp_path, dataset):
    good = image_item(height=600, width=800)
    rows = [
        *(chat("A dog."), chat("Yes.", damaged_image(tmp_path)), chat("Longer. " * 40, good)),
        *(chat("Ok.", video_item(num_frames=2)), chat("No.", good)),
    ]
    data = dataset(rows, skip_bad=True)
    row = (0, 1, 4)
    items = data[row]
    assert [item["sample_ids"] for item in items] == [["row:0"], ["row:4"], ["row:4"]]
    batch = OmniVinciCollator(0, packing=True)([items])
    assert batch["input_ids"].shape[1] <= sum(data.measures[index].length for index in row)
    assert [bad.sample_id for bad in batch["skipped"]] == ["row:1"]


def test_what_replaces_a_group_about_a_damaged_file_is_no_longer_than_the_group(tmp_path, dataset):
    bad, goods = damaged_image(tmp_path), [image_item(height=600, width=800, seed=seed) for seed in range(2)]
    rows = [chat("Yes.", bad), chat("No.", bad, question="Why?")]
    rows += [chat("Longer. " * 40, goods[0]), chat("No.", goods[0], question="Why?")]
    rows += [chat("No.", goods[1]), chat("Ok.", goods[1], question="Why?")]
    data = dataset(rows, skip_bad=True, share_media=True)
    assert len(data) == 3
    item = data[0]
    assert item["sample_ids"] == ["row:4", "row:5"] and len(item["input_ids"]) <= data.measures[0].length
    assert [bad.sample_id for bad in item["skipped"]] == ["row:0", "row:1"]


def test_items_are_counted_from_the_end_as_well(dataset):
    data = dataset(unlike_samples()[:3])
    assert data[-1]["sample_ids"] == ["row:2"]
    with pytest.raises(IndexError):
        data[3]


# -------------------------------------------------------------------------------------------------------------- lines


def test_rows_are_found_by_their_place_in_the_file(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes('{"a": "ä"}\r\n\n  \n{"a": 2}\nno JSON\n{"a": 4}'.encode())
    rows = JsonLines(path)
    again = pickle.loads(pickle.dumps(rows))  # as processes of a data loader may get them
    for read in (rows, again):
        assert len(read) == 4 and [read[index] for index in (3, 0, 1)] == [{"a": 4}, {"a": "ä"}, {"a": 2}]
        assert [read.name(index) for index in range(4)] == [f"{path}:{line}" for line in (1, 4, 5, 6)]
        with pytest.raises(BadSample, match="data.jsonl:5: the line is not JSON"):
            read[2]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_data_file_that_changes_while_it_is_in_use_is_an_error(is_open, tmp_path):
    path = Path(write(tmp_path / "data.jsonl", *(chat(f"{number}.") for number in range(1000))))
    rows = JsonLines(path)
    assert len(rows) == 1000 and (not is_open or rows[999])
    os.truncate(path, 5000)
    with pytest.raises(OSError, match="data.jsonl has changed while it was in use"):
        rows[999]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, OSError, "cannot be read: No such file"),
        (lambda path: path.mkdir(), OSError, "cannot be read: it is not a regular file"),
        (lambda path: os.mkfifo(path), OSError, "cannot be read: it is not a regular file"),
        (lambda path: path.write_text("\n \n"), ValueError, "is empty: one JSON object a line is accepted"),
    ],
    ids=["none", "folder", "pipe", "blank"],
)
def test_what_is_no_data_file_is_refused(make, error, message, tmp_path, encoder):
    path = tmp_path / "data.jsonl"
    make(path)
    with pytest.raises(error, match=f"The data file {path} {message}"):
        ChatDataset([DataSource(path)], encoder)


# ------------------------------------------------------------------------------------------------------- kept measures


@pytest.fixture
def file(tmp_path):
    """Rows with and without ids and media, two of them bad."""
    image(height=60, width=60).save(tmp_path / "a.png")
    image(height=60, width=120).save(tmp_path / "b.png")
    pictures = [{"type": "image", "path": name} for name in ("a.png", "b.png")]
    return write(
        tmp_path / "data.jsonl",
        *(chat("A dog.", id=7), "", "{", chat("Both.", *pictures)),
        *(chat("A square.", CLIP_ITEM), chat("Red.", CLIP_ITEM, question="Its colour?")),
        *(chat("Yes.", pictures[0]), chat("No.", pictures[0], question="Is it?")),
        *(chat("A cat.", {"type": "image", "path": "missing.png"}), chat("No.", pictures[1], id="last")),
    )


def facts(data):
    """All that a run reads of a dataset before its first step."""
    samples = [[(sample.id, sample.messages) for sample in data.samples(index)] for index in range(len(data))]
    return data.measures, data.source_of, [str(bad) for bad in data.skipped], data.fingerprint, samples


@pytest.fixture
def load(processor):
    """A dataset of a file, and how many of its rows were measured."""

    def load(file, share_media=False, max_length=None, skip_bad=True, num_frames=2):
        encoder, measured = SampleEncoder(processor, max_length, num_frames=num_frames), []
        measure = encoder.measure
        encoder.measure = lambda sample: measured.append(sample.id) or measure(sample)
        return ChatDataset([DataSource(file)], encoder, skip_bad, share_media), len(measured)

    return load


def kept(file):
    return sorted(Path(file).parent.glob(".data.jsonl.*"))


@pytest.mark.parametrize("share_media", [False, True])
def test_measures_are_kept_beside_the_data(share_media, file, load):
    first, measured = load(file, share_media)
    assert measured == 8 and len(kept(file)) == 1
    again, measured = load(file, share_media)
    assert measured == 1  # what is bad may be mended
    assert facts(again) == facts(first)
    samples = [sample for index in range(len(first)) for sample in first.samples(index)]
    rows = [{"id": sample.id, "messages": sample.messages} for sample in samples]
    in_memory = ChatDataset([DataSource(rows)], first.encoder, share_media=share_media)
    assert in_memory.measures == first.measures and in_memory.fingerprint == first.fingerprint


def test_the_fingerprint_is_that_of_ids_and_lengths(file, load):
    """Runs that were saved before measures were kept go on."""
    data, _ = load(file)
    digest = hashlib.sha256()
    for index, measure in enumerate(data.measures):
        digest.update(repr((data.samples(index)[0].id, measure.length)).encode())
    assert data.fingerprint == digest.hexdigest()
    shared, _ = load(file, share_media=True)
    digest.update(repr([len(shared.samples(index)) for index in range(len(shared))]).encode())
    assert shared.fingerprint == digest.hexdigest()


def test_a_mended_row_is_measured_and_kept(file, load, tmp_path):
    load(file)
    shutil.copy(tmp_path / "a.png", tmp_path / "missing.png")
    data, measured = load(file)
    assert measured == 1 and len(data) == 8 and [bad.sample_id for bad in data.skipped] == [f"{file}:3"]
    assert load(file)[1] == 0


def test_a_bad_row_is_an_error_and_what_was_measured_before_it_is_kept(file, load):
    write(Path(file), chat("A dog."), chat("A cat.", {"type": "image", "path": "missing.png"}), chat("A cow."))
    for _ in range(2):
        with pytest.raises(BadSample, match="data.jsonl:2: .*missing.png"):
            load(file, skip_bad=False)
    assert load(file)[1] == 2  # the bad one, and that behind it
    assert load(file)[1] == 1
    with pytest.raises(BadSample, match="data.jsonl:2: .*missing.png"):
        load(file, skip_bad=False)


def test_the_limit_of_lengths_holds_for_kept_measures(file, load):
    data, _ = load(file)
    limit = max(measure.length for measure in data.measures) - 1
    short, _ = load(file, max_length=limit)
    assert len(short) < len(data) and all(measure.length <= limit for measure in short.measures)
    assert any(f"more than the limit of {limit:,}" in str(bad) for bad in short.skipped)
    assert facts(load(file)[0]) == facts(data)


@pytest.mark.parametrize("share_media", [False, True])
def test_a_changed_medium_is_measured_anew(share_media, file, load, tmp_path):
    picture = tmp_path / "a.png"
    write(Path(file), chat("A square.", {"type": "image", "path": "a.png"}), chat("A dog."))
    before, _ = load(file, share_media)
    status = picture.stat()
    image(height=60, width=600).save(picture)
    after, measured = load(file, share_media)
    assert measured == 1 and after.measures[0].length != before.measures[0].length
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # of the same size
    assert load(file, share_media)[1] == 1 and load(file, share_media)[1] == 0


def test_a_changed_data_file_is_measured_anew(file, load):
    load(file)
    lines = Path(file).read_text().splitlines()
    rows = [line for line in lines if "missing" not in line and line != "{"]
    write(Path(file), *rows, chat("Much longer than before."))
    data, measured = load(file, skip_bad=False)
    assert measured == len(data) == 8 and len(kept(file)) == 1


def test_what_decides_lengths_decides_which_measures_are_read(file, load, processor, monkeypatch):
    load(file)
    assert load(file, num_frames=3)[1] == 8 and load(file, share_media=True)[1] == 8
    monkeypatch.setattr(processor, "image_end_tokens", "\n\n")
    assert load(file)[1] == 8
    assert len(kept(file)) == 4 and load(file)[1] == 1
    monkeypatch.undo()
    assert load(file)[1] == 1


def test_data_and_media_may_move_together(tmp_path, load):
    (tmp_path / "a").mkdir()
    image().save(tmp_path / "a" / "a.png")
    load(write(tmp_path / "a" / "data.jsonl", chat("Yes.", {"type": "image", "path": "a.png"}), chat("A dog.")))
    (tmp_path / "a").rename(tmp_path / "b")
    data, measured = load(str(tmp_path / "b" / "data.jsonl"))
    assert measured == 0
    assert [data.samples(index)[0].id for index in range(2)] == [f"{tmp_path}/b/data.jsonl:{line}" for line in (1, 2)]
    assert data[0]["pixel_values"].shape[0]


@pytest.mark.slow
@pytest.mark.parametrize("share_media", [False, True])
def test_damaged_or_foreign_measures_are_not_believed(share_media, file, load, tmp_path):
    expected, _ = load(file, share_media)
    (path,) = kept(file)
    content = path.read_bytes()
    flipped = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(0, len(content), 37)]
    cut = [content[:length] for length in range(0, len(content), 41)]
    write(tmp_path / "other.jsonl", chat("A cat."))
    load(str(tmp_path / "other.jsonl"), share_media)
    (other,) = tmp_path.glob(".other.jsonl.*")
    for damaged in (*flipped[::4], *cut[::4], content + b"\n", b"\x00" * 100, other.read_bytes()):
        path.write_bytes(damaged)
        data, measured = load(file, share_media)
        assert measured == 8 and facts(data) == facts(expected)
        assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_told_once(file, load, tmp_path, monkeypatch):
    def fill_disk(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    told, before = [], sorted(tmp_path.iterdir())
    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    monkeypatch.setattr(measuring.logger, "warning", told.append)
    assert facts(load(file)[0]) == facts(load(file)[0])
    assert sorted(tmp_path.iterdir()) == before
    assert len(told) == 1 and f"cannot be kept in {tmp_path} (No space left on device)" in told[0]


# ------------------------------------------------------------------------------------------------- several processes

NUM_PROCESSES = 2
SHARED = [False, True]


def load_in_process(rank, folder):
    """What a process finds: of a file twice, of rows in memory, and the first bad row; how much it measured itself."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=NUM_PROCESSES)
    encoder = SampleEncoder(AutoProcessor.from_pretrained(PARITY / "published-tiny"), num_frames=2)
    measure, measured, results = encoder.measure, [], []
    encoder.measure = lambda sample: measured.append(sample.id) or measure(sample)

    def load(rows, **options):
        measured.clear()
        data = ChatDataset([DataSource(rows)], encoder, **options)
        distributed.barrier()  # until what is kept is written
        return data, list(measured)

    for share_media in SHARED:
        options = {"share_media": share_media, "skip_bad": True}
        cold, warm = (load(folder / "data.jsonl", **options) for _ in range(2))
        in_memory = load(samples_in_memory(), **options)
        with pytest.raises(BadSample) as error:
            load(folder / "data.jsonl", share_media=share_media)
        with pytest.raises(BadSample) as late:
            load(folder / "late.jsonl", share_media=share_media)
        loaded = [(facts(data)[:4], own) for data, own in (cold, warm, in_memory)]
        results.append((loaded, str(error.value), str(late.value)))
    with pytest.raises(ValueError, match="have unlike numbers of rows in row:0"):
        load([chat()] * (4 + rank))
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(results))
    distributed.destroy_process_group()


def samples_in_memory():
    """Some of them about the same object."""
    clip, picture = video_item(num_frames=2), image_item()
    return [
        *(chat(answer, item) for item in (clip, picture) for answer in ("Yes.", "No.", "Perhaps.")),
        *unlike_samples(),
    ]


@pytest.fixture
def late(file):
    """The first bad row is in the share of the last process."""
    good = [line for line in Path(file).read_text().splitlines() if "missing" not in line and line != "{"]
    return write(Path(file).with_name("late.jsonl"), *good, "[", "{")


@pytest.mark.slow
def test_processes_measure_shares_and_find_what_one_would(file, late, load, tmp_path):
    run_in_processes(load_in_process, tmp_path, num_processes=NUM_PROCESSES)
    results = [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(NUM_PROCESSES)]
    assert len(kept(file)) == len(SHARED)
    for path in kept(file):
        path.unlink()
    for number, share_media in enumerate(SHARED):
        alone, _ = load(file, share_media)
        in_memory = ChatDataset([DataSource(samples_in_memory())], alone.encoder, True, share_media)
        measured = []
        for loaded, error, late_error in (result[number] for result in results):
            (cold, own), (warm, again), (rows, own_rows) = loaded
            assert cold == warm == facts(alone)[:4] and rows == facts(in_memory)[:4]
            assert error.startswith(f"Sample {file}:3: ") and late_error.startswith(f"Sample {late}:9: ")
            assert len(again) <= 1  # the one with a missing medium
            assert len(own_rows) == (12 if share_media else 6)
            measured += own
        assert len(measured) == len(set(measured)) == 8
