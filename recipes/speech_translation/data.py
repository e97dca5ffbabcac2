"""
Writes chats to train on and questions to evaluate from CoVoST 2:
`python -m recipes.speech_translation.data OUT --covost FILE --clips DIR`.

    OUT/train.jsonl   chats: a sound, "Translate the English speech to German.", the translation
    OUT/test.jsonl    the same of the test split, for `omnivinci eval --suite short-answer`
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers_omnivinci.evaluation import SUITES
from transformers_omnivinci.tasks import task_row, write_rows

from .covost import LANGUAGES, Spoken, languages_of, read_split

TRANSLATE = "Translate the {source} speech to {target}."
TRANSCRIBE = SUITES["transcription"].prompt


def rows_of(spoken: Sequence[Spoken], question: str, transcribes: bool, folder: Path) -> Iterator[dict]:
    """The questions about sentences, as training and evaluation read them; paths start in `folder`."""
    for one in spoken:
        sound = [{"type": "audio", "path": os.path.relpath(one.path, folder)}]
        yield task_row(one.name, sound, question, one.translation)
        if transcribes:
            if not one.sentence:
                raise ValueError(
                    f"{one.name} has no sentence to write down: give `--validated`, or no `--transcribe`."
                )
            yield task_row(f"{one.name}-transcript", sound, TRANSCRIBE, one.sentence)


def write(
    out: Path, covost: Sequence[Path], clips: Path, validated: Path | None = None, transcribes: bool = False
) -> dict[str, int]:
    """
    Writes the files.

    Args:
        out (`Path`): The folder, which is made.
        covost (`Sequence[Path]`): One file with the splits train and test, or one of each.
        clips, validated (`Path`): As of [`read_split`].
        transcribes (`bool`): Whether to train on writing down what is said, too.

    Returns:
        `dict[str, int]`: How many sentences each split has.

    Raises:
        ValueError, OSError: as of [`read_split`]; nothing is written then.
    """
    if not 1 <= len(covost) <= 2 or len({languages_of(path) for path in covost}) != 1:
        raise ValueError("`--covost` names one file, or one of each split, all of the same two languages.")
    source, target = (LANGUAGES[language] for language in languages_of(covost[0]))
    question = TRANSLATE.format(source=source, target=target)
    of_split = {path.suffixes[-2][1:]: path for path in covost} if len(covost) == 2 else {}
    if of_split and set(of_split) != {"train", "test"}:
        raise ValueError("Of two files, one is that of the split train and the other that of test.")
    spoken = {
        split: read_split(of_split.get(split, covost[0]), split, clips, validated) for split in ("train", "test")
    }
    rows = {
        split: list(rows_of(found, question, transcribes and split == "train", out)) for split, found in spoken.items()
    }
    for split, written in rows.items():
        write_rows(out / f"{split}.jsonl", written)
    return {split: len(found) for split, found in spoken.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.speech_translation.data", description="Chats and questions from CoVoST 2."
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument(
        "--covost", type=Path, action="append", required=True, metavar="FILE", help="covost_v2.en_de.tsv, or of splits"
    )
    parser.add_argument("--clips", type=Path, required=True, metavar="DIR", help="the clips of Common Voice")
    parser.add_argument("--validated", type=Path, metavar="FILE", help="validated.tsv of Common Voice")
    parser.add_argument("--transcribe", action="store_true", help="train on writing down what is said, too")
    given = parser.parse_args(arguments)
    try:
        counts = write(given.out, given.covost, given.clips, given.validated, given.transcribe)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print(f"{given.out} has {counts['train']} sentences to train on and {counts['test']} to test on.")


if __name__ == "__main__":
    main()
