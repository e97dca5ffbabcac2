"""
How much memory training takes on each GPU, before a GPU is asked for.

Weights, gradients and states of the optimizer are counted. Activations are estimated from the shapes of what the
backward pass needs: within a factor of 1.5 of the peak of the small model, which a test measures. Fragments of the
allocator, buffers of communication and the libraries come on top: leave 10% of a GPU, and 3 GB.
"""

from dataclasses import dataclass, fields

import torch

from ..configuration_omnivinci import OmniVinciConfig
from ..modeling.modeling_omnivinci import OmniVinciForConditionalGeneration
from .recipes import Recipe
from .trainer import SHARDED_LAYERS

FLOAT32 = 4
ADAM = 2 * FLOAT32
"""Bytes of Adam's two averages of a weight."""


@dataclass(frozen=True)
class TrainingMemory:
    """
    Bytes on each GPU.

    Attributes:
        weights (`int`): This GPU's share: in float32 what is trained, as it is computed with what is frozen.
        gradients (`int`): This GPU's share of those of the trained weights, in float32.
        optimizer (`int`): Its share of the states of AdamW.
        gathered (`int`):
            What weights are computed with, in the precision of computing: of FSDP the embeddings, the head, whatever
            is no layer, and two layers with a gradient; without sharding in mixed precision a copy of what is trained.
        activations (`int`): The peak of what is kept for the backward pass and of what that makes for itself.
    """

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Load:
    """
    What a GPU takes in a step.

    Attributes:
        num_positions (`int`): Of all sequences together, padding and media included.
        num_tiles (`int`): Tiles of images and frames of videos.
        num_windows (`int`): Windows of sound.
        num_answers (`int`, *optional*):
            Positions of which logits are computed; [`OmniVinciTrainer`] does so for answers alone. `None`: all.
    """

    num_positions: int
    num_tiles: int = 0
    num_windows: int = 0
    num_answers: int | None = None


def training_memory(
    config: OmniVinciConfig,
    recipe: Recipe,
    load: Load,
    num_gpus: int = 1,
    mixed_precision: bool = True,
    gradient_checkpointing: bool = True,
) -> TrainingMemory:
    """
    Memory of training with AdamW, sharded over all GPUs by FSDP2 if there are several.

    Args:
        config ([`OmniVinciConfig`]): The model.
        recipe ([`Recipe`]): What is trained.
        load ([`Load`]): What a GPU takes in a step.
        num_gpus (`int`, *optional*, defaults to 1): Over how many the weights are sharded.
        mixed_precision (`bool`, *optional*, defaults to `True`): Whether it computes in bfloat16, else in float32.
        gradient_checkpointing (`bool`, *optional*, defaults to `True`): Whether layers are computed again.
    """
    with torch.device("meta"):
        model = OmniVinciForConditionalGeneration(config)
    recipe.freeze(model)
    width = 2 if mixed_precision else FLOAT32
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    if num_gpus > 1:
        layers = [module for module in model.modules() if type(module).__name__ in SHARDED_LAYERS]
        sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
        # Two layers, as the next is gathered while one computes, and the gradient of one.
        gathered = width * (trained + frozen - sum(sizes) + 3 * max(sizes))
    else:
        gathered = width * trained if mixed_precision else 0
    return TrainingMemory(
        weights=(FLOAT32 * trained + width * frozen) // num_gpus,
        gradients=FLOAT32 * trained // num_gpus,
        optimizer=ADAM * trained // num_gpus,
        gathered=gathered,
        activations=_activations(config, recipe, load, width, gradient_checkpointing),
    )


def _activations(config, recipe: Recipe, load: Load, width: int, gradient_checkpointing: bool) -> int:
    """Bytes. What lies below the first trained part needs no gradient, and nothing of it is kept."""
    text, vision, audio = config.text_config, config.vision_config, config.audio_config

    kept, again = 0, [0]

    def keep(num_layers: int, num_tokens: int, hidden_size: int, layer: int) -> None:
        nonlocal kept
        kept += num_layers * num_tokens * (width * hidden_size if gradient_checkpointing else layer)
        # What it keeps, and gradients of about as much before they are let go of.
        again.append(2 * num_tokens * layer if gradient_checkpointing else 0)

    keep(text.num_hidden_layers, load.num_positions, text.hidden_size, _text_layer(text, width))

    patches = load.num_tiles * (vision.image_size // vision.patch_size) ** 2
    if "vision_encoder" in recipe.trained:
        layer = width * (8 * vision.hidden_size + 2 * vision.intermediate_size)
        keep(config.num_vision_layers, patches, vision.hidden_size, layer)
    if {"vision_encoder", "vision_projector"} & set(recipe.trained):
        blocks = patches // config.spatial_merge_size**2
        merged = config.spatial_merge_size**2 * len(config.s2_scales) * vision.hidden_size
        kept += width * blocks * (2 * merged + 4 * text.hidden_size)

    frames = load.num_windows * audio.max_source_positions
    if "audio_encoder" in recipe.trained:
        layer = width * (8 * audio.d_model + 2 * audio.encoder_ffn_dim)
        keep(audio.encoder_layers, frames, audio.d_model, layer)
        kept += width * frames * 6 * audio.d_model  # convolutions at twice the rate
    if {"audio_encoder", "audio_projector"} & set(recipe.trained):
        kept += width * frames // 2 * (2 * audio.d_model + 4 * text.hidden_size)
    # The backward pass starts with the logits, and in float32 a copy, their log-softmax and its gradient. It has let
    # go of them when it computes a layer again.
    num_answers = load.num_positions if load.num_answers is None else load.num_answers
    logits = num_answers * (width + 3 * FLOAT32) * text.vocab_size
    return kept + max(logits, *again)


def _text_layer(text, width: int) -> int:
    """Bytes that a layer of Qwen2 keeps for a token."""
    head_size = text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head_size, text.num_key_value_heads * head_size
    norms = 2 * text.hidden_size * (2 * FLOAT32 + width)  # computed in float32
    attention = width * (5 * queries + 3 * keys)  # before and after rotation, repeated for groups of heads, the output
    return norms + attention + width * 4 * text.intermediate_size
