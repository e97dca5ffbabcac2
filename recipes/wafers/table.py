"""The table and the picture of this recipe: `python -m recipes.wafers.table OUT`."""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from recipes.results import machine, read_timed, share, table, tell_training, write_results
from transformers_omnivinci.evaluation import (
    confusion_matrix,
    draw_confusion,
    exact_match,
    read_answers,
    read_questions,
)

from .baselines import classify, locate
from .data import named
from .maps import PATTERNS, draw

FOLDER = Path(__file__).parent
PAPER = "98.1%"
"""OmniVinci on WM-811K, table 15; 90.8% for VILA, 97.6% for NVILA."""


def measure(out: Path) -> dict:
    """Scores of the model and of the baselines on the questions of the test."""
    questions = read_questions(out / "data" / "test.jsonl", "short-answer", prompt="{question}")
    given = read_answers(out / "answers.jsonl")
    with np.load(out / "data" / "train.npz") as train, np.load(out / "data" / "test.npz") as test:
        labels, truth = train["patterns"].tolist(), test["patterns"].tolist()
        known = [train[name] for name in sorted(set(train.files) - {"patterns"})]
        names = sorted(set(test.files) - {"patterns"})
        maps = {name: test[name] for name in names}
    others = {method: dict(zip(names, said)) for method, said in classify(known, labels, list(maps.values())).items()}
    chances = {"pattern": 1 / len(set(labels)), "quadrant": 1 / 4, "radius": 1 / 3}
    scores = {}
    for about, chance in chances.items():
        asked = [one for one in questions if one.row["about"] == about]
        if not asked:
            continue
        answers = {"model": [given[one.name] for one in asked]}
        if about == "pattern":
            right = [one.row["pattern"] for one in asked]
            answers = {"model": [named(answer) for answer in answers["model"]]}
            answers |= {method: [said[one.row["wafer"]] for one in asked] for method, said in others.items()}
        else:
            right = [one.references[0] for one in asked]
            answers["clustered dies"] = [locate(about, maps[one.row["wafer"]]) for one in asked]
        scores[about] = {
            who: share([bool(exact_match(answer, [truth])) for truth, answer in zip(right, said, strict=True)])
            for who, said in answers.items()
        } | {"chance": chance}
    asked = [one for one in questions if one.row["about"] == "pattern"]
    classes = [*PATTERNS, *sorted({*labels, *truth} - {*PATTERNS})]
    matrix = confusion_matrix(
        [one.row["pattern"] for one in asked], [named(given[one.name]) for one in asked], classes
    )
    return {
        "scores": scores,
        "confusion": {"labels": list(matrix.labels), "counts": matrix.counts.tolist()},
        "recalls": matrix.recalls,
        "wafers": {"train": len(known), "test": len(maps)},
    }, matrix


def markdown(results: dict) -> str:
    """The table of the README."""
    rows = [["right answers", "questions", "chance", "simple baselines", "nano, fine-tuned"]]
    for about, scores in results["scores"].items():
        simple = [f"{one['accuracy']:.1%} ({who})" for who, one in scores.items() if who not in ("model", "chance")]
        own = scores["model"]
        told = f"**{own['accuracy']:.1%}** ({100 * own['low']:.1f}–{100 * own['high']:.1f})"
        rows.append([about, own["questions"], f"{scores['chance']:.1%}", ", ".join(simple), told])
    recalls = ", ".join(f"{name} {one:.0%}" for name, one in results["recalls"].items() if one is not None)
    return (
        f"{table(rows)}\n\nThe paper has {PAPER} on WM-811K (table 15): other wafers, a model of 9B. By pattern: "
        f"{recalls}. Intervals are of 95%. {results['wafers']['train']:,} generated wafers to train on, "
        f"{results['machine']}.{tell_training(results['training'])}"
    )


def picture(matrix, out: Path) -> Figure:
    """One wafer of each pattern of the test, and the confusion matrix."""
    with np.load(out / "data" / "test.npz") as test:
        labels = test["patterns"].tolist()
        chosen = [(name, test[f"{labels.index(name):06d}"]) for name in PATTERNS if name in labels]
    figure = Figure(figsize=(10, 5), dpi=110, layout="constrained", facecolor="white")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    for axes, (name, dies) in zip(left.subplots(4, 2).flat, chosen):
        axes.imshow(draw(dies))
        axes.set_title(name, fontsize=9)
    for axes in left.axes:
        axes.axis("off")
    draw_confusion(matrix, axes=right.subplots())
    return figure


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("out", type=Path, help="folder with data/ and answers.jsonl")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go (the recipe's folder)")
    given = parser.parse_args(arguments)
    try:
        results, matrix = measure(given.out)
        results["machine"] = machine()
        results["training"] = read_timed(given.out / "train.json")
        page = given.folder / "README.md"
        write_results(results, markdown(results), given.folder, page if page.is_file() else None)
        picture(matrix, given.out).savefig(given.folder / "results.png")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
