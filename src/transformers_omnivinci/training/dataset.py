"""Chats with media as a dataset, checked and measured before the first step."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset

from .data import BadSample, Sample
from .data_sources import DataSource
from .encoding import Measure, SampleEncoder
from .measuring import measure_rows, settings_of
from .sharing import Opening, group_by_media


class ChatDataset(Dataset):
    """
    Chats with media, encoded when they are asked for. All of them are measured at once, from the headers of their
    media, so that what is wrong is told before the first step. Measures of a JSONL file are kept beside it for the
    next time. Where torch.distributed runs, each process measures a share: all of them must make the dataset, and all
    get the same.

    Args:
        sources (`list[DataSource]`): Where the chats come from.
        encoder ([`SampleEncoder`]): What makes tensors of them.
        skip_bad (`bool`, *optional*, defaults to `False`):
            Whether bad samples are left out. One that proves to be bad only when it is decoded is replaced by the next
            of the same modalities that is no longer, in every epoch the same: it fits where the bad one did.
        share_media (`bool`, *optional*, defaults to `False`):
            Whether samples that follow each other and ask about the same media become one item, in which the media
            are decoded and encoded once. Its length is limited as that of a sample, and it counts as one where sources
            are mixed.

    Attributes:
        measures (`list[Measure]`): Length and modalities of each item: a sample, or those that share their media.
        source_of (`list[int]`): From which source each item is.
        skipped (`list[BadSample]`): What was left out.

    Raises:
        BadSample: without `skip_bad`: a sample is no chat, has no answer, is too long, or its media cannot be read.
        ValueError: there is no sample, or some sources have a weight and others have none.
        OSError: a data file cannot be read.
    """

    def __init__(
        self,
        sources: Sequence[DataSource],
        encoder: SampleEncoder,
        skip_bad: bool = False,
        share_media: bool = False,
    ):
        if len({source.weight is None for source in sources}) > 1:
            raise ValueError("Some data sources have a weight and others have none: give one to each, or to none.")
        self.sources, self.encoder, self.skip_bad, self.share_media = list(sources), encoder, skip_bad, share_media
        self._rows = [source.open() for source in self.sources]
        self.measures: list[Measure] = []
        self.skipped: list[BadSample] = []
        places, ends = array("q"), array("q", [0])  # source and row of each sample, and where items end among them
        digest = hashlib.sha256()
        rows = self._measure_all(digest)
        groups = group_by_media(rows, encoder.max_length) if share_media else (([row[0]], row[1]) for row in rows)
        for item, measure in groups:
            for place in item:
                places.extend(place)
            ends.append(len(places) // 2)
            self.measures.append(measure)
        if not self.measures:
            raise ValueError(f"There is nothing to train on: all {len(self.skipped)} samples are bad.")
        self._places, self._ends = np.array(places).reshape(-1, 2), np.array(ends)
        found = set(self.source_of)
        for index, source in enumerate(self.sources):
            if index not in found:
                raise ValueError(f"All samples of {source.label} are bad.")
        if share_media:
            digest.update(repr(np.diff(self._ends).tolist()).encode())
        self.fingerprint = digest.hexdigest()

    def _measure_all(self, digest) -> Iterator[tuple[tuple[int, int], Measure, Opening | None]]:
        """Source and row of each good sample, its measure and its opening."""
        settings = settings_of(self.encoder, self.share_media)
        measures: dict[tuple, Measure] = {}  # the same object for all samples of one
        for source, rows in enumerate(self._rows):
            measured = measure_rows(rows, self.encoder, settings, self.skip_bad, self.share_media)
            for index, row in enumerate(measured):
                if isinstance(row, BadSample):
                    self.skipped.append(row)
                    continue
                digest.update(repr((rows.name(index) if row.id is None else row.id, row.length)).encode())
                key = (row.length, *row.modalities)
                measure = measures.setdefault(key, Measure(row.length, frozenset(row.modalities)))
                yield (source, index), measure, row.opening

    @property
    def source_of(self) -> list[int]:
        """The source of each item, by its place among the sources."""
        return self._places[self._ends[:-1], 0].tolist()

    def __len__(self) -> int:
        return len(self.measures)

    def samples(self, index: int) -> list[Sample]:
        """The chats of an item, not yet encoded: one, or those that share their media."""
        index = range(len(self))[index]
        places = self._places[self._ends[index] : self._ends[index + 1]].tolist()
        return [self._rows[source].sample(row) for source, row in places]

    def __getitem__(self, index: int | tuple[int, ...]) -> dict | list[dict]:
        """
        One item as [`SampleEncoder.encode`] gives it, or a list of those that share a row.

        Raises:
            BadSample: it cannot be encoded, and `skip_bad` is not set or no sample can take its place.
        """
        if isinstance(index, tuple):
            return [self[position] for position in index]
        skipped, measure = [], self.measures[index]
        for place in self._places_of(index):
            samples = self.samples(place)
            while samples:
                try:
                    encoded = self.encoder.encode(*samples)
                except BadSample as bad:
                    if not self.skip_bad:
                        raise
                    skipped.append(bad)
                    del samples[[sample.id for sample in samples].index(bad.sample_id)]
                    continue
                if place == index or len(encoded["input_ids"]) <= measure.length:
                    return {**encoded, "skipped": skipped}
                break  # longer than its headers told
        raise BadSample(
            skipped[0].sample_id,
            f"{skipped[0].reason} No other sample can take its place, which needs the same modalities "
            f"({', '.join(sorted(measure.modalities)) or 'text alone'}) and at most {measure.length:,} positions: "
            "take it out of the data.",
        )

    def _places_of(self, index: int) -> Iterator[int]:
        """An item, and those that may take its place: those that follow it first."""
        yield index
        measure = self.measures[index]
        for step in range(1, len(self)):
            other = (index + step) % len(self)
            if self.measures[other].modalities == measure.modalities and self.measures[other].length <= measure.length:
                yield other
