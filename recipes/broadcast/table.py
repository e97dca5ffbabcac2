"""
The table and the picture of the recipe: `python -m recipes.broadcast.table OUT [--folder FOLDER]`.

Reads what `make -C recipes/broadcast eval` has written to OUT. `results.json` and `results.png` are written to FOLDER,
by default that of the recipe, where the table is put into the README.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from transformers_omnivinci.evaluation import (
    SENSES,
    Question,
    choice_letter,
    read_answers,
    read_questions,
    wilson_interval,
)
from transformers_omnivinci.media import load_audio, load_video
from transformers_omnivinci.planning import sample_uniformly

from ..results import machine, read_timed, table, write_results
from .baselines import fit_counter, guess, heard_alone, majority, nearest, onsets, seen_alone
from .drawing import SAMPLING_RATE
from .questions import CATEGORIES, NUM_OPTIONS, count_facts

FITTED = 120
"""How many training clips the counter of onsets is fitted on."""
PAPER = {"server": 100.0, "winner": 100.0, "ending": 85.7, "shots": 89.3}
"""Table 12, OmniVinci: "Server & Winner", "Receiver & Winner", "Point Ending" and "Shots Exchanged"."""
HERE = Path(__file__).parent


def accuracies(questions: Sequence[Question], right: Sequence[float]) -> dict[str, float]:
    """The share of right answers of each category, in percent."""
    found = {category: [] for category in CATEGORIES}
    for question, one in zip(questions, right, strict=True):
        found[question.row["category"]].append(one)
    return {category: 100 * float(np.mean(values)) for category, values in found.items()}


def baselines(questions: Sequence[Question], train: Sequence[Mapping], folder: Path) -> dict[str, dict[str, float]]:
    """Accuracies without a model, in percent, by name and category."""
    orders = majority(train)
    rows = [(question.row["category"], question.row["facts"], question.options) for question in questions]
    found = {
        "chance": {category: 100 / number for category, number in NUM_OPTIONS.items()},
        "most frequent answer of training": accuracies(
            questions,
            [guess(orders[category], options) == facts[category] for category, facts, options in rows],
        ),
        "all that is seen, a ball on the line called out": accuracies(
            questions, [seen_alone(category, facts) for category, facts, _ in rows]
        ),
        "all that is heard, the rest guessed": accuracies(
            questions, [heard_alone(category, facts, options) for category, facts, options in rows]
        ),
    }
    chosen = [row for row in train if row.get("category") == "shots"][:FITTED]
    paths = [folder / row["video_path"] for row in chosen]
    threshold, offset = fit_counter(paths, [int(row["facts"]["shots"]) for row in chosen])
    counted = [question for question in questions if question.row["category"] == "shots"]
    right = []
    for question in counted:
        samples = load_audio(folder / question.row["video_path"], sampling_rate=SAMPLING_RATE)
        number = onsets(samples, threshold) + offset
        right.append(nearest(number, question.options) == question.row["facts"]["shots"])
    found["onsets of the sound, counted"] = {"shots": 100 * float(np.mean(right))}
    return found


def measured(out: Path) -> tuple[dict, list[Question]]:
    """The accuracies of the model by senses, and the questions, of what `omnivinci eval` has kept."""
    questions = read_questions(out / "data/test.jsonl", "multiple-choice", by=["category", "facts"])
    comments = read_questions(out / "data/commentary.jsonl", "short-answer", by=["facts"])
    found = {}
    for senses in SENSES:
        given = read_answers(out / "answers.jsonl", senses)
        right = [
            choice_letter(given[question.name], question.options) == question.references[0] for question in questions
        ]
        told = read_answers(out / "comments.jsonl", senses)
        facts = [count_facts(told[comment.name], comment.row["facts"]) for comment in comments]
        endings = [
            one
            for question, one in zip(questions, right, strict=True)
            if question.row["category"] == "ending" and question.row["facts"]["is_close"]
        ]
        found[senses] = accuracies(questions, right) | {
            "facts": 100 * sum(facts) / (len(CATEGORIES) * len(facts)),
            "whole": 100 * sum(count == len(CATEGORIES) for count in facts) / len(facts),
            "close": 100 * float(np.mean(endings)) if endings else None,
            "num_close": len(endings),
        }
    example = comments[len(comments) // 2]
    found["both"]["example"] = {
        "video": example.row["video_path"],
        "right": example.references[0],
        "answer": read_answers(out / "comments.jsonl")[example.name],
    }
    return found, questions


def text_of(results: Mapping) -> str:
    """The table and what belongs to it, as Markdown."""
    rows = [["right answers, %", *CATEGORIES, "facts of the commentary", "commentaries without an error"]]
    for name, one in results["baselines"].items():
        rows.append([name, *(f"{one[category]:.1f}" if category in one else "" for category in CATEGORIES), "", ""])
    for senses, one in results["model"].items():
        name = "nano, fine-tuned" + ("" if senses == "both" else f", {senses}")
        rows.append([name, *(f"{one[category]:.1f}" for category in (*CATEGORIES, "facts", "whole"))])
    rows.append(["paper, 9B on broadcasts (table 12)", *(f"{PAPER[category]:.1f}" for category in CATEGORIES), "", ""])
    parts, (both, deaf) = [table(rows)], (results["model"][senses] for senses in ("both", "deaf"))
    low, high = wilson_interval(results["num_clips"] / 2, results["num_clips"])
    parts.append(
        f"{results['num_clips']} test clips with shirts that never met in training: ± {50 * (high - low):.0f} points "
        f"at 50%; seed {results['seed']}, {results['frames']} frames. Of the {both['num_close']} points that "
        f"end on a line it tells the ending of {both['close'] or 0:.0f}%, and deaf of {deaf['close'] or 0:.0f}%. "
        f"Training: {results['train_cpu_minutes']:.0f} minutes of a core (clock: {results['train_minutes']:.0f}, "
        f"beside others), {results['steps']} of {results['train_clips']} clips. {results['machine']}."
    )
    example, latency = both["example"], results["latency"]
    parts.append(
        f'A commentary: "{example["answer"]}" The truth: "{example["right"]}"\n\n'
        f"Latency of a clip of {latency['frames']} frames, from the file to the answer, median of {latency['clips']} "
        "clips:"
    )
    first = next(iter(latency["models"].values()))["seconds"]
    lines = [["weights", "seconds", "ratio", "on disk"]]
    for name, one in latency["models"].items():
        lines.append(
            [f"`{name}`", f"{one['seconds']:.2f}", f"{one['seconds'] / first:.2f}", f"{one['megabytes']:.1f} MB"]
        )
    lines += [["paper: bfloat16, A100, TinyChat", "3.29", "1.00", ""], ["paper: AWQ", "1.85", "0.56", ""]]
    parts.append(table(lines))
    return "\n\n".join(parts)


def draw(results: Mapping, clip: Path, path: Path) -> None:
    """A clip in six frames with its commentary, and the accuracies by senses as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.7))
    video = load_video(clip, sample_indices_fn=lambda found: sample_uniformly(found.total_num_frames, 6))
    for axes, frame in zip(above.subplots(1, 6), video.frames):
        axes.imshow(frame.permute(1, 2, 0).numpy())
        axes.set_axis_off()
    above.suptitle(results["model"]["both"]["example"]["answer"], fontsize=10)
    axes = below.subplots()
    names = {"both": "whole", "deaf": "deaf", "blind": "blind", "text only": "text only"}
    for place, (senses, label) in enumerate(names.items()):
        values = [results["model"][senses][category] for category in CATEGORIES]
        axes.bar(np.arange(len(CATEGORIES)) + 0.2 * (place - 1.5), values, 0.19, label=label)
    for place, category in enumerate(CATEGORIES):
        axes.hlines(100 / NUM_OPTIONS[category], place - 0.4, place + 0.4, "black", "dashed", linewidth=1)
    axes.set_xticks(range(len(CATEGORIES)), CATEGORIES)
    axes.set_ylabel("right answers, % (dashed: chance)")
    axes.set_ylim(0, 105)
    axes.legend(ncols=4, loc="upper left", fontsize=8)
    figure.savefig(path, dpi=100)


def collect(out: Path) -> dict:
    """All numbers of a run."""
    train = [json.loads(line) for line in (out / "data/train.jsonl").read_text(encoding="utf-8").splitlines()]
    settings = json.loads((out / "data/settings.json").read_text(encoding="utf-8"))
    timed = read_timed(out / "train.json")
    options = timed["options"]
    model, questions = measured(out)
    return {
        "seed": settings["seed"],
        "voices": settings["voices"],
        "train_clips": settings["train"],
        "num_clips": settings["test"],
        "frames": options["num_frames"],
        "steps": f"{options['max_steps']} steps of {options['per_device_train_batch_size']}",
        "train_minutes": timed["wall_seconds"] / 60,
        "train_cpu_minutes": timed["cpu_seconds"] / 60,
        "machine": machine(),
        "paper": PAPER,
        "baselines": baselines(questions, train, out / "data"),
        "model": model,
        "latency": json.loads((out / "latency.json").read_text(encoding="utf-8")),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m recipes.broadcast.table", description="The table of the recipe.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--folder", type=Path, default=HERE, metavar="FOLDER", help="default: that of the recipe")
    given = parser.parse_args(arguments)
    try:
        results = collect(given.out)
        text = text_of(results)
        write_results(results, text, given.folder, HERE / "README.md" if given.folder == HERE else None)
        draw(results, given.out / "data" / results["model"]["both"]["example"]["video"], given.folder / "results.png")
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"Error: {error}")
    print(text)


if __name__ == "__main__":
    main()
