"""
BLEU as a table and a picture: `python -m recipes.speech_translation.table OUT [--folder FOLDER]`.

Reads what `make -C recipes/speech_translation eval` has written to OUT. `results.json` and `results.png` are written
to FOLDER, by default that of the recipe, where the table is put into the README.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers_omnivinci.evaluation import read_questions

from ..results import machine, read_timed, table, write_results
from .bleu import bleu, pair, tokenizer_of
from .data import TRANSCRIBE

SENSES = {"both": "fine-tuned", "text only": "fine-tuned, without the sound"}
HERE = Path(__file__).parent


def most_frequent(train: Path) -> str:
    """The translation that the training chats have most often."""
    rows = map(json.loads, train.read_text(encoding="utf-8").splitlines())
    return Counter(row["answer"] for row in rows if row["question"] != TRANSCRIBE).most_common(1)[0][0]


def collect(out: Path, tokenize: str | None) -> dict:
    """All numbers of a run."""
    test, scores = out / "data/test.jsonl", {}
    tokenize = tokenize or tokenizer_of(read_questions(test, "short-answer", limit=1)[0].row["question"])
    for senses, name in SENSES.items():
        answers, references = pair(test, out / "answers.jsonl", senses)
        scores[name] = bleu(answers, references, tokenize)
        if senses == "both":
            scores[name]["examples"] = [list(both) for both in zip(references, answers)][:3]
            scores[name]["right"] = sum(answer == right for answer, right in zip(answers, references))
    guess = most_frequent(out / "data/train.jsonl")
    baseline = {"most frequent translation of training": bleu([guess] * len(references), references, tokenize)}
    timed = read_timed(out / "train.json")
    return {
        "sentences": len(references),
        "train_minutes": timed["cpu_seconds"] / 60,
        "machine": machine(),
        "scores": baseline | scores,
    }


def text_of(results: Mapping) -> str:
    """The table and what belongs to it, as Markdown."""
    rows = [["", "BLEU", "chrF"]]
    rows += [[name, f"{one['bleu']:.1f}", f"{one['chrf']:.1f}"] for name, one in results["scores"].items()]
    whole = results["scores"][SENSES["both"]]
    examples = "; ".join(f'"{answer}" for "{right}"' for right, answer in whole["examples"])
    return (
        f"{table(rows)}\n\n{results['sentences']} sentences, of which {whole['right']} are word for word right; "
        f"`{whole['signature']}`. Training: {results['train_minutes']:.1f} minutes of a core. {results['machine']}.\n"
        f"The first answers: {examples}."
    )


def draw(results: Mapping, path: Path) -> None:
    """BLEU as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.2), layout="constrained")
    axes = figure.subplots()
    names = [*results["scores"]]
    bars = axes.barh(names, [results["scores"][name]["bleu"] for name in names])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_xlim(0, 110)
    axes.set_xlabel("BLEU")
    axes.invert_yaxis()
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m recipes.speech_translation.table", description="BLEU as a table.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--folder", type=Path, default=HERE, metavar="FOLDER", help="default: that of the recipe")
    parser.add_argument("--tokenize", metavar="NAME", help="of sacrebleu; default: by the target language")
    given = parser.parse_args(arguments)
    try:
        results = collect(given.out, given.tokenize)
        text = text_of(results)
        write_results(results, text, given.folder, HERE / "README.md" if given.folder == HERE else None)
        draw(results, given.folder / "results.png")
    except (OSError, ValueError, KeyError, ImportError) as error:
        sys.exit(f"Error: {error}")
    print(text)


if __name__ == "__main__":
    main()
