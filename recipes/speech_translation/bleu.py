"""
BLEU of answers that `omnivinci eval --answers` has written: `python -m recipes.speech_translation.bleu OUT`.

Reads `OUT/data/test.jsonl` and `OUT/answers.jsonl`, and writes `OUT/results.json`.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

TOKENIZERS = {"Chinese": "zh", "Japanese": "char"}
"""What sacrebleu splits a target language into, where it is not words: CoVoST 2 counts characters of these two."""


def read_rows(path: Path) -> list[dict]:
    """The objects of a JSONL file; a ValueError with file and line if one is none."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number} is no JSON object.")
        rows.append(row)
    return rows


def pair(test: Path, answers: Path) -> tuple[list[str], list[str]]:
    """
    The answers and the right translations, in the order of the questions.

    Raises:
        ValueError: a question was not answered, or a file is not what it should be.
        OSError: a file is missing.
    """
    questions = read_rows(test)
    given = {row["question"]: row["answer"] for row in read_rows(answers) if row.get("senses") == "both"}
    names = [f"{test.name}:{number}" for number in range(1, len(questions) + 1)]
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"{answers} has no answer to {missing[0]} and {len(missing) - 1} others: ask these first.")
    return [given[name] for name in names], [row["answer"] for row in questions]


def bleu(answers: Sequence[str], references: Sequence[str], tokenize: str) -> dict:
    """
    BLEU of a corpus, by sacrebleu.

    Args:
        answers, references (`Sequence[str]`): One for each sentence.
        tokenize (`str`): As sacrebleu names it, such as `"13a"` for languages with spaces.

    Returns:
        `dict`: `bleu` (0 to 100), `chrf` (0 to 100) and the signature of the former.

    Raises:
        ImportError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ImportError(f"BLEU needs sacrebleu: pip install sacrebleu ({error}).") from error
    metric = BLEU(tokenize=tokenize)
    score = metric.corpus_score(list(answers), [list(references)])
    chrf = CHRF().corpus_score(list(answers), [list(references)])
    return {"bleu": score.score, "chrf": chrf.score, "signature": str(metric.get_signature())}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m recipes.speech_translation.bleu", description="BLEU of answers.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--tokenize", metavar="NAME", help="of sacrebleu; default: by the target language")
    given = parser.parse_args(arguments)
    test = given.out / "data/test.jsonl"
    try:
        answers, references = pair(test, given.out / "answers.jsonl")
        target = re.search(r" to (\w+)\.$", read_rows(test)[0]["question"])
        tokenize = given.tokenize or TOKENIZERS.get(target[1] if target else "", "13a")
        result = {"sentences": len(answers), **bleu(answers, references, tokenize)}
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"Error: {error}")
    (given.out / "results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"BLEU {result['bleu']:.1f}, chrF {result['chrf']:.1f} of {len(answers)} sentences ({result['signature']}).")


if __name__ == "__main__":
    main()
