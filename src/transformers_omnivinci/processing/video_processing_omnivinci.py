"""Video processor of OmniVinci: sampled frames, resized and normalised, with their seconds."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import SizeDict, validate_kwargs
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
from .video_inputs import OneVideo, flatten_metadata, flatten_videos, load_frames, one_video, plan_frames


class OmniVinciVideoProcessorKwargs(VideosKwargs, total=False):
    """
    max_frames (`int`, *optional*):
        The most frames that sampling by `fps` gives; beyond it that many are sampled uniformly.
    video_start (`float`, *optional*), video_end (`float`, *optional*):
        Seconds of the file between which it is looked at. The part is a clip of its own: its first frame is at 0 s.
    video_backend (`str`, *optional*):
        What decodes the picture: `"pyav"` (default), `"decord"` or `"torchcodec"`.
    transparency (`str`, *optional*):
        Of images, see [`OmniVinciImageProcessorKwargs`].
    """

    max_frames: int | None
    video_start: float | int | None
    video_end: float | int | None
    video_backend: str | None
    transparency: str | None


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
    transparency = "white"

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
            "video_timestamps": pad_seconds([video.metadata.timestamps for video in loaded]),
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
        video = one_video(video)
        options = self._options_of(video, self._resolve(kwargs))
        sample = self._sampler(options)
        if isinstance(video.source, LoadedVideo):
            return video.source.metadata
        if not video.is_file:
            frames, metadata = _given_frames(video, video_metadata, options)
            return plan_frames(frames, metadata, sample, options)[0]
        return media.probe_video(
            video.source,
            sample_indices_fn=sample,
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
            metadata (`VideoMetadata`):
                `total_num_frames` and, for `fps`, the video's own `fps` and the `frame_times` of all frames where its
                rate varies.
            num_frames (`int`, *optional*): Frames to sample uniformly.
            fps (`float`, *optional*): Frames per second to sample, instead of `num_frames`.
            max_frames (`int`, *optional*): The most frames that `fps` gives.
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
        """Validates what a call gives and completes it with the processor's attributes."""
        self._check_options(kwargs)
        asked = any(kwargs.get(name) for name in ("do_sample_frames", "num_frames", "fps"))
        names = list(self.valid_kwargs.__annotations__)
        validate_kwargs(captured_kwargs=kwargs.keys(), valid_processor_keys=[*names, "return_tensors"])
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
        load_audio: bool | Sequence[bool] = False,
        *,
        video_metadata=None,
        audio_backend: str | None = None,
        sampling_rate: int = 16_000,
        max_audio_seconds: float | None = None,
        **kwargs,
    ) -> list[LoadedVideo]:
        videos = [one_video(video) for video in flatten_videos(videos)]
        metadata = flatten_metadata(video_metadata, len(videos))
        wants_audio = [load_audio] * len(videos) if isinstance(load_audio, bool) else list(load_audio)
        on_cpu = kwargs["device"] is None or str(kwargs["device"]) == "cpu"
        transform = None
        if kwargs["do_resize"] and on_cpu:
            # Frames are resized as they are decoded: full-size ones are never held together.
            transform = partial(self.resize, size=kwargs["size"], resample=kwargs["resample"])
        loaded = []
        for video, video_metadata, with_audio in zip(videos, metadata, wants_audio, strict=True):
            options = self._options_of(video, kwargs)
            sample = self._sampler(options)
            if isinstance(video.source, LoadedVideo):
                loaded.append(video.source)
            elif not video.is_file:
                frames, video_metadata = _given_frames(video, video_metadata, options)
                loaded.append(load_frames(frames, video_metadata, sample, options, transform))
            else:
                loaded.append(
                    media.load_video(
                        video.source,
                        sample_indices_fn=sample,
                        transform=transform,
                        video_start=options["video_start"],
                        video_end=options["video_end"],
                        load_audio=with_audio,
                        sampling_rate=sampling_rate,
                        max_audio_seconds=max_audio_seconds,
                        backend=options["video_backend"],
                        audio_backend=audio_backend,
                        transparency=options["transparency"],
                    )
                )
        return loaded

    def _sampler(self, options: dict):
        """What chooses frames by their metadata; `None`: all are taken."""
        if not options["do_sample_frames"]:
            return None
        return partial(self.sample_frames, **{name: options[name] for name in ("num_frames", "fps", "max_frames")})

    def _options_of(self, video: OneVideo, options: dict) -> dict:
        """The options of a call, where those of a video of its own do not replace them."""
        own = dict(video.options)
        if not own:
            return options
        self._check_options(own)
        if "fps" in own:
            own.setdefault("num_frames", None)
        elif "num_frames" in own:
            own["fps"] = None
        is_sampled = own.get("fps") or own.get("num_frames")
        own = {**options, **own, "sampling_is_asked": bool(options["sampling_is_asked"] or is_sampled)}
        own["do_sample_frames"] = bool(own["do_sample_frames"] or is_sampled)
        if "max_frames" in video.options and own["fps"] is None:
            own["num_frames"] = min(own["num_frames"] or self.num_frames, own["max_frames"])
        return own

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


def _given_frames(video: OneVideo, metadata, options: dict) -> tuple[Sequence, dict | VideoMetadata | None]:
    """The frames of a video that is no file, not yet decoded, and what is known of their clip."""
    if options["video_start"] is not None or options["video_end"] is not None:
        raise ValueError("`video_start` and `video_end` choose a part of a file, not of decoded frames.")
    frames = media.list_frames_folder(video.source) if video.is_folder else video.source
    return frames, metadata if video.metadata is None else video.metadata


__all__ = ["OmniVinciVideoProcessor"]
