"""What the data engine writes, opened by the libraries that it is written for: `datasets` and `webdataset`."""

import json

import numpy as np
import pytest
import webdataset
from datasets import Audio, List, Video, load_dataset

from transformers_omnivinci.data_engine.backends.protocol import Reply
from transformers_omnivinci.data_engine.clip_media import wav
from transformers_omnivinci.data_engine.config import EngineConfig
from transformers_omnivinci.data_engine.engine import HereRunner, curate
from transformers_omnivinci.data_engine.typed import read
from transformers_omnivinci.media import probe_video
from transformers_omnivinci.synthetic import write_reels


class Voice:
    model = "voice"

    def complete(self, requests):
        return [Reply("", sound=wav(np.sin(np.arange(4000)))) for _ in requests]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    films = [str(path) for path in write_reels(folder / "films", 3, 40)]
    asking = {"backend": "captioner"}
    content = {
        "split": {"segment_seconds": 16, "clip_seconds": 8},
        "backends": {
            "captioner": {"type": "test-captioner"},
            "reasoner": {"type": "test-reasoner"},
            "answerer": {"type": "test-answerer"},
            "voice": {"type": "espeak"},
        },
        "stages": {
            "visual_caption": asking,
            "audio_caption": asking,
            "cross_modal_correction": {"backend": "reasoner"},
            "questions": {"backend": "reasoner"},
            "filter": {"backend": "answerer"},
            "speech_prompts": {"voice": "voice", "share": 0.5},
        },
        "write": {"formats": ["parquet", "datasets", "webdataset"], "shard_megabytes": 0.5},
    }
    config = read(EngineConfig, content, "the config")
    curate(config, films, folder / "out", HereRunner({"voice": Voice()}), check=False)
    return folder / "out"


@pytest.fixture(scope="module")
def chats(out):
    rows = map(json.loads, (out / "chats.jsonl").read_text().splitlines())
    return {chat["id"]: chat for chat in rows}


def answers(messages) -> list[str]:
    return [item["text"] for message in messages for item in message["content"] if item["type"] == "text"]


def test_datasets_opens_the_folder_with_videos_and_sounds(out, chats, tmp_path):
    data = load_dataset(str(out / "dataset"), split="train", cache_dir=str(tmp_path))
    assert data.features["video"] == Video() and data.features["audio"] == List(Audio())
    assert len(list((out / "dataset" / "data").iterdir())) > 2
    data = data.cast_column("video", Video(decode=False)).cast_column("audio", List(Audio(decode=False)))
    found = {}
    for row in data:
        start, end = row["provenance"]["start"], row["provenance"]["end"]
        assert probe_video(row["video"]["bytes"]).duration >= end - start - 0.3
        for chat in row["chats"]:
            found[chat["id"]] = answers(chat["messages"])
            if chat["speech"] is not None:
                assert row["audio"][chat["speech"]]["bytes"].startswith(b"RIFF")
    assert found == {name: answers(chat["messages"]) for name, chat in chats.items()}
    streamed = load_dataset(str(out / "dataset"), split="train", streaming=True)
    assert streamed.features == load_dataset(str(out / "dataset"), split="train", cache_dir=str(tmp_path)).features


def test_datasets_opens_parquet_and_shards(out, chats, tmp_path):
    table = load_dataset("parquet", data_files=str(out / "chats.parquet"), split="train", cache_dir=str(tmp_path))
    assert {row["id"]: answers(row["messages"]) for row in table} == {
        name: answers(chat["messages"]) for name, chat in chats.items()
    }
    shards = load_dataset(
        str(out / "shards"), split="train", cache_dir=str(tmp_path)
    )  # the default: those of segments
    assert shards.features["mp4"] == Video()
    rows = shards.cast_column("mp4", Video(decode=False))
    found = {chat["id"] for row in rows for chat in row["json"]["chats"]}
    assert found == {name for name in chats if len(answers(chats[name]["messages"])) == 2}
    # To make rows of the others, `datasets` needs torchcodec, which needs FFmpeg on the machine.
    spoken = load_dataset(str(out / "shards"), "mp4-wav", split="train", streaming=True)
    assert spoken.features["wav"] == Audio() and spoken.features["mp4"] == Video()


def test_webdataset_reads_the_shards(out, chats):
    paths = sorted(map(str, (out / "shards").glob("*.tar")))
    assert len(paths) > 3
    found = {}
    for sample in webdataset.WebDataset(paths, shardshuffle=False).decode():
        assert probe_video(sample["mp4"]).duration > 1
        for chat in sample["json"].get("chats", [sample["json"]]):
            assert chat["id"] not in found
            found[chat["id"]] = answers(chat["messages"])
        assert ("wav" in sample) == ("chats" not in sample["json"])
    assert found == {name: answers(chat["messages"]) for name, chat in chats.items()}
