"""The language model: its config as that of a Qwen2, its tokenizer with placeholders, and how it stops."""

import copy

from transformers import AutoTokenizer, GenerationConfig, Qwen2Config
from transformers.configuration_utils import PreTrainedConfig

from ..processing.prompts import TOKENS
from .chat_formats import CHATML_TOKENS, choose_template, writes_bos
from .part_sources import UNREADABLE, PartSource, part_file, read_part_config

LANGUAGE_MODELS = {"qwen2": None, "llama": None, "omnivinci": "text_config"}
"""By the types of models, where in their config that of a language model is; `None`: it is the whole."""
OF_BOTH = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *(
        "num_key_value_heads",
        "hidden_act",
        "max_position_embeddings",
        "initializer_range",
        "rms_norm_eps",
        "use_cache",
    ),
    *("tie_word_embeddings", "rope_parameters", "attention_dropout", "pad_token_id", "bos_token_id", "eos_token_id"),
)
"""The settings of a Llama that say the same of a Qwen2."""
OF_QWEN2 = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
MULTIPLE = 64
"""Of this, the vocabulary becomes a multiple where tokens are added to it, so that it can be split among devices."""


def read_language_config(source: PartSource) -> tuple[str, Qwen2Config]:
    """
    The model type of a language model, and its config as that of a Qwen2 that computes the same.

    Raises:
        ValueError: it is no Qwen2, nor a Llama that a Qwen2 can be.
    """
    kind, config = read_part_config(source, LANGUAGE_MODELS)
    if config.model_type == "qwen2":
        return kind, Qwen2Config(**{name: copy.deepcopy(getattr(config, name)) for name in OF_BOTH + OF_QWEN2})
    if config.model_type != "llama":  # within an OmniVinci
        raise ValueError(f"{source.file} has a language model of type {config.model_type!r}: qwen2 is accepted.")
    _check_llama(source, config)
    return kind, Qwen2Config(**{name: copy.deepcopy(getattr(config, name)) for name in OF_BOTH})


def _check_llama(source: PartSource, config: PreTrainedConfig) -> None:
    """Refuses a Llama that computes something that a Qwen2 of the same sizes does not."""
    head_dim = config.hidden_size // config.num_attention_heads
    partial = (config.rope_parameters or {}).get("partial_rotary_factor", 1.0)
    differences = {
        "attention_bias": (config.attention_bias, False),
        "mlp_bias": (config.mlp_bias, False),
        "head_dim": (config.head_dim or head_dim, head_dim),
        "rope_parameters.partial_rotary_factor": (partial, 1.0),
    }
    for name, (value, needed) in differences.items():
        if value != needed:
            raise ValueError(
                f"{source.file} has `{name}={value!r}`: a Llama is accepted where Qwen2 computes the same, which "
                f"needs {needed!r}."
            )


def read_tokenizer(source: PartSource, vocab_size: int, chat_template: str | None):
    """
    The tokenizer of a language model with the placeholders of media, and the template of chats.

    Args:
        source ([`PartSource`]): The language model.
        vocab_size (`int`): How many tokens it has embeddings for.
        chat_template (`str`, *optional*): See [`choose_template`].

    Returns:
        `tuple[PreTrainedTokenizerBase, str, list[str]]`: also the tokens that were added.

    Raises:
        OSError, ValueError: there is no tokenizer, or it does not fit the model.
    """
    if source.gguf_file is None and part_file(source, *TOKENIZER_FILES) is None:
        raise OSError(f"{source.folder} has no tokenizer: one of {', '.join(TOKENIZER_FILES)} is needed.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, padding_side="left", **source.options)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{source.folder} has no tokenizer that can be read: {reason}") from error
    for leftover in ("is_local", "local_files_only", "name_or_path", "gguf_file"):  # of where it was found
        tokenizer.init_kwargs.pop(leftover, None)
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"The tokenizer in {source.folder} has {len(tokenizer):,} tokens, but {source.file.name} says "
            f"`vocab_size={vocab_size}`: each token needs an embedding."
        )
    known = tokenizer.get_vocab().keys()
    template, needed = choose_template(source, tokenizer, chat_template)
    if tokenizer.num_special_tokens_to_add() and not writes_bos(tokenizer, template):
        raise ValueError(
            f"The tokenizer in {source.folder} adds {tokenizer.decode(tokenizer('')['input_ids'])!r} to every text, "
            "which the chat template does not write: a tokenizer that leaves it to the template is accepted."
        )
    added = [token for token in (*needed, *TOKENS.values()) if token not in known]
    tokenizer.add_tokens([*needed, *TOKENS.values()], special_tokens=True)
    tokenizer.chat_template = template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or CHATML_TOKENS[1]
    return tokenizer, template, added


def extended_size(vocab_size: int, num_tokens: int) -> int:
    """For how many tokens a model of `vocab_size` has embeddings when its tokenizer has grown to `num_tokens`."""
    return vocab_size if num_tokens <= vocab_size else -(-num_tokens // MULTIPLE) * MULTIPLE


def read_generation_config(source: PartSource, config: Qwen2Config, tokenizer, template: str) -> GenerationConfig:
    """How the language model generates, as its files say; it stops at the end of a turn, and knows the padding."""
    if (source.folder / "generation_config.json").is_file():
        generation_config = GenerationConfig.from_pretrained(source.folder)
    else:
        generation_config = GenerationConfig(eos_token_id=config.eos_token_id, bos_token_id=config.bos_token_id)
    ends = generation_config.eos_token_id
    ends = [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]
    end_of_turn = tokenizer.convert_tokens_to_ids(CHATML_TOKENS[1])
    if CHATML_TOKENS[1] in template and end_of_turn not in ends:
        ends.append(end_of_turn)
    generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    if generation_config.pad_token_id is None:
        generation_config.pad_token_id = tokenizer.pad_token_id
    return generation_config
