"""
The memory that a model needs, computed from its config: no weights are made, and nothing is measured.

Weights as they are stored under recipes of quantization, the cache of a prompt with a video and its sound, and the
activations at their peak. Run as `python -m benchmarks.memory`; it prints the tables of docs/quantization.md.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import torch
from torch import nn

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration
from transformers_omnivinci.modeling.parts import PARTS
from transformers_omnivinci.modeling.quantized_loading import BLOCK, LEFT_OUT
from transformers_omnivinci.planning import Layout, MediumFacts, plan_medium
from transformers_omnivinci.quantization.recipes import GROUP_SIZES, LANGUAGE_MODEL, QUANTIZATION_RECIPES

from ._harness import to_markdown

GIB = 2**30
CARDS = (24, 16, 12)
RESERVE = 1 * GIB
"""What is kept for the CUDA context and for kernels."""
FRAGMENTS = 0.05
"""What torch's allocator holds and cannot use, as a share of what is needed: see benchmarks/memory_gpu.py."""
TEXT, ANSWER = 256, 512
"""Positions of a prompt's text and of an answer."""
CLIPS = ((64, 60.0), (128, 60.0))
"""Frames, and seconds of sound."""


# ----------------------------------------------------------------------------------------------------------- recipes

GROUPED = {LANGUAGE_MODEL.name: GROUP_SIZES[0]}
"""How many weights share a scale in the 9B model, whose rows all sizes divide."""

RECIPES = {
    "bf16": None,
    **{name: recipe.config(GROUPED) for name, recipe in QUANTIZATION_RECIPES.items()},
    "bnb-nf4": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "llm_int8_skip_modules": list(LEFT_OUT),
    },
}
"""The `quantization_config` of each, as it stands in the `config.json` of a checkpoint."""


# ----------------------------------------------------------------------------------------------------------- weights


def count_weights(
    config: OmniVinciConfig, quantization: Mapping | None = None, dtype: torch.dtype = torch.bfloat16
) -> dict[str, int]:
    """
    Bytes of the weights, by part: those of [`PARTS`], but the language model's `"layers"` and `"embeddings"`, with its
    head, apart.

    Args:
        config ([`OmniVinciConfig`]): The model.
        quantization (`dict`, *optional*): A `quantization_config` of compressed-tensors or of bitsandbytes' 4 bits.
        dtype (`torch.dtype`, *optional*): Of what is not quantized.

    Raises:
        ValueError: it is of another method.
    """
    with torch.device("meta"):
        model = OmniVinciForConditionalGeneration(config)
    counts = {part: 0 for part in PARTS if part != "language_model"} | {"layers": 0, "embeddings": 0}
    tied, modules = set(model.all_tied_weights_keys), dict(model.named_modules())
    for name, weight in model.named_parameters():
        owner = name.rpartition(".")[0]
        is_layer = isinstance(modules[owner], nn.Linear) and name.endswith(".weight")
        scheme = _scheme_of(owner, quantization) if is_layer else None
        size = weight.numel() * dtype.itemsize if scheme is None else _quantized_bytes(*weight.shape, scheme, dtype)
        if name not in tied:
            counts[_part_of(name)] += size
    return counts


def largest_quantized(config: OmniVinciConfig, quantization: Mapping | None) -> int:
    """Bytes of the largest quantized weight in bfloat16, into which kernels turn it for a long prompt."""
    with torch.device("meta"):
        model = OmniVinciForConditionalGeneration(config)
    layers = [(name, module.weight) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return max((2 * weight.numel() for name, weight in layers if _scheme_of(name, quantization)), default=0)


def _part_of(name: str) -> str:
    if name.startswith("model.language_model.layers.") or name.startswith("model.language_model.norm"):
        return "layers"
    part = next(part for part, modules in PARTS.items() if name.startswith(modules))
    return "embeddings" if part == "language_model" else part


def _scheme_of(name: str, quantization: Mapping | None) -> Mapping | None:
    """What a `quantization_config` does to the weight of a linear layer."""
    if quantization is None:
        return None
    method = quantization["quant_method"]
    if method == "compressed-tensors":
        groups = quantization["config_groups"].values()
        found = (group["weights"] for group in groups if any(_matches(name, target) for target in group["targets"]))
        return None if any(_matches(name, ignored) for ignored in quantization["ignore"]) else next(found, None)
    if method == "bitsandbytes" and quantization["load_in_4bit"]:
        left = quantization["llm_int8_skip_modules"]
        return None if any(name.startswith(one) or name.endswith(one) for one in left) else quantization
    raise ValueError(
        f"The size of weights under {method!r} is unknown: compressed-tensors and bitsandbytes in 4 bits."
    )


def _matches(name: str, target: str) -> bool:
    return bool(re.match(target.removeprefix("re:"), name)) if target.startswith("re:") else target in (name, "Linear")


def _quantized_bytes(rows: int, columns: int, scheme: Mapping, dtype: torch.dtype) -> int:
    """Bytes of a quantized weight with its scales and zero points."""
    if "bnb_4bit_quant_type" in scheme:  # a float32 for each block, and the 16 values that 4 bits stand for
        return ceil(rows * columns / 2) + 4 * ceil(rows * columns / BLOCK) + 4 * 16
    groups = ceil(columns / scheme["group_size"]) if scheme["strategy"] == "group" else 1
    # Less than 8 bits are packed into int32, row by row, with the two sizes of the weight as int64.
    packed = 4 * rows * ceil(columns * scheme["num_bits"] / 32) + 2 * 8
    stored = packed if scheme["num_bits"] < 8 else rows * columns
    # Zero points are packed column by column.
    zero_points = 0 if scheme.get("symmetric", True) else 4 * ceil(rows * scheme["num_bits"] / 32) * groups
    return stored + rows * groups * dtype.itemsize + zero_points


# ------------------------------------------------------------------------------------------------------------ prompts


@dataclass(frozen=True)
class Prompt:
    """
    A prompt with one video, as the model sees it.

    Attributes:
        frames (`int`): Sampled frames of the video.
        windows (`int`): Windows that the audio encoder hears.
        video, audio (`int`): Embeddings.
        positions (`int`): Positions of the prompt.
    """

    frames: int
    windows: int
    video: int
    audio: int
    positions: int


def plan_prompt(config: OmniVinciConfig, frames: int, seconds: float, text: int = TEXT) -> Prompt:
    """The prompt of a clip of so many `seconds`, with sound unless they are 0, of which `frames` are seen."""
    ids = {name: getattr(config, f"{name}_token_id") for name in ("image", "video", "audio")}
    layout = Layout(
        ids,
        s2_scales=config.s2_scales,
        patches_per_side=ceil(_patches_per_side(config) / config.spatial_merge_size),
        video_pool_sizes=config.video_pool_sizes,
        max_source_positions=config.audio_config.max_source_positions,
        audio_pooling=config.audio_pooling,
        group_end=(-1,),
    )
    fps, length = 30.0, seconds or 60.0
    positions = [index * (length * fps - 1) / max(frames - 1, 1) for index in range(frames)]
    facts = MediumFacts(
        "video",
        timestamps=[position / fps for position in positions],
        frame_positions=positions,
        fps=fps,
        total_num_frames=length * fps,
        num_samples=round(seconds * layout.sampling_rate),
    )
    medium = plan_medium(facts, layout)
    video, audio = (sum(length for token, length in medium.runs if token == ids[name]) for name in ("video", "audio"))
    windows = medium.windows.num_windows if medium.windows else 0
    return Prompt(frames, windows, video, audio, medium.length + text)


def _patches_per_side(config: OmniVinciConfig) -> int:
    return config.vision_config.image_size // config.vision_config.patch_size


def count_cache(config: OmniVinciConfig, positions: int, itemsize: int = 2) -> int:
    """Bytes of the keys and values of so many positions."""
    text = config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head * positions * itemsize


def count_activations(config: OmniVinciConfig, prompt: Prompt, itemsize: int = 2) -> dict[str, int]:
    """
    Bytes that are held at most while each stage runs, without gradients: the tensors of the widest place of a layer,
    and what is held beside it. Attention is counted without its matrix, as SDPA and FlashAttention compute it.

    Args:
        config ([`OmniVinciConfig`]): Its `vision_chunk_size` and `audio_chunk_size` bound what encoders hold.
        prompt ([`Prompt`]): What is read at once.
        itemsize (`int`, *optional*, defaults to 2): Bytes of a number.
    """
    vision, audio, text = config.vision_config, config.audio_config, config.text_config
    patches, width = _patches_per_side(config) ** 2, text.hidden_size
    pixels = prompt.frames * 3 * vision.image_size**2
    mels = prompt.windows * audio.num_mel_bins * 2 * audio.max_source_positions
    media = pixels + mels
    chunk = min(prompt.frames, config.vision_chunk_size or prompt.frames)
    features = prompt.frames * patches * vision.hidden_size  # those of frames before, and of all once they are joined
    inside = chunk * patches * 2 * (vision.hidden_size + vision.intermediate_size)  # residual, norm; before, after act
    # The features of frames once for each scale: repeated, folded into blocks, and after the norm.
    copies = 3 * chunk * patches * vision.hidden_size * len(config.s2_scales)
    windows = min(prompt.windows, config.audio_chunk_size or prompt.windows)
    # Two convolutions, of which the first is as long as the mel frames, with their activation; or a layer.
    convolved = 2 * 2 * audio.max_source_positions * audio.d_model
    layer = audio.max_source_positions * 2 * (audio.d_model + audio.encoder_ffn_dim)
    heard = prompt.windows * audio.max_source_positions // 2 * audio.d_model
    embeddings = (prompt.video + prompt.audio) * width
    # Embedded text and its copy with media, residual and norm; gate, up, and their product.
    read = prompt.positions * (4 * width + 3 * text.intermediate_size) + text.vocab_size
    return {
        "image encoder": (media + features + max(inside, features)) * itemsize,
        "vision projector": (media + features + copies + prompt.video * width) * itemsize,
        "audio encoder": (media + prompt.video * width + heard + windows * max(convolved, layer)) * itemsize,
        "language model": (media + embeddings + read) * itemsize,
    }


# ------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Need:
    """
    What a recipe and a prompt need, in bytes.

    Attributes:
        weights (`dict[str, int]`): By part.
        cache (`int`): Keys and values of prompt and answer.
        activations (`int`): At their peak, with the largest weight that a kernel unpacks.
    """

    weights: dict[str, int]
    cache: int
    activations: int

    @property
    def total(self) -> int:
        return sum(self.weights.values()) + self.cache + self.activations

    def fits(self, gib: int) -> bool:
        """Whether a card of so many GiB holds it beside [`RESERVE`] and [`FRAGMENTS`]."""
        return self.total * (1 + FRAGMENTS) + RESERVE <= gib * GIB


def compute_need(config: OmniVinciConfig, quantization: Mapping | None, frames: int, seconds: float) -> Need:
    """What a model needs to answer about a clip, see [`count_weights`] and [`plan_prompt`]."""
    prompt = plan_prompt(config, frames, seconds)
    peak = max(count_activations(config, prompt).values()) + largest_quantized(config, quantization)
    return Need(count_weights(config, quantization), count_cache(config, prompt.positions + ANSWER), peak)


def weights_table(config: OmniVinciConfig) -> Iterator[dict[str, str]]:
    """A row for each recipe, a column for each part."""
    counts = {recipe: count_weights(config, quantization) for recipe, quantization in RECIPES.items()}
    columns = {
        "image encoder": ("vision_encoder",),
        "audio encoder": ("audio_encoder",),
        "projectors": ("vision_projector", "audio_projector", "omni_align_net"),
        "layers of the language model": ("layers",),
        "embeddings, `lm_head`": ("embeddings",),
    }
    for recipe, sizes in counts.items():
        cells = {name: sum(sizes[part] for part in parts) for name, parts in columns.items()}
        cells["together"] = sum(cells.values())
        yield {"weights, GiB": f"`{recipe}`", **{name: _gib(size) for name, size in cells.items()}}


def fit_table(config: OmniVinciConfig, frames: int, seconds: float) -> Iterator[dict[str, str]]:
    """A row for each recipe with what a clip needs, and which cards hold it."""
    for recipe, quantization in RECIPES.items():
        need = compute_need(config, quantization, frames, seconds)
        yield {
            "GiB": f"`{recipe}`",
            "weights": _gib(sum(need.weights.values())),
            "cache": _gib(need.cache),
            "activations": _gib(need.activations),
            "together": _gib(need.total),
            **{f"{card} GB": "yes" if need.fits(card) else "no" for card in CARDS},
        }


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", help="checkpoint whose config is read; default: the 9B model")
    parser.add_argument("--clip", action="append", metavar="FRAMES:SECONDS", help="default: 64:60 and 128:60")
    arguments = parser.parse_args()
    config = OmniVinciConfig.from_pretrained(arguments.model) if arguments.model else OmniVinciConfig()
    clips = [tuple(map(float, clip.split(":"))) for clip in arguments.clip or ()] or CLIPS
    print(to_markdown(list(weights_table(config))))
    for frames, seconds in clips:
        prompt = plan_prompt(config, int(frames), seconds)
        print(f"\n{int(frames)} frames and {seconds:g} s of sound: {prompt.positions:,} positions", end="")
        most = config.text_config.max_position_embeddings
        print(f" (more than the {most:,} of the config)\n" if prompt.positions + ANSWER > most else "\n")
        print(to_markdown(list(fit_table(config, int(frames), seconds))))


if __name__ == "__main__":
    main()
