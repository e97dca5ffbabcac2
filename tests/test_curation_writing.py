"""What the data engine writes of finished segments: formats, repeats, cards, and what a full disk makes of them."""

import dataclasses
import json
import os
import random
import resource
import shutil
import sqlite3
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor
from typer.testing import CliRunner

from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.data_engine.assembly import settings_of
from transformers_omnivinci.data_engine.backends.protocol import Reply
from transformers_omnivinci.data_engine.clip_media import wav
from transformers_omnivinci.data_engine.config import EngineConfig, with_formats
from transformers_omnivinci.data_engine.engine import RUN, HereRunner, curate
from transformers_omnivinci.data_engine.likeness import likeness, triples_of
from transformers_omnivinci.data_engine.segment_ledger import FILE, SegmentLedger
from transformers_omnivinci.data_engine.typed import plain, read
from transformers_omnivinci.data_engine.writing import result_writing, segment_cuts
from transformers_omnivinci.data_engine.writing.near_duplicates import NearDuplicates, rows_of_bands
from transformers_omnivinci.data_engine.writing.result_writing import CARD, CHATS, REJECTS, TABLE, write_results
from transformers_omnivinci.training import ChatDataset, DataSource, SampleEncoder

from .test_curation import configured, films  # noqa: F401
from .test_curation_questions import BACKENDS, STAGES

FORMATS = ["parquet", "datasets", "webdataset"]


class Voice:
    model = "voice"

    def complete(self, requests):
        return [Reply("", sound=wav(np.sin(np.arange(4000 + 100 * len(one.text))))) for one in requests]


@pytest.fixture(scope="module")
def config() -> EngineConfig:
    asked = {"backend": "answerer", "rounds": 1}
    stages = {**STAGES, "filter": asked, "speech_prompts": {"voice": "voice", "share": 0.3}}
    return configured(backends={**BACKENDS, "voice": {"type": "espeak"}}, stages=stages, seed=7)


@pytest.fixture(scope="module")
def finished(films, config, tmp_path_factory):  # noqa: F811
    """A finished run, with nothing beside JSON lines."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    curate(config, films, folder, HereRunner({"voice": Voice()}), check=False)
    return folder


@pytest.fixture
def out(finished, tmp_path):
    """A copy of it, beside the films as it was."""
    return Path(shutil.copytree(finished, finished.parent / tmp_path.name))


@pytest.fixture(autouse=True)
def _blank_figures(request, monkeypatch):
    """Figures take a second each, and are drawn by one test."""
    if "figure" not in request.fixturenames:
        monkeypatch.setattr(result_writing, "draw_distribution", lambda counts, title, path: path.write_bytes(b"PNG"))


@pytest.fixture
def figure():
    """For tests whose figures are drawn."""


def write(config, out, formats=FORMATS, **changes):
    config = dataclasses.replace(config, write=dataclasses.replace(config.write, **changes))
    return curate(with_formats(config, formats), [], out, HereRunner())


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds, but for what is hidden and what tells how the run went."""
    names = ("speech", FILE, RUN)
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.relative_to(folder).parts[0] not in names
    }


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                found[member.name] = archive.extractfile(member).read()
    return found


# What training reads


def test_all_formats_train_as_json_lines_do(out, config):
    write(config, out, shard_megabytes=0.3)
    encoder = SampleEncoder(AutoProcessor.from_pretrained(NANO), num_frames=2)
    expected = ChatDataset([DataSource(out / CHATS)], encoder)
    table = ChatDataset([DataSource(out / TABLE)], encoder)
    assert table.measures == expected.measures and len(table) == len(lines(out / CHATS)) > 20
    assert len(list((out / "shards").glob("*.tar"))) > 2
    shards = ChatDataset([DataSource(out / "shards")], encoder)
    by_id = {expected.samples(number)[0].id: expected.measures[number] for number in range(len(expected))}
    for number in range(len(shards)):
        measure, other = shards.measures[number], by_id.pop(shards.samples(number)[0].id)
        # Frames are sampled by the average rate, which is a little less at the end of a cut.
        assert measure.modalities == other.modalities and abs(measure.length - other.length) <= 4
    assert not by_id
    for number in (0, len(shards) - 1):  # a segment, and a spoken question
        assert len(shards[number]["input_ids"]) == shards.measures[number].length


def test_rows_of_the_folder_for_datasets_have_their_media(out, config):
    write(config, out, ["datasets"])
    (path,) = (out / "dataset" / "data").iterdir()
    rows = pq.read_table(path).to_pylist()
    chats = {chat["id"]: chat for chat in lines(out / CHATS)}
    found = {}
    for row in rows:
        assert row["video"]["bytes"][4:8] == b"ftyp" and row["video"]["path"] == f"{row['id']}.mp4"
        for chat in row["chats"]:
            found[chat["id"]] = chat
            item = chats[chat["id"]]["messages"][0]["content"][1]
            if chat["speech"] is not None:
                assert row["audio"][chat["speech"]]["bytes"] == (out / item["path"]).read_bytes()
        assert row["provenance"] == chats[row["chats"][0]["id"]]["provenance"]
    assert found.keys() == chats.keys() and any(chat["speech"] is not None for chat in found.values())
    features = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
    assert features["video"] == {"_type": "Video"} and features["audio"]["feature"] == {"_type": "Audio"}


def test_each_chat_tells_where_it_comes_from(out, config):
    for chat in lines(out / CHATS):
        provenance = chat["provenance"]
        assert provenance["seed"] == 7 and (out / provenance["source"]).is_file()
        assert provenance["end"] > provenance["start"]
        assert [stage["stage"] for stage in provenance["stages"]][:4] == [*STAGES][:4]
        assert all("@" in stage["prompt"] and stage["model"] and stage["backend"] for stage in provenance["stages"])


# The same whatever came back first, and after whatever happened


def test_the_order_in_which_segments_come_back_changes_nothing(out, config):
    with SegmentLedger(out, settings_of(config)) as ledger:
        for name in ("z", "y", "x"):
            ledger.add({"id": name, "source": name, "rejected": {"stage": "split", "reason": "It has no sound."}})
    write(config, out, shard_megabytes=0.3)
    before = contents(out)
    assert [row["id"] for row in lines(out / REJECTS)] == ["x", "y", "z"]
    header, *rows = (out / FILE).read_text().splitlines(keepends=True)
    random.Random(1).shuffle(rows)
    for folder in ("dataset", "shards"):
        shutil.rmtree(out / folder)
    (out / FILE).write_text("".join([header, *rows]))
    write(config, out, shard_megabytes=0.3)
    assert contents(out) == before


def test_what_was_written_is_not_written_again(out, config, monkeypatch):
    write(config, out, shard_megabytes=0.3)
    before = contents(out)
    paths = [
        path for folder in ("dataset/data", "shards") for path in (out / folder).iterdir() if path.stem[-1:].isdigit()
    ]
    assert len(paths) > 4
    for path in paths:
        os.utime(path, (1, 1))
    lost, damaged, foreign = paths[0], paths[-1], out / "shards" / "mp4-000099.tar"
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:1000])
    foreign.write_bytes(b"of a run that had more")
    (out / "shards" / ".mp4-000001.1234.incomplete.tar").write_bytes(b"of one that was killed")
    write(config, out, shard_megabytes=0.3)
    assert contents(out) == before
    assert {path for path in paths if path.stat().st_mtime != 1} == {lost, damaged}
    assert not list(out.rglob("*.incomplete*"))
    monkeypatch.setattr(segment_cuts, "cut_video", None)  # nothing is cut where all is there
    write(config, out, shard_megabytes=0.3)
    (out / segment_cuts.CUTS).write_bytes(b"no database, but something that is long enough to be taken for one" * 9)
    with pytest.raises(TypeError, match="not callable"):
        write(config, out, shard_megabytes=0.3)


def test_shards_are_bounded_and_have_each_sample_once(out, config):
    write(config, out, ["webdataset"], shard_megabytes=0.5)
    sizes = {path.name: path.stat().st_size for path in (out / "shards").glob("*.tar")}
    assert max(sizes.values()) <= 500_000 and len(sizes) > 3
    index = json.loads((out / "shards" / "shards.json").read_text())
    assert {one["url"]: one["filesize"] for one in index["shardlist"]} == sizes
    found = members(out / "shards")
    keys = {name.partition(".")[0] for name in found}
    assert sum(one["nsamples"] for one in index["shardlist"]) == len(keys)
    for key in keys:
        assert found[f"{key}.mp4"][4:8] == b"ftyp" and json.loads(found[f"{key}.json"])["id"] == key
    spoken = [chat["id"] for chat in lines(out / CHATS) if chat["messages"][0]["content"][1]["type"] == "audio"]
    assert {f"{name}.wav" for name in spoken} == {name for name in found if name.endswith(".wav")} != set()
    write(config, out, ["webdataset"], shard_megabytes=0.001)
    assert members(out / "shards") == found
    assert len(list((out / "shards").glob("*.tar"))) == len(keys)


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(name, out, config):
    write(config, out, [name])
    before = contents(out)
    longer = dataclasses.replace(config.write, reasoning=False, drop=[])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit of the size of files makes writes fail as a full disk does.
    least = {"parquet": 3_000, "datasets": 200_000, "webdataset": 200_000}[name]
    resource.setrlimit(resource.RLIMIT_FSIZE, (least, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: .*Finished segments are kept") as caught:
            curate(with_formats(dataclasses.replace(config, write=longer), [name]), [], out, HereRunner())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(str(caught.value).splitlines()) == 1
    assert contents(out) == before and not list(out.rglob(".*.incomplete*"))


def test_a_folder_that_cannot_be_written_is_one_sentence(out, config):
    (out / "shards").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="shards cannot be written: File exists. Finished segments are kept"):
        write(config, out, ["webdataset"])


def test_without_pyarrow_nothing_is_begun(out, config, monkeypatch, tmp_path):
    find = result_writing.importlib.util.find_spec
    monkeypatch.setattr(
        result_writing.importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name)
    )
    with pytest.raises(ImportError, match="'datasets' needs pyarrow: pip install"):
        curate(with_formats(config, ["datasets"]), ["film.mp4"], tmp_path / "new", HereRunner(), check=False)
    assert not (tmp_path / "new").exists()
    write(config, out, ["webdataset"])


def test_sources_that_have_gone_are_listed(out, config, films):  # noqa: F811
    hidden = Path(films[0]).with_suffix(".hidden")
    Path(films[0]).rename(hidden)
    try:
        write(config, out, ["webdataset"])
    finally:
        hidden.rename(films[0])
    told = [row for row in lines(out / REJECTS) if row["stage"] == "write"]
    assert len(told) == 2 and all("in no output that takes media along" in row["reason"] for row in told)
    assert len({name for name in members(out / "shards") if name.count("-") == 4 and name.endswith("json")}) == 2
    write(config, out, ["webdataset"])
    assert lines(out / REJECTS) == []


def test_the_command_writes_finished_runs_again(out, config, tmp_path):
    import yaml

    content = plain(config)
    content["stages"] = {name: value for name, value in content["stages"].items() if value}
    (tmp_path / "engine.yaml").write_text(yaml.safe_dump(content))
    arguments = ["curate", "--config", str(tmp_path / "engine.yaml"), "--output"]
    result = CliRunner().invoke(app, [*arguments, str(out), "--format", "parquet"])
    assert result.exit_code == 0, result.output
    assert "0 segments finished, 4 known before" in result.output and (out / TABLE).exists()
    for more, told in (
        ([str(out), "--format", "tfrecord"], "'parquet', 'datasets', 'webdataset' are accepted"),
        ([str(tmp_path / "none")], "No sources are given"),
    ):
        result = CliRunner().invoke(app, [*arguments, *more])
        assert result.exit_code == 1 and told in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"repeated": 2.0}, "a share above 0, up to 1"),
        ({"shard_megabytes": 0}, "a positive number"),
        ({"license": "do what: you want"}, "an identifier such as"),
    ],
)
def test_options_of_writing_are_checked(options, told, config):
    with pytest.raises(ValueError, match=told):
        read(EngineConfig, plain(config) | {"write": options}, "the config")


# What is written twice


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_texts_that_are_alike_are_found(share):
    database = sqlite3.connect(":memory:")
    duplicates, rng, found = NearDuplicates(database, share), random.Random(0), 0
    words = [f"word{number}" for number in range(2000)]
    originals = [[rng.choice(words) for _ in range(120)] for _ in range(60)]
    for number, original in enumerate(originals):
        assert duplicates.repeats(f"{number}", " ".join(original), [])[0] is None
    for number, original in enumerate(originals):
        changed = list(original)
        for place in rng.sample(range(120), rng.randrange(1, 14)):
            changed[place] = rng.choice(words)
        is_alike = likeness(triples_of(" ".join(original)), triples_of(" ".join(changed))) >= share
        other = duplicates.repeats(f"changed {number}", " ".join(changed), [])[0]
        assert other == (str(number) if is_alike else None)
        found += is_alike
    assert found > 0


@given(st.floats(0.05, 1))
def test_few_pairs_are_overlooked(share):
    rows = rows_of_bands(share)
    assert rows == 1 or (1 - share**rows) ** (128 // rows) <= 0.005


@profile(max_examples=30)
@given(st.permutations(range(6)))
def test_questions_are_compared_where_captions_are_alike(order):
    duplicates = NearDuplicates(sqlite3.connect(":memory:"), 0.8)
    same, question = "a cat sits on the mat and purrs while the rain falls", "What sits on the mat? a cat"
    told = [duplicates.repeats(str(number), same, [question, f"What is number {number}?"]) for number in order]
    assert [other for other, _ in told] == [None] + 5 * [str(order[0])]
    assert [repeated for _, repeated in told] == [[False, False]] + 5 * [[True, False]]
    assert duplicates.repeats("other", "a train leaves the station", [question]) == (None, [False])


def test_a_film_that_is_there_twice_is_written_once(config, films, tmp_path):  # noqa: F811
    copy = tmp_path / "again.mp4"
    shutil.copy(films[0], copy)
    shutil.copy(Path(films[0]).with_suffix(".events.json"), copy.with_suffix(".events.json"))
    seeds = {"write": {"repeated": None}}
    every = read(EngineConfig, plain(config) | seeds, "the config")
    report = curate(every, [films[0], str(copy)], tmp_path / "out", HereRunner({"voice": Voice()}), check=False)
    assert report.chats["caption"] == 4
    report = write(config, tmp_path / "out", [])
    assert report.chats["caption"] == 2
    told = [row for row in lines(tmp_path / "out" / REJECTS) if row["stage"] == "write"]
    assert len(told) == 2 and all("nearly that of the segment" in row["reason"] for row in told)
    ids = {row["id"] for row in told}
    kept = [chat["provenance"]["source"] for chat in lines(tmp_path / "out" / CHATS) if chat["category"] == "caption"]
    assert len(set(kept)) == 1 and len(ids) == 2
    card = (tmp_path / "out" / CARD).read_text()
    assert "2 captions and" in card and "share 80% of their word triples" in card


# The card


def test_the_card_counts_what_is_there(figure, out, config):
    write(config, out, name="Films", license="cc-by-4.0")
    chats, card = lines(out / CHATS), (out / CARD).read_text()
    spoken = sum(any(item["type"] == "audio" for item in chat["messages"][0]["content"]) for chat in chats)
    assert f"{len(chats)} chats about 4 segments of 2 videos" in card and f"in {spoken} of them" in card
    for category in {chat["category"] for chat in chats}:
        number = sum(chat["category"] == category for chat in chats)
        assert f"| {category} | {number} | {number / len(chats):.1%} |" in card
    answers = [chat["messages"][1]["content"][0]["text"] for chat in chats if chat["category"] != "caption"]
    letters = [text.rpartition("Answer: ")[2] for text in answers]
    assert sum(letter in tuple("ABCD") for letter in letters) == _total_of_letters(card)
    assert "| visual_caption | captioner: test-captioner | visual_caption.txt@" in card
    assert "the license `cc-by-4.0`" in card and '"seed": 7' in card
    assert "<summary>questions.txt@" in card and "espeak" not in card.partition("## License")[2].partition("voice")[0]
    with Image.open(out / "distribution.png") as picture:
        assert picture.size[0] > picture.size[1] > 300
    import yaml

    for folder in ("dataset", "shards"):
        _, front, body = (out / folder / CARD).read_text().split("---\n", 2)
        facts = yaml.safe_load(front)
        assert (
            facts["license"] == "cc-by-4.0" and facts["size_categories"] == ["n<1K"] and body.startswith("\n# Films")
        )
        for one in facts["configs"]:
            for files in one["data_files"]:
                assert list((out / folder).glob(files["path"]))
        assert (out / folder / "distribution.png").exists()
    write(config, out)
    assert "**No license is stated.**" in (out / CARD).read_text()
    assert "license:" not in (out / "dataset" / CARD).read_text().split("---\n")[1]


def _total_of_letters(card: str) -> int:
    table = card.partition("## Letters")[2].partition("## What was left out")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ") and line[2].isdigit()]
    return sum(int(row[1].replace(",", "")) for row in rows)


def test_nothing_finished_makes_a_card_without_shares(tmp_path, config):
    with SegmentLedger(tmp_path / "out", settings_of(config)) as ledger:
        ledger.add({"id": "a", "source": "/a 5.mp4", "rejected": {"stage": "split", "reason": "It lasts 0.5 s."}})
        ledger.add({"id": "b", "source": "/b.mp4", "rejected": {"stage": "split", "reason": "It lasts 1.5 s."}})
        written = write_results(ledger, with_formats(config, FORMATS), tmp_path / "out")
    card = (tmp_path / "out" / CARD).read_text()
    assert written.counts.chats.total() == 0 and "| split | It lasts … s. | 2 |" in card
    assert not (tmp_path / "out" / "distribution.png").exists()


def test_without_matplotlib_the_card_has_no_figure_and_says_so(figure, out, config, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = write(config, out, [])
    assert report.notes == ["The data card has no figure, as matplotlib is not installed."]
    assert "distribution.png" not in (out / CARD).read_text() and not (out / "distribution.png").exists()
