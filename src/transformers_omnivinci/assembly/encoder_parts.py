"""The encoders: their configs as those that OmniVinci builds, and how their inputs are prepared."""

from transformers import Qwen2AudioEncoderConfig, SiglipVisionConfig, WhisperFeatureExtractor

from ..checkpoint_formats import read_json
from .part_sources import PartSource, part_file, read_part_config

VISION_MODELS = {"siglip": "vision_config", "siglip_vision_model": None, "omnivinci": "vision_config"}
AUDIO_MODELS = {
    "whisper": None,
    "qwen2_audio": "audio_config",
    "qwen2_audio_encoder": None,
    "audioflamingo3": "audio_config",
    "audioflamingo3_encoder": None,
    "omnivinci": "audio_config",
}
"""By the types of models, where in their config that of an encoder is; `None`: it is the whole."""
OF_ENCODERS = (
    *("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layerdrop", "num_mel_bins"),
    *("max_source_positions", "activation_function", "scale_embedding"),
    *("dropout", "attention_dropout", "activation_dropout"),
)
"""What the configs of all audio encoders say."""
OF_SIGLIP = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size"),
    *("patch_size", "hidden_act", "layer_norm_eps", "attention_dropout"),
)
PIXEL_OPTIONS = ("image_mean", "image_std", "rescale_factor", "resample")
SMALL_VISION = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "image_size": 224,
    "patch_size": 16,
}
"""An image encoder that is trained from random weights where no other is named."""


def read_vision_config(source: PartSource | None, image_size: int | None) -> tuple[str, SiglipVisionConfig, int]:
    """
    The model type of an image encoder, its config, and the side in pixels of the images that it was trained on.

    Args:
        source ([`PartSource`], *optional*): Where it is. `None`: a small one.
        image_size (`int`, *optional*): The side in pixels that it is to have. `None`: its own.

    Raises:
        ValueError: it is no SigLIP, or its images cannot have that side.
    """
    if source is None:
        kind, config = "siglip_vision_model", SiglipVisionConfig(**SMALL_VISION)
        where = "The small image encoder"
    else:
        kind, config = read_part_config(source, VISION_MODELS)
        where = str(source.file)
        if config.model_type != "siglip_vision_model":
            raise ValueError(f"{where} has an image encoder of type {config.model_type!r}: SigLIP is accepted.")
    own, patch = config.image_size, config.patch_size
    if not isinstance(own, int) or not isinstance(patch, int) or config.num_channels != 3:
        raise ValueError(
            f"{where} says `image_size={own}`, `patch_size={patch}` and `num_channels={config.num_channels}`: square "
            "images and patches of three colours are accepted."
        )
    side = own if image_size is None else image_size
    if side < patch or side % patch:
        below = max(side // patch, 1) * patch
        raise ValueError(
            f"Images of {side} pixels are no whole number of the patches of {patch} pixels that {where} says: give "
            f"`image_size` as a multiple of them, such as {below} or {below + patch}."
        )
    values = {name: getattr(config, name) for name in OF_SIGLIP} | {"image_size": side, "vision_use_head": False}
    return kind, SiglipVisionConfig(**values), own


def read_pixel_options(source: PartSource | None, own_side: int) -> dict:
    """
    How the pixels of an image encoder are scaled: what its preprocessor says, else what SigLIP's does.

    Raises:
        ValueError: the preprocessor is made for another side than the encoder, or does not scale pixels at all.
    """
    path = None if source is None else part_file(source, "preprocessor_config.json", "processor_config.json")
    if path is None:
        return {}
    settings = read_json(path)
    settings = settings.get("image_processor") or settings
    size = settings.get("size")
    sides = {size.get("height"), size.get("width")} if isinstance(size, dict) else {size}
    if sides - {None} and sides != {own_side}:
        raise ValueError(
            f"{path} makes images of {size}, but {source.file} says `image_size={own_side}`: they have to be the same."
        )
    for name in ("do_rescale", "do_normalize"):
        if settings.get(name) is False:
            raise ValueError(f"{path} says `{name}=false`, which is not supported: pixels are scaled and normalised.")
    return {name: settings[name] for name in PIXEL_OPTIONS if settings.get(name) is not None}


def read_audio_config(source: PartSource) -> tuple[str, Qwen2AudioEncoderConfig]:
    """
    The model type of an audio encoder, and its config as that of Qwen2-Audio's, which pools pairs of its vectors.

    Raises:
        ValueError: it is none that is known.
    """
    kind, config = read_part_config(source, AUDIO_MODELS)
    if config.model_type not in AUDIO_MODELS:  # within another model
        raise ValueError(
            f"{source.file} has an audio encoder of type {config.model_type!r}: {', '.join(AUDIO_MODELS)} are "
            "accepted."
        )
    return kind, Qwen2AudioEncoderConfig(**{name: getattr(config, name) for name in OF_ENCODERS})


def read_feature_extractor(source: PartSource, config: Qwen2AudioEncoderConfig) -> WhisperFeatureExtractor:
    """
    What makes the spectrograms of an audio encoder: as its preprocessor says, else as Whisper's.

    Raises:
        ValueError: the preprocessor makes other spectrograms than the encoder takes.
    """
    path = part_file(source, "preprocessor_config.json", "processor_config.json")
    settings = {} if path is None else read_json(path)
    settings = settings.get("feature_extractor") or settings
    kind = settings.get("feature_extractor_type", "WhisperFeatureExtractor")
    if kind != "WhisperFeatureExtractor":
        raise ValueError(
            f"{path} is that of a {kind}: an audio encoder that hears by Whisper's spectrograms is accepted."
        )
    bins = settings.get("feature_size", config.num_mel_bins)
    if bins != config.num_mel_bins:
        raise ValueError(
            f"{path} makes spectrograms of {bins} mel bins, but {source.file} says `num_mel_bins="
            f"{config.num_mel_bins}`: they have to be the same."
        )
    names = ("sampling_rate", "hop_length", "n_fft", "chunk_length")
    known = {name: settings[name] for name in names if settings.get(name) is not None}
    # The tokenizer's side, or stock pipelines refuse batches.
    return WhisperFeatureExtractor(feature_size=bins, padding_side="left", **known)


def cut_window(
    source: PartSource, config: Qwen2AudioEncoderConfig, extractor: WhisperFeatureExtractor, seconds: float | None
) -> float:
    """
    Cuts the window of an audio encoder, in its config.

    Args:
        source ([`PartSource`]): The encoder, for messages.
        config (`Qwen2AudioEncoderConfig`): Its config, which is changed.
        extractor (`WhisperFeatureExtractor`): What makes its spectrograms.
        seconds (`float`, *optional*): The length of a window. `None`: as long as it has positions.

    Returns:
        `float`: the seconds of a window.

    Raises:
        ValueError: the encoder hears no window of that length.
    """
    per_position = 2 * extractor.hop_length / extractor.sampling_rate  # the second convolution halves the mel frames
    longest = config.max_source_positions * per_position
    positions = config.max_source_positions if seconds is None else round(seconds / per_position)
    is_whole = seconds is None or abs(positions * per_position - seconds) < 1e-6
    if not is_whole or positions % 2 or not 0 < positions <= config.max_source_positions:
        given = f"`audio_window={seconds:g}`" if seconds is not None else f"A window of {longest:g} s"
        raise ValueError(
            f"{given} is not possible with the audio encoder in {source.folder}: a multiple of {2 * per_position:g} "
            f"seconds is, up to {longest:g}."
        )
    config.max_source_positions = positions
    return positions * per_position
