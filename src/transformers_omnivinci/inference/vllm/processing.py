"""Requests to the inputs of the model: what vLLM asks a model's processor for."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import PIL.Image
import torch
from transformers.feature_extraction_utils import BatchFeature
from vllm.inputs import MultiModalInput
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
    PromptUpdateDetails,
    TimingContext,
)
from vllm.transformers_utils.processor import cached_get_processor

from ...media import LoadedVideo, OmniVinciVideoMetadata
from ...planning import MediumFacts, plan_medium
from ...processing import OmniVinciProcessor
from ...processing.one_medium import read_medium
from ...processing.prompts import TOKENS
from .items import RUNS, SEEN, TENSORS, ids_of, is_embedding, item_of
from .media_data import MediaItems, OmniVinciDataParser
from .requests import check_counts, merge_options, sort_sounds


class OmniVinciProcessingInfo(BaseProcessingInfo):
    """What vLLM asks before there is a request."""

    def get_hf_processor(self, **kwargs: object) -> OmniVinciProcessor:
        """The processor of the checkpoint, as it is: options of the engine and of requests come with each call."""
        config = self.ctx.model_config
        return cached_get_processor(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)

    def get_data_parser(self) -> OmniVinciDataParser:
        return OmniVinciDataParser()

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return dict.fromkeys(TOKENS)

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """
        The most positions that one medium may take. A video of many frames, or an hour of sound, is bounded by the
        length of the model alone.
        """
        processor = self.get_hf_processor()
        most = {"image": _count_positions(processor, _largest_grid(processor))}
        return {modality: min(seq_len, most.get(modality, seq_len)) for modality in mm_counts}

    def options_of(self, inputs: ProcessorInputs) -> dict[str, object]:
        """The options of the processor for a request: those of the engine, replaced by its own."""
        config = self.ctx.get_mm_config()
        return merge_options(
            [config.media_io_kwargs or {}, inputs.media_io_kwargs],
            [config.mm_processor_kwargs or {}, inputs.hf_processor_mm_kwargs],
        )


class OmniVinciDummyInputsBuilder(BaseDummyInputsBuilder[OmniVinciProcessingInfo]):
    """The media with which vLLM measures memory: as many frames as the processor takes, the most tiles, long sound."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return "".join(TOKENS[modality] * count for modality, count in mm_counts.items())

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping) -> dict:
        processor = self.info.get_hf_processor()
        data = {}
        for modality, count in mm_counts.items():
            options = mm_options.get(modality)
            medium = getattr(self, f"_{modality}")(processor, seq_len, options or SimpleNamespace())
            data[modality] = [medium] * count
        return data

    def _image(self, processor, seq_len: int, options) -> PIL.Image.Image:
        rows, columns = _largest_grid(processor)
        side = processor.image_processor.s2_scales[0]
        width, height = getattr(options, "width", None), getattr(options, "height", None)
        return PIL.Image.new("RGB", (width or columns * side, height or rows * side), 255)

    def _video(self, processor, seq_len: int, options) -> LoadedVideo:
        """A frame and a second of sound for each other: a video with its sound is the largest one of its length."""
        asked = self.info.options_of(ProcessorInputs([], {})).get("videos_kwargs", {})
        num_frames = getattr(options, "num_frames", None) or asked.get("num_frames")
        num_frames = num_frames or processor.video_processor.num_frames
        per_frame = plan_medium(MediumFacts("video", timestamps=[0.0]), processor.layout).length
        num_frames = max(1, min(num_frames, seq_len // per_frame))
        side = processor.video_processor.size["height"]
        frames = torch.full((num_frames, 3, side, side), 255, dtype=torch.uint8)
        metadata = OmniVinciVideoMetadata(
            num_frames, fps=1.0, duration=float(num_frames), frames_indices=list(range(num_frames))
        )
        return LoadedVideo(frames, metadata, np.zeros(num_frames * processor.layout.sampling_rate, np.float32))

    def _audio(self, processor, seq_len: int, options) -> np.ndarray:
        layout = processor.layout

        def positions(seconds: int) -> int:
            return plan_medium(MediumFacts("audio", num_samples=seconds * layout.sampling_rate), layout).length

        seconds = 1
        while seconds < 3600 and positions(2 * seconds) <= seq_len:
            seconds *= 2
        num_samples = getattr(options, "length", None) or seconds * layout.sampling_rate
        return np.zeros(num_samples, np.float32)


class OmniVinciMultiModalProcessor(BaseMultiModalProcessor[OmniVinciProcessingInfo]):
    """Reads the media of a request, each alone, and puts their plans in the place of their placeholders."""

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        """
        As in vLLM. What of a medium depends on the rest of the request is decided here, and becomes a part of what
        caches know it by: that an image is one of several, and which sound belongs to a video.

        Raises:
            ValueError: a medium cannot be read, has no sound where sound was asked for, or has no placeholder.
        """
        processor = self.info.get_hf_processor()
        token_ids, options = processor.layout.token_ids, self.info.options_of(inputs)
        said = options.get("videos_kwargs", {}).get("load_audio_from_video")
        hears = processor.load_audio_from_video if said is None else said
        items, uuids = dict(inputs.mm_data_items), dict(inputs.mm_uuid_items or {})
        sounds = list(items["audio"].get_all()) if "audio" in items else []
        prompt, links = sort_sounds(inputs.prompt, token_ids, len(sounds), hears)
        if any(link is not None for link in links):
            _give_tracks(items, uuids, sounds, links)
        check_counts(prompt, token_ids, {modality: len(media) for modality, media in items.items()})
        if "image" in items and len(items["image"]) > 1:
            whole = processor.image_processor.whole_image_options
            options = {name: value for name, value in options.items() if name not in whole}
            options["images_kwargs"] = {**options.get("images_kwargs", {}), **whole}
        request = replace(
            inputs,
            prompt=prompt,
            mm_data_items=type(inputs.mm_data_items)(items),
            mm_uuid_items=uuids,
            hf_processor_mm_kwargs=options,
            media_io_kwargs={},
        )
        return super().apply(request, timing_ctx)

    def _apply_hf_processor_main(self, mm_items: Mapping[str, MediaItems], hf_kwargs: Mapping) -> BatchFeature:
        processor, dtype = self.info.get_hf_processor(), self.info.ctx.model_config.dtype
        data = {}
        for modality, media in mm_items.items():
            items = []
            for medium in media.get_all():
                try:
                    read = read_medium(processor, modality, medium.source, medium.track, **_only(modality, hf_kwargs))
                except (TypeError, OSError) as error:
                    raise ValueError(str(error)) from error  # what vLLM answers as a mistake of the request
                items.append(item_of(*read, dtype))
            data |= {name: [item[name] for item in items] for name in TENSORS[modality]}
        return BatchFeature(data)

    def _get_mm_fields_config(self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping) -> Mapping:
        return {
            name: MultiModalFieldConfig.batched(modality, keep_on_cpu=name not in SEEN)
            for modality, names in TENSORS.items()
            for name in names
        }

    def _get_prompt_updates(
        self, mm_items: Mapping[str, MediaItems], hf_processor_mm_kwargs: Mapping, out_mm_kwargs: MultiModalKwargsItems
    ) -> Sequence[PromptReplacement]:
        token_ids = self.info.get_hf_processor().layout.token_ids
        is_embed = functools.partial(is_embedding, token_ids=token_ids)

        def written(modality: str, index: int) -> PromptUpdateDetails:
            runs = out_mm_kwargs[modality][index][RUNS[modality]].data
            return PromptUpdateDetails(ids_of(runs), is_embed)

        return [
            PromptReplacement(modality, [token_ids[modality]], functools.partial(written, modality))
            for modality in mm_items
        ]


def _count_positions(processor: OmniVinciProcessor, grid: tuple[int, int]) -> int:
    return plan_medium(MediumFacts("image", grid), processor.layout).length


def _largest_grid(processor: OmniVinciProcessor) -> tuple[int, int]:
    """The (rows, columns) with the most positions, of those that an image may be tiled into."""
    most, side = processor.image_processor.max_tiles, processor.image_processor.s2_scales[0]
    shapes = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
    grids = sorted({processor.image_processor.tile_grid(rows * side, columns * side) for rows, columns in shapes})
    return max(grids, key=functools.partial(_count_positions, processor))


def _only(modality: str, options: Mapping) -> dict:
    """The options of a call, without those for the sound of videos where there is no video."""
    return {name: value for name, value in options.items() if modality == "video" or name != "videos_kwargs"}


def _give_tracks(items: dict, uuids: dict, sounds: list, links: Sequence[int | None]) -> None:
    """Moves sounds to the videos whose tracks they are. These are known by their content then."""
    videos = list(items["video"].get_all())
    names = list(uuids.get("video") or [None] * len(videos))
    for sound, link in zip(sounds, links, strict=True):
        if link is None or sound is None or videos[link] is None:
            continue
        heard = videos[link].with_track(sound)
        if heard is not videos[link]:
            videos[link], names[link] = heard, None
    items["video"], uuids["video"] = MediaItems(videos, "video"), names
    own = [index for index, link in enumerate(links) if link is None]
    if own:
        items["audio"] = MediaItems([sounds[index] for index in own], "audio")
        if uuids.get("audio"):
            uuids["audio"] = [uuids["audio"][index] for index in own]
    else:
        del items["audio"]
        uuids.pop("audio", None)
