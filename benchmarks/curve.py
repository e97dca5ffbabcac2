"""The loss of one run after another, or what practice has learnt by and by, as a picture."""

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure


def read_losses(run: Path) -> list[tuple[int, float]]:
    """Steps and losses that `omnivinci train` logged."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


def draw(runs: list[Path], path: Path) -> None:
    """Draws the losses of `runs`, one after the other, into `path`."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes, first = figure.subplots(), 0
    for number, run in enumerate(runs, start=1):
        steps, losses = zip(*read_losses(run), strict=True)
        axes.plot([first + step for step in steps], losses, label=f"stage {number}")
        first += steps[-1]
    axes.set_yscale("log")
    axes.set_xlabel("steps")
    axes.set_ylabel("loss of the next token")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def draw_practice(run: Path, path: Path) -> None:
    """Draws the shares of right answers in the log of `benchmarks.nano_practice` into `path`."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "done" in line]
    known = {"step", "clips", "new_clips", "seconds", "done", "loss"}
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(sorted({name for line in lines for name in line} - known)):
        clips, shares = zip(*((line["clips"], line[name]) for line in lines if name in line), strict=True)
        axes.plot(clips, shares, "-" if number < 7 else "--", label=name)
    axes.set_xlabel("clips")
    axes.set_ylabel("answers that are exactly right")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curve", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of `omnivinci train`, in order")
    parser.add_argument("picture", type=Path, metavar="FILE")
    parser.add_argument("--practice", action="store_true", help="RUN is one of `benchmarks.nano_practice`")
    arguments = parser.parse_args()
    arguments.picture.parent.mkdir(exist_ok=True)
    if arguments.practice:
        (run,) = arguments.runs
        draw_practice(run, arguments.picture)
    else:
        draw(arguments.runs, arguments.picture)


if __name__ == "__main__":
    main()
