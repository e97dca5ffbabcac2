"""
When each token of a transcript is said, by the attention of a Whisper that is told the transcript: some heads of its
decoder look at the sound of the token that comes next (Radford et al., arXiv 2212.04356, and its code of 2023).
"""

import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.media import load_audio
from transformers_omnivinci.new_file import new_file

from .rooms import RATE

POSITIONS_PER_SECOND = 50
"""Of Whisper's encoder."""
LONGEST = 10.0
"""Seconds of a sound: Whisper pads to 30 s, which would take three times as long."""
SPANS = "spans.json"

Span = tuple[int, float, float]
"""A token of the language model, and the seconds from which and to which it is said."""


def warp(costs: np.ndarray) -> np.ndarray:
    """
    Dynamic time warping.

    Args:
        costs (`np.ndarray` of shape `(rows, columns)`): Of each row at each column.

    Returns:
        `np.ndarray` of shape `(rows,)`: the first column of each row, on the cheapest path from the first corner to
        the last, which moves on by a row, a column or both at a time.
    """
    total = [[0.0] + [math.inf] * costs.shape[1]]  # lists: single numbers of an array take much longer
    for row in costs.tolist():
        above, here = total[-1], [math.inf]
        for column, cost in enumerate(row):
            here.append(cost + min(above[column], above[column + 1], here[column]))
        total.append(here)
    firsts = np.zeros(costs.shape[0], dtype=int)
    row, column = costs.shape
    while row:
        firsts[row - 1] = column - 1
        if column == 1:
            row -= 1
            continue
        steps = {(1, 1): total[row - 1][column - 1], (1, 0): total[row - 1][column], (0, 1): total[row][column - 1]}
        down, left = min(steps, key=steps.get)
        row, column = row - down, column - left
    return firsts


def spans_of(
    ids: Sequence[int], places: Sequence[tuple[int, int]], known: Sequence[int], starts: Sequence[float], end: float
) -> list[Span]:
    """
    Carries times over from one tokenizer's tokens to those of another: in between, characters pass evenly.

    Args:
        ids, places: The tokens, and the characters that each of them has, as first and end.
        known, starts: The first characters of the other's tokens, and the seconds at which they start.
        end: The second at which the last of them ends.
    """
    points, seconds = [*known, places[-1][1]], [*starts, end]
    return [
        (token, *(round(float(np.interp(place, points, seconds)), 3) for place in places_of))
        for token, places_of in zip(ids, places, strict=True)
    ]


def tokens_at(spans: Sequence[Span], seconds: np.ndarray) -> np.ndarray:
    """The token that is said at each of some seconds, [`IGNORED`] where there is none."""
    tokens = np.full(len(seconds), IGNORED)
    for token, start, end in spans:
        tokens[(start <= seconds) & (seconds < end)] = token
    return tokens


class Aligner:
    """
    Finds when tokens are said.

    Args:
        whisper (`Path`): A Whisper's folder, whose generation config names the `alignment_heads`.
        checkpoint (`Path`): The model whose tokens are looked for.
        bf16 (`bool`, *optional*, defaults to `False`): Whether matrices are multiplied in bfloat16.

    Raises:
        ValueError: the Whisper does not say which of its heads tell the time.
    """

    def __init__(self, whisper: Path, checkpoint: Path, bf16: bool = False):
        self.model = WhisperForConditionalGeneration.from_pretrained(whisper, attn_implementation="eager").eval()
        self.heads = getattr(self.model.generation_config, "alignment_heads", None)
        if not self.heads:
            raise ValueError(f"{whisper} has no `alignment_heads` in its generation_config.json, which tell the time.")
        self.extractor = WhisperFeatureExtractor.from_pretrained(whisper, chunk_length=round(LONGEST))
        encoder, positions = self.model.get_encoder(), round(LONGEST * POSITIONS_PER_SECOND)
        encoder.embed_positions = nn.Embedding.from_pretrained(encoder.embed_positions.weight[:positions])
        encoder.config.max_source_positions = encoder.max_source_positions = positions
        self.tokenizer, self.other = (AutoTokenizer.from_pretrained(folder) for folder in (checkpoint, whisper))
        self.bf16 = bf16
        self.opening = self.other.convert_tokens_to_ids(["<|startoftranscript|>", "<|notimestamps|>"])

    @torch.no_grad()
    def align(self, samples: np.ndarray, text: str) -> list[Span]:
        """
        When the tokens of a text are said in a sound of at most [`LONGEST`] seconds, float32 (num_samples,), 16 kHz.
        The text is read as one that goes on, in which each word has its space before it.
        """
        mine, others = (
            tokenizer(f" {text}", add_special_tokens=False, return_offsets_mapping=True)
            for tokenizer in (self.tokenizer, self.other)
        )
        features = self.extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"]
        ids = torch.tensor([[*self.opening, *others["input_ids"], self.other.eos_token_id]])
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.bf16):
            attentions = self.model(features, decoder_input_ids=ids, output_attentions=True).cross_attentions
        heard = -(-len(samples) * POSITIONS_PER_SECOND // RATE)
        # A position attends to the sound of the token that it writes, the next one.
        weights = torch.stack([attentions[layer][0, head, len(self.opening) - 1 : -1] for layer, head in self.heads])
        weights = weights[..., :heard].float()
        weights = (weights - weights.mean(1, keepdim=True)) / weights.std(1, keepdim=True).clamp(min=1e-6)
        starts = warp(-weights.mean(0).numpy()) / POSITIONS_PER_SECOND
        known = [first for first, _ in others["offset_mapping"]]
        return spans_of(mine["input_ids"], mine["offset_mapping"], known, starts[:-1], starts[-1])


def align_set(rows: Path, whisper: Path, checkpoint: Path, workers: int = 1, bf16: bool = False) -> Path:
    """
    Writes when the tokens of a set's transcripts are said, a file for each shard, unless that is done.

    Args:
        rows: The file of [`write_set`].
        whisper, checkpoint, bf16: As of [`Aligner`].
        workers: Processes.

    Returns:
        `Path`: the folder of the set.
    """
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    shards = {}
    for name, shard in groupby(told, key=lambda row: Path(row["messages"][0]["content"][0]["path"]).parent):
        shards[rows.parent / name] = [
            (row["messages"][0]["content"][0]["path"], row["messages"][-1]["content"]) for row in shard
        ]
    missing = {
        folder: said for folder, said in shards.items() if not read_spans(folder).keys() >= {path for path, _ in said}
    }
    align = partial(_align_shard, rows.parent, (whisper, checkpoint, bf16))
    if workers > 1 and len(missing) > 1:
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            list(pool.map(align, missing, missing.values()))
    else:
        for folder, said in missing.items():
            align(folder, said)
    return rows.parent


def read_spans(shard: Path) -> dict[str, list[Span]]:
    """What [`align_set`] has found in a shard, by the path of the sound from the set's folder."""
    path = shard / SPANS
    return json.loads(path.read_text()) if path.is_file() else {}


_aligner = cache(Aligner)


def _align_shard(folder: Path, asked: tuple[Path, Path, bool], shard: Path, said: list[tuple[str, str]]) -> None:
    align = _aligner(*asked).align
    found = {path: align(load_audio(folder / path, sampling_rate=RATE), text) for path, text in said}
    with new_file(shard / SPANS) as new:
        new.write_text(json.dumps(found))
