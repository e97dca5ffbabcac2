"""
Reads CoVoST 2 as it is published, beside the clips of Common Voice.

CoVoST 2 is a file `covost_v2.SOURCE_TARGET.tsv` with the columns `path`, `translation` and `split` for each direction;
sentences are in Common Voice's `validated.tsv`, and sounds in its folder `clips`. The script of its authors joins both
to `covost_v2.SOURCE_TARGET.SPLIT.tsv` with `path`, `sentence`, `translation` and `client_id`. Either is read here.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = {
    "ar": "Arabic", "ca": "Catalan", "cy": "Welsh", "de": "German", "en": "English", "es": "Spanish", "et": "Estonian",
    "fa": "Persian", "fr": "French", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "lv": "Latvian",
    "mn": "Mongolian", "nl": "Dutch", "pt": "Portuguese", "ru": "Russian", "sl": "Slovenian", "sv-SE": "Swedish",
    "ta": "Tamil", "tr": "Turkish", "zh-CN": "Chinese",
}  # fmt: skip
SPLITS = ("train", "dev", "test")
NAME = re.compile(r"covost_v2\.([\w-]+)_([\w-]+?)(?:\.(train|dev|test))?\.tsv")


@dataclass(frozen=True)
class Spoken:
    """
    A sentence that was read aloud.

    Attributes:
        name (`str`): File and line, for messages.
        path (`Path`): The sound.
        translation (`str`): What it means in the target language.
        sentence (`str`, *optional*): What was read, if the files tell.
    """

    name: str
    path: Path
    translation: str
    sentence: str | None


def languages_of(path: Path) -> tuple[str, str]:
    """
    The languages, source first, that the name of a file of CoVoST 2 tells.

    Raises:
        ValueError: it is called otherwise.
    """
    found = NAME.fullmatch(path.name)
    unknown = [language for language in found.groups()[:2] if language not in LANGUAGES] if found else [path.name]
    if unknown:
        raise ValueError(
            f"{path} names no two languages ({unknown[0]!r}): a name such as covost_v2.en_de.tsv or "
            f"covost_v2.en_de.test.tsv is accepted, with {', '.join(LANGUAGES)}."
        )
    return found[1], found[2]


def read_split(path: Path, split: str, clips: Path, validated: Path | None = None) -> list[Spoken]:
    """
    The sentences of a split.

    Args:
        path (`Path`): A file of CoVoST 2, of one split or with the column `split`, whose `train_covost` counts
            as `train`.
        split (`str`): One of `SPLITS`.
        clips (`Path`): The folder of sounds.
        validated (`Path`, *optional*): Common Voice's `validated.tsv`, with the sentences.

    Raises:
        ValueError: a file lacks a column, a value or the split; the message has file and line.
        OSError: a file or a sound is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r:.40}: {', '.join(SPLITS)} are accepted.")
    own = NAME.fullmatch(path.name)
    if own and own[3] and own[3] != split:
        raise ValueError(f"{path} is the split {own[3]!r}, where {split!r} is asked for.")
    sentences = {}
    if validated is not None:
        sentences = {row["path"]: row["sentence"] for _, row in read_tsv(validated, ("path", "sentence"))}
    spoken = []
    for name, row in read_tsv(path, ("path", "translation")):
        if row.get("split", split) not in (split, f"{split}_covost"):
            continue
        if not row["translation"].strip():
            raise ValueError(f"{name} has no translation.")
        if validated is not None and row["path"] not in sentences:
            raise ValueError(f"{name} names {row['path']!r:.80}, which {validated.name} does not have.")
        sound = clips / row["path"]
        if not sound.is_file():
            raise FileNotFoundError(f"{name} names {row['path']!r:.80}, which is not in {clips}.")
        spoken.append(Spoken(name, sound, row["translation"].strip(), sentences.get(row["path"], row.get("sentence"))))
    if not spoken:
        raise ValueError(f"{path} has no sentences of the split {split!r}.")
    return spoken


def read_tsv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """
    The rows of a file with tabs, each with its file and line. Quotation marks mean themselves, as in Common Voice's
    files.

    Args:
        path (`Path`): The file, whose first line names the columns.
        columns (`tuple[str, ...]`): Those that it must have.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        try:
            missing = [column for column in columns if column not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} has no column {missing[0]!r}: the first line has to name it, between tabs.")
            for row in rows:
                name = f"{path.name}:{rows.line_num}"
                if None in row or any(row[column] is None for column in columns):
                    raise ValueError(f"{name} has not as many values as the first line has columns.")
                yield name, row
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}.") from error
        except csv.Error as error:
            raise ValueError(f"{path.name}:{rows.line_num} cannot be read: {error}.") from error
