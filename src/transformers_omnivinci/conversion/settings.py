"""
The settings of the published layout, read into an [`OmniVinciConfig`] and the options of a processor.

Nothing is assumed about the values of a checkpoint: they are read, and what is read and cannot be computed is refused.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from transformers import Qwen2AudioEncoderConfig, Qwen2Config, SiglipVisionConfig
from transformers.utils import logging

from ..checkpoint_formats import read_json
from ..configuration_omnivinci import OmniVinciConfig
from ..sequence_settings import SEQUENCE_SETTINGS, check_sequence_settings
from .published_layout import COMPONENTS
from .unread_settings import is_unknown, not_supported, plain, refused_settings

logger = logging.get_logger(__name__)

AUDIO_POOLINGS = {
    "mlp": "none",
    "mlp_downsample_pool_max": "max",
    "mlp_downsample_pool": "avg",
    "mlp_downsample": "conv",
}
# The release has the first alone; the names of the others are ours.
SPATIAL_MERGE_SIZES = {"mlp_downsample": 2, **{f"mlp_downsample_{size}x{size}": size for size in (1, 3, 4)}}
TIME_KINDS = ("pixel", "lang", "learned_embed")
TIME_PERIODS = {"shortest": "shortest", "longest": "longest", "MTCT": "shortest"}
MEDIA_TOKENS = {"image": "<image>", "video": "<vila/video>", "audio": "<sound>"}
ENCODERS = {
    "image": ("BasicImageEncoder",),
    "video": ("BasicVideoEncoder", "TSPVideoEncoder"),
    "sound": ("BasicSoundEncoder",),
}
PIXEL_OPTIONS = ("image_mean", "image_std", "rescale_factor")


@dataclass
class PublishedSettings:
    """
    What the configs of a checkpoint say.

    Attributes:
        config (`OmniVinciConfig`, *optional*): `None` if something is refused.
        processor_options (`dict`):
            What only the processor needs: options of its parts by name, and in `own` arguments of its constructor.
        understood (`dict`): Values by `file: key` that decide what is computed.
        ignored (`dict`): Values that nothing reads: leftovers of training and of other tools.
        unknown (`dict`): Values that nothing reads either, and of which it is not known what they mean.
        refused (`dict`): A sentence for each setting that is not supported.
    """

    config: OmniVinciConfig | None = None
    processor_options: dict = field(default_factory=dict)
    understood: dict = field(default_factory=dict)
    ignored: dict = field(default_factory=dict)
    unknown: dict = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def convert_config(folder: Path) -> tuple[OmniVinciConfig, dict]:
    """
    The config of a checkpoint and the `processor_options` of [`PublishedSettings`]. A warning names unknown settings.

    Raises:
        OSError: a component folder is missing.
        ValueError: settings are not supported; the message names each, its value and what is supported.
    """
    settings = read_settings(folder)
    if settings.refused:
        raise ValueError(" ".join(settings.refused.values()))
    if settings.unknown:
        names = {key.removeprefix("config.json: "): value for key, value in settings.unknown.items()}
        told = ", ".join(f"`{name}={value!r:.80}`" for name, value in names.items())
        logger.warning_once(f"Settings of {folder} are unknown to this package, which does not read them: {told}.")
    return settings.config, settings.processor_options


def read_settings(folder: Path) -> PublishedSettings:
    """As [`convert_config`], but settings that are not supported are told and not raised."""
    return _Reader(folder).read()


class _Recorded:
    """Settings of a file, or of an entry of one, that remember which of them were read."""

    def __init__(self, where: str, values: dict):
        self.where, self.values, self.seen = where, values, set()

    def get(self, key: str, default=None):
        self.seen.add(key)
        return plain(self.values.get(key, default))

    def unread(self) -> dict:
        return {key: value for key, value in self.values.items() if key not in self.seen}


class _Reader:
    """Reads the configs of a checkpoint. What is not supported is noted, and the reading goes on."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.refused: dict[str, str] = {}
        self.root = _Recorded("config.json: ", read_json(folder / "config.json"))
        self.components = {
            name: _Recorded(f"{name}/config.json: ", _read_component_config(folder, name)) for name in COMPONENTS
        }
        self.encoders = {name: self._open_encoder(name) for name in ENCODERS}
        self.pixels = _read_optional(folder / "vision_tower" / "preprocessor_config.json")

    def read(self) -> PublishedSettings:
        values = {
            "text_config": self._known_fields(Qwen2Config, "llm", "rope_theta", "rope_scaling"),
            "vision_config": self._known_fields(SiglipVisionConfig, "vision_tower") | {"vision_use_head": False},
            "audio_config": self._known_fields(Qwen2AudioEncoderConfig, "sound_tower"),
            **self._read_vision(),
            **self._read_audio(),
            **self._read_time_embedding("video", self.encoders["video"]),
            **self._read_time_embedding("audio", self.encoders["sound"]),
            **{f"{modality}_token_id": index for modality, index in self._read_media_token_ids().items()},
        }
        options = self._read_processor_options()
        self.refused |= refused_settings(
            self.root.unread(),
            {f"{name}_encoder": encoder.unread() for name, encoder in self.encoders.items()},
            self.pixels,
        )
        config = None
        if not self.refused:
            try:
                check_sequence_settings({name: options["own"][name] for name in SEQUENCE_SETTINGS})
                config = OmniVinciConfig(
                    **values, architectures=["OmniVinciForConditionalGeneration"], name_or_path=str(self.folder)
                )
            except (TypeError, ValueError) as error:
                self.refused["config.json"] = str(error)
        understood, ignored, unknown = {}, {}, {}
        for recorded in (self.root, *self.encoders.values(), *self.components.values()):
            for key, value in recorded.values.items():
                is_foreign = recorded is self.root and is_unknown(key, value)
                kind = understood if key in recorded.seen else unknown if is_foreign else ignored
                kind[f"{recorded.where}{key}"] = value
        for name in ENCODERS:  # its entries stand for it
            understood.pop(f"config.json: {name}_encoder", None)
        return PublishedSettings(config, options, understood, ignored, unknown, self.refused)

    def _refuse(self, key: str, value, supported) -> None:
        self.refused[key] = not_supported(key, value, supported)

    def _require(self, key: str, supported: tuple):
        """The value of a key of the root, the first supported one by default."""
        value = self.root.get(key, supported[0])
        if value not in supported:
            self._refuse(key, value, supported)
        return value

    def _open_encoder(self, name: str) -> _Recorded:
        """An encoder's settings, given as a JSON string or a dict; "None", "True" and "False" are what they say."""
        key = f"{name}_encoder"
        value = self.root.get(key) or {}
        try:
            value = json.loads(value) if isinstance(value, str) else dict(value)
        except (TypeError, ValueError):
            self._refuse(key, value, "a dict or its JSON")
            value = {}
        encoder = _Recorded(f"config.json: {key}.", {name: plain(item) for name, item in value.items()})
        target = str(encoder.get("_target_", ENCODERS[name][0])).rsplit(".", 1)[-1]
        if target not in ENCODERS[name]:
            self._refuse(f"{key}._target_", target, ENCODERS[name])
        return encoder

    def _known_fields(self, config_class: type, component: str, *more: str) -> dict:
        """What a config class knows of a component's settings: release configs carry leftovers of other tools."""
        known = {field.name for field in fields(config_class)} | set(more)
        known -= {"transformers_version", "architectures", "dtype"}
        settings = self.components[component]
        values = {key: settings.get(key) for key in settings.values.keys() & known}
        return {key: value for key, value in sorted(values.items()) if value is not None}

    def _read_vision(self) -> dict:
        self._require("dynamic_s2", (True,))
        self._require("image_aspect_ratio", ("dynamic_s2",))
        self._require("mm_vision_select_feature", ("cls_patch",))
        named = self.components["mm_projector"].get("mm_projector_type")
        projector = (self.root.get("mm_projector_cfg") or {}).get("mm_projector_type", named)
        if projector not in SPATIAL_MERGE_SIZES:
            self._refuse("mm_projector_cfg.mm_projector_type", projector, tuple(SPATIAL_MERGE_SIZES))
        scales = self.root.get("s2_scales")
        try:
            scales = [int(scale) for scale in (scales.split(",") if isinstance(scales, str) else scales)]
        except (TypeError, ValueError):
            self._refuse("s2_scales", scales, 'side lengths in pixels such as "448,896,1344"')
        return {
            "spatial_merge_size": SPATIAL_MERGE_SIZES.get(projector),
            "vision_feature_layer": self.root.get("mm_vision_select_layer", -2),
            "s2_scales": scales,
            "s2_output_scale_index": self.root.get("s2_resize_output_to_scale_idx", 0),
            "video_pool_sizes": self.encoders["video"].get("pool_sizes", [[1, 1, 1]]),
        }

    def _read_audio(self) -> dict:
        named = self.components["sound_mm_projector"].get("sound_mm_projector_type")
        nested = (self.root.get("sound_mm_projector_cfg") or {}).get("sound_mm_projector_type")
        kind = self.root.get("sound_mm_projector")
        if not isinstance(kind, str) or "/" in kind:  # a path of the training run
            kind = nested or named
        if kind not in AUDIO_POOLINGS:
            self._refuse("sound_mm_projector", kind, tuple(AUDIO_POOLINGS))
        return {"audio_pooling": AUDIO_POOLINGS.get(kind)}

    def _read_boundary_tokens(self) -> dict:
        tokens = {}
        for name, modality in (("image", "image"), ("video", "video"), ("sound", "audio")):
            tokens[f"{modality}_start_tokens"] = self.encoders[name].get("start_tokens")
            tokens[f"{modality}_end_tokens"] = self.encoders[name].get("end_tokens", "\n")
        tokens["video_separator_tokens"] = self.encoders["video"].get("sep_tokens")
        return tokens

    def _read_time_embedding(self, modality: str, encoder: _Recorded) -> dict:
        key = encoder.where.removeprefix("config.json: ").removesuffix(".")
        if not encoder.get("embed_time", False):
            return {f"{modality}_time_embedding": "none"}
        kind, period = encoder.get("time_embed_type", "pixel"), encoder.get("period_fix")
        size, max_time = encoder.get("trope_dim"), encoder.get("max_time")
        if kind not in TIME_KINDS:
            self._refuse(f"{key}.time_embed_type", kind, TIME_KINDS)
        time = {f"{modality}_time_embedding": "learned" if kind == "learned_embed" else "crte"}
        if max_time is not None:
            time[f"{modality}_max_time"] = float(max_time)
        if kind == "learned_embed":
            return time
        if period not in TIME_PERIODS:
            # RoTE of the paper's ablation, whose released formula is not known well enough to be exact.
            self._refuse(f"{key}.period_fix", period, tuple(TIME_PERIODS))
        for name, value in (("trope_dim", size), ("max_time", max_time)):
            if value is None:
                self._refuse(f"{key}.{name}", None, "a positive number")
        time[f"{modality}_time_period"] = TIME_PERIODS.get(period)
        time[f"{modality}_time_rotated_size"] = None if size is None else int(size) // 2
        return time

    def _read_processor_options(self) -> dict:
        max_duration, fixed_duration = self._read_audio_chunk_length()
        pixel_options = {key: value for key, value in self.pixels.items() if key in PIXEL_OPTIONS}
        return {
            "max_tiles": self.root.get("max_tiles", 12),
            "num_frames": self.root.get("num_video_frames", 8),
            "sampling_rate": self.root.get("audio_sampling_rate", 16_000),
            "hop_length": self.root.get("audio_hop_length", 60),
            "pixel_options": pixel_options,
            "own": {
                "max_audio_duration": max_duration,
                "fixed_audio_duration": fixed_duration,
                "use_media_brackets": bool(self._require("mm_use_bos_eos_tokens", (False, True, None))),
                "load_audio_from_video": bool(self._require("load_audio_in_video", (False, True, None))),
                "group_duration": self.root.get("interleaved_video_segment_duration", 30),
                "interleave_audio_in_video": bool(self._require("interleaved_vis_aud_in_video", (True, False, None))),
                **self._read_boundary_tokens(),
            },
        }

    def _read_audio_chunk_length(self) -> tuple[float | None, float | None]:
        """(seconds of a clip that are kept, seconds to which every clip is padded or cut)."""
        value = self.root.get("audio_chunk_length", 120)
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
        self._refuse("audio_chunk_length", value, 'seconds such as 120, "max", "max_3600" and "fix_30"')
        return None, None

    def _read_media_token_ids(self) -> dict[str, int]:
        """The ids of the media tokens, from whichever file of the tokenizer tells them."""
        folder = self.folder / "llm"
        ids = dict(_read_optional(folder / "added_tokens.json"))
        added = _read_optional(folder / "tokenizer.json").get("added_tokens", [])
        ids |= {token["content"]: token["id"] for token in added}
        added = _read_optional(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
        ids |= {token["content"]: int(index) for index, token in added.items()}
        missing = [token for token in MEDIA_TOKENS.values() if token not in ids]
        if missing:
            self.refused["llm"] = f"The tokenizer in {folder} does not know {missing}, the placeholders of media."
            return {}
        return {modality: ids[token] for modality, token in MEDIA_TOKENS.items()}


def _read_optional(file: Path) -> dict:
    return read_json(file) if file.is_file() else {}


def _read_component_config(folder: Path, name: str) -> dict:
    if not (folder / name).is_dir():
        raise OSError(f"{folder} has no folder `{name}`: the published layout has {', '.join(COMPONENTS)}.")
    if not (folder / name / "config.json").is_file():
        raise OSError(f"{folder / name} has no config.json.")
    return read_json(folder / name / "config.json")
