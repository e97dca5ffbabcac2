"""
Writes pictures of labelled time series, and questions about them.

    python -m recipes.time_series.data OUT --set ItalyPowerDemand
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from transformers_omnivinci.tasks import SeriesStyle, balance_classes, draw_series, task_row, write_rows

from .augmenting import augment
from .readers import SETS, Series, read_set

STYLE = SeriesStyle(width=64, height=64, line_width=1.5, margin=0.04)
QUESTION = "What class do these images belong to?"
"""As in figure 13 of the paper, without the list of classes, which fine-tuning teaches as well."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.time_series.data", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--set", default="ItalyPowerDemand", help=f"{', '.join(SETS)}, or a folder with files of UCR")
    parser.add_argument("--pictures", type=int, default=8000, help="pictures to train on")
    parser.add_argument("--strength", type=float, default=1.0, help="of augmentation")
    parser.add_argument("--limit", type=int, help="test on this many series of the test split, drawn by the seed")
    parser.add_argument(
        "--validate", action="store_true", help="test on a fifth of the training series, which are then not trained on"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        train, test = read_set(options.set)
        if options.validate:
            train, test = split_off(train, np.random.default_rng(options.seed))
        if options.limit:
            test = test.take(np.random.default_rng(options.seed).permutation(len(test))[: options.limit])
        write_set(options.out, train, test, options.pictures, options.strength, options.seed)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def split_off(series: Series, rng: np.random.Generator, share: float = 0.2) -> tuple[Series, Series]:
    """Splits series in two, each class by the share that goes into the second part."""
    chosen = np.zeros(len(series), dtype=bool)
    for label in np.unique(series.labels):
        places = rng.permutation(np.flatnonzero(series.labels == label))
        chosen[places[: max(1, round(share * len(places)))]] = True
    return series.take(~chosen), series.take(chosen)


def write_set(out: Path, train: Series, test: Series, pictures: int, strength: float, seed: int) -> None:
    """
    Writes `train.jsonl`, `test.jsonl`, the pictures, `series.npz` (for the baselines) and `set.json`.

    Args:
        out (`Path`): The folder.
        train, test ([`Series`]): Of the same channels.
        pictures (`int`):
            About how many to train on. Fewer than there are series are drawn from these; of more, the first of each
            series is the series itself.
        strength (`float`): See [`augment`].
        seed (`int`): Decides everything.
    """
    classes = sorted(set(train.labels.tolist()), key=lambda label: (len(label), label))
    unknown = sorted(set(test.labels.tolist()) - set(classes))
    if unknown:
        raise ValueError(f"The class {unknown[0]!r} is tested on, but not trained on: {', '.join(classes)} are there.")
    rng, copies = np.random.default_rng([seed, 1]), max(1, -(-pictures // len(train)))
    # Filled where values are missing, as augmentation needs all of them.
    whole = Series(_filled(train.values), train.labels)
    chosen = train if pictures >= len(train) else train.take(rng.permutation(len(train))[:pictures])
    parts = [chosen, *(augment(whole, rng, strength) for _ in range(copies - 1))]
    limits = limits_of(train)
    rows = [row for number, part in enumerate(parts) for row in _write_pictures(out, f"train/{number}", part, limits)]
    write_rows(out / "train.jsonl", balance_classes(rows, seed=seed))
    write_rows(out / "test.jsonl", _write_pictures(out, "test", test, limits))
    np.savez_compressed(
        out / "series.npz", x_train=whole.values, y_train=train.labels, x_test=_filled(test.values), y_test=test.labels
    )
    told = {"classes": classes, "train": len(train), "test": len(test), "pictures": len(rows), "seed": seed}
    told |= {"length": int(train.values.shape[2]), "channels": int(train.values.shape[1])}
    (out / "set.json").write_text(json.dumps(told) + "\n")


def limits_of(train: Series) -> tuple[float, float] | None:
    """One scale for all pictures where channels are drawn together; else each picture has its own."""
    return (np.nanmin(train.values), np.nanmax(train.values)) if train.values.shape[1] > 1 else None


def _write_pictures(out: Path, name: str, series: Series, limits) -> list[dict]:
    folder, rows = out / "pictures" / name, []
    folder.mkdir(parents=True, exist_ok=True)
    for number, (values, label) in enumerate(zip(series.values, series.labels)):
        path = folder / f"{number}.png"
        draw_series(values, STYLE, limits).save(path, compress_level=1)
        picture = {"type": "image", "path": path.relative_to(out).as_posix()}
        rows.append(task_row(f"{name}/{number}", [picture], QUESTION, str(label)))
    return rows


def _filled(values: np.ndarray) -> np.ndarray:
    """Missing values between others are interpolated, those at the ends repeat the nearest."""
    filled = values.copy()
    for line in filled.reshape(-1, values.shape[-1]):
        gone = np.isnan(line)
        if gone.all():
            raise ValueError("A series has no values at all: at least one is accepted.")
        line[gone] = np.interp(np.flatnonzero(gone), np.flatnonzero(~gone), line[~gone])
    return filled


if __name__ == "__main__":
    main()
