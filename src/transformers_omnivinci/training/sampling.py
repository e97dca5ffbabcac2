"""
In which order samples are trained on: mixed by weight, grouped by modality and length, and packed: several samples in
one row, without padding.

The positions of each sample in a row start anew at 0 and there is no attention mask: transformers reads from that
where samples begin, for FlashAttention (`cu_seq_lens`) as for the block-diagonal masks of other attentions.
[`OmniVinciCollator`] writes such rows; this module decides which samples share one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from .encoding import Measure

WINDOW = 64
"""Among how many groups' worth of samples those of like length are looked for."""


def pack(indices: Iterable[int], lengths: Sequence[int], capacity: int) -> list[tuple[int, ...]]:
    """
    Fills rows by first fit, the longest samples first.

    Args:
        indices (`Iterable[int]`): The samples.
        lengths (`Sequence[int]`): Length of each sample, by its index.
        capacity (`int`): The most positions of a row.

    Returns:
        `list[tuple[int, ...]]`: The samples of each row.

    Raises:
        ValueError: a sample is longer than a row.
    """
    order = sorted(indices, key=lambda index: -lengths[index])
    shortest = lengths[order[-1]] if order else 0
    rows: list[list[int]] = []
    room: list[int] = []
    is_open: list[int] = []  # rows that the shortest sample still fits
    for index in order:
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"A sample of {length:,} positions does not fit a row of {capacity:,}.")
        row = next((row for row in is_open if room[row] >= length), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(capacity)
            is_open.append(row)
        rows[row].append(index)
        room[row] -= length
        if room[row] < shortest:
            is_open.remove(row)
    return [tuple(row) for row in rows]


class MixtureSampler(Sampler):
    """
    Draws an epoch of samples, and groups those of the same modalities and of like length.

    A group is what all processes train on at once. All of them then run the same encoders, so that none waits for
    another. The last group of each combination of modalities is filled up with samples drawn again. An epoch is
    always as long as the first one.

    Args:
        measures (`Sequence[Measure]`): Length and modalities of each sample.
        strata (`Sequence[tuple[Sequence[int], float]]`):
            Samples and the share of each stratum, such as a file; no sample is in two of them. Within a stratum none
            is drawn again before all have been.
        group_size (`int`): How many samples, or packed rows, all processes take together.
        capacity (`int`, *optional*): The most positions of a packed row. `None`: samples are not packed.
        seed (`int`, *optional*, defaults to 0): With the epoch it decides everything.
        shuffle (`bool`, *optional*, defaults to `True`): `False`: in order of length.
    """

    def __init__(
        self,
        measures: Sequence[Measure],
        strata: Sequence[tuple[Sequence[int], float]],
        group_size: int,
        capacity: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ):
        self.measures, self.strata, self.group_size = measures, strata, group_size
        self.capacity, self.seed, self.shuffle, self.epoch = capacity, seed, shuffle, 0
        self._num_groups = len(self._groups(0))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_groups * self.group_size

    def __iter__(self) -> Iterator[int | tuple[int, ...]]:
        """Indices of samples, or tuples of those that share a row."""
        groups = self._groups(self.epoch)
        while len(groups) < self._num_groups:
            groups += groups[: self._num_groups - len(groups)]
        for group in groups[: self._num_groups]:
            yield from group

    def draw(self, rng: np.random.Generator) -> list[int]:
        """The samples of an epoch, each stratum by its share."""
        num_samples = sum(len(members) for members, _ in self.strata)
        shares = np.array([share for _, share in self.strata])
        quotas = np.floor(np.cumsum(shares / shares.sum()) * num_samples + 0.5).astype(int)
        drawn = []
        for (members, _), quota in zip(self.strata, np.diff(quotas, prepend=0), strict=True):
            rounds = -(-quota // len(members))
            order = [rng.permutation(members) if self.shuffle else np.asarray(members) for _ in range(rounds)]
            drawn += np.concatenate(order)[:quota].tolist() if rounds else []
        return rng.permutation(drawn).tolist() if self.shuffle else drawn

    def _groups(self, epoch: int) -> list[list]:
        rng = np.random.default_rng([self.seed, epoch])
        drawn, waiting, groups = self.draw(rng), defaultdict(list), []
        size = WINDOW * self.group_size
        for start in range(0, len(drawn), size):
            for index in drawn[start : start + size]:
                waiting[self.measures[index].modalities].append(index)
            for modalities, indices in waiting.items():
                waiting[modalities] = self._take_groups(indices, groups)
        for modalities in sorted(waiting, key=sorted):
            units = self._units(waiting[modalities])
            of_kind = [index for index in drawn if self.measures[index].modalities == modalities]
            while units and len(units) < self.group_size:
                again = of_kind[rng.integers(len(of_kind))]
                units.append((again,) if self.capacity else again)
            groups += [units] if units else []
        if self.shuffle:
            groups = [groups[position] for position in rng.permutation(len(groups))]
        return groups

    def _take_groups(self, indices: list[int], groups: list[list]) -> list[int]:
        """Moves whole groups out of samples that wait; returns those that go on waiting."""
        units = self._units(indices)
        whole = len(units) - len(units) % self.group_size
        groups += [units[start : start + self.group_size] for start in range(0, whole, self.group_size)]
        return [index for unit in units[whole:] for index in (unit if self.capacity else (unit,))]

    def _units(self, indices: list[int]) -> list:
        lengths = {index: self.measures[index].length for index in indices}
        if self.capacity:
            return pack(indices, lengths, self.capacity)
        return sorted(indices, key=lengths.__getitem__)


def strata_of(
    measures: Sequence[Measure], source_of: Sequence[int], weights: Sequence[float | None], data: dict[str, float]
) -> list[tuple[list[int], float]]:
    """
    The strata of a [`MixtureSampler`]: sources by their weights where they have any, else kinds of samples by the
    shares of a recipe.

    Args:
        measures (`Sequence[Measure]`): Of each sample.
        source_of (`Sequence[int]`): The source of each sample.
        weights (`Sequence[float]`): Of each source; `None`: none has one.
        data (`dict[str, float]`): Shares of a recipe, see [`Recipe.data`].
    """
    weighted = weights[0] is not None
    members = defaultdict(list)
    for index, measure in enumerate(measures):
        members[source_of[index] if weighted else measure.kind].append(index)
    if weighted:
        return [(indices, weights[source]) for source, indices in sorted(members.items())]
    named = {kind: data[kind] for kind in members if kind in data}
    natural = {kind: len(indices) / len(measures) for kind, indices in members.items()}
    left = sum(natural[kind] for kind in named)
    shares = {kind: share * left / sum(named.values()) for kind, share in named.items()}
    return [(indices, shares.get(kind, natural[kind])) for kind, indices in sorted(members.items())]
