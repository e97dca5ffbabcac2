"""Sentences that voices read out: of fortunes, the King James Bible, WordNet and novels, all of them public."""

import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

WORDS = (3, 18)
"""The fewest and the most of a sentence: two to eight seconds of speech."""
HELD_OUT = 40
"""One sentence in so many is never trained on."""
QUESTIONS = (
    "What is the capital of France?",
    "How many days has a week?",
    "What colour is the sky on a clear day?",
    "What do bees make?",
    "Who wrote Romeo and Juliet?",
    "What is two plus three?",
    "Name a planet other than the Earth.",
    "What is the opposite of hot?",
    "Which animal barks?",
    "What do you use an umbrella for?",
)
"""What is asked without sound, before and after the training."""
FORMS = (
    "Describe {}.",
    "What does the word '{}' mean?",
    "Write a short sentence with the word '{}'.",
    "Tell me a fact about {}.",
    "Where does one find {}?",
    "Why do people speak of {}?",
    "How does {} look?",
    "Which words rhyme with {}?",
    "Is there more than one kind of {}?",
    "Who knows most about {}?",
    "Explain {} to a child.",
    "When did you first hear of {}?",
)
"""Of questions whose answers are learned again; none is of the form of one that is asked before and after."""

_SENTENCE_END = re.compile(r"(?<=[.?!])[\"')]*\s+(?=[\"'(]*[A-Z])")
_CLAUSE_END = re.compile(r"[.;:?!]")
_BREAK = re.compile(r"[.;:?!]|--")
_TITLE = re.compile(r"\b(Mr|Mrs|Dr|St)\.")
_EXAMPLE = re.compile(r'"([^"]+)"')
_PLAIN = re.compile(r"[A-Z][A-Za-z ,'-]*[a-z][.?!]?")
_ACRONYM = re.compile(r"\b(?!I\b|A\b|O\b)[A-Z]+\b|\b[A-Za-z]*[a-z][A-Z]|\b(?!a\b|o\b)[b-z]\b(?!')")


def sentences_of_verses(lines: Iterable[str]) -> Iterator[str]:
    """
    The clauses of verses, as the program `bible` prints them: `Ge1:1 In the beginning ...`.

    Args:
        lines: A verse each, with its place in front.
    """
    for line in lines:
        _, _, verse = line.strip().partition(" ")
        for clause in _CLAUSE_END.split(verse.translate(str.maketrans("", "", "()[]"))):
            clause = clause.strip(" ,")
            if clause:
                yield _as_sentence(clause)


def sentences_of_fortunes(text: str) -> Iterator[str]:
    """
    The sentences of a file of fortunes, which are parted by lines of `%`; who said them is left out.

    Args:
        text: The file.
    """
    for fortune in re.split(r"^%\s*$", text, flags=re.MULTILINE):
        said = re.split(r"^\s+--", fortune, maxsplit=1, flags=re.MULTILINE)[0]
        yield from _SENTENCE_END.split(" ".join(said.split()))


def sentences_of_novel(lines: Iterable[str]) -> Iterator[str]:
    """
    The clauses of a novel.

    Args:
        lines: Of its text; an empty one parts paragraphs.
    """
    for paragraph in "\n".join(lines).split("\n\n"):
        text = _TITLE.sub(r"\1", paragraph.translate(str.maketrans("", "", '_()[]"')))
        for clause in _BREAK.split(text):
            clause = " ".join(clause.split()).strip(" ,")
            if clause:
                yield _as_sentence(clause)


def sentences_of_wordnet(lines: Iterable[str]) -> Iterator[str]:
    """
    The examples of how words are used, which have far more words than books of the same length.

    Args:
        lines: Of a file `data.noun`, `data.verb` and so on: `... | meaning; "example"; "example"`.
    """
    for line in lines:
        for example in _EXAMPLE.findall(line.partition("|")[2]):
            example = example.strip(" .")
            if example:
                yield _as_sentence(example)


def read_strings(path: Path) -> Iterator[list[str]]:
    """
    The variables of an R package whose data are all vectors of strings, in the order of their names.

    Args:
        path: The package's `data/Rdata.rdb`: for each variable the size it has unpacked, and then it, by zlib.
    """
    packed = path.read_bytes()
    while packed:
        inflater = zlib.decompressobj()
        content, packed = inflater.decompress(packed[4:]), inflater.unused_data
        place = len(b"X\n") + 3 * 4  # versions of the format and of R, before the encoding's name
        place += 4 + int.from_bytes(content[place : place + 4])
        count, place = int.from_bytes(content[place + 4 : place + 8]), place + 8
        strings = []
        for _ in range(count):
            size, place = int.from_bytes(content[place + 4 : place + 8]), place + 8
            strings.append(content[place : place + size].decode())
            place += size
        yield strings


def choose_sentences(candidates: Iterable[str], words: tuple[int, int] = WORDS) -> list[str]:
    """
    Those that any voice reads in the same way, each once: of plain words, without numbers, acronyms or single letters.

    Args:
        candidates: Sentences.
        words: The fewest and the most words of one.
    """
    chosen = {}
    for sentence in candidates:
        sentence = sentence.strip("\"' ")
        is_plain = _PLAIN.fullmatch(sentence) and not _ACRONYM.search(sentence)
        if is_plain and words[0] <= len(sentence.split()) <= words[1]:
            chosen.setdefault(sentence.rstrip(".?!").lower(), sentence)
    return list(chosen.values())


def _as_sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}{'' if words[-1] in '?!' else '.'}"


def is_held_out(sentence: str) -> bool:
    """Whether a sentence is for evaluation alone; it depends on its words and on nothing else."""
    return zlib.crc32(sentence.rstrip(".?!").lower().encode()) % HELD_OUT == 0
