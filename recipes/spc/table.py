"""
Writes the table and the picture of the recipe.

    python -m recipes.spc.table OUT
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

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

from .charts import KINDS, make_chart
from .data import LIMITS, SCALE, STYLE
from .explaining import score_explanation
from .rules import is_out_of_control, rule_classes

FOLDER = Path(__file__).parent
PAPER = 0.87
"""Appendix B.5.2, on charts of the authors."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.spc.table", description=__doc__)
    parser.add_argument("out", type=Path, help="folder that data and answers were written to")
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder of README.md, results.json and results.png")
    options = parser.parse_args(arguments)
    try:
        results, matrix = measure(options.out)
        options.to.mkdir(parents=True, exist_ok=True)
        draw(matrix, options.to / "results.png")
        write_results(results, f"{tables_of(results)}\n\n{machine()}.", options.to, options.to / "README.md")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def measure(out: Path) -> tuple[dict, ConfusionMatrix]:
    """What the model and the baselines reach on charts that were written to a folder."""
    answers = read_answers(out / "answers.jsonl")
    questions = read_questions(out / "test.jsonl", "short-answer", prompt="{question}")
    asked = [question for question in questions if question.name in answers]
    classes = [question for question in asked if question.row["about"] == "class"]
    words = [question for question in asked if question.row["about"] == "words"]
    given = [answers[question.name] for question in classes]
    matrix = confusion_matrix([question.row["kind"] for question in classes], given, list(KINDS))
    facts = [score_explanation(answers[one.name], one.row["kind"], one.row["facts"]) for one in words]
    (x_train, y_train), (x_test, y_test) = _arrays(out / "train.npz"), _arrays(out / "test.npz")
    rng = np.random.default_rng(0)
    in_control = [is_out_of_control(make_chart("in control", rng).values) for _ in range(1000)]
    results = {
        "classes": list(KINDS),
        "train": len(y_train),
        "test": len(y_test),
        "model": matrix.accuracy,
        "interval": list(wilson_interval(matrix.accuracy * matrix.total, matrix.total)),
        "recalls": matrix.recalls,
        "counts": matrix.counts.tolist(),
        "chance": 1 / len(KINDS),
        "rules_tree": float(np.mean(rule_classes(x_train, y_train, x_test) == y_test)),
        "linear": float(np.mean(_linear(x_train, y_train, x_test) == y_test)),
        "facts_right": sum(right for right, _ in facts) / sum(total for _, total in facts),
        "explanations_right": sum(right == total for right, total in facts) / len(facts),
        "facts_of_most_frequent": _blind_facts(words),
        "out_of_control": {
            kind: float(np.mean([is_out_of_control(values) for values in x_test[y_test == kind]])) for kind in KINDS
        },
        "false_alarms": float(np.mean(in_control)),
        "example": answers[words[0].name],
        "train_seconds": read_timed(out / "train.json"),
        "machine": machine(),
        "paper": PAPER,
    }
    return results, matrix


def tables_of(results: dict) -> str:
    """The tables of the page."""
    low, high = results["interval"]
    spent = results["train_seconds"]
    minutes = f", trained in {spent['cpu_seconds'] / 60:.1f} minutes of CPU time" if spent else ""
    right = [
        ["which class", "right"],
        [f"nano on {results['train']:,} charts{minutes}", f"**{results['model']:.1%}** ({low:.1%} to {high:.1%})"],
        ["decision tree on violations of the Western Electric rules", f"{results['rules_tree']:.1%}"],
        ["linear model on the raw values", f"{results['linear']:.1%}"],
        ["chance", f"{results['chance']:.1%}"],
        ["paper, 9B, on charts of its own", f"{results['paper']:.0%}"],
    ]
    words = [
        ["what it shows, in words", "right"],
        ["facts, the class among them", f"{results['facts_right']:.1%}"],
        ["whole explanations", f"{results['explanations_right']:.1%}"],
        ["facts, if the most frequent explanation is given to all", f"{results['facts_of_most_frequent']:.1%}"],
    ]
    alarms = [
        ["class", "the model is right", "the rules raise an alarm"],
        *([kind, f"{results['recalls'][kind]:.0%}", f"{results['out_of_control'][kind]:.0%}"] for kind in KINDS),
        ["in control (1,000 charts)", "-", f"{results['false_alarms']:.0%}"],
    ]
    return "\n\n".join(map(table, (right, words, alarms)))


def draw(matrix: ConfusionMatrix, path: Path) -> None:
    """A chart of each class as the model sees it, and which is taken for which."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained", facecolor="white")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    rng = np.random.default_rng(5)
    for axes, kind in zip(left.subplots(3, 3).flat, KINDS):
        axes.imshow(np.asarray(draw_series(make_chart(kind, rng, is_test=True).values, STYLE, SCALE, LIMITS)))
        axes.set_title(kind, fontsize=9)
        axes.set_axis_off()
    draw_confusion(matrix, f"{matrix.accuracy:.1%} of {matrix.total}", right.subplots())
    figure.savefig(path, metadata={"Software": None})


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        return arrays["values"], arrays["kinds"]


def _linear(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Missing values are 0, the mean, and told in values of their own."""
    train, test = (np.hstack([np.nan_to_num(x), np.isnan(x)]) for x in (x_train, x_test))
    return LogisticRegression(max_iter=1000).fit(train, y_train).predict(test)


def _blind_facts(words) -> float:
    """The greatest share of facts that one and the same explanation has."""
    said = sorted({question.references[0] for question in words})
    totals = [[score_explanation(text, one.row["kind"], one.row["facts"]) for one in words] for text in said]
    return max(sum(right for right, _ in scores) / sum(total for _, total in scores) for scores in totals)


if __name__ == "__main__":
    main()
