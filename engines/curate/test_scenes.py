"""Clips that end at the cuts of a film, found by PySceneDetect."""

import numpy as np

from transformers_omnivinci.data_engine.columns import Span
from transformers_omnivinci.data_engine.config import SplitConfig
from transformers_omnivinci.data_engine.split import Split
from transformers_omnivinci.data_engine.typed import read
from transformers_omnivinci.synthetic import Clip, write_clip


def test_clips_end_at_the_cuts_of_a_film(tmp_path):
    colours, seconds = [(20, 20, 20), (230, 230, 230), (200, 30, 30)], (7, 12, 5)
    frames = [np.full((10 * length, 64, 64, 3), colour, np.uint8) for length, colour in zip(seconds, colours)]
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 24 * 16_000).astype(np.float32)
    write_clip(tmp_path / "film.mp4", Clip(np.concatenate(frames), sound, 10, 16_000))
    config = SplitConfig(by="scene", segment_seconds=20, clip_seconds=10, shortest_clip=1)
    rows = Split(config)([{"source": str(tmp_path / "film.mp4")}])
    clips = [read(Span, clip, "clip") for row in rows for clip in row["clips"]]
    assert clips == [Span(0, 7), Span(7, 17), Span(17, 19), Span(19, 24)]
    assert [(row["start"], row["end"]) for row in rows] == [(0, 19), (19, 24)]
