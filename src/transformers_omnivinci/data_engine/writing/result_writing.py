"""Writes the results of a run from its finished segments: chats, rejects, what else is wanted, and a card."""

import importlib.util
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ...new_file import new_file
from ..chat_rows import chats_of, kept_questions, name_of, segment_of, without_media
from ..columns import Segment
from ..config import EngineConfig
from ..segment_ledger import SegmentLedger
from ..stage import REJECTED
from .chat_tables import json_lines, parquet
from .data_card import PIE, data_card, front_matter
from .dataset_folder import NAME, DatasetFolder, hub_features
from .distribution_pie import draw_distribution
from .near_duplicates import NearDuplicates
from .segment_cuts import NoCut, SegmentCuts
from .segment_index import SegmentIndex, is_abandoned
from .web_shards import WebShards
from .written_counts import WrittenCounts

CHATS, REJECTS, TABLE, CARD = "chats.jsonl", "rejects.jsonl", "chats.parquet", "README.md"
FOLDER, DATA, SHARDS = "dataset", "data", "shards"
NEEDS_PYARROW = ("parquet", "datasets")


@dataclass
class Written:
    """
    What was written.

    Attributes:
        counts ([`WrittenCounts`]): All of it.
        notes (`list[str]`): What a user should know, in sentences.
    """

    counts: WrittenCounts = field(default_factory=WrittenCounts)
    notes: list[str] = field(default_factory=list)


def check_formats(config: EngineConfig) -> None:
    """An ImportError of one sentence if what the config asks for cannot be written here."""
    wanted = [name for name in NEEDS_PYARROW if name in config.write.formats]
    if wanted and importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"The format {wanted[0]!r} needs pyarrow: pip install 'transformers-omnivinci[curate]'.")


def write_results(ledger: SegmentLedger, config: EngineConfig, output: Path) -> Written:
    """
    Writes what the config asks for, segment by segment in the order of their films. Each file appears whole or not at
    all; media that were cut, and shards that were written before, are not made again.

    Args:
        ledger ([`SegmentLedger`]): That of the run, in use.
        config ([`EngineConfig`]): Of the run.
        output (`Path`): Its folder.

    Raises:
        OSError: something cannot be written. What was there before is there still.
        ImportError: a format needs a library that is missing.
    """
    check_formats(config)
    try:
        for folder in filter(Path.is_dir, (output, output / FOLDER, output / SHARDS)):
            for abandoned in filter(
                is_abandoned, folder.iterdir()
            ):  # of a run that was killed; no other has the folder
                abandoned.unlink()
        with SegmentIndex(ledger) as index:
            return _ResultWriter(ledger, index, config, output).write()
    except sqlite3.Error as error:  # as a full disk lets databases fail
        raise OSError(
            f"{output} cannot be written: {error}. Finished segments are kept: the same command writes what is "
            "missing."
        ) from error
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(
            f"{error.filename or output} cannot be written: {error.strerror or error}. Finished segments are kept: "
            "the same command writes what is missing."
        ) from error


class _ResultWriter:
    """One time that the results of a run are written."""

    def __init__(self, ledger: SegmentLedger, index: SegmentIndex, config: EngineConfig, output: Path):
        self.ledger, self.index, self.config, self.output = ledger, index, config, output
        self.written = Written()
        self.formats = config.write.formats
        share = config.write.repeated
        self.duplicates = None if share is None else NearDuplicates(index.database, share)

    def write(self) -> Written:
        counts, output, formats = self.written.counts, self.output, self.formats
        for name, folder in (("datasets", FOLDER), ("webdataset", SHARDS)):
            if name in formats:
                (output / folder).mkdir(exist_ok=True)
        with ExitStack() as stack:
            reject = stack.enter_context(json_lines(output / REJECTS))
            writers = [stack.enter_context(json_lines(output / CHATS))]
            if "parquet" in formats:
                writers.append(stack.enter_context(parquet(output / TABLE)))
            packers, limit = [], self.config.write.shard_megabytes * 1e6
            cuts = stack.enter_context(SegmentCuts(output)) if {"datasets", "webdataset"} & {*formats} else None
            if "datasets" in formats:
                packers.append(stack.enter_context(DatasetFolder(output / FOLDER / DATA, limit)))
            if "webdataset" in formats:
                packers.append(stack.enter_context(WebShards(output / SHARDS, limit)))
            for row in self.index.rejects():
                self._reject(reject, row, row[REJECTED])
            for row in self.index.rows():
                segment, left_out = segment_of(row), set()
                if self.duplicates is not None and "omni_caption" in row:
                    left_out = self._find_repeated(row, segment, reject)
                chats = list(chats_of(row, self.config.write, output, self.config.seed, left_out))
                counts.add(row, segment, chats, self.config.write, left_out, self._senses())
                for write in writers:
                    for chat in chats:
                        write(chat)
                if cuts is not None and chats:
                    self._pack(row, segment, chats, cuts, packers, reject)
        self._write_cards()
        return self.written

    def _senses(self) -> list[str]:
        options = self.config.stages.filter
        return options.senses if options is not None else []

    def _find_repeated(self, row: dict, segment: Segment, reject: Callable) -> set:
        """What of a segment is left out since it was written of another one."""
        kept = kept_questions(row, self.config.write)
        texts = [" ".join([one.question, *sorted(one.options), one.answer]) for _, one in kept]
        other, repeated = self.duplicates.repeats(segment.id, row["omni_caption"], texts)
        left_out = {number for (number, _), is_known in zip(kept, repeated) if is_known}
        if other is not None:
            left_out |= {"caption"} if self.config.write.captions else set()
            told = f"Its caption is nearly that of the segment {other}: it was left out, and so were "
            told += f"{len(left_out - {'caption'})} of its {len(kept)} questions."
            self._reject(reject, row, {"stage": "write", "reason": told})
        return left_out

    def _pack(self, row: dict, segment: Segment, chats: list, cuts: SegmentCuts, packers: list, reject) -> None:
        """Writes the chats of a segment with their media."""
        try:
            cut = cuts(segment)
        except NoCut as error:
            told = f"It is in no output that takes media along: {error}"
            self._reject(reject, row, {"stage": "write", "reason": told})
            return
        bare, sounds = [], []
        for chat in chats:
            chat, speech = without_media(chat, cut.span)
            bare.append(chat)
            sounds.append(speech and self.output / speech)
        for packer in packers:
            packer.pack(row, segment, cut, bare, sounds)

    def _reject(self, write: Callable, row: dict, rejected: dict) -> None:
        told = {"id": row["id"], "source": name_of(row["source"], self.output)}
        told |= {name: row[name] for name in ("start", "end") if name in row}
        write({**told, **rejected})
        self.written.counts.reject(rejected["stage"], rejected["reason"])

    def _write_cards(self) -> None:
        counts, config = self.written.counts, self.config
        total = counts.chats.total()
        has_pie = total > 0
        if has_pie:
            try:
                draw_distribution(counts, config.write.name, self.output / PIE)
            except ImportError:
                has_pie = False
                self.written.notes.append("The data card has no figure, as matplotlib is not installed.")
        if not has_pie:
            (self.output / PIE).unlink(missing_ok=True)
        for folder, use, more in self._uses():
            front = "" if more is None else front_matter(config, total, more)
            with new_file(folder / CARD) as part:
                part.write_text(
                    front + data_card(counts, config, self.ledger.settings, use, has_pie), encoding="utf-8"
                )
            if folder != self.output:
                (folder / PIE).unlink(missing_ok=True)
                if has_pie:
                    shutil.copyfile(self.output / PIE, folder / PIE)

    def _uses(self) -> Iterator[tuple[Path, str, dict | None]]:
        """Folders with a card, how they are read, and what the Hub is told of their files."""
        yield (
            self.output,
            f"`{CHATS}`"
            + (f" and `{TABLE}`" if "parquet" in self.formats else "")
            + " name the videos where they are, relative to this folder, with their seconds: "
            f"`omnivinci train --data {CHATS}`. `{REJECTS}` lists what was left out.",
            None,
        )
        if "datasets" in self.formats:
            files = [{"split": "train", "path": f"{DATA}/{NAME}-*.parquet"}]
            more = {"configs": [{"config_name": "default", "data_files": files}]}
            yield (
                self.output / FOLDER,
                '`datasets.load_dataset(FOLDER, split="train")` has a row for each segment, with its `video`, its '
                "`caption` and all `chats` about it. Items of `messages` that are no text are places for media: the "
                "video and, where a question is spoken, the sound whose place in `audio` is `speech`. To read files "
                "without decoding them: `cast_column('video', Video(decode=False))`.",
                more | {"dataset_info": {"features": hub_features()}},
            )
        if "webdataset" in self.formats:
            names = sorted({path.name.rpartition("-")[0] for path in (self.output / SHARDS).glob("*.tar")})
            configs = [
                {"config_name": name, "data_files": [{"split": "train", "path": f"{name}-[0-9]*.tar"}]}
                | ({"default": True} if place == 0 else {})
                for place, name in enumerate(names)
            ]
            yield (
                self.output / SHARDS,
                "WebDataset shards. In those without `wav` in their name, a sample is a segment, `KEY.json` with all "
                "`chats` about it and its video; in the others it is a chat whose question is spoken, `KEY.wav`. "
                "`omnivinci train --data FOLDER`, the package `webdataset` and `datasets` read them.",
                {"configs": configs} if configs else {},
            )
