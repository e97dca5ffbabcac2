"""
Writes the table and the picture of the recipe.

    python -m recipes.time_series.table OUT --sets ItalyPowerDemand PenDigits --baselines GunPoint
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from recipes.results import machine, read_timed, table, write_results
from transformers_omnivinci.evaluation import (
    ConfusionMatrix,
    confusion_matrix,
    draw_confusion,
    read_answers,
    read_questions,
    wilson_interval,
)
from transformers_omnivinci.tasks import draw_series

from .baselines import linear, nearest_by_dtw
from .data import STYLE, limits_of
from .readers import Series, read_set

PAPER = {"ItalyPowerDemand": 0.9582, "PenDigits": 0.9688}
"""Table 16; PenDigits there in UCR's split (7,494 / 3,498), by writers."""
FOLDER = Path(__file__).parent


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.time_series.table", description=__doc__)
    parser.add_argument("out", type=Path, help="folder that data and answers were written to")
    parser.add_argument("--sets", nargs="+", default=[*PAPER], help="sets with answers of a model")
    parser.add_argument("--baselines", nargs="*", default=[], help="sets with baselines alone")
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder of README.md, results.json and results.png")
    options = parser.parse_args(arguments)
    try:
        results = {name: model_result(options.out / name) for name in options.sets}
        results |= {name: baseline_result(*arrays_of_set(name)) for name in options.baselines}
        for name, result in results.items():
            result["paper"] = PAPER.get(name)
        options.to.mkdir(parents=True, exist_ok=True)
        draw(options.out, options.sets, results, options.to / "results.png")
        text = f"{table_of(results)}\n\n{machine()}."
        write_results({"sets": results, "machine": machine()}, text, options.to, options.to / "README.md")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def model_result(folder: Path) -> dict:
    """What a model and the baselines reach on a set that was written to a folder."""
    told = json.loads((folder / "set.json").read_text())
    answers = read_answers(folder / "answers.jsonl")
    questions = read_questions(folder / "test.jsonl", "short-answer", prompt="{question}")
    pairs = [(question.references[0], answers[question.name]) for question in questions if question.name in answers]
    matrix = confusion_matrix([right for right, _ in pairs], [answer for _, answer in pairs], told["classes"])
    with np.load(folder / "series.npz") as arrays:
        result = baseline_result(*(arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")))
    low, high = wilson_interval(matrix.accuracy * matrix.total, matrix.total)
    return result | {
        "model": matrix.accuracy,
        "interval": [low, high],
        "counts": matrix.counts.tolist(),
        "class_names": told["classes"],
        "pictures": told["pictures"],
        "seed": told["seed"],
        "train_seconds": read_timed(folder / "train.json"),
    }


def arrays_of_set(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The series and classes of a set, to train on and to test on."""
    train, test = read_set(name)
    return train.values, train.labels, test.values, test.labels


def baseline_result(x_train, y_train, x_test, y_test) -> dict:
    """What is reached by always naming the most frequent class, by a linear model, and by 1-NN with DTW."""
    start = time.process_time()
    most = Counter(y_train.tolist()).most_common(1)[0][0]
    return {
        "train": len(y_train),
        "test": len(y_test),
        "length": x_train.shape[2],
        "channels": x_train.shape[1],
        "classes": len(set(y_train.tolist())),
        "most_frequent": float(np.mean(y_test == most)),
        "linear": float(np.mean(linear(x_train, y_train, x_test) == y_test)),
        "dtw": float(np.mean(nearest_by_dtw(x_train, y_train, x_test) == y_test)),
        "baseline_cpu_seconds": round(time.process_time() - start, 1),
    }


def table_of(results: dict) -> str:
    """The table of the page."""
    head = [
        "set",
        "length",
        "train / test",
        "classes",
        "most frequent",
        "linear",
        "1-NN DTW",
        "nano",
        "CPU min",
        "paper",
    ]
    rows = [head]
    for name, one in results.items():
        spent = one.get("train_seconds")
        model = "-"
        if "model" in one:
            low, high = one["interval"]
            model = f"**{one['model']:.2%}** ({low:.1%} to {high:.1%})"
        rows.append(
            [
                name,
                f"{one['length']}" + (f" x {one['channels']}" if one["channels"] > 1 else ""),
                f"{one['train']:,} / {one['test']:,}",
                one["classes"],
                f"{one['most_frequent']:.1%}",
                f"{one['linear']:.2%}",
                f"{one['dtw']:.2%}",
                model,
                f"{spent['cpu_seconds'] / 60:.1f}" if spent else "-",
                f"{one['paper']:.2%}" if one["paper"] else "-",
            ]
        )
    return table(rows)


def draw(out: Path, sets: list[str], results: dict, path: Path) -> None:
    """Pictures as the model sees them, and which class is taken for which."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4 * len(sets)), dpi=110, layout="constrained", facecolor="white")
    for part, name in zip(np.atleast_1d(figure.subfigures(len(sets), 1)), sets):
        left, right = part.subfigures(1, 2, width_ratios=(1.5, 1))
        with np.load(out / name / "series.npz") as arrays:
            train = Series(arrays["x_train"], arrays["y_train"])
        classes, counts = results[name]["class_names"], np.array(results[name]["counts"])
        columns = min(len(classes), 5)
        axes = left.subplots(-(-len(classes) // columns), columns, squeeze=False)
        for one in axes.flat:
            one.set_axis_off()
        for one, label in zip(axes.flat, classes):
            values = train.values[np.flatnonzero(train.labels == label)[0]]
            one.imshow(np.asarray(draw_series(values, STYLE, limits_of(train))))
            one.set_title(label, fontsize=9)
        left.suptitle(f"{name}: a picture of each class, as the model sees it", fontsize=10)
        title = f"{results[name]['model']:.2%} of {results[name]['test']:,}"
        draw_confusion(ConfusionMatrix(tuple(classes), counts), title, right.subplots())
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
