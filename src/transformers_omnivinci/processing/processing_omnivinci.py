"""Processor of OmniVinci: prompts and media in, the tensors of the model out."""

import torch
from transformers.audio_utils import AudioInput
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import AudioKwargs, MultiModalData, ProcessingKwargs, ProcessorMixin, Unpack
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoInput

from ..checkpoint_formats import load_registered
from ..hub_options import LOADER_OPTIONS
from ..media import OmniVinciVideoMetadata
from ..planning import Layout, MediumFacts, MediumPlan, PromptPlan, count, plan_medium, tile_grids
from ..remote_code import InstalledCode
from ..sequence_settings import SEQUENCE_SETTINGS, check_sequence_settings
from .batch import MEDIA_INPUTS, OmniVinciBatchFeature
from .chat_template import AUDIO_TOKEN, CHAT_TEMPLATE, IMAGE_TOKEN, VIDEO_TOKEN
from .chats import AppliesChatTemplates
from .image_processing_omnivinci import OmniVinciImageProcessorKwargs
from .layout import build_layout, layout_settings, require_token
from .media_seen import collect_evidence, download_all
from .options import hears_videos, sort_options
from .prompts import PromptBatch, sort_media
from .reading import (
    encode_read_media,
    load_media,
    make_media_inputs,
    plan_media,
    probe_duration,
    probe_media,
    video_facts,
)
from .text_inputs import make_text_inputs
from .tokenization import TokenizedPrompt, tokenize_prompt
from .video_processing_omnivinci import OmniVinciVideoProcessorKwargs

SHARED_WITH_CONFIG = ("spatial_merge_size", "s2_output_scale_index", "video_pool_sizes", "audio_pooling")


class OmniVinciAudioKwargs(AudioKwargs, total=False):
    """
    audio_backend (`str`, *optional*):
        What decodes sound: `"pyav"`, `"decord"` or `"librosa"`. `None`: for the track of a video what decodes its
        picture, else PyAV.
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
    return_evidence (`bool`, *optional*):
        Whether to return `evidence`, an [`Evidence`] for each prompt. It is no input of the model: take it out before.
    return_plan (`bool`, *optional*): Whether to return `plan`, the [`PromptPlan`] of each prompt; no input either.
    """

    load_audio_from_video: bool | None
    return_evidence: bool | None
    return_plan: bool | None
    return_mm_token_type_ids: bool | None
    return_text_replacement_offsets: bool | None
    images_kwargs: OmniVinciImageProcessorKwargs
    videos_kwargs: OmniVinciVideoProcessorKwargs
    audio_kwargs: OmniVinciAudioKwargs


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
        max_source_positions (`int`, *optional*, defaults to 1500):
            Half the mel frames of a window of the audio encoder.
        audio_pad_to_multiple_of (`float`, *optional*, defaults to 30.0): Audio is padded to a multiple of this many
            seconds.
        max_audio_duration (`float`, *optional*): Seconds of a clip that are kept. `None`: all.
        fixed_audio_duration (`float`, *optional*): Seconds to which every clip is padded or cut.
        spatial_merge_size, s2_output_scale_index, video_pool_sizes, audio_pooling:
            As in [`OmniVinciConfig`], which must have the same values.
        group_duration (`float`, *optional*, defaults to 30.0):
            T_G of Temporal Embedding Grouping, in seconds (section 2.1).
        interleave_audio_in_video (`bool`, *optional*, defaults to `True`):
            Whether a video and its sound are placed in temporal groups. `False`: all sound, then all picture.
        image_start_tokens, image_end_tokens (`str`, *optional*, default to `None` and a newline):
            Text whose embeddings stand before and after an image.
        video_start_tokens, video_end_tokens, video_separator_tokens (`str`, *optional*, default to `None`):
            Text before and after each (pooled) frame, and after the last frame of each entry of `video_pool_sizes`.
            `video_end_tokens` must be `None` where video and sound are placed in temporal groups.
        audio_start_tokens, audio_end_tokens (`str`, *optional*, default to `None` and a newline):
            Text before and after an audio clip.
        use_media_brackets (`bool`, *optional*, defaults to `False`):
            Whether every medium stands between tokens such as `<|image_bos|>` and `<|image_eos|>`.
        load_audio_from_video (`bool`, *optional*, defaults to `False`):
            Whether videos take their track along where a call does not say. The published layout says it as
            `load_audio_in_video`.

    Raises:
        ValueError: a value is not supported or contradicts another one, or the tokenizer lacks a placeholder.
        TypeError: a value has the wrong type.
    """

    valid_processor_kwargs = OmniVinciProcessorKwargs
    skip_tensor_conversion = ["video_metadata", "text_replacement_offsets", "evidence", "plan"]
    # What a call takes if it, and for the text the tokenizer, says nothing else.
    text_kwargs = {"padding": True, "padding_side": "left"}
    return_mm_token_type_ids = False
    return_text_replacement_offsets = False
    return_evidence = return_plan = False
    _layout: tuple[str, Layout] | None = None

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
        check_sequence_settings({name: getattr(self, name) for name in SEQUENCE_SETTINGS})
        self.use_media_brackets = use_media_brackets
        if not isinstance(load_audio_from_video, bool):
            raise ValueError(f"`load_audio_from_video` is True or False, got {load_audio_from_video!r:.80}.")
        self.load_audio_from_video = load_audio_from_video
        self.image_token, self.video_token, self.audio_token = IMAGE_TOKEN, VIDEO_TOKEN, AUDIO_TOKEN
        self.image_token_id, self.video_token_id, self.audio_token_id = (
            require_token(self.tokenizer, token) for token in (IMAGE_TOKEN, VIDEO_TOKEN, AUDIO_TOKEN)
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """
        Loads what [`save_pretrained`] wrote, or the processor of a checkpoint in a registered format. Other options
        replace what either says: of the processor and of its parts, such as `num_frames`, `max_tiles` and
        `padding_side`.

        Raises:
            OSError: there is no checkpoint, or the Hub cannot be reached or refuses.
            ValueError: the value of an option is not supported, or nothing has an option of that name.
            TypeError: the value of an option has the wrong type.
        """
        returns_unused = kwargs.pop("return_unused_kwargs", False)  # of the parts' loaders, some fail with it
        kwargs.pop("use_fast", None)  # trainers ask all models so; of each part of this one there is a single kind
        # Set afterwards: the loaders of some parts give all options to the model's config, too, which refuses these.
        sequence = {name: kwargs.pop(name) for name in SEQUENCE_SETTINGS if name in kwargs}
        processor = load_registered("processor", cls, pretrained_model_name_or_path, **kwargs)
        if processor is None:
            processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        check_sequence_settings({name: getattr(processor, name) for name in SEQUENCE_SETTINGS} | sequence)
        for name, value in sequence.items():
            setattr(processor, name, value)
        parts = (processor, *(getattr(processor, name) for name in processor.get_attributes()))
        options = {name: value for name, value in kwargs.items() if name not in LOADER_OPTIONS}
        unused = {name: options[name] for name in options if not any(hasattr(part, name) for part in parts)}
        if returns_unused:
            return processor, unused
        # A pipeline gives all it loads the options of the model, too.
        if unused and "_from_pipeline" not in kwargs:
            names = ", ".join(f"`{name}`" for name in unused)
            raise ValueError(f"{names}: neither the processor nor a part of it has an option of that name.")
        return processor

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

    def __call__(
        self,
        text: str | list[str] | None = None,
        images: ImageInput | None = None,
        videos: VideoInput | None = None,
        audio: AudioInput | None = None,
        audio_from_video_indices: list[int | None] | None = None,
        media_encoder=None,
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
            media_encoder ([`OmniVinciForConditionalGeneration`], *optional*):
                Encodes the media while they are read, without gradients: `mm_encoder_outputs` is returned in the place
                of [`MediaInputs`]. Pixels and samples are held a few at a time, however long a video is.
            kwargs: Options of the tokenizer and of the processors of images, videos and audio, flat or in
                `images_kwargs`, `videos_kwargs`, ...; among them `num_frames`, `fps`, `video_start`, `video_end`,
                `video_metadata`, `do_sample_frames`, `load_audio_from_video`, `return_tensors`, `padding_side`,
                `return_mm_token_type_ids`, `return_evidence` and `return_metadata`.

        Returns:
            [`BatchFeature`] with `input_ids` and `attention_mask` (batch, sequence), the media as [`MediaInputs`], and
            what is asked for. In `labels` that are added to it, placeholders become -100.

        Raises:
            ValueError, TypeError, OSError: media and placeholders do not match, or a medium cannot be read.
        """
        hears = hears_videos(self, kwargs)
        options = sort_options(self, kwargs)
        if kwargs.get("return_metadata"):
            options["videos_kwargs"]["return_metadata"] = True
        batch = sort_media(text, images, videos, audio, audio_from_video_indices, *hears)
        batch = download_all(batch, self.layout) if options["return_evidence"] else batch
        media = load_media(self, batch, options, media_encoder)
        prompts, plans = self._plan_prompts(batch, media.facts, options)
        text_inputs = make_text_inputs(self, prompts, plans, options)
        if media_encoder is None:
            data = {**text_inputs, **make_media_inputs(self, batch, media, plans, options)}
        else:
            encoded = encode_read_media(self, media_encoder, batch, media, plans, options)
            data = text_inputs | ({"mm_encoder_outputs": encoded} if encoded else {})
        if options["return_evidence"]:
            rows = text_inputs.get("attention_mask")
            rows = [len(row) for row in text_inputs["input_ids"]] if rows is None else map(sum, rows)
            lengths = [min(plan.length, row) for plan, row in zip(plans, rows, strict=True)]
            data["evidence"] = collect_evidence(self, batch, media, data, plans, lengths)
        if options["return_plan"]:
            data["plan"] = plans
        return OmniVinciBatchFeature(
            data,
            tensor_type=options["text_kwargs"].get("return_tensors"),
            skip_tensor_conversion=self.skip_tensor_conversion,
            placeholder_ids=(self.image_token_id, self.video_token_id, self.audio_token_id),
        )

    def plan(
        self,
        text=None,
        images=None,
        videos=None,
        audio=None,
        audio_from_video_indices: list[int | None] | None = None,
        add_generation_prompt: bool = True,
        sanitize_control_tokens: bool = False,
        **kwargs: Unpack[OmniVinciProcessorKwargs],
    ) -> PromptPlan | list[PromptPlan]:
        """
        What stands where in prompts, from the headers of their media: no pixel and no sample of a file is decoded.

        Args:
            text (`str`, `list[str]` or conversations): Prompts, or what [`apply_chat_template`] takes.
            images, videos, audio, audio_from_video_indices, kwargs: As when called. The track of a video counts where
                `load_audio_from_video` is set.
            add_generation_prompt (`bool`, *optional*, defaults to `True`): For conversations.
            sanitize_control_tokens (`bool`, *optional*, defaults to `False`): For conversations, as of
                [`apply_chat_template`].

        Returns:
            [`PromptPlan`] or `list[PromptPlan]`: the token ids, without padding, and the seconds of every embedding,
            for one prompt or for each.

        Raises:
            ValueError, TypeError, OSError: as when called, and for `return_evidence`, which a plan has not.
        """
        hears = hears_videos(self, kwargs)
        options = sort_options(self, kwargs)
        if options["return_evidence"]:
            raise ValueError(
                "A plan has no evidence: call the processor with `return_evidence=True`, or leave it out."
            )
        is_single = isinstance(text, str)
        if isinstance(text, (list, tuple)) and text and not isinstance(text[0], str):
            conversations, is_batched = self._read_conversations(text, not sanitize_control_tokens)
            is_single = not is_batched
            images, videos, audio, audio_from_video_indices = self._media_of(conversations, hears[0])
            text, _ = self._write_prompts(
                self._find_template(None),
                {"conversations": conversations},
                sanitize_control_tokens,
                add_generation_prompt=add_generation_prompt,
            )
            options["text_kwargs"] |= self._special_tokens_options(text[0])
        batch = sort_media(text, images, videos, audio, audio_from_video_indices, *hears)
        _, plans = self._plan_prompts(batch, probe_media(self, batch, options), options)
        return plans[0] if is_single else plans

    def count_tokens(self, *args, **kwargs) -> int | list[int]:
        """
        The length of prompts in tokens, from the headers of their media. Arguments are those of [`plan`].

        Returns:
            `int` or `list[int]`: as many as `input_ids` will have without padding, for one prompt or for each.
        """
        plans = self.plan(*args, **kwargs)
        return plans.length if isinstance(plans, PromptPlan) else [plan.length for plan in plans]

    def plan_video(self, metadata: OmniVinciVideoMetadata, num_samples: int | None = None) -> MediumPlan:
        """
        Where the embeddings of a sampled video stand.

        Args:
            metadata ([`OmniVinciVideoMetadata`]): Of the clip, with the `frames_indices` that are looked at.
            num_samples (`int`, *optional*): Samples of its track. `None` or 0: without sound.
        """
        return plan_medium(video_facts(metadata, num_samples), self.layout)

    def probe_audio(self, clip) -> float:
        """
        Seconds of a clip, by the header of a file: none of its samples is decoded.

        Args:
            clip: One clip, as when called.
        """
        return probe_duration(clip, self.feature_extractor.sampling_rate)

    @property
    def layout(self) -> Layout:
        """What decides where embeddings stand. It is built anew only when a setting has changed."""
        key = repr((id(self.tokenizer), layout_settings(self)))
        if self._layout is None or self._layout[0] != key:
            self._layout = key, build_layout(self)
        return self._layout[1]

    def _plan_prompts(
        self, batch: PromptBatch, facts: dict[str, list[MediumFacts]], options: dict
    ) -> tuple[list[TokenizedPrompt], list[PromptPlan]]:
        """Prompts as tokens, and their plans."""
        text_options = options["text_kwargs"]
        adds_special_tokens = text_options.get("add_special_tokens") is not False
        with_offsets = text_options.get("return_offsets_mapping") or options["return_text_replacement_offsets"]
        plans = plan_media(batch, facts, self.layout)
        placeholders = set(self.layout.token_ids.values())
        prompts, planned = [], []
        for text, slots in zip(batch.prompts, batch.placeholders, strict=True):
            prompt = tokenize_prompt(self.tokenizer, text, adds_special_tokens, bool(with_offsets))
            places = [place for place, token in enumerate(prompt.ids) if token in placeholders]
            prompts.append(prompt)
            planned.append(PromptPlan(prompt.ids, places, [plans[slot.modality][slot.index] for slot in slots]))
        return prompts, planned

    def create_mm_token_type_ids(self, input_ids: list[list[int]]) -> list[list[int]]:
        """Of each token: 1 if it stands for an image, 2 for a video, 3 for sound, else 0."""
        kinds = {self.image_token_id: 1, self.video_token_id: 2, self.audio_token_id: 3}
        return [[kinds.get(token, 0) for token in row] for row in input_ids]

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

        def count_placeholders(facts: list[MediumFacts]) -> list[int]:
            plans = [plan_medium(one, self.layout) for one in facts]
            return [count(plan.runs, self.layout.token_ids[plan.modality]) for plan in plans]

        counts = {}
        if image_sizes is not None:
            grids = [self.image_processor.tile_grid(*size) for size in image_sizes]
            counts["num_image_tokens"] = count_placeholders([MediumFacts("image", grid) for grid in grids])
            counts["num_image_patches"] = [
                sum(rows * columns for rows, columns in tile_grids(self.image_processor.s2_scales, *grid))
                for grid in grids
            ]
        if video_sizes is not None:
            counts["num_video_tokens"] = count_placeholders(
                [MediumFacts("video", timestamps=[0.0] * num_frames) for num_frames, *_ in video_sizes]
            )
        if audio_lengths is not None:
            counts["num_audio_tokens"] = count_placeholders(
                [MediumFacts("audio", num_samples=length) for length in audio_lengths]
            )
        return MultiModalData(**counts)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *MEDIA_INPUTS]


__all__ = ["OmniVinciProcessor"]
