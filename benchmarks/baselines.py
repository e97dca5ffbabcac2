"""
The synthetic world: what ideal guessers reach that know the question alone, or also all that is seen or all that is
heard.
"""

import argparse

from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset
from transformers_omnivinci.synthetic.baselines import SENSES, Baseline

from ._harness import Report

NOTE = "Shares of right answers. Chance is one in as many answers as the better single sense leaves."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__)
    parser.add_argument("--num-clips", type=int, default=6000, help="to learn from and to ask about (default: 6000)")
    arguments = parser.parse_args()
    report = Report("baselines", vars(arguments), NOTE)
    train, test = (SyntheticDataset(split, arguments.num_clips, types=CLOSED_TYPES) for split in ("train", "test"))
    scores = {senses: Baseline(senses).fit(train).scores(test) for senses in SENSES}
    rows = [
        {"type": type, "questions": total, "chance": chance}
        | {f"{senses} alone": scores[senses][type][0] for senses in SENSES}
        for type, (_, chance, total) in scores["text"].items()
    ]
    report.add("Right answers without one of the senses", rows)
    report.save()


if __name__ == "__main__":
    main()
