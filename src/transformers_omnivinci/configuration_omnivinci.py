"""Configuration of OmniVinci."""

import functools

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig

from .checkpoint_formats import load_registered
from .remote_code import InstalledSettings
from .sequence_settings import SEQUENCE_SETTINGS, refuse_sequence_settings
from .strict import plain_validation_errors

TIME_EMBEDDINGS = ("none", "learned", "rote", "crte")
TIME_PERIODS = ("shortest", "longest")
ALIGN_ATTENTIONS = ("batch", "clip")
AUDIO_POOLINGS = ("none", "max", "avg", "conv")

SUB_CONFIGS = {
    "text_config": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 448,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "audio_config": {"model_type": "qwen2_audio_encoder"},
}
"""The settings of the parts of the 9B model; their model types serve where a config does not say another."""


def _plain_errors(cls):
    """Raises what `@strict` finds wrong as the `TypeError`/`ValueError` that caused it, with the class's name."""
    strict_init = cls.__init__

    @functools.wraps(strict_init)
    def __init__(self, *args, **kwargs):
        with plain_validation_errors(f"{cls.__name__}: "):
            strict_init(self, *args, **kwargs)

    cls.__init__ = __init__
    return cls


@_plain_errors
@strict
class OmniVinciConfig(InstalledSettings, PreTrainedConfig):
    r"""
    Configuration of an [`OmniVinciForConditionalGeneration`]. The defaults describe the 9B model of the paper
    (arXiv 2510.15870): SigLIP-so400m at 448 pixels with Dynamic S2, the AF-Whisper audio encoder and Qwen2.5-7B.

    Args:
        text_config (`dict` or [`Qwen2Config`], *optional*): The language model.
        vision_config (`dict` or [`SiglipVisionConfig`], *optional*): The image encoder. `image_size` is the tile size.
        audio_config (`dict` or [`Qwen2AudioEncoderConfig`], *optional*):
            The audio encoder. Its window is `2 * max_source_positions` mel frames and gives half as many vectors as
            `max_source_positions`.
        image_token_id (`int`, *optional*, defaults to 151649): The placeholder of one image embedding.
        video_token_id (`int`, *optional*, defaults to 151650): The placeholder of one embedding of a video's picture.
        audio_token_id (`int`, *optional*, defaults to 151652): The placeholder of one audio embedding.
        vision_feature_layer (`int`, *optional*, defaults to -2):
            The hidden state of the image encoder that is read: 0 is the patch embedding, `num_hidden_layers` (or -1)
            the output of the last layer, before the final layer norm. Layers above it are not built.
        vision_chunk_size (`int`, *optional*, defaults to 16):
            How many images or tiles or frames the image encoder takes at a time. Bounds its activation memory.
        audio_chunk_size (`int`, *optional*, defaults to 16): How many windows the audio encoder takes at a time.
        s2_scales (`list[int]`, *optional*, defaults to `[448, 896, 1344]`):
            Dynamic S2: side lengths in pixels, ascending multiples of the first, which is the tile size.
        s2_output_scale_index (`int`, *optional*, defaults to -1):
            Index into `s2_scales` of the scale whose feature map size the merged map has.
        spatial_merge_size (`int`, *optional*, defaults to 2):
            Side of the block of patches that the vision projector folds into one embedding.
        projector_hidden_act (`str`, *optional*, defaults to `"gelu"`): Activation of both projectors.
        video_pool_sizes (`list[list[int]]`, *optional*, defaults to `[[1, 1, 1]]`):
            Average pooling of a clip's projected embeddings as (frames, rows, columns); the pooled sequences of
            several entries follow each other.
        audio_pooling (`str`, *optional*, defaults to `"none"`):
            Compression of the audio sequence before its projector, table 18: `"none"`, `"max"`, `"avg"` (kernel 2,
            stride 2) or `"conv"` (kernel 3, stride 2). The paper chose `"max"`, the released checkpoint has `"none"`.
        video_time_embedding (`str`, *optional*, defaults to `"crte"`):
            How the seconds of a frame enter its embeddings, the rows of table 1: `"none"`, `"learned"`, `"rote"`,
            `"crte"` (Constrained Rotary Time Embedding, section 2.1).
        video_time_period (`str`, *optional*, defaults to `"shortest"`):
            CRTE: what `video_max_time` bounds. `"shortest"` is equation 4, where even the fastest channel turns once
            in `video_max_time`; with `"longest"` the periods run from one second up to `video_max_time`.
        video_max_time (`float`, *optional*, defaults to 3600.0): T_max of CRTE and of the learned table, in seconds.
        video_time_rotated_size (`int`, *optional*):
            How many leading channels of an embedding are rotated (CRTE, RoTE). `None`: all, as in equation 4.
        video_time_theta (`float`, *optional*, defaults to 50000.0): Base of the frequencies of RoTE.
        audio_time_embedding, audio_time_period, audio_max_time, audio_time_rotated_size, audio_time_theta:
            The same for audio vectors.
        align_loss_weight (`float`, *optional*, defaults to 0.0):
            What OmniAlignNet's loss (section 2.1, equation 1) counts beside the next-token loss in training. 0: the
            model has no OmniAlignNet, like the released checkpoint.
        align_attention (`str`, *optional*, defaults to `"batch"`):
            What OmniAlignNet's self-attention goes over: the features of the clips of a `"batch"`, as the paper says,
            or the feature and the embeddings of one `"clip"`, which makes V and A independent of the batch.
        align_num_layers (`int`, *optional*, defaults to 3): Its layers of self-attention.
        align_temperature (`float`, *optional*):
            Initial value of a learnable temperature by which similarities are divided, such as 0.07. `None`:
            similarities are taken as they are, as in equation 1.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of new weights.
        tie_word_embeddings (`bool`, *optional*, defaults to `False`): Also taken from `text_config`.

    Raises:
        ValueError: a value is not supported or contradicts another one, or it is of a setting that only
            [`OmniVinciProcessor`] reads, such as `group_duration`.
        TypeError: a value has the wrong type.

    Example:

    ```python
    >>> from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration

    >>> config = OmniVinciConfig(audio_pooling="max")
    >>> config.vision_config.image_size
    448
    ```"""

    model_type = "omnivinci"
    # What Trainer does not gather in evaluation: media do not follow the batch size.
    keys_to_ignore_at_inference = [
        "past_key_values",
        "cache",
        *(f"{modality}_{what}" for modality in ("image", "video", "audio") for what in ("hidden_states", "outputs")),
    ]
    sub_configs = dict.fromkeys(SUB_CONFIGS, AutoConfig)

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 151649
    video_token_id: int = 151650
    audio_token_id: int = 151652
    vision_feature_layer: int = -2
    vision_chunk_size: int = 16
    audio_chunk_size: int = 16
    s2_scales: list[int] | tuple[int, ...] = (448, 896, 1344)
    s2_output_scale_index: int = -1
    spatial_merge_size: int = 2
    projector_hidden_act: str = "gelu"
    video_pool_sizes: list[list[int]] | tuple[tuple[int, ...], ...] = ((1, 1, 1),)
    audio_pooling: str = "none"
    video_time_embedding: str = "crte"
    video_time_period: str = "shortest"
    video_max_time: float | int = 3600.0
    video_time_rotated_size: int | None = None
    video_time_theta: float | int = 50_000.0
    audio_time_embedding: str = "crte"
    audio_time_period: str = "shortest"
    audio_max_time: float | int = 3600.0
    audio_time_rotated_size: int | None = None
    audio_time_theta: float | int = 50_000.0
    align_loss_weight: float | int = 0.0
    align_attention: str = "batch"
    align_num_layers: int = 3
    align_temperature: float | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        refuse_sequence_settings(kwargs)
        for name, defaults in SUB_CONFIGS.items():
            settings = getattr(self, name)
            if settings is None:
                settings = defaults
            if isinstance(settings, dict):
                settings = {"model_type": defaults["model_type"], **settings}
                setattr(self, name, AutoConfig.for_model(settings.pop("model_type"), **settings))
            elif not isinstance(settings, PreTrainedConfig):
                raise TypeError(f"`{name}` must be a dict, a config or None, not `{type(settings).__name__}`.")
        super().__post_init__(**kwargs)
        self.s2_scales = list(self.s2_scales)
        self.video_pool_sizes = [list(sizes) for sizes in self.video_pool_sizes]
        self.tie_word_embeddings = self.tie_word_embeddings or self.text_config.tie_word_embeddings
        # One fact, read in two places: the language model looks in its own config.
        self.text_config.tie_word_embeddings = self.tie_word_embeddings

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Loads what [`save_pretrained`] wrote, or the settings of a checkpoint in a registered format."""
        config = load_registered("config", cls, pretrained_model_name_or_path, **kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs) if config is None else config

    @classmethod
    def from_dict(cls, settings: dict, **kwargs):
        """
        As in transformers, but options are checked like arguments of the constructor. Settings of the processor in
        `settings` are passed over: earlier versions wrote them, beside a `processor_config.json` with the same values.
        """
        refuse_sequence_settings(kwargs)
        settings = {name: value for name, value in settings.items() if name not in SEQUENCE_SETTINGS}
        # Transformers would set them one by one on the finished config, where they are not validated.
        own = {name: kwargs.pop(name) for name in OmniVinciConfig.__annotations__.keys() & kwargs.keys()}
        for name in SUB_CONFIGS.keys() & own.keys():
            if isinstance(own[name], dict):
                own[name] = {**(settings.get(name) or SUB_CONFIGS[name]), **own[name]}
        settings |= own
        text = settings.get("text_config")
        if "tie_word_embeddings" in own and isinstance(text, dict):  # which says it, too
            settings["text_config"] = {**text, "tie_word_embeddings": own["tie_word_embeddings"]}
        with plain_validation_errors(f"{cls.__name__}: "):
            return super().from_dict(settings, **kwargs)

    @classmethod
    def from_json_file(cls, json_file):
        """As [`from_pretrained`] of that file."""
        return cls.from_pretrained(json_file)

    def _refuse(self, field: str, accepted: str):
        raise ValueError(f"`{field}={getattr(self, field)!r}` is not supported: it must be {accepted}.")

    def validate_token_ids(self):
        """Part of `@strict`: the three placeholders are distinct rows of the vocabulary."""
        super().validate_token_ids()
        ids = (self.image_token_id, self.video_token_id, self.audio_token_id)
        if len(set(ids)) < 3:
            raise ValueError(
                f"`image_token_id`, `video_token_id` and `audio_token_id` are {ids}: they must be three different ids."
            )

    def validate_vision(self):
        """Part of `@strict`: Dynamic S2 and the tower it reads from."""
        tile, patch = self.vision_config.image_size, self.vision_config.patch_size
        layers, scales = self.vision_config.num_hidden_layers, self.s2_scales
        if not isinstance(tile, int) or not isinstance(patch, int) or tile % patch:
            raise ValueError(
                f"`vision_config.image_size={tile}` must be a whole multiple of `vision_config.patch_size={patch}`: "
                "tiles and patches are square."
            )
        if not scales or scales != sorted(set(scales)) or scales[0] <= 0 or any(s % scales[0] for s in scales):
            self._refuse("s2_scales", "ascending positive multiples of the first scale, such as [448, 896, 1344]")
        if scales[0] != tile:
            self._refuse("s2_scales", f"led by the tile size, `vision_config.image_size={tile}`")
        if not -len(scales) <= self.s2_output_scale_index < len(scales):
            self._refuse("s2_output_scale_index", f"an index into the {len(scales)} `s2_scales`")
        if not -(layers + 1) <= self.vision_feature_layer <= layers:
            self._refuse("vision_feature_layer", f"between {-(layers + 1)} and {layers} for {layers} layers")
        if self.projector_hidden_act not in ACT2FN:
            self._refuse("projector_hidden_act", f"one of {tuple(ACT2FN)}")
        for field in ("vision_chunk_size", "audio_chunk_size", "spatial_merge_size"):
            if getattr(self, field) < 1:
                self._refuse(field, "a positive integer")
        if not self.video_pool_sizes or any(len(p) != 3 or min(p) < 1 for p in self.video_pool_sizes):
            self._refuse("video_pool_sizes", "triples of positive (frames, rows, columns), such as [[1, 1, 1]]")

    def validate_audio(self):
        """Part of `@strict`: audio compression (table 18)."""
        if self.audio_pooling not in AUDIO_POOLINGS:
            self._refuse("audio_pooling", f"one of {AUDIO_POOLINGS}")

    def validate_time(self):
        """Part of `@strict`: time embeddings (table 1)."""
        hidden_size = self.text_config.hidden_size
        for modality in ("video", "audio"):
            if getattr(self, f"{modality}_time_embedding") not in TIME_EMBEDDINGS:
                self._refuse(f"{modality}_time_embedding", f"one of {TIME_EMBEDDINGS}")
            if getattr(self, f"{modality}_time_period") not in TIME_PERIODS:
                self._refuse(f"{modality}_time_period", f"one of {TIME_PERIODS}")
            if not 0 < getattr(self, f"{modality}_max_time") < float("inf"):
                self._refuse(f"{modality}_max_time", "a positive number of seconds")
            if not getattr(self, f"{modality}_time_theta") > 1:
                self._refuse(f"{modality}_time_theta", "a number above 1")
            rotated_size = getattr(self, f"{modality}_time_rotated_size")
            if rotated_size is not None and (rotated_size % 2 or not 0 < rotated_size <= hidden_size):
                accepted = f"an even number of channels, at most the hidden size {hidden_size}"
                self._refuse(f"{modality}_time_rotated_size", accepted)
            if rotated_size is None and hidden_size % 2:
                self._refuse(f"{modality}_time_rotated_size", f"given where the hidden size, {hidden_size}, is odd")

    def validate_alignment(self):
        """Part of `@strict`: OmniAlignNet."""
        if not 0 <= self.align_loss_weight < float("inf"):
            self._refuse("align_loss_weight", "a number from 0 on")
        if self.align_attention not in ALIGN_ATTENTIONS:
            self._refuse("align_attention", f"one of {ALIGN_ATTENTIONS}")
        if self.align_num_layers < 1:
            self._refuse("align_num_layers", "a positive integer")
        if self.align_temperature is not None and not 0 < self.align_temperature < float("inf"):
            self._refuse("align_temperature", "a positive number, or None")
        hidden_size, num_heads = self.text_config.hidden_size, self.text_config.num_attention_heads
        if self.align_loss_weight and hidden_size % num_heads:
            self._refuse("align_loss_weight", f"0 where {num_heads} heads do not divide the hidden size {hidden_size}")

    @property
    def num_vision_layers(self) -> int:
        """How many layers of the image encoder lie below the hidden state that is read."""
        layer = self.vision_feature_layer
        return layer if layer >= 0 else self.vision_config.num_hidden_layers + 1 + layer


__all__ = ["OmniVinciConfig"]
