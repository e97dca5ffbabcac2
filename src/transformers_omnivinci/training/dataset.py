"""Chats with media as a dataset, checked and measured before the first step."""

import hashlib
from collections.abc import Sequence

from torch.utils.data import Dataset
from transformers.utils import logging

from .data import BadSample, DataSource, JsonLines, Sample, read_sample
from .encoding import Measure, SampleEncoder


class ChatDataset(Dataset):
    """
    Chats with media, encoded when they are asked for. All of them are read and measured at once, from the headers of
    their media, so that what is wrong is told before the first step.

    Args:
        sources (`list[DataSource]`): Where the chats come from.
        encoder ([`SampleEncoder`]): What makes tensors of them.
        skip_bad (`bool`, *optional*, defaults to `False`):
            Whether bad samples are left out. A file that proves to be damaged only when it is decoded is replaced by
            the next sample, in every epoch the same.

    Attributes:
        measures (`list[Measure]`): Length and modalities of each sample.
        source_of (`list[int]`): From which source each sample is.
        skipped (`list[BadSample]`): What was left out.

    Raises:
        BadSample: without `skip_bad`: a sample is no chat, has no answer, is too long, or its media cannot be read.
        ValueError: there is no sample, or some sources have a weight and others have none.
        OSError: a data file cannot be read.
    """

    def __init__(self, sources: Sequence[DataSource], encoder: SampleEncoder, skip_bad: bool = False):
        if len({source.weight is None for source in sources}) > 1:
            raise ValueError("Some data sources have a weight and others have none: give one to each, or to none.")
        self.sources, self.encoder, self.skip_bad = list(sources), encoder, skip_bad
        self._rows = [source.open() for source in self.sources]
        self._places: list[tuple[int, int]] = []
        self.measures: list[Measure] = []
        self.skipped: list[BadSample] = []
        digest = hashlib.sha256()
        places = [(source, row) for source, rows in enumerate(self._rows) for row in range(len(rows))]
        for place in logging.tqdm(places, desc="Reading the data", disable=None):
            try:
                sample = self._read(place)
                self.measures.append(encoder.measure(sample))
            except BadSample as bad:
                if not skip_bad:
                    raise
                self.skipped.append(bad)
                continue
            self._places.append(place)
            digest.update(repr((sample.id, self.measures[-1].length)).encode())
        if not self._places:
            raise ValueError(f"There is nothing to train on: all {len(self.skipped)} samples are bad.")
        for index, source in enumerate(self.sources):
            if index not in {place[0] for place in self._places}:
                raise ValueError(f"All samples of {source.label} are bad.")
        self.fingerprint = digest.hexdigest()

    @property
    def source_of(self) -> list[int]:
        return [source for source, _ in self._places]

    def __len__(self) -> int:
        return len(self._places)

    def sample(self, index: int) -> Sample:
        """A chat, not yet encoded."""
        return self._read(self._places[index])

    def __getitem__(self, index: int | tuple[int, ...]) -> dict | list[dict]:
        """
        One sample as [`SampleEncoder.encode`] gives it, or a list of those that share a row.

        Raises:
            BadSample: it cannot be encoded, and `skip_bad` is not set.
        """
        if isinstance(index, tuple):
            return [self[position] for position in index]
        skipped = []
        for step in range(len(self)):
            try:
                encoded = self.encoder.encode(self.sample((index + step) % len(self)))
            except BadSample as bad:
                if not self.skip_bad:
                    raise
                skipped.append(bad)
                continue
            return {**encoded, "skipped": skipped}
        raise skipped[0]

    def _read(self, place: tuple[int, int]) -> Sample:
        source, index = self.sources[place[0]], place[1]
        rows = self._rows[place[0]]
        if isinstance(rows, JsonLines):
            return read_sample(rows[index], rows.name(index), rows.path.resolve().parent)
        return read_sample(rows[index], f"{source.label}:{index}")
