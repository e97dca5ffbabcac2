"""Measures of rows: taken by all processes in shares, and kept on disk beside the data."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import transformers
from torch import distributed
from transformers.utils import logging

from .. import __version__
from ..new_file import new_file
from .data import BadSample, FileRows, Rows, Sample, file_version
from .encoding import SampleEncoder, media_items
from .sharing import Opening

FORMAT = 1
"""Of the files in which measures are kept: another number, and they are measured anew."""
REMOTE = re.compile(r"\s*(https?|data):", re.IGNORECASE)

logger = logging.get_logger(__name__)


class Row(NamedTuple):
    """
    What is known of a good row before its media are decoded.

    Attributes:
        id (`str`): The row's own. `None`: file and line.
        length (`int`): Positions in the sequence.
        modalities (`list[str]`): See [`Measure`].
        files (`list`): The local media that were measured: path, size in bytes, time of the last change.
        opening (`Opening`, *optional*): What samples that share media have in common. `None`: it is not asked for, or
            there are no media to share.
    """

    id: str | None
    length: int
    modalities: list[str]
    files: list[list]
    opening: Opening | None


def measure_rows(
    rows: Rows, encoder: SampleEncoder, settings: str, skip_bad: bool, share_media: bool
) -> list[Row | BadSample]:
    """
    Measures the rows of a source. Where torch.distributed runs, each process measures a share of them and all get the
    same result: all must make the call. Rows of a file are looked up beside it first, and kept there by one process.

    Args:
        rows ([`Rows`]): The rows.
        encoder ([`SampleEncoder`]): What measures.
        settings (`str`): See [`settings_of`].
        skip_bad (`bool`): Whether all rows are measured. Else the first bad one is raised.
        share_media (`bool`): Whether openings are wanted.

    Returns:
        `list`: Of each row its [`Row`], or what is wrong with it.

    Raises:
        BadSample: without `skip_bad`: the first bad row.
        ValueError: processes see unlike numbers of rows.
    """
    cache = MeasureCache(rows, settings) if isinstance(rows, FileRows) else None
    known = cache and cache.read()
    rank, num_processes = 0, 1
    # Whether media in memory are the same objects is known within a process alone.
    if distributed.is_available() and distributed.is_initialized() and not (share_media and cache is None):
        rank, num_processes = distributed.get_rank(), distributed.get_world_size()
    share = range(len(rows) * rank // num_processes, len(rows) * (rank + 1) // num_processes)
    found: list[Row | BadSample | None] = [None] * len(share)
    if known is not None:
        found = [cache.check(known[index], encoder.max_length) for index in share]
    is_new = _measure_unknown(rows, share, found, encoder, cache, skip_bad, share_media)
    if num_processes > 1:
        parts = [None] * num_processes
        distributed.all_gather_object(parts, (len(rows), found, is_new))
        if len({count for count, _, _ in parts}) > 1:
            raise ValueError(f"Processes have unlike numbers of rows in {rows.name(0)}: all of them need the same.")
        found, is_new = [row for _, part, _ in parts for row in part], any(new for _, _, new in parts)
    if cache is not None and is_new and rank == 0:
        cache.write(found)
    bad = next((row for row in found if isinstance(row, BadSample)), None)
    if bad is not None and not skip_bad:
        raise bad
    return found


def _measure_unknown(rows, share: range, found: list, encoder, cache, skip_bad: bool, share_media: bool) -> bool:
    """Fills in the rows of a share that are `None`, up to the first bad one; says whether there are new good ones."""
    is_new, before = False, None
    for place, index in enumerate(logging.tqdm(share, desc="Reading the data", disable=None)):
        if found[place] is not None:
            continue
        try:
            sample = rows.sample(index)
            files = cache.files_of(sample) if cache is not None else []
            measure = encoder.measure(sample)
            split = encoder.split(sample) if share_media else None
        except BadSample as bad:
            found[place] = bad
            if not skip_bad:
                break
            continue
        opening = Opening.of(split, before, str(index)) if split else None
        before = (split, opening) if split else None
        own_id = None if sample.id == rows.name(index) else sample.id
        found[place] = Row(own_id, measure.length, sorted(measure.modalities), files, opening)
        is_new = True
    return is_new


def settings_of(encoder: SampleEncoder, share_media: bool) -> str:
    """A digest of all that decides measures beside rows and media: processor, tokenizer, options and versions."""
    processor = encoder.processor
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    for name in ("truncation", "padding"):  # of the last call
        tokenizer.pop(name, None)
    versions = [FORMAT, __version__, transformers.__version__]
    settings = [versions, share_media, encoder.options, processor.to_dict(), processor.chat_template, tokenizer]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode()).hexdigest()


class MeasureCache:
    """
    The measures of a data file in a hidden file beside it, one for each combination of settings. It starts with a
    checksum of the rest; what is damaged, or was measured of another file or with other settings, is not read. Bad
    rows are not kept, as what is wrong with them may be mended.

    Args:
        data ([`FileRows`]): The data file.
        settings (`str`): See [`settings_of`].
    """

    def __init__(self, data: FileRows, settings: str):
        self.data = data
        self.path = data.path.with_name(f".{data.path.name}.{settings[:16]}.measures")
        self.header = json.dumps([settings, *data.version]).encode()
        self._versions: dict[str, list | None] = {}

    def read(self) -> list[bytes] | None:
        """What is known of each row, for [`check`], and of the data file where its rows begin. `None`: nothing is."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        checksum, _, content = content.partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            return None
        header, count, content = content.split(b"\n", 2)
        if header != self.header:
            return None
        end = 16 * int(count)
        self.data.index = np.frombuffer(content[:end], dtype="<i8").reshape(-1, 2)
        return content[end:].split(b"\n")

    def check(self, line: bytes, max_length: int | None) -> Row | None:
        """A row that was kept; `None` if it is to be measured, as its media have changed or it is too long."""
        kept = json.loads(line)
        row = kept and Row(*kept)
        if row is None or (max_length is not None and row.length > max_length):
            return None
        if any(self._version(path) != version for path, *version in row.files):
            return None
        return row._replace(opening=row.opening and Opening(*row.opening))

    def write(self, rows: Sequence[Row | BadSample | None]) -> None:
        """Keeps the measures of all rows; a folder that cannot be written is told in a warning."""
        index = self.data.index.astype("<i8").tobytes()
        lines = "\n".join(json.dumps(row if isinstance(row, Row) else None) for row in rows).encode()
        content = b"\n".join([self.header, b"%d" % len(rows), index + lines])
        try:
            with new_file(self.path) as part:
                part.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        except OSError as error:
            logger.warning_once(
                f"The lengths of samples cannot be kept in {self.path.parent} ({error.strerror or error}): they are "
                "measured at each start."
            )

    def files_of(self, sample: Sample) -> list[list]:
        """The local media of a sample, in whatever state they are. What is downloaded is taken not to change."""
        media = [item[item["type"]] for item in media_items(sample)]
        sources = [source for medium in media for source in (medium if isinstance(medium, list) else [medium])]
        paths = [source for source in sources if isinstance(source, str) and not REMOTE.match(source)]
        prefix = f"{self.data.folder}{os.sep}"
        return [[path.removeprefix(prefix), *(self._version(path) or (None, None))] for path in paths]

    def _version(self, path: str) -> list | None:
        """Size and time of the last change; paths start where the data file lies."""
        if path not in self._versions:
            try:
                self._versions[path] = file_version(Path(self.data.folder, path))
            except OSError:
                self._versions[path] = None
        return self._versions[path]
