"""Video processor of OmniVinci: sampled frames, resized and normalised, with their seconds."""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import SizeDict, validate_kwargs
from transformers.processing_utils import VideosKwargs
from transformers.utils import logging
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .. import media
from ..media import LoadedVideo, OmniVinciVideoMetadata
from ..planning import sample_at_fps, sample_uniformly
from ..remote_code import InstalledSettings
from .pixels import TorchPixels, resize, to_channels_first

logger = logging.get_logger(__name__)

DEFAULT_FPS = 24.0
FRAME_SUFFIXES = tuple(PIL.Image.registered_extensions())


class OmniVinciVideoProcessorKwargs(VideosKwargs, total=False):
    """
    max_frames (`int`, *optional*):
        The most frames that sampling by `fps` gives; beyond it that many are sampled uniformly.
    video_start (`float`, *optional*), video_end (`float`, *optional*):
        Seconds of the file between which it is looked at. The part is a clip of its own: its first frame is at 0 s.
    video_backend (`str`, *optional*):
        What decodes the picture: `"pyav"` (default), `"decord"` or `"torchcodec"`.
    """

    max_frames: int | None
    video_start: float | int | None
    video_end: float | int | None
    video_backend: str | None


class OmniVinciVideoProcessor(InstalledSettings, TorchPixels, BaseVideoProcessor):
    r"""
    Samples, resizes and normalises frames with torch alone, and tells their seconds.

    Sampling is uniform over the clip (`num_frames`), or at `fps` frames per second up to `max_frames`. Videos come as
    paths, URLs, bytes, file objects, folders or lists of frames, arrays and tensors of shape
    `(num_frames, height, width, 3)` or `(num_frames, 3, height, width)`, and as `(frames, metadata)`. Files are always
    sampled; decoded frames where sampling is asked for, or where they are more than `num_frames`, unless
    `frames_indices` in their metadata say that they are a sample already.

    Returns, when called:
        `pixel_values_videos` of shape `(num_frames of all videos, 3, height, width)` and `video_timestamps` of shape
        `(num_videos, most frames of a video)`, the seconds of each frame in float32, filled up with -1.

    Raises:
        ValueError, TypeError, OSError: a video cannot be read; the message names it and says what is accepted.
    """

    valid_kwargs = OmniVinciVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_timestamps"]

    do_sample_frames = True
    num_frames = 64
    video_backend = "pyav"

    def preprocess(self, videos, **kwargs) -> BatchFeature:
        """See the class; keyword arguments override its attributes for one call."""
        kwargs = self._resolve(kwargs)
        loaded = self._load(videos, **kwargs)
        frames = [
            self._preprocess_frames(video.frames, **{k: v for k, v in kwargs.items() if k != "input_data_format"})
            for video in loaded
        ]
        data = {
            "pixel_values_videos": frames[0] if len(frames) == 1 else torch.cat(frames),
            "video_timestamps": pad_timestamps([video.metadata.timestamps for video in loaded]),
        }
        if kwargs["return_metadata"]:
            data["video_metadata"] = [video.metadata for video in loaded]
        return BatchFeature(data, tensor_type=kwargs["return_tensors"], skip_tensor_conversion=["video_metadata"])

    def load_videos(
        self, videos, load_audio: bool | Sequence[bool] = False, audio_backend: str | None = None, **kwargs
    ) -> list[LoadedVideo]:
        """
        Decodes and samples, picture and sound of a file side by side.

        Args:
            videos: As when called, nested in any way.
            load_audio (`bool` or `Sequence[bool]`): Whether to decode the track too, for all or for each.
            audio_backend (`str`, *optional*): What decodes the sound. `None`: what decodes the picture.
            kwargs: As when called; also `sampling_rate` in Hz and `max_audio_seconds` of the waveform.

        Returns:
            `list[LoadedVideo]`: frames (num_frames, 3, height, width), already resized where they were decoded,
            metadata and the waveform.
        """
        audio_kwargs = {name: kwargs.pop(name) for name in ("sampling_rate", "max_audio_seconds") if name in kwargs}
        return self._load(videos, load_audio, audio_backend=audio_backend, **audio_kwargs, **self._resolve(kwargs))

    def probe_video(self, video, video_metadata=None, **kwargs) -> OmniVinciVideoMetadata:
        """
        The metadata that [`load_videos`] would give, by the header of a file: none of its pixels is decoded.

        Args:
            video: One video, as when called.
            video_metadata: Of decoded frames.
            kwargs: As when called.
        """
        if not _is_source(video) or _is_folder(video):
            return self.load_videos([video], video_metadata=video_metadata, **kwargs)[0].metadata
        options = self._resolve(kwargs)
        sample = partial(self.sample_frames, **{name: options[name] for name in ("num_frames", "fps", "max_frames")})
        return media.probe_video(
            video,
            sample_indices_fn=sample if options["do_sample_frames"] else None,
            video_start=options["video_start"],
            video_end=options["video_end"],
        )

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        The indices of the frames that are looked at, see `planning.sampling`.

        Args:
            metadata (`VideoMetadata`): `total_num_frames` and, for `fps`, the video's own `fps`.
            num_frames (`int`, *optional*): Frames to sample uniformly.
            fps (`float`, *optional*): Frames per second to sample, instead of `num_frames`.
            max_frames (`int`, *optional*): The most frames that `fps` gives.
        """
        if fps is not None and num_frames is not None:
            raise ValueError(f"Got both `num_frames={num_frames}` and `fps={fps}`: frames are sampled by one of them.")
        if fps is not None:
            return np.array(sample_at_fps(metadata.total_num_frames, metadata.fps, fps, max_frames))
        if num_frames is None:
            num_frames = self.num_frames
        return np.array(sample_uniformly(metadata.total_num_frames, num_frames))

    def _resolve(self, kwargs: dict) -> dict:
        """Validates what a call gives and completes it with the processor's attributes."""
        for name in ("num_frames", "max_frames"):
            if kwargs.get(name) is not None and kwargs[name] < 1:
                raise ValueError(f"`{name}={kwargs[name]}` is not accepted: at least one frame is needed.")
        asked = any(kwargs.get(name) for name in ("do_sample_frames", "num_frames", "fps"))
        names = list(self.valid_kwargs.__annotations__)
        validate_kwargs(captured_kwargs=kwargs.keys(), valid_processor_keys=[*names, "return_tensors"])
        validate_typed_dict(self.valid_kwargs, kwargs)
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if "fps" in kwargs:
            kwargs.setdefault("num_frames", None)
        elif "num_frames" in kwargs:
            kwargs.setdefault("fps", None)
        for name in names:
            kwargs.setdefault(name, getattr(self, name, None))
        self._refuse_cropping(**kwargs)
        kwargs = self._standardize_kwargs(**kwargs)
        self._validate_preprocess_kwargs(**kwargs)
        return {**kwargs, "sampling_is_asked": asked}

    def _load(
        self,
        videos,
        load_audio: bool | Sequence[bool] = False,
        *,
        video_metadata=None,
        do_sample_frames: bool,
        video_start: float | None,
        video_end: float | None,
        video_backend: str,
        audio_backend: str | None = None,
        sampling_rate: int = 16_000,
        max_audio_seconds: float | None = None,
        **kwargs,
    ) -> list[LoadedVideo]:
        videos = flatten_videos(videos)
        metadata = flatten_metadata(video_metadata, len(videos))
        wants_audio = [load_audio] * len(videos) if isinstance(load_audio, bool) else list(load_audio)
        sample = partial(self.sample_frames, **{k: kwargs[k] for k in ("num_frames", "fps", "max_frames")})
        on_cpu = kwargs["device"] is None or str(kwargs["device"]) == "cpu"
        transform = None
        if kwargs["do_resize"] and on_cpu:
            # Frames are resized as they are decoded: full-size ones are never held together.
            transform = partial(self.resize, size=kwargs["size"], resample=kwargs["resample"])
        loaded = []
        for video, video_metadata, with_audio in zip(videos, metadata, wants_audio, strict=True):
            if isinstance(video, tuple):
                video, video_metadata = video
            if _is_folder(video):
                video = media.load_frames_folder(video)
            if isinstance(video, LoadedVideo):
                loaded.append(video)
            elif _is_source(video):
                loaded.append(
                    media.load_video(
                        video,
                        sample_indices_fn=sample if do_sample_frames else None,
                        transform=transform,
                        video_start=video_start,
                        video_end=video_end,
                        load_audio=with_audio,
                        sampling_rate=sampling_rate,
                        max_audio_seconds=max_audio_seconds,
                        backend=video_backend,
                        audio_backend=audio_backend,
                    )
                )
            else:
                if video_start is not None or video_end is not None:
                    raise ValueError("`video_start` and `video_end` choose a part of a file, not of decoded frames.")
                loaded.append(_load_frames(video, video_metadata, sample if do_sample_frames else None, kwargs))
        return loaded

    def _preprocess_frames(
        self,
        frames: torch.Tensor,
        *,
        do_resize: bool,
        size: SizeDict,
        resample: int,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean,
        image_std,
        device=None,
        **kwargs,
    ) -> torch.Tensor:
        """(num_frames, 3, height, width), resized where it is not yet, and normalised."""
        if device is not None:
            frames = frames.to(device)
        if do_resize:
            frames = self.resize(frames, size, resample)
        return self.rescale_and_normalize(frames, do_rescale, rescale_factor, do_normalize, image_mean, image_std)


def flatten_videos(videos) -> list:
    """
    The videos of a batch, one after another: sources, arrays or tensors (num_frames, ...), lists of frames, pairs
    (frames, metadata), loaded videos.
    """
    if isinstance(videos, LoadedVideo) or _is_source(videos) or _has_metadata(videos):
        return [videos]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim == 3:
            return [videos[None]]
        if videos.ndim not in (4, 5):
            raise ValueError(
                f"A video array of shape {tuple(videos.shape)} is not understood: (num_frames, height, width, "
                "channels) or (num_frames, channels, height, width) is, and several such along one more axis."
            )
        return [videos] if videos.ndim == 4 else list(videos)
    if isinstance(videos, PIL.Image.Image):
        return [[videos]]
    if isinstance(videos, (list, tuple)):
        if _is_list_of_frames(videos):
            return [list(videos)]
        return [video for item in videos for video in flatten_videos(item)]
    raise TypeError(
        f"A video cannot be read from `{type(videos).__name__}`: pass a path, URL, bytes, a file object, an array, a "
        "list of frames or (frames, metadata)."
    )


def pad_timestamps(timestamps: Sequence[Sequence[float]]) -> torch.Tensor:
    """Seconds of several media as one float32 tensor (num_media, most seconds), filled up with -1."""
    width = max((len(seconds) for seconds in timestamps), default=0)
    padded = torch.full((len(timestamps), width), -1.0)
    for row, seconds in zip(padded, timestamps, strict=True):
        row[: len(seconds)] = torch.as_tensor(seconds)
    return padded


def _is_source(video) -> bool:
    return isinstance(video, (str, bytes, Path)) or hasattr(video, "read")


def _is_folder(video) -> bool:
    return isinstance(video, (str, Path)) and len(str(video)) < 4096 and Path(video).is_dir()


def _has_metadata(video) -> bool:
    """Whether a video is given as (frames, metadata)."""
    return isinstance(video, tuple) and len(video) == 2 and isinstance(video[1], (dict, VideoMetadata))


def _is_list_of_frames(items: Sequence) -> bool:
    def is_frame(item):
        if isinstance(item, (str, Path)):
            return str(item).lower().endswith(FRAME_SUFFIXES) and not str(item).lower().endswith((".gif", ".webp"))
        return isinstance(item, PIL.Image.Image) or getattr(item, "ndim", 0) in (2, 3)

    return bool(items) and all(is_frame(item) for item in items)


def flatten_metadata(video_metadata, num_videos: int) -> list[VideoMetadata | dict | None]:
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


def _load_frames(frames, metadata, sample_indices_fn, kwargs: dict) -> LoadedVideo:
    """Decoded frames with what is known of the clip they come from."""
    if isinstance(frames, list):
        images = [
            to_channels_first(media.load_image(frame) if isinstance(frame, (str, Path)) else frame) for frame in frames
        ]
        if len({tuple(image.shape) for image in images}) > 1:
            images = [resize(image, kwargs["size"].height, kwargs["size"].width) for image in images]
        frames = torch.stack(images)
    else:
        frames = to_channels_first(frames, kwargs["input_data_format"])
    metadata = _complete_metadata(metadata, len(frames), tuple(frames.shape[-2:]))
    sampled = metadata.frames_indices is not None and list(metadata.frames_indices) != list(range(len(frames)))
    too_many = metadata.frames_indices is None and len(frames) > (kwargs["num_frames"] or len(frames))
    if sample_indices_fn is not None and not sampled and (kwargs["sampling_is_asked"] or too_many):
        if metadata.total_num_frames != len(frames):
            raise ValueError(
                f"Got {len(frames)} frames of a clip of {metadata.total_num_frames}, without `frames_indices` in "
                "`video_metadata`: these say which frames they are."
            )
        indices = list(sample_indices_fn(metadata))
        times = metadata.frame_times
        metadata.frames_indices = indices
        metadata.frame_times = None if times is None else [times[i] for i in indices]
        frames = frames[torch.as_tensor(indices)]
    elif metadata.frames_indices is None:
        metadata.frames_indices = list(range(len(frames)))
    if len(metadata.frames_indices) != len(frames):
        raise ValueError(
            f"Got {len(frames)} frames but {len(metadata.frames_indices)} `frames_indices` in `video_metadata`."
        )
    return LoadedVideo(frames=frames, metadata=metadata, waveform=None)


def _complete_metadata(metadata, num_frames: int, frame_size: tuple[int, int]) -> OmniVinciVideoMetadata:
    known = {} if metadata is None else {key: metadata[key] for key in metadata}
    names = {field.name for field in fields(OmniVinciVideoMetadata)}
    unknown = sorted(set(known) - names)
    if unknown:
        raise ValueError(f"`video_metadata` has unknown entries {unknown}: {sorted(names)} are understood.")
    known.setdefault("total_num_frames", num_frames)
    metadata = OmniVinciVideoMetadata(**known)
    if not metadata.fps:
        logger.warning_once(
            f"Frames were given without the `fps` of their clip: {DEFAULT_FPS:g} is assumed, which decides their "
            "seconds. Pass `video_metadata`."
        )
        metadata.fps = DEFAULT_FPS
    metadata.height = frame_size[0] if metadata.height is None else metadata.height
    metadata.width = frame_size[1] if metadata.width is None else metadata.width
    if metadata.duration is None:
        metadata.duration = metadata.total_num_frames / metadata.fps
    return metadata


__all__ = ["OmniVinciVideoProcessor"]
