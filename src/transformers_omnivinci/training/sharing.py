"""
Sharing of media: several samples about the same media in one sequence.

What they have in common, up to the end of the media and as far as their questions begin alike, stands there once. Then
comes the rest of each sample, at the positions that it has alone, and attends to the common part and to itself.
[`SampleEncoder`] writes such sequences and [`OmniVinciCollator`] their masks; this module decides which samples share
one. It is packing with a common prefix: the loss and its gradients are those of the samples apart.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from os import PathLike
from typing import NamedTuple

NAMES = (str, bytes, PathLike)
"""Sources that are the same if they are equal. Others are if they are one object."""


@dataclass(frozen=True)
class SplitSample:
    """
    A sample, cut behind its last medium.

    Attributes:
        before (`list[int]`): Tokens up to the last medium, with one placeholder for each medium.
        media (`list`): The sources of the media, each with its modality and its own options.
        after (`list[int]`): Tokens behind the last medium.
        labels (`list[int]`): Those of `after`.
        answer_start (`int`): Where in `after` the first token is that is learnt.
    """

    before: list[int]
    media: list[tuple[tuple, object]]
    after: list[int]
    labels: list[int]
    answer_start: int

    @property
    def question(self) -> list[int]:
        """Tokens behind the last medium that others may share, but for the one that the answer is read off."""
        return self.after[: self.answer_start - 1]

    def shares_media(self, other: "SplitSample") -> bool:
        """Whether both begin with the same text and media."""
        return self.before == other.before and all(
            kind == other_kind and (source is other_source or isinstance(source, NAMES) and source == other_source)
            for (kind, source), (other_kind, other_source) in zip(self.media, other.media, strict=True)
        )


class Opening(NamedTuple):
    """
    What is kept of a [`SplitSample`] to tell with which others it shares its media, and how long they are together.

    Attributes:
        key (`str`): The same for samples that begin with the same text and media.
        question (`list[int]`): See [`SplitSample.question`].
        length (`int`): Tokens behind the last medium.
    """

    key: str
    question: list[int]
    length: int

    @classmethod
    def of(cls, split: SplitSample, before: tuple[SplitSample, "Opening"] | None, name: str) -> "Opening":
        """Media without names may be the objects of the sample `before`; `name` is what no other sample is called."""
        if all(isinstance(source, NAMES) for _, source in split.media):
            key = hashlib.sha256(repr((split.before, split.media)).encode()).hexdigest()[:32]
        else:
            key = before[1].key if before and split.shares_media(before[0]) else name
        return cls(key, split.question, len(split.after))


def count_shared(samples: Sequence[SplitSample]) -> int:
    """How many tokens behind the media the questions of all samples begin with."""
    return len(reduce(_common_prefix, (sample.question for sample in samples)))


def _common_prefix(one: list[int], other: list[int]) -> list[int]:
    different = (place for place, (a, b) in enumerate(zip(one, other)) if a != b)
    return one[: next(different, min(len(one), len(other)))]


def group_by_media(rows: Iterable[tuple], max_length: int | None) -> Iterator[tuple[list, object]]:
    """
    Groups samples that follow each other in a source and share their media.

    Args:
        rows (`Iterable[tuple]`): Of each sample its (source and row), its [`Measure`], and its [`Opening`] or `None`.
        max_length (`int`, *optional*): A group that would have more positions is cut into several. `None`: any.

    Returns:
        `Iterator[tuple]`: The (source and row) of the samples of each group, and its [`Measure`].
    """
    places, opening, measure, apart = [], None, None, 0
    for place, alone, one in rows:
        if places and opening and one and place[0] == places[-1][0] and one.key == opening.key:
            # Every sample begins with the media: what is counted of a further one is what it does not share.
            question = _common_prefix(opening.question, one.question)
            length = apart + one.length - len(places) * len(question)
            if max_length is None or length <= max_length:
                places.append(place)
                opening, measure = opening._replace(question=question), replace(measure, length=length)
                apart += one.length
                continue
        if places:
            yield places, measure
        places, opening, measure, apart = [place], one, alone, alone.length
    if places:
        yield places, measure
