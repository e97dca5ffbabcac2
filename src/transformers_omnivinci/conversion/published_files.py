"""The files of the published layout beside the weights, written from a config and a processor."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from ..checkpoint_formats import PUBLISHED_MODEL_TYPE, write_json
from ..configuration_omnivinci import OmniVinciConfig
from .settings import AUDIO_POOLINGS, PIXEL_OPTIONS, SPATIAL_MERGE_SIZES, convert_config

NEUTRAL = {
    *("_name_or_path", "architectures", "dtype", "initializer_range", "transformers_version"),
    *("audio_chunk_size", "vision_chunk_size"),
}
"""Settings that decide nothing of what a trained model computes."""


def published_configs(config: OmniVinciConfig, processor) -> dict[str, dict]:
    """The contents, by name, of the JSON files that say what a config and an [`OmniVinciProcessor`] say."""
    text, vision, audio = (_plain(part) for part in (config.text_config, config.vision_config, config.audio_config))
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    pooling = next(name for name, pooling in AUDIO_POOLINGS.items() if pooling == config.audio_pooling)
    merges = (name for name, size in SPATIAL_MERGE_SIZES.items() if size == config.spatial_merge_size)
    projector = {"mm_projector_type": next(merges, "mlp_downsample"), "model_type": "v2l_projector"}
    sound_projector = {"sound_mm_projector_type": pooling, "model_type": "sound_mm_projector"}
    if processor.fixed_audio_duration is not None:
        chunk_length = f"fix_{processor.fixed_audio_duration:g}"
    else:
        chunk_length = "max" if processor.max_audio_duration is None else f"max_{processor.max_audio_duration:g}"
    root = {
        "architectures": ["VILAForCausalLM"],
        "model_type": PUBLISHED_MODEL_TYPE,
        "dynamic_s2": True,
        "s2_scales": ",".join(map(str, config.s2_scales)),
        "s2_resize_output_to_scale_idx": config.s2_output_scale_index,
        "image_aspect_ratio": "dynamic_s2",
        "max_tiles": processor.image_processor.max_tiles,
        "num_video_frames": processor.video_processor.num_frames,
        "mm_vision_select_feature": "cls_patch",
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_use_bos_eos_tokens": processor.use_media_brackets,
        "hidden_size": config.text_config.hidden_size,
        "image_encoder": _encoder_settings(config, processor, "image", "BasicImageEncoder"),
        "video_encoder": _encoder_settings(config, processor, "video", "TSPVideoEncoder"),
        "sound_encoder": _encoder_settings(config, processor, "audio", "BasicSoundEncoder"),
        "llm_cfg": text,
        "vision_tower_cfg": vision,
        "sound_tower_cfg": audio,
        "mm_projector_cfg": projector,
        "sound_mm_projector_cfg": sound_projector,
        "load_audio_in_video": processor.load_audio_from_video,
        "interleaved_vis_aud_in_video": processor.interleave_audio_in_video,
        "interleaved_video_segment_duration": processor.group_duration,
        "audio_sampling_rate": processor.feature_extractor.sampling_rate,
        "audio_hop_length": processor.feature_extractor.hop_length,
        "audio_chunk_length": chunk_length,
    }
    pixels = {name: getattr(processor.image_processor, name) for name in PIXEL_OPTIONS}
    return {
        "config.json": root,
        "llm/config.json": {**text, "architectures": ["Qwen2ForCausalLM"]},
        "vision_tower/config.json": {**vision, "architectures": ["SiglipVisionModel"]},
        "vision_tower/preprocessor_config.json": {
            "image_processor_type": "SiglipImageProcessor",
            "resample": processor.image_processor.resample,
            "size": {"height": config.s2_scales[0], "width": config.s2_scales[0]},
            **pixels,
        },
        "sound_tower/config.json": {**audio, "architectures": ["Qwen2AudioEncoder"]},
        "mm_projector/config.json": {**projector, "architectures": ["MultimodalProjector"]},
        "sound_mm_projector/config.json": {**sound_projector, "architectures": ["SoundMultimodalProjector"]},
    }


def _plain(config) -> dict:
    return {key: value for key, value in config.to_diff_dict().items() if key not in ("dtype", "transformers_version")}


def _encoder_settings(config: OmniVinciConfig, processor, modality: str, target: str) -> str:
    values = {
        "_target_": f"llava.model.encoders.{target}",
        "start_tokens": getattr(processor, f"{modality}_start_tokens"),
        "end_tokens": getattr(processor, f"{modality}_end_tokens"),
    }
    if modality == "video":
        values |= {"sep_tokens": processor.video_separator_tokens, "pool_sizes": config.video_pool_sizes}
    if modality != "image":
        embedding = getattr(config, f"{modality}_time_embedding")
        values["embed_time"] = embedding != "none"
        if embedding != "none":
            values |= {
                "time_embed_type": "learned_embed" if embedding == "learned" else "pixel",
                "period_fix": getattr(config, f"{modality}_time_period"),
                "trope_dim": 2 * _rotated_size(config, modality),
                "max_time": getattr(config, f"{modality}_max_time"),
            }
    words = {name: str(value) if value is None or isinstance(value, bool) else value for name, value in values.items()}
    return json.dumps(words)


def write_published_files(config: OmniVinciConfig, processor, folder: Path) -> None:
    """
    Writes the files of [`published_configs`] and the tokenizer into a folder. The root's config, without which nothing
    loads the folder, comes last.
    """
    files = published_configs(config, processor)
    for name in [*(name for name in files if name != "config.json"), "config.json"]:
        (folder / name).parent.mkdir(exist_ok=True)
        write_json(folder / name, files[name])
        if name == "llm/config.json":
            processor.tokenizer.save_pretrained(folder / "llm")


def check_can_be_published(config: OmniVinciConfig, processor) -> None:
    """
    Refuses, with a `ValueError` that names them, settings that the published layout cannot say: its files are written
    and read again.
    """
    from ..processing.chat_template import CHAT_TEMPLATE

    if processor.chat_template != CHAT_TEMPLATE:
        raise ValueError("The published layout has no place for a chat template other than that of the release.")
    with TemporaryDirectory() as name:
        write_published_files(config, processor, Path(name))
        said, wanted = _effective(convert_config(Path(name))[0]), _effective(config)
        lost = {key for key in wanted if said.get(key) != wanted[key]}
        said, wanted = type(processor).from_pretrained(name).to_dict(), processor.to_dict()
        lost |= {key for key in wanted if said.get(key) != wanted[key]}
    if lost:
        names = ", ".join(sorted(lost))
        raise ValueError(f"The published layout has no place for these settings as they are: {names}.")


def _effective(config: OmniVinciConfig) -> dict:
    """What of the settings decides what a trained model computes, with what `None` stands for."""
    values = _without_neutral(config.to_dict())
    for modality in ("video", "audio"):
        kind = values[f"{modality}_time_embedding"]
        values[f"{modality}_time_rotated_size"] = _rotated_size(config, modality)
        read = {"none": (), "learned": ("max_time",), "rote": ("rotated_size", "theta")}
        for name in ("max_time", "period", "rotated_size", "theta"):
            if name not in read.get(kind, ("max_time", "period", "rotated_size")):
                del values[f"{modality}_time_{name}" if name != "max_time" else f"{modality}_max_time"]
    if not config.align_loss_weight:
        values = {key: value for key, value in values.items() if not key.startswith("align_")}
    return values


def _rotated_size(config: OmniVinciConfig, modality: str) -> int:
    return getattr(config, f"{modality}_time_rotated_size") or config.text_config.hidden_size


def _without_neutral(values: dict) -> dict:
    return {
        key: _without_neutral(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in NEUTRAL
    }
