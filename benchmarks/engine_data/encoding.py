"""Clips as the frozen encoders of nano give them, encoded once for all runs, and what a model learns of them."""

import gzip
import json
import pickle
import statistics
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.new_file import new_file
from transformers_omnivinci.training import SampleEncoder
from transformers_omnivinci.training.data import Sample

from .chats import WINDOW_SECONDS, chats_about, dataset

ENCODERS = {"pixel_values_videos": "vision_tower", "input_features": "audio_tower"}
"""The encoder of each input."""


@cache
def nano() -> OmniVinciForConditionalGeneration:
    """The shipped model."""
    return OmniVinciForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).eval()


@cache
def processor() -> OmniVinciProcessor:
    """Nano's, which pads sound to whole windows, not to 30 s."""
    found = OmniVinciProcessor.from_pretrained(NANO)
    found.audio_pad_to_multiple_of = WINDOW_SECONDS
    return found


def warm_up() -> None:
    """Starts a process while others still make its data."""
    nano()
    processor()


@cache
def read_engine(folder: Path) -> dict[str, dict[str, list]]:
    """What `chats.run_engine` has kept."""
    return json.loads(gzip.decompress((folder / "engine.json.gz").read_bytes()))


@torch.no_grad()
def encode(name: str, size: int, folder: Path, most: int | None, part: int, parts: int, path: Path) -> None:
    """Writes what the encoders give for one part of the clips, and the sequences of the chats about them."""
    engine = read_engine(folder) if name == "train" else {}
    encoders = {hears: SampleEncoder(processor(), load_audio_from_video=hears) for hears in (True, False)}
    encoded = []
    for index in range(part, size, parts):
        film = str(folder / "films" / f"{dataset(name, size)[index].id}.mp4")
        clip: dict[str, dict] = {"features": {}}
        for senses, groups in chats_about(name, size, index, engine, most).items():
            medium = {"type": "audio", "audio": film} if senses == "blind" else {"type": "video", "video": film}
            chats = [_sample(medium, *pair) for pairs in groups.values() for pair in pairs]
            if not chats:
                continue
            item = encoders[senses != "deaf"].encode(*chats)
            features = {name: item.pop(name) for name in ENCODERS if name in item}
            for key, value in features.items():
                if key not in clip["features"]:
                    hidden = getattr(nano().model, ENCODERS[key])(value).last_hidden_state
                    clip["features"][key] = hidden.half().numpy()
            item = {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in item.items()}
            item["groups"] = [group for group, pairs in groups.items() for _ in pairs]
            item["inputs"] = list(features)
            clip[senses] = item
        encoded.append(clip)
    with new_file(path) as written:
        written.write_bytes(pickle.dumps(encoded, protocol=5))


def _sample(medium: dict, question: str, answer: str) -> Sample:
    content = [medium, {"type": "text", "text": question}]
    told = [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    return Sample(question, told)


@cache
def read_encoded(name: str, folder: Path) -> list[dict]:
    """What [`encode`] has written."""
    paths = sorted((folder / "encoded").glob(f"{name}-*.pickle"))
    return list(chain.from_iterable(pickle.loads(path.read_bytes()) for path in paths))


class Learned(Sequence):
    """Clips as a model gets them: of some senses, with some groups of chats."""

    def __init__(self, clips: list[dict], senses: str, groups: Sequence[str]):
        texts = [(clip, _select(clip[senses], groups)) for clip in clips if senses in clip]
        self.items = [(clip["features"], text) for clip, text in texts if (text["labels"] != IGNORED).any()]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        features, text = self.items[index]
        item = {name: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for name, one in text.items()}
        item |= {name: torch.from_numpy(features[name]).float() for name in item.pop("inputs")}
        return item

    def count(self) -> dict[str, float]:
        """What a clip has on average: chats, tokens of answers, positions of the sequence."""
        texts = [text for _, text in self.items]
        return {
            "chats": statistics.mean(len(text["sample_ids"]) for text in texts),
            "answer tokens": statistics.mean(float((text["labels"] != IGNORED).sum()) for text in texts),
            "positions": statistics.mean(len(text["input_ids"]) for text in texts),
        }


def _select(item: dict, groups: Sequence[str]) -> dict:
    """The sequence of a clip with the chats of some groups alone. Chats do not see each other, whatever is left."""
    item, found = dict(item), item["groups"]
    del item["groups"]
    if "segment_ids" not in item:
        return item
    chosen = [number for number, group in enumerate(found, start=1) if group in groups]
    is_kept = np.isin(item["segment_ids"], [0, *chosen])
    for name in ("input_ids", "labels", "position_ids", "segment_ids"):
        item[name] = item[name][is_kept]
    item["sample_ids"] = [item["sample_ids"][number - 1] for number in chosen]
    return item
