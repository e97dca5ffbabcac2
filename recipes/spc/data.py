"""
Writes charts as pictures, and two questions about each: its class, and what it shows in words.

    python -m recipes.spc.data OUT
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transformers_omnivinci.tasks import SeriesStyle, draw_series, task_row, write_rows

from .charts import KINDS, Chart, make_chart
from .explaining import explain

STYLE = SeriesStyle(width=64, height=64, line_width=1.2, margin=0.02)
SCALE = (-7.0, 7.0)
"""Standard deviations at the edges of a picture."""
LIMITS = (-3.0, 0.0, 3.0)
"""Control limits and the mean, drawn as levels."""
CLASS_QUESTION = "What class do these images belong to?"
"""As in figure 13 of the paper, without the list of classes, which fine-tuning teaches as well."""
WORDS_QUESTION = "What does it show?"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.spc.data", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--train", type=int, default=600, help="charts of each class to train on")
    parser.add_argument("--test", type=int, default=60, help="charts of each class to test on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        for number, (split, count) in enumerate((("train", options.train), ("test", options.test))):
            if count < 1:
                raise ValueError(f"{count} charts of each class: at least one is accepted.")
            rng = np.random.default_rng([options.seed, number])
            charts = [make_chart(kind, rng, split == "test") for _ in range(count) for kind in KINDS]
            write_split(options.out, split, charts)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def write_split(out: Path, split: str, charts: list[Chart]) -> None:
    """Writes `SPLIT.jsonl`, the pictures, and `SPLIT.npz` with the values and classes, for the baselines."""
    write_rows(out / f"{split}.jsonl", rows_of(out, split, charts))
    np.savez_compressed(
        out / f"{split}.npz",
        values=np.array([chart.values for chart in charts]),
        kinds=np.array([chart.kind for chart in charts]),
    )
    (out / "settings.json").write_text(json.dumps({"classes": list(KINDS)}) + "\n")


def rows_of(out: Path, split: str, charts: list[Chart]) -> Iterator[dict]:
    """Draws each chart, and gives two rows about it."""
    (out / "pictures" / split).mkdir(parents=True, exist_ok=True)
    for number, chart in enumerate(charts):
        path = out / "pictures" / split / f"{number}.png"
        draw_series(chart.values, STYLE, SCALE, LIMITS).save(path, compress_level=1)
        picture = [{"type": "image", "path": path.relative_to(out).as_posix()}]
        told = {"kind": chart.kind, "facts": chart.facts}
        name = f"{split}/{number}"
        yield task_row(f"{name}/class", picture, CLASS_QUESTION, chart.kind, {"about": "class"} | told)
        words = explain(chart.kind, chart.facts)
        yield task_row(f"{name}/words", picture, WORDS_QUESTION, words, {"about": "words"} | told)


if __name__ == "__main__":
    main()
