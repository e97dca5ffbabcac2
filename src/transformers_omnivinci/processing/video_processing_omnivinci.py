"""Video processor of OmniVinci: sampled frames, resized and normalised, with their seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import validate_kwargs
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .. import media
from ..media import LoadedVideo, OmniVinciVideoMetadata, check_transparency
from ..planning import sample_at_fps, sample_uniformly
from ..remote_code import InstalledSettings
from ..strict import check_options
from .batch import pad_seconds
from .pixels import TorchPixels
from .video_inputs import (
    OneVideo,
    convert_pieces,
    flatten_metadata,
    flatten_videos,
    load_frames,
    one_video,
    plan_frames,
)


class OmniVinciVideoProcessorKwargs(VideosKwargs, total=False):
    """
    max_frames (`int`, *optional*):
        The most frames that sampling at `fps` may give; longer clips are sampled uniformly at this many.
    video_start (`float`, *optional*), video_end (`float`, *optional*):
        Use only the part of the file between these seconds, as a clip of its own whose first frame is at 0 s.
    video_backend (`str`, *optional*):
        The decoder of the frames: `"pyav"` (default) or `"decord"`.
    transparency (`str`, *optional*):
        What becomes of transparent pixels of images, see [`OmniVinciImageProcessor`].
    """

    max_frames: int | None
    video_start: float | int | None
    video_end: float | int | None
    video_backend: str | None
    transparency: str | None


class OmniVinciVideoProcessor(InstalledSettings, TorchPixels, BaseVideoProcessor):
    r"""
    Samples, resizes and normalises frames with torch alone, and returns the seconds at which they are shown.

    Sampling is uniform over the clip (`num_frames`), or at `fps` frames per second up to `max_frames`. Videos come as
    paths, URLs, bytes, file objects, folders or lists of frames, arrays and tensors of shape
    `(num_frames, height, width, 3)` or `(num_frames, 3, height, width)`, and as `(frames, metadata)`. Files are always
    sampled; decoded frames only if sampling is asked for or if there are more than `num_frames` of them, unless
    `frames_indices` in their metadata say that they are a sample already.

    Returns, when called:
        `pixel_values_videos` of shape `(num_frames of all videos, 3, height, width)` and `video_timestamps` of shape
        `(num_videos, most frames of a video)`, the seconds of each frame in float32, padded with -1.

    Raises:
        ValueError, TypeError, OSError: a video cannot be read; the message names it and says what is accepted.
    """

    valid_kwargs = OmniVinciVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_timestamps"]

    do_sample_frames = True
    num_frames = 64
    video_backend = "pyav"
    transparency = "white"

    def preprocess(self, videos, **kwargs) -> BatchFeature:
        """See the class; keyword arguments override its attributes for one call."""
        options = self._resolve(kwargs)
        loaded = self._load(videos, options)
        frames = [self._finish(video.frames, options) for video in loaded]
        data = {
            "pixel_values_videos": frames[0] if len(frames) == 1 else torch.cat(frames),
            "video_timestamps": pad_seconds([video.metadata.timestamps for video in loaded]),
        }
        if options["return_metadata"]:
            data["video_metadata"] = [video.metadata for video in loaded]
        return BatchFeature(data, tensor_type=options["return_tensors"], skip_tensor_conversion=["video_metadata"])

    def load_videos(
        self,
        videos,
        load_audio: bool | Sequence[bool] = False,
        audio_backend: str | None = None,
        encode: Callable[[torch.Tensor], torch.Tensor] | None = None,
        piece_size: int = 16,
        **kwargs,
    ) -> list[LoadedVideo]:
        """
        Decodes and samples videos as when called, frames (num_frames, 3, height, width) and audio track side by side.
        Frames are already resized where they were decoded; errors are those of a call.

        Args:
            load_audio (`bool` or `Sequence[bool]`): Whether to decode the audio track too, for all or for each.
            audio_backend (`str`, *optional*): The decoder of the track. `None`: that of the frames.
            encode (`Callable`, *optional*):
                Gets pieces of the frames as a call returns them, `(up to piece_size, 3, height, width)`, while others
                are decoded, and returns what is kept in their place. Memory does then not grow with the frames, nor
                with the samples of a track, which may come as a [`SampleFile`].
            piece_size (`int`, *optional*, defaults to 16): Frames of a piece.
            kwargs: As when called; also `sampling_rate` in Hz and `max_audio_seconds` of the waveform.
        """
        audio_kwargs = {name: kwargs.pop(name) for name in ("sampling_rate", "max_audio_seconds") if name in kwargs}
        options, pieces = self._resolve(kwargs), {}
        if encode is not None:
            pieces = {"convert": lambda frames: encode(self._finish(frames, options)), "piece_size": piece_size}
        return self._load(videos, options, load_audio, pieces, audio_backend=audio_backend, **audio_kwargs)

    def probe_video(self, video, video_metadata=None, **kwargs) -> OmniVinciVideoMetadata:
        """
        The metadata that [`load_videos`] would return of one video, with its arguments and errors, from the header of
        a file: no pixel is decoded. `video_metadata`: what is known of the clip of decoded frames.
        """
        video = one_video(video)
        options = self._options_of(video, self._resolve(kwargs))
        sample = self._sampler(options)
        if isinstance(video.source, LoadedVideo):
            return video.source.metadata
        if not video.is_file:
            frames, metadata = _given_frames(video, video_metadata, options)
            return plan_frames(frames, metadata, sample, options)[0]
        span = {name: options[name] for name in ("video_start", "video_end")}
        return media.probe_video(video.source, sample_indices_fn=sample, **span)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        The indices of the frames to choose, see `planning.sampling`: `num_frames` uniformly, or `fps` a second, up to
        `max_frames`. For `fps`, `metadata` tells the video's own and, where its rate varies, all `frame_times`.

        Raises:
            ValueError: both `num_frames` and `fps` are given.
        """
        if fps is not None and num_frames is not None:
            raise ValueError(f"Got both `num_frames={num_frames}` and `fps={fps}`: frames are sampled by one of them.")
        if fps is not None:
            times = getattr(metadata, "frame_times", None)
            return np.array(sample_at_fps(metadata.total_num_frames, metadata.fps, fps, max_frames, times))
        if num_frames is None:
            num_frames = self.num_frames
        return np.array(sample_uniformly(metadata.total_num_frames, num_frames))

    def _resolve(self, kwargs: dict) -> dict:
        """Validates the options of a call and completes them with the processor's attributes."""
        self._check_options(kwargs)
        asked = any(kwargs.get(name) for name in ("do_sample_frames", "num_frames", "fps"))
        names = list(self.valid_kwargs.__annotations__)
        validate_kwargs(captured_kwargs=kwargs.keys(), valid_processor_keys=[*names, "return_tensors"])
        given = {name: value for name, value in kwargs.items() if value is not None}
        options = {name: getattr(self, name, None) for name in names} | _with_one_rate(given)
        self._refuse_cropping(**options)
        options = self._standardize_kwargs(**options)
        self._validate_preprocess_kwargs(**options)
        return {**options, "sampling_is_asked": asked}

    def _check_options(self, options: dict) -> None:
        check_options(self.valid_kwargs, options)
        for name in ("num_frames", "max_frames"):
            if options.get(name) is not None and options[name] < 1:
                raise ValueError(f"`{name}={options[name]}` is not accepted: at least one frame is needed.")
        if options.get("transparency") is not None:
            check_transparency(options["transparency"])

    def _load(
        self,
        videos,
        options: dict,
        load_audio: bool | Sequence[bool] = False,
        pieces: Mapping | None = None,
        **audio_options,
    ) -> list[LoadedVideo]:
        """As [`load_videos`], with resolved options. `pieces`: how frames are converted, see [`media.load_video`]."""
        pieces = pieces or {}
        videos = [one_video(video) for video in flatten_videos(videos)]
        metadata = flatten_metadata(options["video_metadata"], len(videos))
        wants_audio = [load_audio] * len(videos) if isinstance(load_audio, bool) else list(load_audio)
        transform, on_cpu = None, options["device"] is None or str(options["device"]) == "cpu"
        if options["do_resize"] and on_cpu:
            # Frames are resized as they are decoded, so that full-size ones never pile up in memory.
            transform = partial(self.resize, size=options["size"], resample=options["resample"])
        loaded = []
        for video, video_metadata, with_audio in zip(videos, metadata, wants_audio, strict=True):
            own = self._options_of(video, options)
            if isinstance(video.source, LoadedVideo):
                frames = convert_pieces(video.source.frames, **pieces) if pieces else video.source.frames
                loaded.append(replace(video.source, frames=frames))
            elif not video.is_file:
                frames, video_metadata = _given_frames(video, video_metadata, own)
                loaded.append(load_frames(frames, video_metadata, self._sampler(own), own, transform, **pieces))
            else:
                kwargs = (
                    {name: own[name] for name in ("video_start", "video_end", "transparency")} | audio_options | pieces
                )
                kwargs |= {"sample_indices_fn": self._sampler(own), "backend": own["video_backend"]}
                loaded.append(media.load_video(video.source, transform=transform, load_audio=with_audio, **kwargs))
        return loaded

    def _sampler(self, options: dict):
        """Chooses frames by the metadata of a clip; `None`: all are taken."""
        if not options["do_sample_frames"]:
            return None
        return partial(self.sample_frames, **{name: options[name] for name in ("num_frames", "fps", "max_frames")})

    def _options_of(self, video: OneVideo, options: dict) -> dict:
        """The options of a call, some of which a video may replace by its own."""
        if not video.options:
            return options
        self._check_options(video.options)
        is_sampled = bool(video.options.get("fps") or video.options.get("num_frames"))
        own = options | _with_one_rate(video.options)
        own["sampling_is_asked"] = own["sampling_is_asked"] or is_sampled
        own["do_sample_frames"] = bool(own["do_sample_frames"] or is_sampled)
        if "max_frames" in video.options and own["fps"] is None:
            own["num_frames"] = min(own["num_frames"] or self.num_frames, own["max_frames"])
        return own

    def _finish(self, frames: torch.Tensor, options: dict) -> torch.Tensor:
        """(num_frames, 3, height, width), resized unless they are already, and normalised."""
        frames = frames if options["device"] is None else frames.to(options["device"])
        if options["do_resize"]:
            frames = self.resize(frames, options["size"], options["resample"])
        names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        return self.rescale_and_normalize(frames, *(options[name] for name in names))


def _with_one_rate(options: Mapping) -> dict:
    """Options of which `fps` replaces the processor's `num_frames`, and the other way round."""
    if "fps" in options:
        return {"num_frames": None, **options}
    return {"fps": None, **options} if "num_frames" in options else dict(options)


def _given_frames(video: OneVideo, metadata, options: dict) -> tuple[Sequence, dict | VideoMetadata | None]:
    """The frames of a video that is not a file, not yet decoded, and what is known of their clip."""
    if options["video_start"] is not None or options["video_end"] is not None:
        raise ValueError("`video_start` and `video_end` choose a part of a file, not of decoded frames.")
    frames = media.list_frames_folder(video.source) if video.is_folder else video.source
    return frames, metadata if video.metadata is None else video.metadata


__all__ = ["OmniVinciVideoProcessor"]
