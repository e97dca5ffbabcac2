"""Speech with its transcripts, as data sets of speech recognition lie on a disk."""

from dataclasses import dataclass
from pathlib import Path

from ...evaluation import read_questions
from ...media import is_url

SOUND_SUFFIXES = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma")
LISTED = ".trans.txt"
"""Ends the names of LibriSpeech's files, whose lines are the name of a sound without its suffix, and what is said."""


@dataclass(frozen=True)
class Utterance:
    """
    A sound and what is said in it.

    Attributes:
        name (`str`): File and line, or the path below the folder.
        sound (`str`): An absolute path, or a URL.
        text (`str`): What is said.
    """

    name: str
    sound: str
    text: str


def read_corpus(path: Path, audio: str | None = None, limit: int | None = None) -> list[Utterance]:
    """
    The utterances of a corpus.

    Args:
        path (`Path`):
            A file that [`~transformers_omnivinci.evaluation.read_questions`] reads as a `transcription` (JSONL, JSON,
            TSV, parquet); or a folder with sounds, at any depth, each with a text of the same name beside it,
            `one.wav` and `one.txt`, or in a list as LibriSpeech has them, `*.trans.txt`.
        audio (`str`, *optional*): Where the sounds of a file are, such as `clips/{path}`, with columns in braces.
        limit (`int`, *optional*): The most that are read.

    Raises:
        OSError: there is no such corpus, or one of its sounds or transcripts is missing.
        ValueError: it is empty, or is no corpus.
    """
    if not path.exists():
        raise OSError(f"There is no corpus {str(path)!r:.200}: a file or a folder is accepted.")
    if path.is_dir():
        if audio is not None:
            raise ValueError(f"{path} is a folder, whose sounds are found in it: a template of paths is for files.")
        return _read_folder(path.resolve(), limit)
    named = None if audio is None else {"audio": audio}
    utterances = []
    for row in read_questions(path, "transcription", media=named, limit=limit):
        media = [item for item in row.content if item["type"] != "text"]
        sound = media[0].get("audio")
        if len(media) != 1 or not isinstance(sound, str):
            raise ValueError(f"{row.name}: the path or URL of one sound is accepted, and no other media.")
        if not is_url(sound) and not Path(sound).is_file():
            raise OSError(f"{row.name}: there is no sound {sound!r:.200}.")
        utterances.append(Utterance(row.name, sound, row.references[0]))
    return utterances


def _read_folder(folder: Path, limit: int | None) -> list[Utterance]:
    listed = dict(pair for path in sorted(folder.rglob(f"*{LISTED}")) for pair in _read_list(path).items())
    sounds = {path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file()}
    if lost := sorted(listed.keys() - {path.with_suffix("") for path in sounds}):
        raise OSError(f"The transcripts in {lost[0].parent} name {lost[0].name}, but there is no such sound.")
    if not sounds:
        raise ValueError(f"There are no sounds in {folder}: files such as .wav and .flac are accepted.")
    utterances = []
    for path in sorted(sounds)[:limit]:
        text = listed.get(path.with_suffix(""))
        utterances.append(Utterance(str(path.relative_to(folder)), str(path), text or _read_beside(path)))
    return utterances


def _read_list(path: Path) -> dict[Path, str]:
    lines = (line.strip().partition(" ") for line in _read_text(path).splitlines() if line.strip())
    return {path.parent / name: text.strip() for name, _, text in lines}


def _read_beside(sound: Path) -> str:
    path = sound.with_suffix(".txt")
    if not path.is_file():
        raise OSError(f"The sound {sound} has no transcript: {path.name} beside it, or a line of a *{LISTED}.")
    return " ".join(_read_text(path).split())


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The transcript {path} is no text in UTF-8.") from error
