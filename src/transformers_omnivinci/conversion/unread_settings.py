"""
What becomes of settings of the published layout that nothing here reads. In this order:

1. A value that turns nothing on, such as `None`, `False` or an empty list, passes.
2. A setting of `SUPPORTED` would change what is computed: its other values are refused.
3. Every other setting of an encoder is an argument of its class, and refused.
4. A setting of `HARMLESS`, or of a component, decides nothing of what a checkpoint computes: it is ignored.
5. Any other is unknown: it is ignored too, and a warning names it.
"""

from fnmatch import fnmatchcase

from transformers.configuration_utils import PreTrainedConfig

OFF = (None, False, 0, "", "none", [], {})
WORDS = {"None": None, "null": None, "True": True, "true": True, "False": False, "false": False}

NEVER_ON = (
    *("fps", "llm_quantization", "mm_use_im_patch_token", "mm_use_im_start_end", "num_time_tokens", "s2"),
    *("quantization_config", "quantize_model", "speech_encoder", "speech_mm_projector", "speech_mm_projector_cfg"),
    *("speech_tower", "speech_tower_cfg"),
)
SUPPORTED = {
    **dict.fromkeys(NEVER_ON, ()),
    "chat_template": ("qwen2", "chatml"),
    "mm_patch_merge_type": ("flat",),
    "unified_audio_encoder": (True,),
    "video_max_tiles": (1,),
    "vision_resolution": (-1,),
}
"""Settings of the root that would change what is computed: the values besides those of `OFF` that do not."""

SUPPORTED_PIXELS = {
    "do_center_crop": (False,),
    "do_normalize": (True,),
    "do_pad": (False,),
    "do_rescale": (True,),
    "do_resize": (True,),
    "resample": (3,),
}
"""The same of the preprocessor of the vision tower, where `OFF` says something too: `None` alone is no value."""

HARMLESS = (
    # What a checkpoint is, where it lies and how it is loaded.
    *("name_or_path", "_name_or_path", "model_name_or_path", "resume_path", "auto_map", "version", "*_version"),
    *("llm", "vision_tower", "sound_tower", "mm_projector", "*_attn_implementation*", "model_dtype", "dtype"),
    # What the folders of the components say themselves.
    *("*_cfg", "hidden_size", "mm_hidden_size", "model_max_length", "tokenizer_*"),
    # What another setting makes void: of Dynamic S2, of time tokens.
    *("s2_max_split_size", "min_tiles", "time_token_format", "time_token_ids"),
    # Training.
    *("*_lr", "tune_*", "freeze_*", "lora*", "drop_path_rate", "soft_ce_std", "gradient_checkpointing*", "deepspeed*"),
    *("*learning_rate*", "*weight_decay", "warmup_*", "*batch_size*", "bf16", "fp16", "seed", "output_dir", "wandb*"),
    *("interpolate_mode", "vflan_no_system_prompt", "data_*", "save_data", "calib_size", "debug_*"),
    # Quantization in training, void without `quantize_model`.
    *("Ubit", "[bf][aow]bit", "*_blocksize*", "group_size", "symm", "epsilon", "pad_block", "pad_to_multiple_of"),
    *("qchoice", "refine_*", "*memory_efficient", "*quantize_*", "first_order_*", "second_order_*", "min_blockunit_*"),
)
"""Patterns of names."""

OF_TRANSFORMERS = frozenset(PreTrainedConfig().to_dict()) | {
    # Of older versions, which wrote all that a config may say of generation.
    *("add_cross_attention", "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "cross_attention_hidden_size"),
    *("decoder_start_token_id", "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size"),
    *("eos_token_id", "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "is_decoder"),
    *("forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups"),
    *("num_beams", "num_return_sequences", "output_scores", "pad_token_id", "prefix", "pruned_heads"),
    *("remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "sep_token_id", "suppress_tokens"),
    *("task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings"),
    *("tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "typical_p", "use_bfloat16", "use_cache"),
    *("model_type", "architectures", "attribute_map"),
}
"""What configs of transformers say of any model; here the language model and `generation_config.json` decide it."""

HARMLESS_OF_ENCODERS = ("max_time", "period_fix", "time_embed_type", "trope_dim", "trope_theta")
"""Void without `embed_time`, with which all are read but the theta: CRTE has a base of its own."""


def plain(value):
    """Words such as `"None"` and `"False"` as what they say."""
    return WORDS.get(value, value) if isinstance(value, str) else value


def not_supported(key: str, value, supported) -> str:
    """The sentence that refuses the value of a setting."""
    return f"`{key}={value!r}` of the published checkpoint is not supported: supported are {supported}."


def refusal(key: str, value, supported: tuple, off: tuple = OFF) -> str | None:
    """Why the value of a setting that nothing reads cannot be used; `None` if it changes nothing."""
    if _is_in(plain(value), (*off, *supported)):
        return None
    return not_supported(key, value, ", ".join(map(repr, (*supported, None))))


def refused_settings(root: dict, encoders: dict[str, dict], pixels: dict) -> dict[str, str]:
    """
    A sentence for each setting that would change what is computed, by its key: of what nothing has read of the root
    and of each encoder, and of what the preprocessor of the vision tower says (`pixels`).
    """
    sentences = {key: refusal(key, root[key], supported) for key, supported in SUPPORTED.items() if key in root}
    for name, values in encoders.items():
        for key in values.keys() - set(HARMLESS_OF_ENCODERS):
            sentences[f"{name}.{key}"] = refusal(f"{name}.{key}", values[key], ())
    for key, supported in SUPPORTED_PIXELS.items():
        where = f"vision_tower/preprocessor_config.json: {key}"
        sentences[f"vision_tower.{key}"] = refusal(where, pixels.get(key), supported, off=(None,))
    return {key: sentence for key, sentence in sentences.items() if sentence is not None}


def is_unknown(key: str, value) -> bool:
    """Whether a setting of the root says something of which it is not known that it changes nothing."""
    if _is_in(plain(value), OFF) or key in SUPPORTED or key in OF_TRANSFORMERS:
        return False
    return not any(fnmatchcase(key, pattern) for pattern in HARMLESS)


def _is_in(value, accepted: tuple) -> bool:
    """Whether a value is accepted, where `True` is no number: not the 1 of a setting that counts."""
    return any(value == item and isinstance(value, bool) <= isinstance(item, bool) for item in accepted)
