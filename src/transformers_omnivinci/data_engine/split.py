"""The first stage: videos become segments of clips, by their headers; what cannot be used is listed, with why."""

import hashlib
import math
import mimetypes
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..media import is_url, probe_video
from .clip_media import loudness
from .columns import Rejected, Segment, Source
from .config import SplitConfig
from .segmentation import cut_at_scenes, cut_evenly, group
from .stage import REJECTED, Failed
from .typed import plain, read


class Split:
    """
    Splits videos into segments.

    Args:
        config ([`SplitConfig`]): How.

    Calling it with rows of the column `source` gives, for each, a row for each of its segments, with the columns of
    [`Segment`], or one row with `id`, `source` and `rejected`. No frame is decoded.
    """

    name = "split"
    takes, gives = (Source,), (Segment,)

    def __init__(self, config: SplitConfig):
        self.config = config

    def __call__(self, rows: Sequence[dict]) -> list[dict]:
        return [result for row in rows for result in self._split(read(Source, row, "a row of the stage split").source)]

    def _split(self, source: str) -> list[dict]:
        name = name_source(source)
        try:
            cuts = self._cut(source)
        except (Failed, OSError, ValueError) as error:
            return [_reject(name, source, error)]
        rows = []
        for clips in group(cuts, self.config.segment_seconds, self.config.shortest_clip):
            start, end = clips[0].start, clips[-1].end
            segment = Segment(f"{name}-{round(1000 * start):09d}", source, start, end, clips)
            try:
                self._listen(segment)
                rows.append(plain(segment))
            except (Failed, OSError, ValueError) as error:
                rows.append(plain(segment) | _reject(segment.id, source, error))
        return rows

    def _cut(self, source: str) -> list:
        config = self.config
        metadata = probe_video(source)
        seconds = math.floor(1000 * metadata.duration) / 1000
        if metadata.audio_duration is None:
            raise Failed("It has no sound.")
        if not metadata.audio_duration:
            raise Failed("Nothing of its sound can be decoded.")
        if seconds < config.shortest_source:
            raise Failed(f"It lasts {seconds:g} s, less than {config.shortest_source:g} s.")
        if config.longest_source is not None and seconds > config.longest_source:
            raise Failed(f"It lasts {seconds:g} s, more than {config.longest_source:g} s.")
        if config.by == "scene":
            edges = [0.0, *find_scenes(source, config.scene_threshold, seconds), seconds]
            return cut_at_scenes(edges, config.clip_seconds, config.shortest_clip)
        return cut_evenly(0.0, seconds, config.clip_seconds, config.shortest_clip)

    def _listen(self, segment: Segment) -> None:
        if self.config.silence is not None:
            level = loudness(segment.source, segment.start, segment.end)
            if level <= self.config.silence:
                raise Failed(f"It is silent from {segment.start:g} to {segment.end:g} s.")


def name_source(source: str) -> str:
    """A name for files: that of the source, and the first digits of the SHA-256 of where it is."""
    stem = Path(urlsplit(source).path if is_url(source) else source).stem
    kept = "".join(letter if letter.isalnum() else "-" for letter in stem)[:40]
    return f"{kept}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def find_scenes(source: str, threshold: float, seconds: float) -> list[float]:
    """
    The cuts of a film in seconds, by PySceneDetect, which decodes all of its frames.

    Raises:
        ImportError: it is not installed.
        ValueError: it cannot read the file.
    """
    try:
        from scenedetect import ContentDetector, SceneManager, open_video
    except ImportError as error:
        raise ImportError(
            "Splitting by scene needs an extra: pip install 'transformers-omnivinci[scenes]', or `by: time`."
        ) from error
    try:
        video = open_video(source, backend="pyav")
        manager = SceneManager()
        manager.add_detector(ContentDetector(threshold=threshold))
        manager.detect_scenes(video)
    except Exception as error:  # errors of its back ends have no common class
        raise ValueError(f"PySceneDetect cannot read it: {error}.") from error
    starts = [start.get_seconds() for start, _ in manager.get_scene_list()]
    return [start for start in starts if 0 < start < seconds]


def list_sources(given: Iterable[str]) -> list[str]:
    """
    The videos that arguments name.

    Args:
        given (`Iterable[str]`): Files, URLs, folders, whose files with names of videos are taken at any depth, and
            lists: files that end in `.txt`, with a path or URL on each line. Paths in a list are relative to it.

    Returns:
        `list[str]`: URLs and absolute paths, each once, in order.

    Raises:
        OSError: a folder or list is not there, or has no video.
    """
    found: dict[str, None] = {}
    for one in given:
        before = len(found)
        if is_url(one):
            found[one.strip()] = None
        elif os.path.isdir(one):
            for path in sorted(Path(one).rglob("*")):
                if (mimetypes.guess_type(path.name)[0] or "").startswith("video/") and path.is_file():
                    found[str(path.absolute())] = None
            if len(found) == before:
                raise OSError(f"The folder {one} has no file with the name of a video, such as clip.mp4.")
        elif one.lower().endswith(".txt"):
            lines = Path(one).read_text(encoding="utf-8").splitlines()
            for line in filter(None, map(str.strip, lines)):
                found[line if is_url(line) else os.path.abspath(Path(one).parent / line)] = None
            if len(found) == before:
                raise OSError(f"The list {one} is empty: one path or URL a line is accepted.")
        else:
            found[os.path.abspath(one)] = None  # if it is not there, the stage lists it
    return list(found)


def _reject(name: str, source: str, error: Exception) -> dict:
    return {"id": name, "source": source, REJECTED: plain(Rejected(Split.name, " ".join(str(error).split())))}
