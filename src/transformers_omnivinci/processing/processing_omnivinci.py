"""Processor of OmniVinci: prompts and media in, the tensors of the model out."""

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers.audio_utils import AudioInput
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import AudioKwargs, MultiModalData, ProcessingKwargs, ProcessorMixin, Unpack
from transformers.utils import logging
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoInput

from .. import media
from ..labels import without_placeholders
from ..media import LoadedVideo, OmniVinciVideoMetadata
from ..planning import (
    AudioWindows,
    MediaLayout,
    Run,
    TemporalGroup,
    audio_sequence,
    count,
    count_audio_vectors,
    expand,
    grouped_sequence,
    image_sequence,
    plan_audio,
    plan_groups,
    tile_grids,
    video_sequence,
)
from ..remote_code import InstalledCode
from .chat_template import AUDIO_TOKEN, CHAT_TEMPLATE, IMAGE_TOKEN, MEDIA_BRACKETS, VIDEO_TOKEN
from .chats import AppliesChatTemplates
from .image_processing_omnivinci import OmniVinciImageProcessorKwargs
from .options import sort_options
from .prompts import TOKENS, PromptBatch, sort_media
from .tokenization import Replacement, encode_prompt
from .video_inputs import flatten_metadata
from .video_processing_omnivinci import OmniVinciVideoProcessorKwargs, pad_timestamps
from .waveforms import count_samples, is_waveform, source_of, to_waveform

logger = logging.get_logger(__name__)

# Seconds by which sound may outlast its picture without a word.
MIN_LATE_SOUND = 1.0

SHARED_WITH_CONFIG = (
    "spatial_merge_size",
    "s2_output_scale_index",
    "video_pool_sizes",
    "audio_pooling",
    "group_duration",
    "interleave_audio_in_video",
    "image_start_tokens",
    "image_end_tokens",
    "video_start_tokens",
    "video_end_tokens",
    "video_separator_tokens",
    "audio_start_tokens",
    "audio_end_tokens",
)


class OmniVinciAudioKwargs(AudioKwargs, total=False):
    """
    audio_backend (`str`, *optional*):
        What decodes sound: `"pyav"`, `"decord"`, `"librosa"` or `"torchcodec"`. `None`: for the track of a video what
        decodes its picture, else PyAV.
    device (`str` or `torch.device`, *optional*): Where log-mel spectrograms are computed.
    """

    audio_backend: str | None
    device: str | torch.device | None


class OmniVinciProcessorKwargs(ProcessingKwargs, total=False):
    """
    load_audio_from_video (`bool`, *optional*): Whether videos take their track along.
    return_mm_token_type_ids (`bool`, *optional*):
        Whether to return `mm_token_type_ids` (batch, sequence): 1 for images, 2 for videos, 3 for audio, else 0.
    return_text_replacement_offsets (`bool`, *optional*):
        Whether to return where in the text each placeholder stood, and what stands there.
    """

    load_audio_from_video: bool | None
    return_mm_token_type_ids: bool | None
    return_text_replacement_offsets: bool | None
    images_kwargs: OmniVinciImageProcessorKwargs
    videos_kwargs: OmniVinciVideoProcessorKwargs
    audio_kwargs: OmniVinciAudioKwargs


class OmniVinciBatchFeature(BatchFeature):
    """
    A [`BatchFeature`] whose seconds stay in float32: `.to(dtype)` casts everything else, but bfloat16 cannot tell
    100.0 s from 100.2 s. When it is given `labels`, placeholders among them become -100: trainers and collators that
    know nothing of media make labels of `input_ids`, and count and learn them as they are.
    """

    placeholder_ids: tuple[int, ...] = ()

    def __init__(self, *args, placeholder_ids: tuple[int, ...] = (), **kwargs):
        self.placeholder_ids = placeholder_ids
        super().__init__(*args, **kwargs)

    def __setitem__(self, name: str, value):
        super().__setitem__(name, without_placeholders(value, self.placeholder_ids) if name == "labels" else value)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "placeholder_ids": self.placeholder_ids}

    def __setstate__(self, state: dict):
        super().__setstate__(state)
        self.placeholder_ids = state["placeholder_ids"]

    def to(self, *args, **kwargs) -> "OmniVinciBatchFeature":
        timestamps = {name: value for name, value in self.data.items() if name.endswith("_timestamps")}
        super().to(*args, **kwargs)
        for name, value in timestamps.items():
            if isinstance(value, torch.Tensor):
                self.data[name] = value.to(self.data[name].device)
        return self


@dataclass(frozen=True)
class VideoPlan:
    """
    Where the embeddings of one video stand.

    Attributes:
        timestamps (`list[float]`): Seconds of the sampled frames.
        windows (`AudioWindows`, *optional*): How its track is cut. `None`: it is seen without sound.
        groups (`list[TemporalGroup]`): Temporal groups; empty without sound or where they are not interleaved.
        parts (`list[list[Run]]`):
            Placeholders and boundary tokens, in order: of each group; without groups of the sound, if there is any,
            and of the picture. Media brackets around the whole clip belong to the first and the last part.
    """

    timestamps: list[float]
    windows: AudioWindows | None
    groups: list[TemporalGroup]
    parts: list[list[Run]]

    @property
    def runs(self) -> list[Run]:
        """Those of all parts."""
        return [run for part in self.parts for run in part]


class OmniVinciProcessor(InstalledCode, AppliesChatTemplates, ProcessorMixin):
    r"""
    Turns prompts with images, videos and sound into the tensors of [`OmniVinciForConditionalGeneration`].

    Every placeholder of a medium in the prompt, `<image>`, `<vila/video>` or `<sound>`, becomes as many positions as
    the medium has embeddings, in the order in which they stand in the sequence: `input_ids` is as long as what the
    language model reads. With `load_audio_from_video` a video takes its track along, and the two are placed in
    temporal groups (TEG, section 2.1).

    Args:
        image_processor ([`OmniVinciImageProcessor`]): Tiles of Dynamic S2.
        video_processor ([`OmniVinciVideoProcessor`]): Frames.
        feature_extractor ([`WhisperFeatureExtractor`]): Log-mel spectrograms.
        tokenizer ([`Qwen2Tokenizer`]): The tokenizer; it knows the three placeholders.
        chat_template (`str`, *optional*): A Jinja template. `None`: ChatML as in the release.
        patch_size (`int`, *optional*, defaults to 14): Side in pixels of a patch of the image encoder.
        max_source_positions (`int`, *optional*, defaults to 1500): Half the mel frames of a window of the audio
        encoder. audio_pad_to_multiple_of (`float`, *optional*, defaults to 30.0): Seconds to a multiple of which audio
        is padded. max_audio_duration (`float`, *optional*): Seconds of a clip that are kept. `None`: all.
        fixed_audio_duration (`float`, *optional*): Seconds to which every clip is padded or cut.
        spatial_merge_size, s2_output_scale_index, video_pool_sizes, audio_pooling, group_duration,
        interleave_audio_in_video, image_start_tokens, image_end_tokens, video_start_tokens, video_end_tokens,
        video_separator_tokens, audio_start_tokens, audio_end_tokens:
            As in [`OmniVinciConfig`], which must have the same values.
        use_media_brackets (`bool`, *optional*, defaults to `False`):
            Whether every medium stands between tokens such as `<|image_bos|>` and `<|image_eos|>`.
        load_audio_from_video (`bool`, *optional*, defaults to `False`):
            Whether videos take their track along where a call does not say. The published layout says it as
            `load_audio_in_video`.
    """

    valid_processor_kwargs = OmniVinciProcessorKwargs
    skip_tensor_conversion = ["video_metadata", "text_replacement_offsets"]
    # What a call takes if it, and for the text the tokenizer, says nothing else.
    text_kwargs = {"padding": True, "padding_side": "left"}
    return_mm_token_type_ids = False
    return_text_replacement_offsets = False

    def __init__(
        self,
        image_processor,
        video_processor,
        feature_extractor,
        tokenizer,
        chat_template=None,
        patch_size=14,
        spatial_merge_size=2,
        s2_output_scale_index=-1,
        video_pool_sizes=((1, 1, 1),),
        max_source_positions=1500,
        audio_pooling="none",
        audio_pad_to_multiple_of=30.0,
        max_audio_duration=None,
        fixed_audio_duration=None,
        group_duration=30.0,
        interleave_audio_in_video=True,
        image_start_tokens=None,
        image_end_tokens="\n",
        video_start_tokens=None,
        video_end_tokens=None,
        video_separator_tokens=None,
        audio_start_tokens=None,
        audio_end_tokens="\n",
        use_media_brackets=False,
        load_audio_from_video=False,
    ):
        super().__init__(
            image_processor,
            video_processor,
            feature_extractor,
            tokenizer,
            chat_template=CHAT_TEMPLATE if chat_template is None else chat_template,
        )
        self.patch_size = patch_size
        self.spatial_merge_size = spatial_merge_size
        self.s2_output_scale_index = s2_output_scale_index
        self.video_pool_sizes = [list(sizes) for sizes in video_pool_sizes]
        self.max_source_positions = max_source_positions
        self.audio_pooling = audio_pooling
        self.audio_pad_to_multiple_of = audio_pad_to_multiple_of
        self.max_audio_duration = max_audio_duration
        self.fixed_audio_duration = fixed_audio_duration
        self.group_duration = group_duration
        self.interleave_audio_in_video = interleave_audio_in_video
        self.image_start_tokens = image_start_tokens
        self.image_end_tokens = image_end_tokens
        self.video_start_tokens = video_start_tokens
        self.video_end_tokens = video_end_tokens
        self.video_separator_tokens = video_separator_tokens
        self.audio_start_tokens = audio_start_tokens
        self.audio_end_tokens = audio_end_tokens
        self.use_media_brackets = use_media_brackets
        if not isinstance(load_audio_from_video, bool):
            raise ValueError(f"`load_audio_from_video` is True or False, got {load_audio_from_video!r:.80}.")
        self.load_audio_from_video = load_audio_from_video
        self.image_token, self.video_token, self.audio_token = IMAGE_TOKEN, VIDEO_TOKEN, AUDIO_TOKEN
        self.image_token_id, self.video_token_id, self.audio_token_id = (
            self._require_token(token) for token in (IMAGE_TOKEN, VIDEO_TOKEN, AUDIO_TOKEN)
        )

    # ------------------------------------------------------------------------------------- loading, saving

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """
        Loads what [`save_pretrained`] wrote, or the processor of a checkpoint in the published layout. Other options
        replace what either says: of the processor and of its parts, such as `num_frames`, `max_tiles` and
        `padding_side`.
        """
        from ..conversion.loading import HUB_OPTIONS, published_processor

        returns_unused = kwargs.pop("return_unused_kwargs", False)  # of the parts' loaders, some fail with it
        processor = published_processor(cls, pretrained_model_name_or_path, **kwargs)
        if processor is None:
            processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if not returns_unused:
            return processor
        parts = (processor, *(getattr(processor, name) for name in processor.get_attributes()))
        hub = {*HUB_OPTIONS, "subfolder", "trust_remote_code", "_from_auto"}
        unused = {n: v for n, v in kwargs.items() if n not in hub and not any(hasattr(part, n) for part in parts)}
        return processor, unused

    @staticmethod
    def settings_of(config) -> dict:
        """The arguments that a processor shares with the [`OmniVinciConfig`] of its model."""
        shared = {name: getattr(config, name) for name in SHARED_WITH_CONFIG}
        return {
            "patch_size": config.vision_config.patch_size,
            "max_source_positions": config.audio_config.max_source_positions,
            **shared,
        }

    def check_argument_for_proper_class(self, argument_name, argument):
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        # Transformers hides its own base class where torchvision is not installed.
        if not isinstance(argument, BaseVideoProcessor):
            raise TypeError(f"`video_processor` must be a BaseVideoProcessor, got {type(argument).__name__}.")
        return BaseVideoProcessor

    def _require_token(self, token: str) -> int:
        token_id = self.tokenizer.convert_tokens_to_ids(token)
        if token_id is None or token_id == self.tokenizer.unk_token_id:
            raise ValueError(f"The tokenizer does not know {token!r}, which this processor needs in its vocabulary.")
        return token_id

    # ------------------------------------------------------------------------------------- the direct call

    def __call__(
        self,
        text: str | list[str] | None = None,
        images: ImageInput | None = None,
        videos: VideoInput | None = None,
        audio: AudioInput | None = None,
        audio_from_video_indices: list[int | None] | None = None,
        **kwargs: Unpack[OmniVinciProcessorKwargs],
    ) -> BatchFeature:
        """
        Prepares prompts with their media.

        Args:
            text (`str` or `list[str]`):
                Prompts with one placeholder for every medium. The release's `<sound><vila/video>` for a video with its
                track is understood too.
            images: One image, a list, or a list for each prompt; see [`OmniVinciImageProcessor`].
            videos: One video, a list, or a list for each prompt; see [`OmniVinciVideoProcessor`].
            audio: One clip, a list, or a list for each prompt: paths, URLs, bytes, file objects, and 1-D arrays or
                tensors of mono samples at the feature extractor's rate, floats in [-1, 1] or integers of full scale.
                Samples with a rate of their own, `(samples, rate)`, audio objects of `datasets` and decoders of
                torchcodec are resampled, their channels averaged.
            audio_from_video_indices (`list[int]`, *optional*):
                The source of each audio slot where `load_audio_from_video` is set: `None` for a clip of its own, `i`
                for the track of `videos[i]`. With one `audio` entry per slot tracks are taken from `audio`, otherwise
                they are decoded from the video's file.
            kwargs: Options of the tokenizer and of the processors of images, videos and audio, flat or in
                `images_kwargs`, `videos_kwargs`, ...; among them `num_frames`, `fps`, `video_start`, `video_end`,
                `video_metadata`, `do_sample_frames`, `load_audio_from_video`, `return_tensors`, `padding_side`,
                `return_mm_token_type_ids` and `return_metadata`.

        Returns:
            [`BatchFeature`] with `input_ids` and `attention_mask` (batch, sequence) and, where there are such media,

            - `pixel_values`, `image_grid_hw`: see [`OmniVinciImageProcessor`];
            - `pixel_values_videos`, `video_timestamps`: see [`OmniVinciVideoProcessor`];
            - `input_features` (num_windows, mel bins, mel frames), the windows of all clips;
            - `audio_num_windows` (num_clips,);
            - `audio_timestamps` (num_clips, most vectors of a clip), the seconds of every vector that stands in the
              sequence, in float32, filled up with -1;
            - `video_has_audio` (num_videos,) and `audio_from_video` (num_clips,), which videos are heard and which
              clips are tracks of videos. The two follow each other in the same order.

            Media follow each other as in the prompts, the track of a video where the video stands. In `labels` that
            are added to it, placeholders become -100.

        Raises:
            ValueError, TypeError, OSError: media and placeholders do not match, or a medium cannot be read.
        """
        hears, is_said = self._hears_videos(kwargs)
        options = sort_options(self, kwargs)
        batch = sort_media(text, images, videos, audio, audio_from_video_indices, hears, is_said)
        image_options, video_options = options["images_kwargs"], options["videos_kwargs"]
        if kwargs.get("return_metadata"):
            video_options["return_metadata"] = True

        data, runs = {}, {"image": [], "video": [], "audio": []}
        if batch.images:
            data |= self.image_processor(batch.images_by_prompt, **_without(image_options, "return_tensors"))
            runs["image"] = [self._image_runs(*grid) for grid in data["image_grid_hw"].tolist()]

        clips = [self._load_clip(clip, options["audio_kwargs"]) for clip in batch.clips]
        windows = [self._plan_audio(len(clip)) for clip in clips]
        runs["audio"] = [self._audio_runs(clip) for clip in windows]

        loaded = self._load_videos(batch, options)
        plans = [
            self._plan_video(source, video.metadata, _length(video.waveform))
            for source, video in zip(batch.videos, loaded, strict=True)
        ]
        runs["video"] = [plan.runs for plan in plans]
        if loaded:
            data |= self.video_processor(loaded, **_without(video_options, "return_tensors", "video_metadata"))

        has_audio = [plan.windows is not None for plan in plans]
        if loaded:
            data["video_has_audio"] = torch.tensor(has_audio)
        heard = []  # waveforms in the order of the prompts, with their windows and the runs that they stand in
        from_video = []
        for slot in (slot for slots in batch.placeholders for slot in slots):
            if slot.modality == "audio":
                heard.append((clips[slot.index], windows[slot.index], runs["audio"][slot.index]))
            elif slot.modality == "video" and has_audio[slot.index]:
                heard.append((loaded[slot.index].waveform, plans[slot.index].windows, plans[slot.index].runs))
            else:
                continue
            from_video.append(slot.modality == "video")
        if heard:
            data |= self._extract_features(heard, options["audio_kwargs"])
            data["audio_from_video"] = torch.tensor(from_video)

        return OmniVinciBatchFeature(
            {**self._tokenize(batch, runs, options), **data},
            tensor_type=options["text_kwargs"].get("return_tensors"),
            skip_tensor_conversion=self.skip_tensor_conversion,
            placeholder_ids=(self.image_token_id, self.video_token_id, self.audio_token_id),
        )

    def count_tokens(
        self,
        text=None,
        images=None,
        videos=None,
        audio=None,
        audio_from_video_indices: list[int | None] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Unpack[OmniVinciProcessorKwargs],
    ) -> int | list[int]:
        """
        The length of prompts in tokens, from the headers of their media: no pixel and no sample of a file is decoded.

        Args:
            text (`str`, `list[str]` or conversations): Prompts, or what [`apply_chat_template`] takes.
            images, videos, audio, audio_from_video_indices, kwargs: As when called. The track of a video counts where
                `load_audio_from_video` is set.
            add_generation_prompt (`bool`, *optional*, defaults to `True`): For conversations.

        Returns:
            `int` or `list[int]`: as many as `input_ids` will have without padding, for one prompt or for each.
        """
        hears, is_said = self._hears_videos(kwargs)
        options = sort_options(self, kwargs)
        single = isinstance(text, str)
        if isinstance(text, (list, tuple)) and text and not isinstance(text[0], str):
            conversations, is_batched = self._read_conversations(text, refuse_placeholders=True)
            single = not is_batched
            images, videos, audio, audio_from_video_indices = self._media_of(conversations, hears)
            text = self.apply_chat_template(conversations, add_generation_prompt=add_generation_prompt)
        batch = sort_media(text, images, videos, audio, audio_from_video_indices, hears, is_said)
        runs = {
            "image": [
                self._image_runs(*(self._probe_tile_grid(image) if len(prompt) == 1 else (1, 1)))
                for prompt in batch.images_by_prompt
                for image in prompt
            ],
            "video": [self._probe_video(batch, index, options).runs for index in range(len(batch.videos))],
            "audio": [self._audio_runs(self._plan_audio(self._probe_clip(clip))) for clip in batch.clips],
        }
        lengths = [len(ids) for ids in self.tokenizer(batch.prompts)["input_ids"]]
        for prompt, slots in enumerate(batch.placeholders):
            lengths[prompt] += sum(count(runs[slot.modality][slot.index]) - 1 for slot in slots)
        return lengths[0] if single else lengths

    def _hears_videos(self, options: dict) -> tuple[bool, bool]:
        """
        Whether videos take their track along, and whether a call says so itself. Takes it out of the call's options.
        """
        said = [options.pop("load_audio_from_video", None)]
        if "load_audio_from_video" in (options.get("videos_kwargs") or {}):
            options["videos_kwargs"] = dict(options["videos_kwargs"])
            said.append(options["videos_kwargs"].pop("load_audio_from_video"))
        said = [bool(value) for value in said if value is not None]
        return (said[0], True) if said else (self.load_audio_from_video, False)

    def probe_audio(self, clip) -> float:
        """
        Seconds of a clip, by the header of a file: none of its samples is decoded.

        Args:
            clip: One clip, as when called.
        """
        if is_waveform(clip):
            return count_samples(clip, self.feature_extractor.sampling_rate) / self.feature_extractor.sampling_rate
        return media.probe_audio(source_of(clip))

    # ----------------------------------------------------------------------------------- reading the media

    def _load_videos(self, batch: PromptBatch, options: dict) -> list[LoadedVideo]:
        if not batch.videos:
            return []
        audio_options = options["audio_kwargs"]
        loaded = self.video_processor.load_videos(
            batch.videos,
            load_audio=[wanted and track is None for wanted, track in zip(batch.heard, batch.tracks, strict=True)],
            audio_backend=audio_options.get("audio_backend"),
            sampling_rate=self.feature_extractor.sampling_rate,
            max_audio_seconds=self._audio_limit,
            **_without(options["videos_kwargs"], "return_tensors"),
        )
        waveforms = [
            self._load_clip(track, audio_options) if track is not None else video.waveform if wanted else None
            for video, track, wanted in zip(loaded, batch.tracks, batch.heard, strict=True)
        ]
        for source, video, waveform in zip(batch.videos, loaded, waveforms, strict=True):
            self._warn_of_late_sound(source, video.metadata, _length(waveform))
        return [replace(video, waveform=waveform) for video, waveform in zip(loaded, waveforms, strict=True)]

    def _warn_of_late_sound(self, source, metadata: OmniVinciVideoMetadata, num_samples: int | None) -> None:
        """The groups of a video end with its picture, and sound that goes on is in none of them."""
        if num_samples is None or not self.interleave_audio_in_video:
            return
        seconds = self._plan_audio(num_samples).duration
        if seconds - metadata.duration > MIN_LATE_SOUND:
            warnings.warn(
                f"The sound of {_name(source)} lasts {seconds - metadata.duration:.1f} s longer than its picture of "
                f"{metadata.duration:.1f} s: that part is not heard.",
                stacklevel=4,
            )

    @property
    def _audio_limit(self) -> float | None:
        return self.max_audio_duration if self.fixed_audio_duration is None else self.fixed_audio_duration

    def _load_clip(self, clip, audio_options: dict) -> np.ndarray:
        """Mono samples in [-1, 1], checked."""
        rate = self.feature_extractor.sampling_rate
        if audio_options.get("sampling_rate") not in (None, rate):
            raise ValueError(
                f"`sampling_rate={audio_options['sampling_rate']}` differs from the {rate} Hz of the feature "
                "extractor: resample arrays, or pass files."
            )
        if is_waveform(clip):
            return to_waveform(clip, rate)
        backend = audio_options.get("audio_backend") or "pyav"
        return media.load_audio(source_of(clip), sampling_rate=rate, max_seconds=self._audio_limit, backend=backend)

    def _extract_features(self, heard: list[tuple[np.ndarray, AudioWindows, list[Run]]], audio_options: dict) -> dict:
        """Log-mel windows and seconds of clips; the dynamic range is that of each whole clip."""
        width = 2 * self.max_source_positions
        features, timestamps = [], []
        for waveform, windows, runs in heard:
            padded = np.zeros(windows.padded_samples, dtype=np.float32)
            padded[: windows.num_samples] = waveform[: windows.num_samples]
            mel = self._log_mel(padded, windows.num_windows * width, str(audio_options.get("device") or "cpu"))
            features.append(mel.unflatten(1, (windows.num_windows, width)).transpose(0, 1))
            step = windows.padded_duration / self._count_vectors(windows)
            timestamps.append([(index + 0.5) * step for index in range(count(runs, self.audio_token_id))])
        return {
            "input_features": torch.cat(features),
            "audio_num_windows": torch.tensor([windows.num_windows for _, windows, _ in heard]),
            "audio_timestamps": pad_timestamps(timestamps),
        }

    def _log_mel(self, samples: np.ndarray, width: int, device: str) -> torch.Tensor:
        """
        The log-mel spectrogram of a clip, (mel bins, width), zero after its last frame. It is computed a minute at a
        time, which bounds the memory: frames need the samples around them alone, but for the dynamic range.
        """
        extractor, hop = self.feature_extractor, self.feature_extractor.hop_length
        margin = extractor.n_fft // (2 * hop) + 2  # frames that feel the edge of a part
        total, step = len(samples) // hop, 60 * extractor.sampling_rate // hop
        mel = torch.zeros(extractor.feature_size, width)
        for start in range(0, total, step):
            stop = min(start + step, total)
            first, last = max(start - margin, 0), stop + margin
            part = samples[first * hop : last * hop] if last < total else samples[first * hop :]
            frames = extractor(
                part,
                sampling_rate=extractor.sampling_rate,
                padding=False,
                truncation=False,
                device=device,
                return_tensors="pt",
            )["input_features"][0]
            mel[:, start:stop] = frames[:, start - first : stop - first]
        # The floor lies 8 decades below the loudest of the whole clip, which is 2 in the units of the features. Those
        # of the parts lie no higher.
        heard = mel[:, :total]
        torch.maximum(heard, heard.max() - 2.0, out=heard)
        return mel

    def _probe_tile_grid(self, image) -> tuple[int, int]:
        """The tile grid of an image, by its header."""
        return self.image_processor.tile_grid(*self.image_processor.probe_image(image))

    def _probe_clip(self, clip) -> int:
        """Samples of a clip, by its header."""
        num_samples = round(self.probe_audio(clip) * self.feature_extractor.sampling_rate)
        if not num_samples and not is_waveform(clip):
            raise ValueError(f"The audio track of {_name(source_of(clip))} holds no sample that can be decoded.")
        return num_samples

    def _probe_video(self, batch: PromptBatch, index: int, options: dict) -> VideoPlan:
        """The plan of a video, by its header."""
        video_options = _without(options["videos_kwargs"], "return_tensors")
        given = video_options.pop("video_metadata", None)
        given = flatten_metadata(given, len(batch.videos))[index]
        metadata = self.video_processor.probe_video(batch.videos[index], given, **video_options)
        num_samples = None
        if batch.tracks[index] is not None:
            num_samples = self._probe_clip(batch.tracks[index])
        elif batch.heard[index] and metadata.audio_duration:
            num_samples = round(metadata.audio_duration * self.feature_extractor.sampling_rate)
        return self._plan_video(batch.videos[index], metadata, num_samples)

    def _plan_video(self, source, metadata: OmniVinciVideoMetadata, num_samples: int | None) -> VideoPlan:
        try:
            return self.plan_video(metadata, num_samples)
        except ValueError as error:
            raise ValueError(f"{_name(source)} cannot be planned: {error}") from error

    # ------------------------------------------------------------------------------- planning the sequence

    @property
    def layout(self) -> MediaLayout:
        """What decides the order of embeddings, as token ids."""

        def ids(text: str | None) -> list[int]:
            return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

        patches = self.image_processor.s2_scales[0] // self.patch_size
        return MediaLayout(
            image_token_id=self.image_token_id,
            video_token_id=self.video_token_id,
            audio_token_id=self.audio_token_id,
            patches_per_side=-(-patches // self.spatial_merge_size),
            video_pool_sizes=self.video_pool_sizes,
            audio_pooling=self.audio_pooling,
            image_start=ids(self.image_start_tokens),
            image_end=ids(self.image_end_tokens),
            video_start=ids(self.video_start_tokens),
            video_end=ids(self.video_end_tokens),
            video_separator=ids(self.video_separator_tokens),
            audio_start=ids(self.audio_start_tokens),
            audio_end=ids(self.audio_end_tokens),
            group_end=ids("\n"),
        )

    def plan_video(self, metadata: OmniVinciVideoMetadata, num_samples: int | None = None) -> VideoPlan:
        """
        Plans where the embeddings of a sampled video stand.

        Args:
            metadata ([`OmniVinciVideoMetadata`]): Of the clip, with the `frames_indices` that are looked at.
            num_samples (`int`, *optional*): Samples of its track. `None`: without sound.
        """
        timestamps = list(metadata.timestamps)
        if num_samples is None:
            return VideoPlan(timestamps, None, [], [self._video_runs(len(timestamps))])
        windows = self._plan_audio(num_samples)
        if not self.interleave_audio_in_video:
            parts = [self._audio_runs(windows), self._video_runs(len(timestamps))]
            return VideoPlan(timestamps, windows, [], parts)
        constant_rate = metadata.frame_times is None
        extractor = self.feature_extractor
        groups = plan_groups(
            metadata.frames_indices if constant_rate else [second * metadata.fps for second in timestamps],
            metadata.fps,
            metadata.total_num_frames if constant_rate else metadata.duration * metadata.fps,
            self.group_duration,
            windows.duration,
            extractor.sampling_rate // extractor.hop_length,
        )
        parts = grouped_sequence(
            self.layout, groups, len(timestamps), windows.num_mel_frames, self._count_vectors(windows)
        )
        if self.use_media_brackets:
            # The brackets of the sound stay where the release wrote its placeholder, in front of the video.
            start, end = self._bracket("video", [])
            parts[0] = [*self._bracket("audio", []), start, *parts[0]]
            parts[-1] = [*parts[-1], end]
        return VideoPlan(timestamps, windows, groups, parts)

    def _plan_audio(self, num_samples: int) -> AudioWindows:
        return plan_audio(
            num_samples,
            self.feature_extractor.sampling_rate,
            self.feature_extractor.hop_length,
            2 * self.max_source_positions,
            self.audio_pad_to_multiple_of,
            self.max_audio_duration,
            self.fixed_audio_duration,
        )

    def _count_vectors(self, windows: AudioWindows) -> int:
        return count_audio_vectors(windows.num_windows, self.max_source_positions, self.audio_pooling)

    def _audio_runs(self, windows: AudioWindows) -> list[Run]:
        return self._bracket("audio", audio_sequence(self.layout, self._count_vectors(windows)))

    def _video_runs(self, num_frames: int) -> list[Run]:
        """Of a video without sound."""
        return self._bracket("video", video_sequence(self.layout, num_frames))

    def _image_runs(self, rows: int, columns: int) -> list[Run]:
        """Of an image by the tile grid of its last scale; (1, 1) is an image that is not tiled."""
        grids = tile_grids(self.image_processor.s2_scales, rows, columns)
        merged = grids[self.s2_output_scale_index] if len(grids) > 1 else grids[0]
        return self._bracket("image", image_sequence(self.layout, math.prod(merged)))

    def _bracket(self, modality: str, runs: list[Run]) -> list[Run]:
        if not self.use_media_brackets:
            return runs
        start, end = (self._require_token(token) for token in MEDIA_BRACKETS[modality])
        return [(start, 1), *runs, (end, 1)]

    def _tokenize(self, batch: PromptBatch, runs: dict[str, list[list[Run]]], options: dict) -> dict:
        """Ids of prompts with those of media in their places, cut, padded and with what else is asked for."""
        text_options = _without(options["text_kwargs"], "return_tensors", "verbose")
        with_replacements = options["return_text_replacement_offsets"]
        with_offsets = text_options.pop("return_offsets_mapping", None)
        add_special_tokens = text_options.pop("add_special_tokens", None) is not False
        prompts = [
            encode_prompt(
                self.tokenizer,
                prompt,
                [
                    Replacement(slot.modality, TOKENS[slot.modality], expand(runs[slot.modality][slot.index]))
                    for slot in slots
                ],
                add_special_tokens,
                bool(with_offsets or with_replacements),
            )
            for prompt, slots in zip(batch.prompts, batch.placeholders, strict=True)
        ]
        kept = self._truncate([prompt.ids for prompt in prompts], text_options)
        rows = [prompt.ids[kept] for prompt in prompts]
        self._warn_if_too_long(max(map(len, rows)))
        names = ("padding", "max_length", "pad_to_multiple_of", "padding_side", "return_attention_mask")
        padding = {name: text_options.pop(name) for name in names if name in text_options}
        refused = sorted(name for name, value in text_options.items() if value)
        if refused:
            raise ValueError(f"The options {refused} of the tokenizer are not supported beside media.")
        encoded = self.tokenizer.pad({"input_ids": rows}, **padding)
        if options["return_mm_token_type_ids"]:
            encoded["mm_token_type_ids"] = self.create_mm_token_type_ids(encoded["input_ids"])
        if with_offsets:
            on_left = padding.get("padding_side", self.tokenizer.padding_side) == "left"
            encoded["offset_mapping"] = [
                _pad(prompt.offsets[kept], len(row), on_left) for row, prompt in zip(encoded["input_ids"], prompts)
            ]
        if with_replacements:
            encoded["text_replacement_offsets"] = [prompt.replacements for prompt in prompts]
        return dict(encoded)

    def _truncate(self, rows: list[list[int]], text_options: dict) -> slice:
        """Which tokens of each row are kept: at most `max_length` where `truncation` is asked for."""
        truncation = text_options.pop("truncation", None)
        limit = text_options.get("max_length") or self.tokenizer.model_max_length
        if truncation in (None, False, "do_not_truncate") or max(map(len, rows)) <= limit:
            return slice(None)
        kept = slice(limit) if self.tokenizer.truncation_side == "right" else slice(-limit, None)
        for modality in TOKENS:
            token_id = getattr(self, f"{modality}_token_id")
            whole, left = [row.count(token_id) for row in rows], [row[kept].count(token_id) for row in rows]
            if whole != left:
                raise ValueError(
                    f"Mismatch in `{modality}` token count: {left} of {whole} placeholders would be left after "
                    f"truncation to {limit} tokens. Disable `truncation`, or raise `max_length`."
                )
        return kept

    def create_mm_token_type_ids(self, input_ids: list[list[int]]) -> list[list[int]]:
        """Of each token: 1 if it stands for an image, 2 for a video, 3 for sound, else 0."""
        kinds = {self.image_token_id: 1, self.video_token_id: 2, self.audio_token_id: 3}
        return [[kinds.get(token, 0) for token in row] for row in input_ids]

    def _warn_if_too_long(self, length: int):
        limit = self.tokenizer.model_max_length
        if length > limit:
            logger.warning(
                f"The prompt has {length} tokens, more than the {limit} positions of the model: answers will degrade. "
                "Take fewer frames (`num_frames`), less sound or a part of the clip (`video_start`, `video_end`)."
            )

    def _get_num_multimodal_tokens(
        self, image_sizes=None, video_sizes=None, audio_lengths=None, **kwargs
    ) -> MultiModalData:
        """
        Placeholders of media by their sizes.

        Args:
            image_sizes (`list[list[int]]`, *optional*): (height, width) of images, each alone in its prompt.
            video_sizes (`list[list[int]]`, *optional*): (num_frames, height, width) of sampled videos without sound.
            audio_lengths (`list[int]`, *optional*): Samples of audio clips.
        """
        counts = {}
        if image_sizes is not None:
            grids = [self.image_processor.tile_grid(*size) for size in image_sizes]
            counts["num_image_tokens"] = [count(self._image_runs(*grid), self.image_token_id) for grid in grids]
            counts["num_image_patches"] = [
                sum(map(math.prod, tile_grids(self.image_processor.s2_scales, *grid))) for grid in grids
            ]
        if video_sizes is not None:
            counts["num_video_tokens"] = [
                count(video_sequence(self.layout, num_frames), self.video_token_id) for num_frames, *_ in video_sizes
            ]
        if audio_lengths is not None:
            counts["num_audio_tokens"] = [self._count_vectors(self._plan_audio(length)) for length in audio_lengths]
        return MultiModalData(**counts)

    @property
    def model_input_names(self) -> list[str]:
        return [
            *self.tokenizer.model_input_names,
            *self.image_processor.model_input_names,
            *self.video_processor.model_input_names,
            "input_features",
            "audio_num_windows",
            "audio_timestamps",
            "video_has_audio",
            "audio_from_video",
        ]


def _pad(offsets: list[tuple[int, int]], length: int, on_left: bool) -> list[tuple[int, int]]:
    padding = [(0, 0)] * (length - len(offsets))
    return padding + offsets if on_left else offsets + padding


def _without(options: dict, *names: str) -> dict:
    return {name: value for name, value in options.items() if name not in names}


def _length(waveform: np.ndarray | None) -> int | None:
    """Samples of a track; `None`: without sound."""
    return None if waveform is None or not len(waveform) else len(waveform)


def _name(source) -> str:
    """What messages call a source."""
    return repr(str(source)[:200]) if isinstance(source, (str, Path)) else f"<{type(source).__name__}>"


__all__ = ["OmniVinciProcessor"]
