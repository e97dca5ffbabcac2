"""The table and the picture of this recipe: `python -m recipes.readings.table OUT`."""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from recipes.results import machine, read_timed, share, table, tell_training, write_results
from transformers_omnivinci.evaluation import (
    SENSES,
    Question,
    make_marker,
    read_answers,
    read_questions,
)
from transformers_omnivinci.media import load_video

from .questions import CATEGORIES, CEILINGS

FOLDER = Path(__file__).parent
PAPER = {"LH": 84, "AVS": 76, "AS": 92, "TR": 76}
"""OmniVinci's right answers in percent, table 14, about real readings."""
ALL = "all"


def measure(out: Path) -> dict:
    """Right answers of the model with all senses and without some, and what baselines and ceilings are."""
    questions = read_questions(out / "data" / "test.jsonl", "multiple-choice", prompt="{question}")
    prior = prior_answers(out / "data" / "train.jsonl", questions)
    marked = {"prior": [question.references[0] == answer for question, answer in zip(questions, prior, strict=True)]}
    unclear, mark = {}, make_marker("letter")
    for senses in SENSES:
        given = read_answers(out / "answers.jsonl", senses)
        marks = [mark(question, given[question.name]) for question in questions]
        marked[senses] = [bool(one.value) for one in marks]
        unclear[senses] = sum(one.letter is None for one in marks)
    scores = {}
    for category in (*CATEGORIES, ALL):
        chosen = [place for place, one in enumerate(questions) if category in (ALL, one.row["category"])]
        ceilings = [CEILINGS[questions[place].row["form"]] for place in chosen]
        scores[category] = {
            "questions": len(chosen),
            "chance": sum(1 / len(questions[place].options) for place in chosen) / len(chosen),
            "best deaf": sum(deaf for deaf, _ in ceilings) / len(chosen),
            "best blind": sum(blind for _, blind in ceilings) / len(chosen),
        } | {name: share([right[place] for place in chosen]) for name, right in marked.items()}
    forms = defaultdict(list)
    for question, right in zip(questions, marked["both"], strict=True):
        forms[question.row["form"]].append(right)
    return {"scores": scores, "forms": {name: share(right) for name, right in forms.items()}, "unclear": unclear}


def prior_answers(train: Path, questions: list[Question]) -> list[str]:
    """The letters of who has neither seen nor heard, but learned how often each option is right in each form."""
    right: dict[str, Counter] = defaultdict(Counter)
    shown: dict[str, Counter] = defaultdict(Counter)
    for line in train.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        right[row["form"]][plain(row["options"]["ABC".index(row["answer"])])] += 1
        shown[row["form"]].update(map(plain, row["options"]))
    answers = []
    for question in questions:
        form = question.row["form"]
        shares = [right[form][plain(one)] / max(1, shown[form][plain(one)]) for one in question.options]
        answers.append("ABC"[shares.index(max(shares))])
    return answers


def plain(option: str) -> str:
    """An option, whatever the mark is called in it."""
    return "There is no mark." if option.startswith("There is no") else option


def markdown(results: dict) -> str:
    """The table of the README."""
    rows = [["right answers", "questions", "chance", "prior", "deaf", "blind", "text only", "whole", "paper, whole"]]
    for category, scores in results["scores"].items():
        name = f"{category}: {CATEGORIES[category]}" if category in CATEGORIES else "all"
        deaf, blind = (
            f"{scores[one]['accuracy']:.1%} (best {scores[f'best {one}']:.0%})" for one in ("deaf", "blind")
        )
        whole = scores["both"]
        told = f"**{whole['accuracy']:.1%}** ({100 * whole['low']:.0f}–{100 * whole['high']:.0f})"
        paper = PAPER.get(category, 82)
        prior, text = (f"{scores[one]['accuracy']:.1%}" for one in ("prior", "text only"))
        chance = f"{scores['chance']:.1%}"
        rows.append([name, scores["questions"], chance, prior, deaf, blind, text, told, f"{paper}%"])
    forms = ", ".join(f"{form} {one['accuracy']:.0%}" for form, one in results["forms"].items())
    unclear = ", ".join(f"{senses} {count}" for senses, count in results["unclear"].items())
    trained = tell_training(results["training"])
    return (
        f"{table(rows)}\n\nBy form, whole: {forms}. Answers that name none of the options, which count as wrong: "
        f"{unclear}. Voices: {', '.join(results['voices'])}; {results['machine']}.{trained}"
    )


def picture(results: dict, out: Path) -> Figure:
    """Frames of one reading, and bars of what is reached with which senses."""
    figure = Figure(figsize=(10, 5), dpi=110, layout="constrained", facecolor="white")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 2.2))
    clip = sorted((out / "data" / "media" / "test").glob("*.mp4"))[0]
    frames = load_video(clip, sample_indices_fn=lambda metadata: range(4, metadata.total_num_frames, 8)).frames
    for axes, frame in zip(upper.subplots(1, len(frames)), frames):
        axes.imshow(frame.permute(1, 2, 0).numpy())
        axes.axis("off")
    axes, names = lower.subplots(), list(results["scores"])
    for place, (senses, colour) in enumerate(zip(SENSES, ("#2f6db3", "#e0812f", "#4a9a6a", "#9aa3af"))):
        scores = [results["scores"][name][senses] for name in names]
        heights = [one["accuracy"] for one in scores]
        reach = [[one["accuracy"] - one["low"] for one in scores], [one["high"] - one["accuracy"] for one in scores]]
        where = [number + 0.2 * (place - 1.5) for number in range(len(names))]
        label = {"both": "whole"}.get(senses, senses)
        axes.bar(where, heights, 0.19, yerr=reach, color=colour, label=label, error_kw={"lw": 0.8})
    axes.axhline(1 / 3, color="#555555", lw=0.8, ls="--")
    axes.set_xticks(range(len(names)), [CATEGORIES.get(name, name) for name in names])
    axes.set_ylim(0, 1)
    axes.set_ylabel("right answers (dashed: chance)")
    axes.legend(ncols=4, fontsize=8, loc="upper right")
    return figure


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("out", type=Path, help="folder with data/ and answers.jsonl")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go (the recipe's folder)")
    given = parser.parse_args(arguments)
    try:
        results = measure(given.out) | {"machine": machine()}
        results["voices"] = json.loads((given.out / "data" / "voices.json").read_text(encoding="utf-8"))
        results["training"] = read_timed(given.out / "train.json")
        page = given.folder / "README.md"
        write_results(results, markdown(results), given.folder, page if page.is_file() else None)
        picture(results, given.out).savefig(given.folder / "results.png")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
