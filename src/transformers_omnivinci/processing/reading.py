"""The media of a batch: read whole, or by their headers alone. Both give the same facts for the plan."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import media
from ..media import LoadedVideo, OmniVinciVideoMetadata
from ..planning import Layout, MediumFacts, MediumPlan, PromptPlan, plan_medium
from .batch import MediaInputs, OmniVinciBatchFeature, pad_seconds
from .log_mel import Samples, extract_log_mel
from .prompts import PromptBatch
from .video_inputs import OneVideo, flatten_metadata
from .waveforms import count_samples, is_waveform, source_of, to_waveform

# Seconds by which sound may outlast its picture without a word.
MIN_LATE_SOUND = 1.0


@dataclass
class ReadMedia:
    """
    The decoded media of a batch.

    Attributes:
        facts (`dict[str, list[MediumFacts]]`): Of each image, video and audio clip.
        images ([`MediaInputs`]): The tensors of images.
        videos (`list[LoadedVideo]`):
            Sampled frames, or what an encoder made of them, with the waveform where the video is heard.
        clips (`list[np.ndarray | SampleFile]`): Waveforms of the audio clips, mono samples in [-1, 1].
        frame_size (`tuple[int, int]`, *optional*): Height and width of frames that were encoded already.
    """

    facts: dict[str, list[MediumFacts]]
    images: MediaInputs
    videos: list[LoadedVideo]
    clips: list[Samples]
    frame_size: tuple[int, int] | None = None


def load_media(processor, batch: PromptBatch, options: dict, media_encoder=None) -> ReadMedia:
    """
    Decodes the media of a batch.

    Args:
        processor ([`OmniVinciProcessor`]): Its parts read images and videos, at its rate of samples.
        batch ([`PromptBatch`]): Sources.
        options (`dict`): Of the call, see [`sort_options`].
        media_encoder ([`OmniVinciForConditionalGeneration`], *optional*):
            Encodes frames while others are decoded, so that no more than some pieces of them are held at a time.

    Raises:
        ValueError, TypeError, OSError: a medium cannot be read.
    """
    images = {}
    if batch.images:
        image_options = _without(options["images_kwargs"], "return_tensors")
        images = processor.image_processor(batch.images_by_prompt, **image_options)
    in_file = media_encoder is not None
    clips = [load_clip(processor, clip, options["audio_kwargs"], in_file) for clip in batch.clips]
    videos, frame_size = _load_videos(processor, batch, options, media_encoder)
    facts = {
        "image": [MediumFacts("image", tuple(grid)) for grid in images["image_grid_hw"].tolist()] if images else [],
        "video": [
            video_facts(video.metadata, 0 if video.waveform is None else len(video.waveform)) for video in videos
        ],
        "audio": [MediumFacts("audio", num_samples=len(clip)) for clip in clips],
    }
    return ReadMedia(facts, images, videos, clips, frame_size)


def probe_media(processor, batch: PromptBatch, options: dict) -> dict[str, list[MediumFacts]]:
    """The facts that [`load_media`] gives, by the headers of files alone: no pixel and no sample is decoded."""
    return {
        "image": [
            MediumFacts("image", _probe_tile_grid(processor, image) if len(prompt) == 1 else (1, 1))
            for prompt in batch.images_by_prompt
            for image in prompt
        ],
        "video": [_probe_video(processor, batch, index, options) for index in range(len(batch.videos))],
        "audio": [MediumFacts("audio", num_samples=_probe_clip(processor, clip)) for clip in batch.clips],
    }


def plan_media(batch: PromptBatch, facts: dict[str, list[MediumFacts]], layout: Layout) -> dict[str, list[MediumPlan]]:
    """
    The plan of each medium of a batch.

    Raises:
        ValueError: a video cannot be planned; the message names it.
    """
    plans = {modality: [plan_medium(one, layout) for one in facts[modality]] for modality in ("image", "audio")}
    plans["video"] = []
    for source, one in zip(batch.videos, facts["video"], strict=True):
        try:
            plans["video"].append(plan_medium(one, layout))
        except ValueError as error:
            raise ValueError(f"{_name(source)} cannot be planned: {error}") from error
    return plans


def video_facts(metadata: OmniVinciVideoMetadata, num_samples: int | None = None) -> MediumFacts:
    """What a plan needs to know of a video; arguments as of [`OmniVinciProcessor.plan_video`]."""
    has_constant_rate, seconds = metadata.frame_times is None, list(metadata.timestamps)
    return MediumFacts(
        "video",
        timestamps=seconds,
        frame_positions=metadata.frames_indices if has_constant_rate else [one * metadata.fps for one in seconds],
        fps=metadata.fps,
        total_num_frames=metadata.total_num_frames if has_constant_rate else metadata.duration * metadata.fps,
        num_samples=num_samples or 0,
    )


def make_media_inputs(
    processor, batch: PromptBatch, loaded: ReadMedia, plans: Sequence[PromptPlan], options: dict
) -> MediaInputs:
    """The tensors of the media of a batch, in the order of the prompts; arguments as of [`load_media`]."""
    data = dict(loaded.images)
    if loaded.videos:
        video_options = _without(options["videos_kwargs"], "return_tensors", "video_metadata")
        data |= processor.video_processor(loaded.videos, **video_options)
        data["video_has_audio"] = torch.tensor([facts.num_samples > 0 for facts in loaded.facts["video"]])
    heard = find_sounds(batch, loaded, plans)
    if heard:
        windows = [list(cut_sound(processor, sound, options)) for sound in heard]
        data["input_features"] = torch.cat(sum(windows, []))
        data["audio_num_windows"] = torch.tensor([sound.plan.windows.num_windows for sound in heard])
        data["audio_timestamps"] = pad_seconds([sound.plan.sound_seconds for sound in heard])
        data["audio_from_video"] = torch.tensor([sound.is_track for sound in heard])
    return data


def encode_read_media(
    processor, media_encoder, batch: PromptBatch, loaded: ReadMedia, plans: Sequence[PromptPlan], options: dict
) -> dict[str, Any]:
    """
    What encoding all of [`make_media_inputs`] gives, `mm_encoder_outputs`: sound is cut, encoded and forgotten some
    windows at a time.

    Args:
        processor ([`OmniVinciProcessor`]), batch ([`PromptBatch`]), plans (`Sequence[PromptPlan]`), options (`dict`):
            As of [`make_media_inputs`].
        media_encoder ([`OmniVinciForConditionalGeneration`]), loaded ([`ReadMedia`]):
            What encodes, and the media that were loaded with it.
    """
    encoded = {}
    if loaded.images:
        images = OmniVinciBatchFeature(dict(loaded.images)).to(media_encoder.device, media_encoder.dtype)
        with torch.no_grad():
            encoded |= media_encoder.encode_media(**images)
    if loaded.videos:
        seconds = [facts.timestamps for facts in loaded.facts["video"]]
        frames = [video.frames for video in loaded.videos]
        loaded.videos = [replace(video, frames=video.frames[:0]) for video in loaded.videos]
        encoded["video"] = media_encoder.place_frames(frames, seconds)
    heard, windows = find_sounds(batch, loaded, plans), []
    for sound in heard:
        pieces = cut_sound(processor, sound, options, media_encoder.config.audio_chunk_size)
        windows.append(media_encoder.encode_windows(pieces, sound.plan.windows.num_windows))
    if heard:
        encoded["audio"] = media_encoder.place_windows(windows, [sound.plan.sound_seconds for sound in heard])
    return encoded


class Sound(NamedTuple):
    """A sound of a batch: a clip, or the track of a video that is heard."""

    waveform: Samples
    plan: MediumPlan
    is_track: bool


def find_sounds(batch: PromptBatch, loaded: ReadMedia, plans: Sequence[PromptPlan]) -> list[Sound]:
    """The sounds of a batch, in the order of the prompts."""
    heard = []
    for slots, plan in zip(batch.placeholders, plans, strict=True):
        for slot, medium in zip(slots, plan.media, strict=True):
            if medium.windows is not None:
                is_track = slot.modality == "video"
                waveform = loaded.videos[slot.index].waveform if is_track else loaded.clips[slot.index]
                heard.append(Sound(waveform, medium, is_track))
    return heard


def cut_sound(processor, sound: Sound, options: dict, num_at_once: int | None = None) -> Iterator[torch.Tensor]:
    """The log-mel windows of a sound, `num_at_once` at a time, see [`extract_log_mel`]."""
    device, width = str(options["audio_kwargs"].get("device") or "cpu"), 2 * processor.max_source_positions
    return extract_log_mel(processor.feature_extractor, sound.waveform, sound.plan.windows, width, device, num_at_once)


def load_clip(processor, clip, audio_options: dict, in_file: bool = False) -> Samples:
    """
    A sound as mono samples in [-1, 1], at the rate of the feature extractor. `in_file`: whether long ones that are
    decoded are not held in memory.

    Raises:
        ValueError, TypeError, OSError: it cannot be read, or `sampling_rate` is another one.
    """
    rate = processor.feature_extractor.sampling_rate
    if audio_options.get("sampling_rate") not in (None, rate):
        raise ValueError(
            f"`sampling_rate={audio_options['sampling_rate']}` differs from the {rate} Hz of the feature extractor: "
            "resample arrays, or pass files."
        )
    if is_waveform(clip):
        return to_waveform(clip, rate)
    backend = audio_options.get("audio_backend") or "pyav"
    limit = audio_limit(processor.layout)
    return media.load_audio(source_of(clip), sampling_rate=rate, max_seconds=limit, backend=backend, in_file=in_file)


def probe_duration(clip, sampling_rate: int) -> float:
    """Seconds of a sound, by the header of a file."""
    if is_waveform(clip):
        return count_samples(clip, sampling_rate) / sampling_rate
    return media.probe_audio(source_of(clip))


def _load_videos(
    processor, batch: PromptBatch, options: dict, media_encoder
) -> tuple[list[LoadedVideo], tuple[int, int] | None]:
    """Videos and, if their frames are encoded, the size that these had."""
    if not batch.videos:
        return [], None
    audio_options, layout, pieces, frame_size = options["audio_kwargs"], processor.layout, {}, None

    def encode(frames: torch.Tensor) -> torch.Tensor:
        nonlocal frame_size
        frame_size = tuple(frames.shape[-2:])
        return media_encoder.encode_frames(frames)

    if media_encoder is not None:
        pieces = {"encode": encode, "piece_size": media_encoder.config.vision_chunk_size}
    loaded = processor.video_processor.load_videos(
        batch.videos,
        load_audio=[wanted and track is None for wanted, track in zip(batch.heard, batch.tracks, strict=True)],
        audio_backend=audio_options.get("audio_backend"),
        sampling_rate=layout.sampling_rate,
        max_audio_seconds=audio_limit(layout),
        **pieces,
        **_without(options["videos_kwargs"], "return_tensors"),
    )
    videos = []
    for source, video, track, wanted in zip(batch.videos, loaded, batch.tracks, batch.heard, strict=True):
        waveform = video.waveform if wanted else None
        if track is not None:
            waveform = load_clip(processor, track, audio_options, media_encoder is not None)
        if waveform is not None and layout.interleave:
            _warn_of_late_sound(source, video.metadata.duration, len(waveform), layout)
        videos.append(replace(video, waveform=waveform))
    return videos, frame_size


def _warn_of_late_sound(source, duration: float, num_samples: int, layout: Layout) -> None:
    """The groups of a video end with its picture, and sound that goes on is in none of them."""
    seconds = num_samples / layout.sampling_rate
    limit = audio_limit(layout)
    late = (seconds if limit is None else min(seconds, limit)) - duration
    if late > MIN_LATE_SOUND:
        warnings.warn(
            f"The sound of {_name(source)} lasts {late:.1f} s longer than its picture of {duration:.1f} s: that part "
            "is not heard.",
            stacklevel=5,
        )


def audio_limit(layout: Layout) -> float | None:
    """Seconds of a sound that are read at most."""
    return layout.max_audio_duration if layout.fixed_audio_duration is None else layout.fixed_audio_duration


def _probe_tile_grid(processor, image) -> tuple[int, int]:
    return processor.image_processor.tile_grid(*processor.image_processor.probe_image(image))


def _probe_clip(processor, clip) -> int:
    rate = processor.feature_extractor.sampling_rate
    num_samples = round(probe_duration(clip, rate) * rate)
    if not num_samples and not is_waveform(clip):
        raise ValueError(f"The audio track of {_name(source_of(clip))} holds no sample that can be decoded.")
    return num_samples


def _probe_video(processor, batch: PromptBatch, index: int, options: dict) -> MediumFacts:
    video_options = _without(options["videos_kwargs"], "return_tensors")
    given = flatten_metadata(video_options.pop("video_metadata", None), len(batch.videos))[index]
    metadata = processor.video_processor.probe_video(batch.videos[index], given, **video_options)
    num_samples = 0
    if batch.tracks[index] is not None:
        num_samples = _probe_clip(processor, batch.tracks[index])
    elif batch.heard[index] and metadata.audio_duration:
        num_samples = round(metadata.audio_duration * processor.feature_extractor.sampling_rate)
    return video_facts(metadata, num_samples)


def _without(options: dict, *names: str) -> dict:
    return {name: value for name, value in options.items() if name not in names}


def _name(source) -> str:
    """What messages call a source."""
    source = source.source if isinstance(source, OneVideo) else source
    return repr(str(source)[:200]) if isinstance(source, (str, Path)) else f"<{type(source).__name__}>"
