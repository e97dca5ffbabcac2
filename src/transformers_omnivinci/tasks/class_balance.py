"""Rows drawn so that rare classes are seen as often as frequent ones."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Row = TypeVar("Row", bound=Mapping)


def balance_classes(
    rows: Iterable[Row], label: str | Callable[[Row], str] = "answer", per_class: int | None = None, seed: int = 0
) -> list[Row]:
    """
    Draws the same number of rows of each class. Within a class, no row is drawn again before all have been.

    Args:
        rows (`Iterable[Mapping]`): What is drawn from.
        label (`str` or `Callable`, *optional*, defaults to `"answer"`): The field with the class, or what tells it.
        per_class (`int`, *optional*): How many of each. Default: as many as the most frequent class has.
        seed (`int`, *optional*, defaults to 0): Of what is drawn and of the order.

    Returns:
        `list`: the rows, classes mixed.

    Raises:
        ValueError: there are no rows, a row lacks the field, or `per_class` is below 1.
    """
    classes = defaultdict(list)
    for number, row in enumerate(rows):
        if not callable(label) and label not in row:
            raise ValueError(f"Row {number} has no field {label!r}, which is to tell its class.")
        classes[label(row) if callable(label) else row[label]].append(row)
    if not classes or (per_class is not None and per_class < 1):
        raise ValueError(f"{per_class} rows of each of {len(classes)} classes: at least one of each is accepted.")
    count = max(map(len, classes.values())) if per_class is None else per_class
    rng, drawn = random.Random(seed), []
    for members in classes.values():
        whole, rest = divmod(count, len(members))
        for size in [len(members)] * whole + [rest]:
            drawn += rng.sample(members, size)
    rng.shuffle(drawn)
    return drawn
