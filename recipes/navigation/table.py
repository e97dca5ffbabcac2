"""Writes the table and the picture of the recipe: `python -m recipes.navigation.table OUT`."""

import argparse
import json
import math
from functools import reduce
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from recipes.results import machine, read_timed, table, write_results

from .camera import take_picture
from .commands import QUESTION
from .data import read_episodes
from .evaluate import POLICIES
from .metrics import Outcome
from .world import COLOURS, PILLAR, SIDE, SUCCESS, Pose, Room

NAMES = {
    "text": "nano, instruction as text",
    "speech": "nano, instruction as speech",
    "unheard": "nano, speech by a voice that it never heard",
    "nothing": "nano, no instruction",
    "text-sampled": "nano, text, actions drawn",
    "speech-sampled": "nano, speech, actions drawn",
    "random": "random actions",
    "forward": "straight ahead, then stop",
    "oracle": "shortest way",
}
FOLDER = Path(__file__).parent


def read_runs(out: Path) -> dict[str, dict]:
    """
    What [`evaluate`] has written, by policy.

    Raises:
        OSError: there is nothing.
    """
    runs = {}
    for policy in POLICIES:
        path = out / "runs" / f"{policy}.json"
        if path.exists():
            runs[policy] = json.loads(path.read_text(encoding="utf-8"))
    if not runs:
        raise OSError(f"{out / 'runs'} has no results yet: `python -m recipes.navigation.evaluate {out}` writes them.")
    return runs


def results_table(runs: dict[str, dict]) -> str:
    """The measures of table 10, the 95% interval of SR, and who stopped at a pillar and named the right one."""
    columns = "NE (m)", "OS", "SR (95% interval)", "SPL", "stopped at a pillar", "of these, the right one"
    rows = [["", *columns, "named the right one", "actions"]]
    for policy, run in runs.items():
        one = run["summary"]
        low, high = one["SR_interval"]
        right, named = ("–" if one[name] is None else f"{one[name]:.0f}" for name in ("right", "named"))
        success = f"{one['SR']:.0f} ({low:.0f}–{high:.0f})"
        shares = f"{one['OS']:.0f}", success, f"{one['SPL']:.1f}", f"{one['arrived']:.0f}", right, named
        rows.append([NAMES[policy], f"{one['NE']:.2f}", *shares, f"{one['actions']:.1f}"])
    return table(rows)


def choose_replays(runs: dict[str, dict]) -> list[tuple[str, int]]:
    """Which episodes are drawn, with their policy: the first success and the first failure of one of them."""
    policy = next(name for name in ("speech-sampled", "speech", "text-sampled", "text", *runs) if name in runs)
    outcomes = [Outcome.from_json(one) for one in runs[policy]["outcomes"]]
    chosen = [
        next((i for i, one in enumerate(outcomes) if one.is_success is wanted), None) for wanted in (True, False)
    ]
    return [(policy, number) for number in chosen if number is not None]


def draw_map(axes, room: Room, poses: list[Pose]) -> None:
    """The room from above, the way that was gone, and the place where a stop counts as arrival."""
    axes.set(xlim=(0, SIDE), ylim=(0, SIDE), xticks=[], yticks=[], aspect="equal", facecolor="#eceae6")
    for left, low, right, high in room.boxes:
        axes.add_patch(Rectangle((left, low), right - left, high - low, color="#78593f"))
    for name, place in room.pillars.items():
        axes.add_patch(Circle(place, PILLAR, color=[value / 255 for value in COLOURS[name]]))
    axes.add_patch(Circle(room.pillars[room.goal], SUCCESS, fill=False, linestyle="--", color="#333"))
    axes.plot(
        [pose.x for pose in poses], [pose.y for pose in poses], color="#222", linewidth=1.2, marker=".", markersize=4
    )
    axes.plot(poses[0].x, poses[0].y, marker="s", color="#222", markersize=6)
    angle = math.radians(poses[-1].heading)
    axes.annotate(
        "",
        xy=(poses[-1].x + 0.45 * math.cos(angle), poses[-1].y + 0.45 * math.sin(angle)),
        xytext=(poses[-1].x, poses[-1].y),
        arrowprops={"arrowstyle": "-|>", "color": "#c2185b", "linewidth": 2},
    )


def draw_results(out: Path, runs: dict[str, dict]) -> Figure:
    """Figure 8 of the paper, in small: what the robot sees last, the map, what it was told and did; and the rates."""
    episodes, replays = read_episodes(out / "test.jsonl"), choose_replays(runs)
    height = 2.9 * (len(replays) + 1)
    figure = Figure(figsize=(9, height), layout="constrained", dpi=100)
    grid = figure.add_gridspec(len(replays) + 1, 3, width_ratios=[1, 1, 1.25])
    for line, (policy, number) in enumerate(replays):
        (room, row), replay = episodes[number], runs[policy]["replays"][number]
        outcome = Outcome.from_json(runs[policy]["outcomes"][number])
        poses = [Pose(*pose) for pose in replay["poses"]]
        seen, above, told = (figure.add_subplot(grid[line, column]) for column in range(3))
        seen.imshow(take_picture(room, poses[-1]), interpolation="nearest")
        seen.set(xticks=[], yticks=[], title="what it sees at the end")
        draw_map(above, room, poses)
        above.set_title("where it went")
        told.axis("off")
        shown = replay["actions"][:24]
        actions = "\n".join(", ".join(shown[start : start + 3]) for start in range(0, len(shown), 3))
        end = f"{outcome.error:.1f} m from the goal: {'arrived' if outcome.is_success else 'failed'}"
        how = NAMES[policy]
        told.text(0, 1, f"“{row['text']}”\n({how}; “{QUESTION}”)\n\n{actions}\n\n{end}", va="top", fontsize=8.5)
    bars = figure.add_subplot(grid[len(replays), :])
    names = [name for name in NAMES if name in runs]
    for offset, measure in enumerate(("OS", "SR", "SPL")):
        values = [runs[name]["summary"][measure] for name in names]
        bars.bar([place + 0.27 * (offset - 1) for place in range(len(names))], values, 0.25, label=measure)
    broken = {
        ", ": ",\n",
        "instruction as ": "instruction\nas ",
        " by a voice that it never heard": ",\nunknown voice",
    }
    labels = [reduce(lambda text, pair: text.replace(*pair), broken.items(), NAMES[name]) for name in names]
    bars.set_xticks(range(len(names)), labels, fontsize=7.5)
    bars.set(ylim=(0, 100), ylabel="%")
    bars.legend(frameon=False, ncols=3, loc="upper left")
    return figure


def write_table(out: Path, folder: Path = FOLDER, page: Path | None = FOLDER / "README.md") -> None:
    """Writes `results.json` and `results.png` into a folder, and the table into the page."""
    runs = read_runs(out)
    about = json.loads((out / "data.json").read_text(encoding="utf-8"))
    trained = read_timed(out / "train.json")  # of `make`
    results = {"data": about, "train": trained, "machine": machine()}
    results["policies"] = {policy: run["summary"] for policy, run in runs.items()}
    episodes = next(iter(runs.values()))["summary"]["episodes"]
    lines = [
        f"{episodes} rooms of the test, the same for all; percentages but for NE. {about['train_episodes']} rooms "
        f"with {about['steps']:,} steps and {about['recordings']} recordings to learn from, seed {about['seed']}; "
        f"voices {', '.join(about['voices'])}; unheard {about['unheard_voice']}."
    ]
    results["training"] = next((run["training"] for run in runs.values() if run["training"]), None)
    if results["training"] is not None:
        lines.append("The model is that after {steps} of {planned} steps.".format(**results["training"]))
    if trained is not None:
        minutes = trained["cpu_seconds"] / 60, trained["wall_seconds"] / 60
        lines.append(f"Training took {minutes[0]:.1f} minutes of CPU time, {minutes[1]:.0f} by the clock.")
    text = f"{results_table(runs)}\n\n{' '.join(lines)} {results['machine']}."
    write_results(results, text, folder, page)
    draw_results(out, runs).savefig(folder / "results.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder of the data and results")
    write_table(parser.parse_args().out)


if __name__ == "__main__":
    main()
