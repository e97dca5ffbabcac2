"""One medium at a time, as engines read media that cache each of them on its own."""

from typing import Any

from ..planning import MediumPlan, MediumSource, PromptPlan
from .batch import MediaInputs
from .media_seen import download_all, find_sources
from .options import hears_videos, sort_options
from .prompts import TOKENS, sort_media
from .reading import encode_read_media, load_media, make_media_inputs, plan_media
from .video_inputs import FlatVideos, one_video


def read_medium(
    processor, modality: str, source, track=None, media_encoder=None, **options
) -> tuple[MediumPlan, MediaInputs | dict[str, Any]]:
    """
    Decodes one medium, and plans it as if it stood alone in a prompt.

    An image is tiled, as the only image of a prompt is; [`OmniVinciImageProcessor.whole_image_options`] read it as one
    of several.

    Args:
        processor ([`OmniVinciProcessor`]): The processor.
        modality (`str`): `"image"`, `"video"` or `"audio"`.
        source: The medium, as the processor takes it.
        track (*optional*): The sound of a video where that is given apart, as the processor takes clips.
        media_encoder ([`OmniVinciForConditionalGeneration`], *optional*): As when the processor is called.
        options: Of a call of the processor. With `load_audio_from_video=True` a video without sound is refused.

    Returns:
        `tuple[MediumPlan, MediaInputs]`: what stands where, and the tensors of the medium; with `media_encoder` its
        embeddings, `mm_encoder_outputs`.

    Raises:
        ValueError, TypeError, OSError: the medium cannot be read, or an option is not accepted.
    """
    plan, inputs, _ = _read(processor, modality, source, track, media_encoder, options, with_source=False)
    return plan, inputs


def read_medium_with_source(
    processor, modality: str, source, track=None, media_encoder=None, **options
) -> tuple[MediumPlan, MediaInputs | dict[str, Any], MediumSource]:
    """As [`read_medium`], with what there was to see and hear of the medium."""
    return _read(processor, modality, source, track, media_encoder, options, with_source=True)


def _read(processor, modality: str, source, track, media_encoder, options: dict, with_source: bool):
    options = dict(options)
    hears, is_said = hears_videos(processor, options)
    options = sort_options(processor, options)
    media = {"images": None, "videos": None, "audio": None, "audio_from_video_indices": None}
    if modality == "video":
        media["videos"] = FlatVideos([one_video(source)])
        if track is not None:
            media |= {"audio": [track], "audio_from_video_indices": [0]}
    else:
        media["images" if modality == "image" else "audio"] = [source]
    batch = sort_media(TOKENS[modality], **media, load_audio_from_video=hears, is_said=is_said)
    batch = download_all(batch, processor.layout) if with_source else batch
    loaded = load_media(processor, batch, options, media_encoder)
    if modality == "video" and hears and is_said and not loaded.facts["video"][0].num_samples:
        raise ValueError(
            "`load_audio_from_video=True` asks for the sound of a video that has none which can be decoded: give a "
            "file with an audio track, or frames with their sound, or leave the option out."
        )
    [plan] = plan_media(batch, loaded.facts, processor.layout)[modality]
    token_id = processor.layout.token_ids[modality]
    plans = [PromptPlan([token_id], [0], [plan])]
    if media_encoder is None:
        inputs = make_media_inputs(processor, batch, loaded, plans, options)
    else:
        inputs = encode_read_media(processor, media_encoder, batch, loaded, plans, options)
    found = find_sources(processor, batch, loaded, inputs)[modality][0] if with_source else None
    return plan, inputs, found
