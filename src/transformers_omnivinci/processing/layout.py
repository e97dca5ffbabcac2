"""The [`Layout`] of a processor: its settings, and the token ids of the text that stands around embeddings."""

from ..planning import Layout
from .chat_template import MEDIA_BRACKETS
from .prompts import TOKENS

BOUNDARIES = (
    "image_start",
    "image_end",
    "video_start",
    "video_end",
    "video_separator",
    "audio_start",
    "audio_end",
)
"""What has text of its own around embeddings: the settings of the same names with `_tokens`."""


def layout_settings(processor) -> tuple[dict, dict[str, str | None], bool]:
    """What a layout is built from: plain settings, the texts of boundaries, and whether there are brackets."""
    scales, extractor = processor.image_processor.s2_scales, processor.feature_extractor
    settings = {
        "s2_scales": scales,
        "s2_output_scale_index": processor.s2_output_scale_index,
        "patches_per_side": -(-(scales[0] // processor.patch_size) // processor.spatial_merge_size),
        "video_pool_sizes": processor.video_pool_sizes,
        "sampling_rate": extractor.sampling_rate,
        "hop_length": extractor.hop_length,
        "max_source_positions": processor.max_source_positions,
        "audio_pooling": processor.audio_pooling,
        "audio_pad_to_multiple_of": processor.audio_pad_to_multiple_of,
        "max_audio_duration": processor.max_audio_duration,
        "fixed_audio_duration": processor.fixed_audio_duration,
        "group_duration": processor.group_duration,
        "interleave": processor.interleave_audio_in_video,
    }
    texts = {name: getattr(processor, f"{name}_tokens") for name in BOUNDARIES} | {"group_end": "\n"}
    return settings, texts, processor.use_media_brackets


def build_layout(processor) -> Layout:
    """
    Raises:
        ValueError: the tokenizer lacks a token that is needed.
    """
    settings, texts, has_brackets = layout_settings(processor)
    tokenizer = processor.tokenizer
    return Layout(
        token_ids={modality: require_token(tokenizer, token) for modality, token in TOKENS.items()},
        brackets={
            modality: tuple(require_token(tokenizer, token) for token in tokens)
            for modality, tokens in (MEDIA_BRACKETS.items() if has_brackets else ())
        },
        **settings,
        **{
            name: tokenizer(text, add_special_tokens=False)["input_ids"] if text else ()
            for name, text in texts.items()
        },
    )


def require_token(tokenizer, token: str) -> int:
    """
    The id of a token.

    Raises:
        ValueError: the tokenizer does not know it.
    """
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise ValueError(f"The tokenizer does not know {token!r}, which this processor needs in its vocabulary.")
    return token_id
