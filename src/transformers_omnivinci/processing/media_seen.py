"""What answers rest on, for the prompts of a batch: media as they were read, beside the plans of the prompts."""

from collections.abc import Sequence
from dataclasses import replace

from .. import media
from ..planning import Evidence, MediumFacts, MediumSource, PromptPlan, prompt_evidence
from .batch import MediaInputs
from .prompts import PromptBatch
from .reading import ReadMedia, audio_limit, probe_duration
from .waveforms import is_waveform, source_of


def download_all(batch: PromptBatch, layout) -> PromptBatch:
    """A batch without URLs of what is looked at twice, of whose header the size or the length is read."""
    clips = batch.clips
    if audio_limit(layout) is not None:
        clips = [clip if is_waveform(clip) else _downloaded(source_of(clip)) for clip in clips]
    return replace(batch, images=[_downloaded(image) for image in batch.images], clips=clips)


def collect_evidence(
    processor,
    batch: PromptBatch,
    read: ReadMedia,
    media_inputs: MediaInputs,
    plans: Sequence[PromptPlan],
    lengths: Sequence[int],
) -> list[Evidence]:
    """
    What the answer to each prompt of a batch rests on.

    Args:
        processor ([`OmniVinciProcessor`]): That read the media.
        batch ([`PromptBatch`]): Sources of media.
        read ([`ReadMedia`]): The media.
        media_inputs ([`MediaInputs`]): Their tensors.
        plans (`Sequence[PromptPlan]`): Of each prompt.
        lengths (`Sequence[int]`): Tokens of each prompt that are left after truncation.
    """
    sources = find_sources(processor, batch, read, media_inputs)
    return [
        prompt_evidence(plan, [sources[slot.modality][slot.index] for slot in slots], processor.layout, length)
        for plan, slots, length in zip(plans, batch.placeholders, lengths, strict=True)
    ]


def find_sources(
    processor, batch: PromptBatch, read: ReadMedia, media_inputs: MediaInputs
) -> dict[str, list[MediumSource]]:
    """What there was to see and hear of each image, video and clip; arguments as of [`collect_evidence`]."""
    side = processor.image_processor.s2_scales[0]
    frames = media_inputs.get("pixel_values_videos")
    frame_size = read.frame_size if frames is None else tuple(frames.shape[-2:])
    return {
        "image": [
            _image_source(processor, image, facts, side)
            for image, facts in zip(batch.images, read.facts["image"], strict=True)
        ],
        "video": [_video_source(processor, batch, read, index, frame_size) for index in range(len(batch.videos))],
        "audio": [
            MediumSource(facts, sound=_sound_seconds(processor, clip, facts.num_samples))
            for clip, facts in zip(batch.clips, read.facts["audio"], strict=True)
        ],
    }


def _image_source(processor, image, facts: MediumFacts, side: int) -> MediumSource:
    rows, columns = facts.tile_grid
    size = tuple(map(int, processor.image_processor.probe_image(image)))
    return MediumSource(facts, size=size, seen_size=(rows * side, columns * side))


def _video_source(
    processor, batch: PromptBatch, read: ReadMedia, index: int, frame_size: tuple[int, int] | None
) -> MediumSource:
    facts, metadata, track = read.facts["video"][index], read.videos[index].metadata, batch.tracks[index]
    sound = facts.num_samples / processor.layout.sampling_rate
    if track is not None:
        sound = _sound_seconds(processor, track, facts.num_samples)
    elif metadata.audio_duration is not None:
        sound = max(sound, metadata.audio_duration)
    has_size = metadata.height is not None and metadata.width is not None
    return MediumSource(
        facts,
        duration=metadata.clip_duration,
        start=metadata.start,
        sound=sound,
        is_sound_wanted=batch.heard[index],
        size=(int(metadata.height), int(metadata.width)) if has_size else None,
        seen_size=frame_size,
    )


def _sound_seconds(processor, clip, num_samples: int) -> float:
    """Seconds of a sound, of which only the first may have been read."""
    rate, limit = processor.layout.sampling_rate, audio_limit(processor.layout)
    seconds = num_samples / rate
    if limit is None or is_waveform(clip) or seconds < limit - 1 / rate:
        return seconds
    return max(seconds, probe_duration(clip, rate))


def _downloaded(source):
    return media.download(source) if media.is_url(source) else source
