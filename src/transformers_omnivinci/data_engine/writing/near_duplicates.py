"""
Segments that say nearly the same, among any number of them: intros, films that were uploaded twice.

Captions are compared by triples of words. Which of all earlier ones may be alike is found by MinHash with bands
(Broder, 1997; Indyk and Motwani, 1998), in a database on disk; whether they are is counted. What is found depends on
the order in which texts are given, and on nothing else.
"""

import hashlib
import sqlite3

import numpy as np

from ..likeness import likeness, triples_of

NUM_HASHES = 128
MISSED = 0.005
"""Up to which share of the pairs that are just alike enough may be overlooked."""


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _numbers(kind: str) -> np.ndarray:
    """As many numbers as hashes, (NUM_HASHES, 1), the same everywhere."""
    return np.array([[_digest(f"{kind} {number}".encode())] for number in range(NUM_HASHES)], np.uint64)


_FACTORS, _TERMS = _numbers("factor") | np.uint64(1), _numbers("term")


class NearDuplicates:
    """
    Captions and questions that were written, and which of them a further segment repeats.

    Args:
        database (`sqlite3.Connection`): Where they are kept.
        share (`float`): From which share of common triples texts are alike, above 0, up to 1.
    """

    def __init__(self, database: sqlite3.Connection, share: float):
        self.database, self.share, self.rows = database, share, rows_of_bands(share)
        database.executescript(
            "CREATE TABLE captions (name TEXT, triples BLOB);"
            "CREATE TABLE bands (band INTEGER, caption INTEGER, PRIMARY KEY (band, caption)) WITHOUT ROWID;"
            "CREATE TABLE questions (caption INTEGER, name TEXT, triples BLOB);"
            "CREATE INDEX questions_of ON questions (caption);"
        )

    def repeats(self, name: str, caption: str, questions: list[str]) -> tuple[str | None, list[bool]]:
        """
        Which of the texts of a segment nearly are those of one before it. The others are kept.

        Args:
            name (`str`): The id of the segment.
            caption (`str`): Its caption.
            questions (`list[str]`): Its questions, with all that makes them different.

        Returns:
            `tuple[str | None, list[bool]]`: the segment whose caption is repeated, and which questions are. Questions
            are only compared with those about segments that are alike: many can be asked about any film.
        """
        triples = _hashes(caption)
        bands = self._bands(triples)
        found = self._find(triples, bands)
        if found is None:
            number = self.database.execute("INSERT INTO captions VALUES (?, ?)", (name, triples.tobytes())).lastrowid
            self.database.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(band, number) for band in bands])
            repeated = [False] * len(questions)
        else:
            number = found[0]
            known = self.database.execute("SELECT triples FROM questions WHERE caption = ?", (number,)).fetchall()
            before = [np.frombuffer(one, np.uint64) for (one,) in known]
            repeated = [any(_share(_hashes(one), other) >= self.share for other in before) for one in questions]
        self.database.executemany(
            "INSERT INTO questions VALUES (?, ?, ?)",
            [(number, name, _hashes(one).tobytes()) for one, known in zip(questions, repeated) if not known],
        )
        return found and found[1], repeated

    def _find(self, triples: np.ndarray, bands: list[int]) -> tuple[int, str] | None:
        """The first caption that is alike."""
        places = ", ".join("?" * len(bands))
        candidates = self.database.execute(
            f"SELECT DISTINCT caption FROM bands WHERE band IN ({places}) ORDER BY caption", bands
        ).fetchall()
        for (number,) in candidates:
            name, other = self.database.execute(
                "SELECT name, triples FROM captions WHERE rowid = ?", (number,)
            ).fetchone()
            if _share(triples, np.frombuffer(other, np.uint64)) >= self.share:
                return number, name
        return None

    def _bands(self, triples: np.ndarray) -> list[int]:
        least = ((_FACTORS * triples + _TERMS) >> np.uint64(16)).min(axis=1)
        count = NUM_HASHES // self.rows
        bands = least[: count * self.rows].reshape(count, self.rows)
        return [_digest(bytes([number]) + band.tobytes()) >> 1 for number, band in enumerate(bands)]


def rows_of_bands(share: float) -> int:
    """How many hashes a band has: as many as leave but few pairs of this likeness without a common band."""
    fitting = [
        rows for rows in range(1, NUM_HASHES + 1) if (1 - share**rows) ** (NUM_HASHES // rows) <= MISSED or rows == 1
    ]
    return max(fitting)


def _hashes(text: str) -> np.ndarray:
    """The triples of a text as numbers, sorted."""
    return np.sort(np.array([_digest(" ".join(triple).encode()) for triple in triples_of(text)], np.uint64))


def _share(one: np.ndarray, other: np.ndarray) -> float:
    return likeness({*one.tolist()}, {*other.tolist()})
