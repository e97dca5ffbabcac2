"""The table and the plot of the runs."""

import json
import re
import statistics
from pathlib import Path

from transformers_omnivinci.evaluation import score_answers
from transformers_omnivinci.synthetic import CLOSED_TYPES

from .chats import dataset
from .runs import ARMS


def table(runs: list[dict], chance: dict[str, float]) -> str:
    """Means and standard deviations over seeds in Markdown, and what each arm learns of a clip."""
    lines = [
        f"| | {' | '.join(CLOSED_TYPES)} | all | answer tokens a clip |",
        f"|---|{'---|' * (len(CLOSED_TYPES) + 2)}",
    ]
    told = [f"{chance[type]:.0%}" for type in CLOSED_TYPES] + [f"{statistics.mean(chance.values()):.0%}"]
    lines.append(f"| chance | {' | '.join(told)} | |")
    for arm in ARMS:
        found = [run for run in runs if run["arm"] == arm]
        if found:
            cells = [_with_deviation([run[type] for run in found]) for type in CLOSED_TYPES]
            cells.append(f"**{_with_deviation([overall(run) for run in found])}**")
            lines.append(f"| {arm} (runs: {len(found)}) | {' | '.join(cells)} | {found[0]['answer tokens']:.0f} |")
    return "\n".join(lines)


def overall(run: dict) -> float:
    """The mean over types of questions."""
    return statistics.mean(run[type] for type in CLOSED_TYPES)


def _with_deviation(values: list[float]) -> str:
    numbers = [statistics.mean(values)] + ([statistics.stdev(values)] if len(values) > 1 else [])
    return " ± ".join(map("{:.0%}".format, numbers))


def draw(runs: list[dict], path: Path) -> None:
    """Bars of the means by type of question, with a dot for each run."""
    from matplotlib.figure import Figure  # which machines that train need not have

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    arms = [arm for arm in ARMS if any(run["arm"] == arm for run in runs)]
    width = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        found = [run for run in runs if run["arm"] == arm]
        places = [index + (place + 0.5) * width - 0.4 for index in range(len(CLOSED_TYPES))]
        means = [statistics.mean(run[type] for run in found) for type in CLOSED_TYPES]
        axes.bar(places, means, width=width, label=arm)
        for one in found:
            axes.plot(places, [one[type] for type in CLOSED_TYPES], ".", color="black", markersize=4)
    axes.set_xticks(range(len(CLOSED_TYPES)), CLOSED_TYPES)
    axes.set_ylabel("right answers (bars: means; dots: runs)")
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside upper center", fontsize=8, ncols=3)
    figure.savefig(path, dpi=110)


def report(results: Path, size: int, docs: Path) -> None:
    """Puts the table into its place in `data-engine.md`, and the plot and all numbers beside it."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    rows = [row for sample in dataset("test", size) for row in sample.rows("")]
    chance = {score.type: score.chance for score in score_answers(rows, [""] * len(rows))}
    path = docs / "data-engine.md"
    text = path.read_text(encoding="utf-8") if path.exists() else "<!-- does it help --><!-- end -->\n"
    lines = f"<!-- does it help -->\n\n{table(runs, chance)}\n\n<!-- end -->"
    text = re.sub(r"<!-- does it help -->.*?<!-- end -->", lambda _: lines, text, flags=re.DOTALL)
    path.write_text(text, encoding="utf-8")
    (docs / "engine-data.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    draw(runs, docs / "engine-data.png")
