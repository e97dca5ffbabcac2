"""
The published layout: five component folders with a config and safetensors each, and settings in the root's config.

Nothing is assumed about the values of a checkpoint: they are read, and what is read and cannot be computed is refused.
"""

import json
import os
from dataclasses import fields
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Qwen2AudioEncoderConfig,
    Qwen2Config,
    SiglipVisionConfig,
    WhisperFeatureExtractor,
)
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import cached_file, logging

from ..configuration_omnivinci import OmniVinciConfig
from ..model_types import PUBLISHED_MODEL_TYPE

logger = logging.get_logger(__name__)

COMPONENTS = ("llm", "vision_tower", "sound_tower", "mm_projector", "sound_mm_projector")
HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
AUDIO_POOLINGS = {
    "mlp": "none",
    "mlp_downsample_pool_max": "max",
    "mlp_downsample_pool": "avg",
    "mlp_downsample": "conv",
}
TIME_PERIODS = {"shortest": "shortest", "longest": "longest", "MTCT": "shortest"}
MEDIA_TOKENS = {"image": "<image>", "video": "<vila/video>", "audio": "<sound>"}
KEY_PREFIXES = {
    "llm": {"model.": "model.language_model.", "lm_head.": "lm_head."},
    "vision_tower": {"vision_model.": "model.vision_tower.", "": "model.vision_tower."},
    "sound_tower": {"": "model.audio_tower."},
    "mm_projector": {
        "layers.1.": "model.vision_projector.norm.",
        "layers.2.": "model.vision_projector.linear_1.",
        "layers.4.": "model.vision_projector.linear_2.",
    },
    "sound_mm_projector": {
        "layers.0.": "model.audio_projector.linear_1.",
        "layers.2.": "model.audio_projector.linear_2.",
        "downsample_block.conv1.": "model.audio_compression.conv.",
    },
}
"""How the keys of each folder begin, and how those of [`OmniVinciForConditionalGeneration`] do; first match wins."""


# ------------------------------------------------------------------------------------------------------- finding it


def is_published(name_or_path, /, **hub_kwargs) -> bool:
    """Whether a local folder or a repository of the Hub is in the published layout."""
    if name_or_path is None or os.path.isfile(name_or_path):
        return False
    if os.path.isdir(name_or_path):
        config_file = os.path.join(name_or_path, "config.json")
    else:
        config_file = cached_file(
            str(name_or_path), "config.json", _raise_exceptions_for_missing_entries=False, **_hub_options(hub_kwargs)
        )
    return (
        config_file is not None
        and os.path.isfile(config_file)
        and _read_json(config_file).get("model_type") == PUBLISHED_MODEL_TYPE
    )


def _local_folder(name_or_path, /, weights: bool, **hub_kwargs) -> Path:
    """The checkpoint as a local folder; of a repository only what is needed is downloaded."""
    if os.path.isdir(name_or_path):
        return Path(name_or_path)
    patterns = ["config.json", "generation_config.json", "*/*.json", "llm/merges.txt"]
    patterns += ["*/*.safetensors"] if weights else []
    return Path(snapshot_download(str(name_or_path), allow_patterns=patterns, **_hub_options(hub_kwargs)))


def _hub_options(kwargs: dict) -> dict:
    """What of the arguments of a `from_pretrained` says how the Hub is asked."""
    return {name: kwargs[name] for name in HUB_KWARGS if kwargs.get(name) is not None}


def _read_json(path) -> dict:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error


# ------------------------------------------------------------------------------------------------------- its config


def convert_config(folder: Path) -> tuple[OmniVinciConfig, dict]:
    """
    Reads the settings of a checkpoint.

    Args:
        folder (`Path`): A checkpoint in the published layout.

    Returns:
        `tuple[OmniVinciConfig, dict]`: the config, and what only the processor needs: options of its parts by name.

    Raises:
        OSError: a component folder is missing.
        ValueError: a setting is not supported; the message names it, its value and what is supported.
    """
    root = _read_json(folder / "config.json")
    parts = {name: _read_component_config(folder, name) for name in COMPONENTS}
    encoders = {name: _read_encoder(root, f"{name}_encoder") for name in ("image", "video", "sound")}

    _require(root, "dynamic_s2", (True,))
    _require(root, "image_aspect_ratio", ("dynamic_s2",))
    _require(root, "mm_vision_select_feature", ("cls_patch",))
    projector = (root.get("mm_projector_cfg") or {}).get(
        "mm_projector_type", parts["mm_projector"].get("mm_projector_type")
    )
    if projector != "mlp_downsample":
        _refuse("mm_projector_cfg.mm_projector_type", projector, ("mlp_downsample",))

    token_ids = _read_media_token_ids(folder / "llm")
    settings = {
        "vision_feature_layer": root.get("mm_vision_select_layer", -2),
        "s2_output_scale_index": root.get("s2_resize_output_to_scale_idx", 0),
        "video_pool_sizes": encoders["video"].get("pool_sizes", [[1, 1, 1]]),
        "audio_pooling": _read_audio_pooling(root, parts["sound_mm_projector"]),
        "group_duration": root.get("interleaved_video_segment_duration", 30),
        "interleave_audio_in_video": root.get("interleaved_vis_aud_in_video", True),
    }
    config = OmniVinciConfig(
        text_config=_known_fields(Qwen2Config, parts["llm"], "rope_theta", "rope_scaling"),
        vision_config=_known_fields(SiglipVisionConfig, parts["vision_tower"]) | {"vision_use_head": False},
        audio_config=_known_fields(Qwen2AudioEncoderConfig, parts["sound_tower"]),
        s2_scales=_read_scales(root),
        **{f"{modality}_token_id": token_ids[modality] for modality in MEDIA_TOKENS},
        **settings,
        **_read_boundary_tokens(encoders),
        **_read_time_embedding(encoders["video"], "video"),
        **_read_time_embedding(encoders["sound"], "audio"),
        architectures=["OmniVinciForConditionalGeneration"],
        name_or_path=str(folder),
    )
    max_duration, fixed_duration = _read_audio_chunk_length(root)
    processor_options = {
        "max_tiles": root.get("max_tiles", 12),
        "num_frames": root.get("num_video_frames", 8),
        "sampling_rate": root.get("audio_sampling_rate", 16_000),
        "hop_length": root.get("audio_hop_length", 60),
        "max_audio_duration": max_duration,
        "fixed_audio_duration": fixed_duration,
        "use_media_brackets": bool(root.get("mm_use_bos_eos_tokens", False)),
    }
    return config, processor_options


def _read_component_config(folder: Path, name: str) -> dict:
    if not (folder / name).is_dir():
        raise OSError(f"{folder} has no folder `{name}`: the published layout has {', '.join(COMPONENTS)}.")
    if not (folder / name / "config.json").is_file():
        raise OSError(f"{folder / name} has no config.json.")
    return _read_json(folder / name / "config.json")


def _refuse(key: str, value, supported):
    raise ValueError(f"`{key}={value!r}` of the published checkpoint is not supported: supported are {supported}.")


def _require(root: dict, key: str, supported: tuple):
    if key in root and root[key] not in supported:
        _refuse(key, root[key], supported)


def _known_fields(config_class: type, values: dict, *more: str) -> dict:
    """What a config class knows of `values`: release configs carry leftovers of other tools."""
    known = {field.name for field in fields(config_class)} | set(more)
    left_out = {"transformers_version", "architectures", "dtype"}
    return {key: value for key, value in values.items() if key in known - left_out and value is not None}


def _read_scales(root: dict) -> list[int]:
    scales = root.get("s2_scales")
    try:
        return [int(scale) for scale in (scales.split(",") if isinstance(scales, str) else scales)]
    except (TypeError, ValueError):
        _refuse("s2_scales", scales, 'side lengths in pixels such as "448,896,1344"')


def _read_encoder(root: dict, key: str) -> dict:
    """An encoder's settings, given as a JSON string or a dict; "None", "True" and "False" are what they say."""
    value = root.get(key) or {}
    try:
        value = json.loads(value) if isinstance(value, str) else dict(value)
    except ValueError:
        _refuse(key, value, "a dict or its JSON")
    known = {
        "image_encoder": ("BasicImageEncoder",),
        "video_encoder": ("BasicVideoEncoder", "TSPVideoEncoder"),
        "sound_encoder": ("BasicSoundEncoder",),
    }[key]
    target = str(value.get("_target_", known[0])).rsplit(".", 1)[-1]
    if target not in known:
        _refuse(f"{key}._target_", target, known)
    words = {"None": None, "True": True, "False": False}
    return {name: words.get(item, item) if isinstance(item, str) else item for name, item in value.items()}


def _read_boundary_tokens(encoders: dict[str, dict]) -> dict:
    tokens = {}
    for name, modality in (("image", "image"), ("video", "video"), ("sound", "audio")):
        tokens[f"{modality}_start_tokens"] = encoders[name].get("start_tokens")
        tokens[f"{modality}_end_tokens"] = encoders[name].get("end_tokens", "\n")
    tokens["video_separator_tokens"] = encoders["video"].get("sep_tokens")
    return tokens


def _read_time_embedding(encoder: dict, modality: str) -> dict:
    key = {"video": "video_encoder", "audio": "sound_encoder"}[modality]
    if not encoder.get("embed_time", False):
        return {f"{modality}_time_embedding": "none"}
    kind, period = encoder.get("time_embed_type", "pixel"), encoder.get("period_fix")
    if kind not in ("pixel", "lang", "learned_embed"):
        _refuse(f"{key}.time_embed_type", kind, ("pixel", "lang", "learned_embed"))
    time = {f"{modality}_time_embedding": "learned" if kind == "learned_embed" else "crte"}
    if encoder.get("max_time") is not None:
        time[f"{modality}_max_time"] = float(encoder["max_time"])
    if kind != "learned_embed":
        if period not in TIME_PERIODS:
            # RoTE of the paper's ablation, whose released formula is not known well enough to be exact.
            _refuse(f"{key}.period_fix", period, tuple(TIME_PERIODS))
        for name in ("trope_dim", "max_time"):
            if encoder.get(name) is None:
                _refuse(f"{key}.{name}", None, "a positive number")
        time[f"{modality}_time_period"] = TIME_PERIODS[period]
        time[f"{modality}_time_rotated_size"] = int(encoder["trope_dim"]) // 2
    return time


def _read_audio_pooling(root: dict, component: dict) -> str:
    nested = (root.get("sound_mm_projector_cfg") or {}).get("sound_mm_projector_type")
    kind = root.get("sound_mm_projector")
    if not isinstance(kind, str) or "/" in kind:  # a path of the training run
        kind = nested or component.get("sound_mm_projector_type")
    if kind not in AUDIO_POOLINGS:
        _refuse("sound_mm_projector", kind, tuple(AUDIO_POOLINGS))
    return AUDIO_POOLINGS[kind]


def _read_audio_chunk_length(root: dict) -> tuple[float | None, float | None]:
    """(seconds of a clip that are kept, seconds to which every clip is padded or cut)."""
    value = root.get("audio_chunk_length", 120)
    mode, _, seconds = str(value).rpartition("_")
    try:
        if value == "max":
            return None, None
        if mode == "fix":
            return None, float(seconds)
        if mode in ("", "max"):
            return float(seconds), None
    except ValueError:
        pass
    _refuse("audio_chunk_length", value, 'seconds such as 120, "max", "max_3600" and "fix_30"')


def _read_media_token_ids(folder: Path) -> dict[str, int]:
    """The ids of the media tokens, from whichever file of the tokenizer tells them."""
    ids = {}
    if (folder / "added_tokens.json").is_file():
        ids |= _read_json(folder / "added_tokens.json")
    if (folder / "tokenizer.json").is_file():
        added = _read_json(folder / "tokenizer.json").get("added_tokens", [])
        ids |= {token["content"]: token["id"] for token in added}
    if (folder / "tokenizer_config.json").is_file():
        added = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
        ids |= {token["content"]: int(index) for index, token in added.items()}
    missing = [token for token in MEDIA_TOKENS.values() if token not in ids]
    if missing:
        raise ValueError(f"The tokenizer in {folder} does not know {missing}, the placeholders of media.")
    return {modality: ids[token] for modality, token in MEDIA_TOKENS.items()}


class PublishedConfig(PreTrainedConfig):
    """What `AutoConfig` finds for the published `model_type`; it gives an [`OmniVinciConfig`]."""

    model_type = PUBLISHED_MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        folder = _local_folder(kwargs.get("name_or_path") or config_dict.get("_name_or_path", ""), weights=False)
        config, _ = convert_config(folder)
        return OmniVinciConfig.from_dict(config.to_dict(), **kwargs)


def published_config(name_or_path, /, **kwargs) -> OmniVinciConfig | None:
    """The config of a checkpoint in the published layout; `None` for any other."""
    if not is_published(name_or_path, **kwargs):
        return None
    return convert_config(_local_folder(name_or_path, weights=False, **kwargs))[0]


# ---------------------------------------------------------------------------------------------------- its processor


class VILAProcessor:
    """The processor class that published repositories name; it gives an [`OmniVinciProcessor`]."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        from ..processing import OmniVinciProcessor

        return OmniVinciProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)


def published_processor(processor_class: type, name_or_path, **kwargs):
    """The processor of a checkpoint in the published layout; `None` for any other."""
    if not is_published(name_or_path, **kwargs):
        return None
    from ..processing import OmniVinciImageProcessor, OmniVinciVideoProcessor

    folder = _local_folder(name_or_path, weights=False, **kwargs)
    config, options = convert_config(folder)
    pixel_options, preprocessor_file = {}, folder / "vision_tower" / "preprocessor_config.json"
    if preprocessor_file.is_file():
        names = ("image_mean", "image_std", "rescale_factor")
        pixel_options = {k: v for k, v in _read_json(preprocessor_file).items() if k in names}
    tile = config.s2_scales[0]
    return processor_class(
        OmniVinciImageProcessor(s2_scales=config.s2_scales, max_tiles=options["max_tiles"], **pixel_options),
        OmniVinciVideoProcessor(
            size={"height": tile, "width": tile}, num_frames=options["num_frames"], **pixel_options
        ),
        WhisperFeatureExtractor(
            feature_size=config.audio_config.num_mel_bins,
            sampling_rate=options["sampling_rate"],
            hop_length=options["hop_length"],
            padding_side="left",  # the tokenizer's, or stock pipelines refuse batches
        ),
        AutoTokenizer.from_pretrained(folder / "llm", padding_side="left"),
        max_audio_duration=options["max_audio_duration"],
        fixed_audio_duration=options["fixed_audio_duration"],
        use_media_brackets=options["use_media_brackets"],
        **processor_class.settings_of(config),
    )


# ------------------------------------------------------------------------------------------------------ its weights


def load_published_model(model_class: type, name_or_path, *model_args, config=None, **kwargs):
    """
    A model from a checkpoint in the published layout; `None` for any other. Weights are read from memory-mapped files
    when they are placed, one tensor at a time.

    Args:
        model_class (`type`): [`OmniVinciForConditionalGeneration`] or [`OmniVinciModel`].
        name_or_path (`str` or `Path`): Local folder or repository.
        model_args, config, kwargs: As in [`PreTrainedModel.from_pretrained`].

    Raises:
        OSError: a component or a file of it is missing or damaged.
        ValueError: weights are missing, unexpected or of another shape; the message lists them.
    """
    if not is_published(name_or_path, **kwargs):
        return None
    folder = _local_folder(name_or_path, weights=True, **kwargs)
    if not isinstance(config, OmniVinciConfig):
        known = {field.name for field in fields(OmniVinciConfig)} - {"dtype"}
        overrides = {name: kwargs.pop(name) for name in known & kwargs.keys()}
        config = OmniVinciConfig.from_dict(convert_config(folder)[0].to_dict(), **overrides)
    weights, stored_dtype = _open_weights(folder, config)
    weights = _for_class(model_class, config, weights)
    for name in (*HUB_KWARGS, "subfolder", "_from_auto", "use_safetensors"):
        kwargs.pop(name, None)
    dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
    model = model_class.from_pretrained(
        None,
        *model_args,
        config=config,
        state_dict=weights,
        dtype=stored_dtype if dtype in (None, "auto") else dtype,
        **kwargs,
    )
    loaded = model[0] if isinstance(model, tuple) else model
    loaded.config.name_or_path = str(name_or_path)
    if loaded.can_generate():
        loaded.generation_config = _read_generation_config(folder, loaded.generation_config)
    return model


def _open_weights(folder: Path, config: OmniVinciConfig) -> tuple[dict, torch.dtype]:
    """Lazily read slices by the key of the model, and the dtype of the language model's weights."""
    weights, dtype = {}, None
    for component in COMPONENTS:
        for path in _weight_files(folder / component):
            try:
                file = safe_open(path, framework="pt", device="cpu")
            except (SafetensorError, OSError) as error:
                raise OSError(f"{path} cannot be read as safetensors: {error}.") from error
            for key in file.keys():  # noqa: SIM118
                target = _target_key(component, key, config)
                if target is not None:
                    weights[target] = file.get_slice(key)
                    if dtype is None:
                        dtype = file.get_tensor(key).dtype
    return weights, dtype


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index)["weight_map"].values()))
        paths = [folder / name for name in names]
        outside = [name for name, path in zip(names, paths, strict=True) if path.parent != folder]
        if outside:
            raise OSError(f"{index} names files outside its folder: {outside}.")
    else:
        paths = sorted(folder.glob("*.safetensors"))
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        pickled = [path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]]
        hint = f" Pickled weights ({', '.join(pickled)}) are not loaded: they can run code." if pickled else ""
        raise OSError(f"{folder} lacks {', '.join(missing) or 'safetensors'}.{hint}")
    return paths


def _target_key(component: str, key: str, config: OmniVinciConfig) -> str | None:
    """The model's name of a weight; `None` for one that nothing reads."""
    prefix, target = next(
        ((old, new) for old, new in KEY_PREFIXES[component].items() if key.startswith(old)), (None, None)
    )
    if prefix is None:
        return f"{component}/{key}"  # reported as unexpected
    rest = key[len(prefix) :]
    if component == "vision_tower":
        layer = rest.split(".")[2] if rest.startswith("encoder.layers.") else "0"
        if rest.startswith(("head.", "post_layernorm.")) or rest == "embeddings.position_ids":
            return None
        if layer.isdigit() and int(layer) >= config.num_vision_layers:
            return None
    if rest.endswith("rotary_emb.inv_freq") or (key == "lm_head.weight" and config.tie_word_embeddings):
        return None
    return target + rest


def _for_class(model_class: type, config: OmniVinciConfig, weights: dict) -> dict:
    """The weights under the names of `model_class`, checked against it."""
    with torch.device("meta"):
        model = model_class(config)
    expected = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    if not any(name.startswith("model.") for name in expected):  # without the head
        weights = {name.removeprefix("model."): weight for name, weight in weights.items() if name != "lm_head.weight"}
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    problems = {
        "missing": sorted(expected.keys() - weights.keys() - tied),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            f"{name} {weights[name].get_shape()} instead of {shape}"
            for name, shape in expected.items()
            if name in weights and weights[name].get_shape() != shape
        ],
    }
    found = [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"The weights do not fit {model_class.__name__}. {'; '.join(found)}.")
    return weights


def _read_generation_config(folder: Path, default: GenerationConfig) -> GenerationConfig:
    for place in (folder, folder / "llm"):
        if (place / "generation_config.json").is_file():
            default = GenerationConfig.from_pretrained(place)
            break
    if default.pad_token_id is None:
        tokenizer = AutoTokenizer.from_pretrained(folder / "llm")
        default.pad_token_id = tokenizer.pad_token_id
    return default
