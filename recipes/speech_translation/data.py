"""
Writes chats to train on and questions to evaluate from CoVoST 2:
`python -m recipes.speech_translation.data OUT --covost FILE --clips DIR`.

    OUT/train.jsonl   chats: a sound, "Translate the English speech to German.", the translation
    OUT/test.jsonl    the same as questions, for `omnivinci eval --suite short-answer`
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .covost import LANGUAGES, Spoken, languages_of, read_split

TRANSLATE = "Translate the {source} speech to {target}."
TRANSCRIBE = "Please recognize the speech and only output the recognized content:"


def chats(spoken: Sequence[Spoken], question: str, transcribes: bool, folder: Path) -> Iterator[dict]:
    """The chats about sentences, as `omnivinci train` reads them; paths start in `folder`."""
    for one in spoken:
        pairs = [(question, one.translation)]
        if transcribes:
            if not one.sentence:
                raise ValueError(
                    f"{one.name} has no sentence to write down: give `--validated`, or no `--transcribe`."
                )
            pairs.append((TRANSCRIBE, one.sentence))
        for text, answer in pairs:
            sound = {"type": "audio", "path": os.path.relpath(one.path, folder)}
            content = [sound, {"type": "text", "text": text}]
            yield {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


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
    out.mkdir(parents=True, exist_ok=True)
    rows = {"train": list(chats(spoken["train"], question, transcribes, out))}
    rows["test"] = [
        {"audio": os.path.relpath(one.path, out), "question": question, "answer": one.translation}
        for one in spoken["test"]
    ]
    for split, written in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
        (out / f"{split}.jsonl").write_text(text, encoding="utf-8")
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
