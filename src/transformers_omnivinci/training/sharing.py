"""
Sharing of media: several samples about the same media in one sequence.

What they have in common, up to the end of the media and as far as their questions begin alike, stands there once. Then
comes the rest of each sample, at the positions that it has alone, and attends to the common part and to itself.
[`SampleEncoder`] writes such sequences and [`OmniVinciCollator`] their masks; this module decides which samples share
one. It is packing with a common prefix: the loss and its gradients are those of the samples apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike

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

    def shares_media(self, other: "SplitSample") -> bool:
        """Whether both begin with the same text and media."""
        return self.before == other.before and all(
            kind == other_kind and (source is other_source or isinstance(source, NAMES) and source == other_source)
            for (kind, source), (other_kind, other_source) in zip(self.media, other.media, strict=True)
        )


def count_shared(samples: Sequence[SplitSample]) -> int:
    """
    How many tokens behind the media all samples begin with. The token that the first answer is read off is never among
    them: each sample has its own, as it learns its own answer from there.
    """
    end = min(sample.answer_start for sample in samples) - 1
    shared = 0
    for tokens in zip(*(sample.after[:end] for sample in samples), strict=True):
        if len(set(tokens)) > 1:
            break
        shared += 1
    return shared


def group_by_media(rows: Iterable[tuple], encoder) -> Iterator[tuple[list, object]]:
    """
    Groups samples that follow each other in a source and share their media. A group that would be longer than
    `encoder.max_length` is cut into several.

    Args:
        rows (`Iterable[tuple]`): (source and row), [`Sample`] and [`Measure`] of each.
        encoder ([`SampleEncoder`]): What splits and limits them.

    Returns:
        `Iterator[tuple]`: The (source and row) of the samples of each group, and its [`Measure`].
    """
    places, splits, measure = [], [], None
    for place, sample, alone in rows:
        split = encoder.split(sample)
        if places and split and splits and place[0] == places[-1][0] and split.shares_media(splits[0]):
            # Every sample begins with the media: what is counted of a further one is what it does not share.
            before = measure.length - _length(splits)
            length = before + _length([*splits, split])
            if encoder.max_length is None or length <= encoder.max_length:
                places, splits, measure = [*places, place], [*splits, split], replace(measure, length=length)
                continue
        if places:
            yield places, measure
        places, splits, measure = [place], [split] if split else [], alone
    if places:
        yield places, measure


def _length(samples: Sequence[SplitSample]) -> int:
    """Positions behind the media."""
    return sum(len(sample.after) for sample in samples) - (len(samples) - 1) * count_shared(samples)
