"""Videos as users pass them: the videos in a nested list, and the frames of those that are not files."""

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .. import media
from ..media import LoadedVideo, OmniVinciVideoMetadata
from ..media.levels import white_level
from ..media.sources import Download
from .pixels import array_size, as_tensor, is_array, resize, to_pixels

logger = logging.get_logger(__name__)

DEFAULT_FPS = 24.0
_MAX_THREADS = 8


@dataclass(frozen=True)
class OneVideo:
    """One video of a batch."""

    # One of [`media.load_video`], a folder, an array (num_frames, ...), a list of frames or a [`LoadedVideo`].
    source: Any
    metadata: dict | VideoMetadata | None = None  # what is known of the clip that frames are from
    options: Mapping = field(default_factory=dict)  # of the video processor, for this video alone

    @property
    def is_file(self) -> bool:
        """Whether it is decoded as a whole: a file, or an opened animation."""
        return (is_source(self.source) and not self.is_folder) or isinstance(self.source, PIL.Image.Image)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of frames."""
        return isinstance(self.source, (str, os.PathLike)) and os.path.isdir(self.source)


class FlatVideos(list):
    """A list with one entry for each video, as it was given or as [`OneVideo`], which must not be flattened again."""


def flatten_videos(videos) -> FlatVideos:
    """
    The videos of a batch, nested in any way, one after another.

    A list is one video if it holds nothing but frames: arrays, and images of one frame, as the content of files shows.

    Raises:
        ValueError, TypeError, OSError: an entry is not a video, or cannot be read.
    """
    if isinstance(videos, FlatVideos):
        return videos
    found = _flatten(videos)
    return FlatVideos(video if video.options or video.metadata is not None else video.source for video in found)


def _flatten(videos) -> list[OneVideo]:
    if isinstance(videos, OneVideo):
        return [videos]
    if isinstance(videos, LoadedVideo) or is_source(videos):
        return [OneVideo(videos)]
    if _has_metadata(videos):
        frames, metadata = videos
        return [OneVideo(one_video(frames).source, metadata)]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim == 3:
            return [OneVideo(videos[None])]
        if videos.ndim not in (4, 5):
            raise ValueError(
                f"A video array of shape {tuple(videos.shape)} is not accepted: (num_frames, height, width, channels) "
                "or (num_frames, channels, height, width) is, or several of these along one more axis."
            )
        return [OneVideo(video) for video in ([videos] if videos.ndim == 4 else videos)]
    if isinstance(videos, PIL.Image.Image):
        return [OneVideo([videos] if media.is_still(videos) else videos)]
    if isinstance(videos, (list, tuple)):
        items = _download_first(videos)
        if items and all(map(_is_frame, items)):
            return [OneVideo(items)]
        return [video for item in items for video in _flatten(item)]
    raise TypeError(
        f"A video cannot be read from `{type(videos).__name__}`: pass a path, URL, bytes, a file object, an array, a "
        "list of frames or (frames, metadata)."
    )


def one_video(video, options: Mapping | None = None) -> OneVideo:
    """
    One video as in [`flatten_videos`], with its errors, and options of its own. The entries of a list are its frames.
    """
    if isinstance(video, (list, tuple)) and len(video) > 1 and not _has_metadata(video):
        found = [OneVideo(_download_first(video))]
    else:
        found = _flatten(video)
    if len(found) != 1:
        raise ValueError(f"Got {len(found)} videos where one is accepted: give each as an item of its own.")
    [found] = found
    return OneVideo(found.source, found.metadata, {**found.options, **(options or {})})


def is_source(video) -> bool:
    """Whether a file can be read from this: a path, URL, bytes or file object."""
    return isinstance(video, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(video, "read")


def _has_metadata(video) -> bool:
    """Whether a video is given as (frames, metadata)."""
    return isinstance(video, tuple) and len(video) == 2 and isinstance(video[1], (dict, VideoMetadata))


def _download_first(items: Sequence) -> list:
    """The items of a list with the first URL downloaded, which shows what all of them are."""
    items = list(items)
    first = next((index for index, item in enumerate(items) if media.is_url(item)), None)
    if first is not None and not any(isinstance(item, Download) for item in items):
        items[first] = media.download(items[first])
    return items


def _is_frame(item) -> bool:
    if isinstance(item, (np.ndarray, torch.Tensor)):
        return item.ndim in (2, 3)
    return media.is_url(item) or (OneVideo(item).is_file and media.is_still(item))


def flatten_metadata(video_metadata, num_videos: int) -> list[VideoMetadata | dict | None]:
    """One entry of `video_metadata`, nested or not, for each video; a ValueError if there are not as many."""
    if video_metadata is None:
        return [None] * num_videos
    if isinstance(video_metadata, (dict, VideoMetadata)):
        video_metadata = [video_metadata]
    flat = []
    for item in video_metadata:
        flat += item if isinstance(item, (list, tuple)) else [item]
    if len(flat) != num_videos:
        raise ValueError(f"Got {num_videos} videos but {len(flat)} `video_metadata`: pass one for each video.")
    return flat


def plan_frames(
    frames: Sequence, metadata, sample_indices_fn, options: Mapping
) -> tuple[OmniVinciVideoMetadata, list[int]]:
    """
    The completed metadata of given frames, a list, or an array or tensor (num_frames, ...), and the indices of those
    that are used, which may repeat. No frame is decoded. `options`: those of a call of the video processor.

    Raises:
        ValueError, TypeError, OSError: the metadata is implausible, or the first frame cannot be read.
    """
    places = list(range(len(frames)))
    if not isinstance(frames, list):
        size = array_size(frames, options["input_data_format"])
    else:
        with _naming_frame(0):
            is_file = not is_array(frames[0])
            size = media.probe_image(frames[0]) if is_file else array_size(frames[0], options["input_data_format"])
    metadata = _complete_metadata(metadata, len(frames), size)
    is_part = metadata.total_num_frames != len(frames)
    sampled = metadata.frames_indices is not None and (is_part or list(metadata.frames_indices) != places)
    too_many = metadata.frames_indices is None and len(frames) > (options["num_frames"] or len(frames))
    if is_part and not sampled:
        raise ValueError(
            f"Got {len(frames)} frames of a clip of {metadata.total_num_frames}, without `frames_indices` in "
            "`video_metadata`, which must tell which frames they are."
        )
    if sample_indices_fn is not None and not sampled and (options["sampling_is_asked"] or too_many):
        places = [int(index) for index in sample_indices_fn(metadata)]
        times = metadata.frame_times
        metadata.frames_indices = list(places)
        metadata.frame_times = None if times is None else [times[place] for place in places]
    elif metadata.frames_indices is None:
        metadata.frames_indices = list(places)
    return metadata, places


def load_frames(
    frames: Sequence, metadata, sample_indices_fn, options: Mapping, transform=None, convert=None, piece_size: int = 16
) -> LoadedVideo:
    """
    Decodes those of the given frames that are used; arguments and errors are those of [`plan_frames`]. `transform` is
    applied to each frame of a list, (3, height, width), in worker threads, so that full-size ones never pile up;
    `convert` and `piece_size` are as of [`media.load_video`].
    """
    metadata, places = plan_frames(frames, metadata, sample_indices_fn, options)
    as_they_are = not options["do_rescale"] or not math.isclose(options["rescale_factor"], 1 / 255)
    if not isinstance(frames, list):
        pixels = as_tensor(frames)
        white = None if as_they_are else white_level(pixels)
        if places != list(range(len(frames))):
            pixels = pixels[torch.as_tensor(places)]
        pixels = to_pixels(pixels, options["input_data_format"], options["transparency"], white, as_they_are)
        return LoadedVideo(convert_pieces(pixels, convert, piece_size), metadata)

    wanted = sorted(set(places))
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), "frames") as executor:
        sources = [frames[place] for place in wanted]
        sources = executor.map(lambda frame: media.download(frame) if media.is_url(frame) else frame, sources)
        given = dict(zip(wanted, sources))
        lock = threading.Lock()
        whites = {} if as_they_are else _find_whites(frames, given, executor, lock)

        def load(place: int) -> torch.Tensor:
            frame = given[place]
            with _naming_frame(place), _alone(frame, lock):
                data_format = options["input_data_format"] if is_array(frame) else None
                pixels = to_pixels(frame, data_format, options["transparency"], whites.get(place), as_they_are)
            return pixels if transform is None else transform(pixels)

        if convert is not None and transform is not None:
            return LoadedVideo(_convert_places(places, wanted, load, executor, convert, piece_size), metadata)
        loaded = dict(zip(wanted, executor.map(load, wanted)))
    if len({tuple(pixels.shape) for pixels in loaded.values()}) > 1:
        size = options["size"]
        loaded = {place: resize(pixels, size.height, size.width) for place, pixels in loaded.items()}
    pixels = torch.stack([loaded[place] for place in places])
    return LoadedVideo(convert_pieces(pixels, convert, piece_size), metadata)


def convert_pieces(pixels: torch.Tensor, convert, piece_size: int) -> torch.Tensor:
    """What `convert` makes of pieces of frames (num_frames, ...); without it, the frames."""
    return pixels if convert is None else torch.cat([convert(piece) for piece in pixels.split(piece_size)])


def _convert_places(places: list[int], wanted: list[int], load, executor, convert, piece_size: int) -> torch.Tensor:
    """What `convert` makes of the frames at `places`, of which `wanted` are loaded piece by piece, one piece ahead."""
    parts = [wanted[start : start + piece_size] for start in range(0, len(wanted), piece_size)]
    loading, converted = executor.map(load, parts[0]), []
    for ahead in (*parts[1:], []):
        piece, loading = list(loading), executor.map(load, ahead)
        converted.append(convert(torch.stack(piece)))
    made = torch.cat(converted)
    return made if places == wanted else made[np.searchsorted(wanted, places)]


def _alone(frame, lock):
    """Lets one thread at a time use opened images and files, as a list may hold the same object several times."""
    return lock if isinstance(frame, PIL.Image.Image) or hasattr(frame, "read") else nullcontext()


def _find_whites(frames: list, given: Mapping[int, Any], executor: ThreadPoolExecutor, lock) -> dict[int, float]:
    """The value of white in each frame: the same for all frames of floats, and for all of wide integers."""

    def read(place: int):
        with _naming_frame(place), _alone(given[place], lock):
            return media.value_range(given[place])

    # Of arrays all count, even those that are not used; images would have to be decoded for it.
    arrays = {place: as_tensor(frame) for place, frame in enumerate(frames) if is_array(frame)}
    images = [place for place in given if place not in arrays]
    values = {**arrays, **dict(zip(images, executor.map(read, images)))}
    groups: dict[bool, list[int]] = {}
    for place, pixels in values.items():
        if pixels is not None and pixels.dtype not in (torch.bool, torch.uint8):
            groups.setdefault(pixels.dtype.is_floating_point, []).append(place)
    whites = {}
    for places in groups.values():
        whites |= dict.fromkeys(places, white_level(*(values[place] for place in places)))
    return whites


@contextmanager
def _naming_frame(place: int) -> Iterator[None]:
    """Adds to an error which frame of a list cannot be read."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Frame {place} of the list is not an image: {error}") from error


def _complete_metadata(metadata, num_frames: int, frame_size: tuple[int, int]) -> OmniVinciVideoMetadata:
    known = {"total_num_frames": num_frames} | ({} if metadata is None else dict(metadata))
    names = {field.name for field in fields(OmniVinciVideoMetadata)}
    unknown = sorted(set(known) - names)
    if unknown:
        raise ValueError(f"`video_metadata` has unknown entries {unknown}: {sorted(names)} are accepted.")
    metadata = OmniVinciVideoMetadata(**known)
    if not metadata.fps:
        logger.warning_once(
            f"Frames were given without the `fps` of their clip: {DEFAULT_FPS:g} is assumed, from which their seconds "
            "follow. Pass `video_metadata`."
        )
        metadata.fps = DEFAULT_FPS
    metadata.height = frame_size[0] if metadata.height is None else metadata.height
    metadata.width = frame_size[1] if metadata.width is None else metadata.width
    if metadata.duration is None:
        metadata.duration = metadata.total_num_frames / metadata.fps
    _check_metadata(metadata, num_frames)
    return metadata


def _check_metadata(metadata: OmniVinciVideoMetadata, num_frames: int) -> None:
    told = [name for name in ("start", "clip_duration") if getattr(metadata, name)]
    for name in ("total_num_frames", "fps", "duration", *told):
        value = getattr(metadata, name)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"`{name}` in `video_metadata` must be a number, not `{type(value).__name__}`.")
        if not 0 < value < math.inf:
            raise ValueError(f"`{name}={value}` in `video_metadata` is not accepted: it must be positive.")
    for name, first, last in (
        ("frames_indices", 0, metadata.total_num_frames - 1),
        ("frame_times", 0.0, max(metadata.duration, metadata.total_num_frames / metadata.fps)),
    ):
        values = getattr(metadata, name)
        if values is None:
            continue
        if len(values) != num_frames:
            raise ValueError(f"Got {num_frames} frames but {len(values)} `{name}` in `video_metadata`.")
        # Comparisons with NaN are false.
        ordered = np.asarray(values, dtype=float)
        if not (first <= ordered[0] and (np.diff(ordered) >= 0).all() and ordered[-1] <= last):
            raise ValueError(
                f"`{name}` in `video_metadata` reaches from {ordered.min():g} to {ordered.max():g}: ascending values "
                f"from {first:g} to {last:g} are accepted."
            )
