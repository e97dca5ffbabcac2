"""
A stage: a small class that reads some columns of rows and adds others. It works alone on plain dictionaries; the
runners only decide where, and with how many at a time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import ClassVar

from .columns import Provenance, Rejected
from .structured import Asked
from .typed import hints, nearest, plain, read

REJECTED, PROVENANCE = "rejected", "provenance"


class Failed(Exception):
    """
    Why one row goes no further.

    Args:
        reason (`str`): One sentence.
        provenance (`Provenance`): What it took to find out.
    """

    def __init__(self, reason: str, *provenance: Provenance):
        super().__init__(reason)
        self.provenance = provenance


class Stage:
    """
    Base of the stages.

    Attributes:
        name (`str`): As in the config.
        takes (`tuple[type, ...]`): Classes of `columns` whose columns it reads.
        gives (`tuple[type, ...]`): Classes of `columns` whose columns it adds, or writes anew.
    """

    name: ClassVar[str]
    takes: ClassVar[tuple[type, ...]]
    gives: ClassVar[tuple[type, ...]]

    def process(self, rows: list[list]) -> "list[Sequence | Failed]":
        """
        The work itself.

        Args:
            rows (`list[list]`): For each row, an instance of each class in `takes`.

        Returns:
            `list`: for each row, an instance of each class in `gives`, then maybe instances of [`Provenance`]; or
            [`Failed`].
        """
        raise NotImplementedError

    def __call__(self, rows: Sequence[dict]) -> list[dict]:
        """
        Adds the columns of this stage to rows. Rows that were rejected before pass through as they are.

        Args:
            rows (`Sequence[dict]`): Rows of plain values, as JSON has them.

        Returns:
            `list[dict]`: as many rows, in their order.

        Raises:
            ValueError: a row lacks a column, or has a value of another type in it.
        """
        rows = [dict(row) for row in rows]
        open_rows = [row for row in rows if not row.get(REJECTED)]
        taken = [[self._take(row, kind) for kind in self.takes] for row in open_rows]
        results = self.process(taken) if taken else []
        for row, result in zip(open_rows, results, strict=True):
            if isinstance(result, Failed):
                row[REJECTED], took = plain(Rejected(self.name, str(result))), result.provenance
            else:
                took = result[len(self.gives) :]
                for kind, value in zip(self.gives, result):
                    row.update(plain(read(kind, plain(value), f"the result of the stage {self.name}")))
            row[PROVENANCE] = [*row.get(PROVENANCE, []), *plain(list(took))]
        return rows

    def _take(self, row: dict, kind: type):
        missing = [name for name in hints(kind) if name not in row]
        if missing:
            raise ValueError(f"The stage {self.name} reads the column {missing[0]!r}: {nearest(missing[0], row)}")
        return read(kind, {name: row[name] for name in hints(kind)}, f"a row of the stage {self.name}")


def check_chain(stages: Sequence[Stage], given: Sequence[type]) -> None:
    """A ValueError unless each stage finds the columns that it reads, be they given or of a stage before it."""
    known = {field.name for kind in given for field in fields(kind)}
    for stage in stages:
        missing = [field.name for kind in stage.takes for field in fields(kind) if field.name not in known]
        if missing:
            raise ValueError(f"The stage {stage.name} reads {missing[0]!r}, which no stage before it gives.")
        known |= {field.name for kind in stage.gives for field in fields(kind)}


def account(
    stage: str,
    backend: str,
    model: str,
    prompt: str,
    asked: Sequence[Asked],
    prices: tuple[float, float] = (0.0, 0.0),
) -> Provenance:
    """
    What questions took.

    Args:
        stage, backend, model, prompt: As in [`Provenance`].
        asked (`Sequence[Asked]`): The questions.
        prices (`tuple[float, float]`): Of a million prompt tokens, and of a million completion tokens.
    """
    replies = [reply for one in asked for reply in one.replies]
    prompt_tokens, completion_tokens = (
        sum(getattr(reply, name) for reply in replies) for name in ("prompt_tokens", "completion_tokens")
    )
    return Provenance(
        stage=stage,
        backend=backend,
        model=model,
        prompt=prompt,
        calls=len(replies),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost=round((prompt_tokens * prices[0] + completion_tokens * prices[1]) / 1e6, 9),
        repairs=sum(one.repairs for one in asked),
        seconds=round(sum(reply.seconds for reply in replies), 3),
    )


def seed_of(*parts) -> int:
    """A seed that depends on nothing but these values: the same in each run and process."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
