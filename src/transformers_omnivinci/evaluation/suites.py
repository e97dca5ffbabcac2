"""Questions from files: JSONL, JSON, TSV and parquet, with the field names of published data sets."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

from .letters import strip_letters

FIELDS = {
    "question": ("question",),
    "options": ("options", "choices", "candidates", "choice"),
    "image": ("image_path", "image", "images"),
    "video": ("video_path", "video", "videos"),
    "audio": ("audio_path", "audio", "audios", "sound", "audio_filepath"),
}
"""Names of the fields of a row, in any case; the first that a row has counts."""
MEDIA = ("image", "video", "audio")


@dataclass(frozen=True)
class Suite:
    """
    A kind of questions.

    Attributes:
        prompt (`str`): What is asked; `{question}` and `{options}` stand for those of a row.
        answers (`tuple[str, ...]`): Names of the field with the right answer, or several that are right.
        metrics (`tuple[str, ...]`): How answers may be scored, see [`scoring`]; the first one is the default.
        max_new_tokens (`int`): Maximum length of an answer in tokens.
    """

    prompt: str
    answers: tuple[str, ...]
    metrics: tuple[str, ...]
    max_new_tokens: int


SUITES = {
    "multiple-choice": Suite(
        "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
        ("answer", "correct_choice"),
        ("letter",),
        32,
    ),
    "short-answer": Suite(
        "{question}\nAnswer the question using a single word or phrase.",
        ("answers", "answer"),
        ("exact", "relaxed", "anls", "vqa"),
        32,
    ),
    "transcription": Suite(
        "Please recognize the speech and only output the recognized content:",
        ("text", "gt", "transcript", "transcription", "normalized_text", "sentence", "answer"),
        ("wer",),
        256,
    ),
}
"""The prompts are those of lmms-eval for most of its tasks of the kind."""


@dataclass(frozen=True)
class Question:
    """
    A question with its right answers.

    Attributes:
        name (`str`): File and line or row, for messages and as a key.
        content (`list[dict]`): Media, then the prompt, as items of a message; local files by absolute paths.
        references (`list[str]`): Right answers, of which any will do; one letter where there are options.
        options (`list[str]`): Texts of the options of a multiple-choice question, without letters.
        row (`Mapping`): The row it was read from.
        turns (`Sequence[dict]`):
            Messages behind that with the content, whose contents are lists of items: an answer, and a further
            question, which is then the one that is asked.
    """

    name: str
    content: list[dict]
    references: list[str]
    options: list[str] = field(default_factory=list)
    row: Mapping = field(default_factory=dict)
    turns: Sequence[dict] = ()


def read_questions(
    path: Path,
    suite: str,
    *,
    prompt: str | None = None,
    media: Mapping[str, str] | None = None,
    by: Sequence[str] = (),
    limit: int | None = None,
) -> list[Question]:
    """
    Reads the questions of a file.

    Args:
        path (`Path`):
            `.jsonl`, `.json` with a list, `.tsv` with the names of its columns in the first line, or `.parquet`, which
            needs pyarrow.
        suite (`str`): A key of `SUITES`.
        prompt (`str`, *optional*): Another prompt than the suite's.
        media (`Mapping[str, str]`, *optional*):
            Where media are, if not in fields of their own: of `"image"`, `"video"` and `"audio"` a path such as
            `videos/{video_id}.mp4`, which takes fields of the row. Paths start in the folder of the file.
        by (`Sequence[str]`, *optional*): Fields that every row must have.
        limit (`int`, *optional*): How many rows are read. Default: all.

    Returns:
        `list[Question]`: one for each row.

    Raises:
        ValueError: a row lacks something, or its answer is none of its options; the message has file and line.
        OSError: the file cannot be read. Media are not looked for yet.
        ImportError: it is a parquet file, and pyarrow is not installed.
    """
    if suite not in SUITES:
        raise ValueError(f"Unknown suite {suite!r}: {', '.join(map(repr, SUITES))} are accepted.")
    kind = SUITES[suite]
    prompt = kind.prompt if prompt is None else prompt
    if suite != "transcription" and "{question}" not in prompt:
        raise ValueError(f"The prompt {prompt!r:.80} has no place for the question: write {{question}} there.")
    unknown = [name for name in media or {} if name not in MEDIA]
    if unknown:
        raise ValueError(f"Media of type {unknown[0]!r} are unknown: {', '.join(map(repr, MEDIA))} are accepted.")
    questions = []
    for name, row in _read_rows(path):
        if len(questions) == limit:
            break
        if not isinstance(row, Mapping):
            raise ValueError(f"{name}: a row is {type(row).__name__}, but an object is accepted.")
        missing = [column for column in by if column not in row]
        if missing:
            raise ValueError(f"{name} has no field {missing[0]!r}, by which answers are to be sorted.")
        questions.append(_RowReader(name, row, path.resolve().parent).question(suite, kind, prompt, media))
    if not questions:
        raise ValueError(f"{path} has no questions: a row for each is accepted.")
    return questions


class _RowReader:
    def __init__(self, name: str, row: Mapping, folder: Path):
        self.name, self.row, self.folder = name, row, folder
        self.fields = {key.lower(): value for key, value in row.items() if value is not None}

    def question(self, suite: str, kind: Suite, prompt: str, media: Mapping[str, str] | None) -> Question:
        options, texts = [], {}
        if suite != "transcription":
            texts["question"] = str(self._find(FIELDS["question"]))
        if suite == "multiple-choice":
            options = self._options()
            texts["options"] = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options))
        answers = self._answers(kind.answers)
        if suite == "transcription" and not (len(answers) == 1 and isinstance(answers[0], str)):
            raise ValueError(f"{self.name}: the transcript is {answers!r:.80}, but one text is accepted.")
        references = [self._letter(answers, options)] if options else [str(answer) for answer in answers]
        text = re.sub(r"\{(question|options)\}", lambda match: texts.get(match[1], match[0]), prompt)
        items = self._named_media(media) if media else self._own_media()
        if not items:
            names = ", ".join(f"`{name}`" for kind in MEDIA for name in FIELDS[kind])
            raise ValueError(f"{self.name} has no media: one of the fields {names} is needed, or a template of paths.")
        return Question(self.name, [*items, {"type": "text", "text": text}], references, options, self.row)

    def _find(self, names: Sequence[str]):
        for name in names:
            if name in self.fields:
                return self.fields[name]
        raise ValueError(f"{self.name} has no field {' or '.join(f'`{name}`' for name in names)}.")

    def _options(self) -> list[str]:
        options = self._find(FIELDS["options"])
        if isinstance(options, str):  # MMAU writes the list as text
            try:
                options = json.loads(options)
            except ValueError:
                options = None
        if not isinstance(options, Sequence) or isinstance(options, str) or not 2 <= len(options) <= 26:
            raise ValueError(f"{self.name}: the options are no list of 2 to 26 texts.")
        return strip_letters([str(option) for option in options])

    def _answers(self, names: Sequence[str]) -> list[str | int | float]:
        answers = self._find(names)
        answers = answers if isinstance(answers, (list, tuple)) else [answers]
        answers = [answer.get("answer") if isinstance(answer, Mapping) else answer for answer in answers]
        if not answers or any(isinstance(one, bool) or not isinstance(one, (str, int, float)) for one in answers):
            raise ValueError(
                f"{self.name}: the answer is {answers!r:.80}, but a text, a number or a list of them is accepted."
            )
        return answers

    def _letter(self, answers: list, options: list[str]) -> str:
        """
        Answers are letters, texts of options, both together, or places in the list, counted from 0. What could be read
        in two ways is refused, but for `correct_choice`, which is a place.
        """
        answer, letters, texts = (
            str(answers[0]).strip(),
            ascii_uppercase[: len(options)],
            dict(zip(ascii_uppercase, options)),
        )
        is_place = "answer" not in self.fields
        found = set() if is_place else {letter for letter, text in texts.items() if text == answer}
        if re.fullmatch(r"\d+", answer):
            found |= {letters[int(answer)]} if int(answer) < len(letters) else set()
        elif match := re.match(r"[(\[]?([A-Z])[)\].:]*(?:(?<=[)\].:])\s*(\S.*))?$", answer, re.DOTALL):
            found |= {match[1]} if match[1] in texts and match[2] in (None, texts[match[1]]) else set()
        if len(answers) == len(found) == 1:
            return found.pop()
        given = answers[0] if len(answers) == 1 else answers
        if len(answers) == 1 and found:
            raise ValueError(
                f"{self.name}: the answer {given!r:.80} may mean the options {', '.join(sorted(found))}: write the "
                "letter with its text, as 'B. a cat'."
            )
        raise ValueError(
            f"{self.name}: the answer {given!r:.80} is none of its options: a letter from A to {letters[-1]}, the "
            f"text of one, or a number from 0 to {len(options) - 1} is accepted."
        )

    def _own_media(self) -> list[dict]:
        items = []
        for kind in MEDIA:
            given = [self.fields[name] for name in FIELDS[kind] if name in self.fields]
            # Parquet files may name the file that a medium came from, and embed it.
            embedded = [value for value in given if isinstance(value, (Mapping, bytes))]
            value = next(iter(embedded or given), [])
            for source in value if isinstance(value, (list, tuple)) else [value]:
                items.append({"type": kind, kind: self._source(source)})
        return items

    def _named_media(self, templates: Mapping[str, str]) -> list[dict]:
        def fill(match: re.Match) -> str:
            if self.row.get(match[1]) is None:
                raise ValueError(f"{self.name} has no field {match[1]!r}, which its media are named by.")
            return str(self.row[match[1]])

        return [
            {"type": kind, kind: self._source(re.sub(r"\{([^{}]+)\}", fill, templates[kind]))}
            for kind in MEDIA
            if kind in templates
        ]

    def _source(self, source) -> str | bytes:
        """A path or a URL, or the content of a file as parquet files embed it."""
        if isinstance(source, Mapping):
            source = source.get("bytes") or source.get("path")
        if isinstance(source, bytes):
            return source
        if not isinstance(source, str) or not source:
            raise ValueError(f"{self.name}: a medium is {type(source).__name__}, but a path or URL is accepted.")
        return source if re.match(r"[A-Za-z][\w+.-]+:", source) else str(self.folder / source)


def _read_rows(path: Path) -> Iterator[tuple[str, object]]:
    """The rows of a file with their names: file and line, or the number of the row where it has no lines."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from ((f"{path.name}, row {number}", row) for number, row in enumerate(_read_parquet(path), start=1))
    elif suffix == ".json":
        rows = _parse(path.read_bytes(), str(path))
        if not isinstance(rows, list):
            raise ValueError(f"{path} holds {type(rows).__name__}, but a list of rows is accepted.")
        yield from ((f"{path.name}, row {number}", row) for number, row in enumerate(rows, start=1))
    elif suffix == ".jsonl":
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path.name}:{number}", _parse(line, f"{path.name}:{number}")
    elif suffix == ".tsv":
        yield from _read_columns(path)
    else:
        raise ValueError(
            f"{path} ends in {suffix!r}: '.jsonl', '.json' and '.parquet' are accepted, and '.tsv' with named columns."
        )


def _read_columns(path: Path) -> Iterator[tuple[str, dict]]:
    """The rows of a table, in which quotes are words; an empty cell is as if it were not there."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            names = next(rows, [])
            for cells in rows:
                if len(cells) > len(names):
                    raise ValueError(f"{path.name}:{rows.line_num} has {len(cells)} columns, but {len(names)} names.")
                if cells:
                    found = zip(names, cells, strict=False)
                    yield f"{path.name}:{rows.line_num}", {name: cell for name, cell in found if cell}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name}:{rows.line_num} cannot be read: {error}.") from error


def _parse(text: bytes, name: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}.") from error


def _read_parquet(path: Path) -> Iterator[dict]:
    path.open("rb").close()  # the error of a missing file is the usual one
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(f"{path} is a parquet file, which needs pyarrow: pip install pyarrow ({error}).") from error
    try:
        for rows in ParquetFile(path).iter_batches(batch_size=64):
            yield from rows.to_pylist()
    except ArrowException as error:
        raise ValueError(f"{path} cannot be read as parquet: {error}") from error
