"""Media as vLLM's users give them: to `LLM.generate`, to `LLM.chat` and to the server."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.parse import ModalityDataItems, MultiModalDataItems, MultiModalDataParser
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

from ...media import LoadedVideo, is_url, list_frames_folder

LOADER = "omnivinci"
GIVEN_FRAMES = "jpeg_sequence"
"""What vLLM calls videos that came as `data:video/jpeg`, a list of frames."""

LOUDEST = 64.0
"""No sound that is meant to lie in [-1, 1] goes so far beyond it, and hardly any in 16 bits stays below."""


@VIDEO_LOADER_REGISTRY.register(LOADER, video_processor="OmniVinciVideoProcessor")
class UndecodedVideos(VideoLoader):
    """
    Leaves files as they are. vLLM takes this loader for checkpoints with [`OmniVinciVideoProcessor`], which decodes
    the file when it is needed: frames, their times and the sound are then those of this package, and options that
    come with the request are known. A video that is in the cache is not decoded again.
    """

    @classmethod
    def load_bytes(cls, data: bytes, **kwargs) -> tuple[np.ndarray, dict[str, Any]]:
        """No frames, and who has loaded them. `data` is kept beside them by vLLM."""
        return np.empty((0, 0, 0, 3), np.uint8), {"video_backend": LOADER}


@dataclass(frozen=True)
class Medium:
    """
    One medium of a request.

    Attributes:
        source: What the project's processor reads.
        identity: What tells it from other media, for caches. Of a file its content.
        track (*optional*): The sound of a video that was given apart.
        is_file (`bool`): Whether the source is a file with all that it holds.
    """

    source: Any
    identity: Any
    track: Any = None
    is_file: bool = False

    def with_track(self, clip: "Medium") -> "Medium":
        """A video with its sound. A file has a track of its own, which is the one that counts."""
        return self if self.is_file else Medium(self.source, [self.identity, clip.identity], clip.source)


class MediaItems(ModalityDataItems[Sequence[Medium | None], Medium | None]):
    """The media of one modality; `None` for one that a request only names by the id of a cached medium."""

    def get_count(self) -> int:
        return len(self.data)

    def get(self, index: int) -> Medium | None:
        return self.data[index]

    def get_item_for_hash(self, index: int) -> object:
        return None if self.data[index] is None else self.data[index].identity

    def get_processor_data(self) -> Mapping[str, object]:
        return {f"{self.modality}s": self.get_all()}

    def get_passthrough_data(self) -> Mapping[str, object]:
        return {}


class OmniVinciDataParser(MultiModalDataParser):
    """
    Parses `multi_modal_data`: everything that the processor of this package takes but URLs, which `LLM.chat` and the
    server download under vLLM's own rules.
    """

    def parse_mm_data(self, mm_data: Mapping[str, Any]) -> MultiModalDataItems:
        """
        Args:
            mm_data (`Mapping[str, Any]`): For `"image"`, `"video"` and `"audio"` a medium or a list of them.

        Raises:
            ValueError: there is another modality, or a medium cannot be read.
        """
        items = MultiModalDataItems()
        for modality, given in mm_data.items():
            if modality not in SPLITS:
                raise ValueError(f"`multi_modal_data` has {modality!r}: {', '.join(map(repr, SPLITS))} are accepted.")
            if given is not None:
                media = [None if one is None else _medium(modality, one) for one in SPLITS[modality](given)]
                items[modality] = MediaItems(media, modality)
        return items


def _split_images(given) -> list:
    if isinstance(given, (list, tuple)):
        return list(given)
    return list(given) if getattr(given, "ndim", 3) == 4 else [given]


def _split_videos(given) -> list:
    """A list of frames is one video, as in vLLM; any other list holds one video in each of its entries."""
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping):
        return [given]
    if isinstance(given, (np.ndarray, torch.Tensor)):
        return [given] if given.ndim == 4 else list(given)
    if not isinstance(given, (list, tuple)):
        return [given]
    arrays = (np.ndarray, torch.Tensor)
    is_frames = all(isinstance(one, PIL.Image.Image) or (isinstance(one, arrays) and one.ndim == 3) for one in given)
    return [given] if given and is_frames else list(given)


def _split_sounds(given) -> list:
    if isinstance(given, (np.ndarray, torch.Tensor)):
        return [given] if given.ndim == 1 else list(given)
    is_one = isinstance(given, tuple) or not isinstance(given, list) or (given and isinstance(given[0], (int, float)))
    return [given] if is_one else given


SPLITS = {"image": _split_images, "video": _split_videos, "audio": _split_sounds}


def _medium(modality: str, given) -> Medium:
    if isinstance(given, Medium):
        return given
    if isinstance(given, MediaWithBytes):
        if modality == "video" and given.media[1].get("video_backend") == GIVEN_FRAMES:
            return _medium("video", tuple(given.media))
        return _medium(modality, given.original_bytes)
    if isinstance(given, str) and (is_url(given) or given.startswith("data:")):
        raise ValueError(
            f"`multi_modal_data` has the URL {given[:80]!r}: paths, bytes and decoded media are accepted there, URLs "
            "in the messages of `LLM.chat`."
        )
    if isinstance(given, (str, os.PathLike)):
        return _of_path(modality, Path(given))
    if isinstance(given, (bytes, bytearray, memoryview)):
        content = bytes(given)
        return Medium(content, content, is_file=True)
    if modality == "video" and isinstance(given, LoadedVideo):
        metadata = vars(given.metadata)
        return Medium(given, [given.frames, given.waveform, metadata], is_file=given.waveform is not None)
    if modality == "video" and isinstance(given, tuple):
        frames, metadata = given
        known = {name: value for name, value in metadata.items() if name != "do_sample_frames"}
        frames = list(frames) if isinstance(frames, tuple) else frames
        return Medium((frames, known), [frames, known])
    if modality == "video":
        frames = list(given) if isinstance(given, (list, tuple)) else given
        return Medium(frames, frames)
    if modality == "audio":
        _check_scale(given)
    return Medium(given, list(given) if isinstance(given, tuple) else given)


def _check_scale(clip) -> None:
    """Refuses floats with the range of integers, which vLLM's decoder gives where soundfile is not installed."""
    samples = clip[0] if isinstance(clip, tuple) else clip
    if isinstance(samples, np.ndarray) and samples.dtype.kind == "f" and samples.size:
        loudest = float(np.abs(samples).max())
        if loudest > LOUDEST:
            raise ValueError(
                f"A sound has samples up to {loudest:.0f}: floats in [-1, 1] are accepted. vLLM decodes sounds to "
                "these with the package soundfile."
            )


def _of_path(modality: str, path: Path) -> Medium:
    """A file is known by its content, however it is called."""
    try:
        if modality == "video" and path.is_dir():
            return Medium(str(path), [_digest(Path(frame)) for frame in list_frames_folder(path)])
        return Medium(str(path), _digest(path), is_file=True)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
