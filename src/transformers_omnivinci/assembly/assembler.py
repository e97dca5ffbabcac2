"""
Makes an OmniVinci from pretrained parts: planned from configs and headers of weights, then written file by file, so
that of large parts no more than one file's weights are in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig

from ..configuration_omnivinci import OmniVinciConfig
from ..new_folder import check_apart, check_space, check_vacant, new_folder
from ..processing import OmniVinciImageProcessor, OmniVinciProcessor, OmniVinciVideoProcessor
from ..processing.prompts import TOKENS
from ..publishing.assembled_card import PartOrigin, build_assembled_card
from ..version import __version__
from ..weight_files import TensorHeader
from ..weight_shards import Shard, plan_shards, write_shards
from .encoder_parts import (
    cut_window,
    read_audio_config,
    read_feature_extractor,
    read_pixel_options,
    read_vision_config,
)
from .language_part import extended_size, read_generation_config, read_language_config, read_tokenizer
from .part_sources import PartSource, find_part
from .part_weights import (
    AUDIO,
    HEAD,
    LANGUAGE,
    VISION,
    cut_positions,
    expected_shapes,
    extend_rows,
    given,
    new_weights,
    resize_positions,
    take_part,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What `dtype` may be called."""
VISION_FROM = ("weights", "random")
MOST_FRAMES, MOST_TILES = 64, 12
"""Of a video, and of an image at its last scale, as in the release."""


@dataclass(frozen=True)
class Assembly:
    """
    What was put together.

    Attributes:
        config ([`OmniVinciConfig`]), processor ([`OmniVinciProcessor`]), generation_config ([`GenerationConfig`]):
            Of the new model.
        dtype (`torch.dtype`): Of its weights.
        origins (`list[PartOrigin]`): Where each part comes from, and what was changed of it.
        shards (`list[Shard]`), indices (`dict[str, dict]`): Its files of weights.
    """

    config: OmniVinciConfig
    processor: OmniVinciProcessor
    generation_config: GenerationConfig
    dtype: torch.dtype
    origins: list[PartOrigin]
    shards: list[Shard]
    indices: dict[str, dict]

    @property
    def num_bytes(self) -> int:
        """The size of the weights."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def num_parameters(self) -> int:
        """Parameters of all weights."""
        return sum(tensor.num_parameters for shard in self.shards for tensor in shard.tensors.values())


def assemble(
    destination,
    *,
    language_model,
    audio,
    vision=None,
    vision_from: str = "weights",
    audio_window: float | None = None,
    audio_pooling: str = "none",
    image_size: int | None = None,
    s2_scales: Sequence[int] | None = None,
    align_loss_weight: float = 0.0,
    chat_template: str | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    max_shard_size: int | str = "5GB",
    force: bool = False,
    **hub,
) -> Assembly:
    """
    Makes a checkpoint of OmniVinci from a language model, an image encoder and an audio encoder. What connects them is
    new, and is to be trained. The destination appears whole, at the end, or not at all.

    Args:
        destination (`str` or `Path`): The folder to be made.
        language_model (`str` or `Path`):
            A Qwen2, or a Llama that computes what a Qwen2 does: a folder, a repository of the Hub, as `owner/name` or
            `owner/name@revision`, or a GGUF file.
        audio (`str` or `Path`): A Whisper, the encoder of Qwen2-Audio or AF-Whisper: a folder or a repository.
        vision (`str` or `Path`, *optional*):
            A SigLIP, or its image encoder alone: a folder or a repository. With `vision_from="random"` its config is
            enough, and without it the encoder is a small one.
        vision_from (`str`, *optional*, defaults to `"weights"`):
            Whether the image encoder has the `"weights"` of `vision` or `"random"` ones.
        audio_window (`float`, *optional*): Seconds of a window of the audio encoder. `None`: as it was trained.
        audio_pooling, align_loss_weight: As in [`OmniVinciConfig`].
        image_size (`int`, *optional*): Side in pixels of a tile. `None`: as the encoder was trained.
        s2_scales (`Sequence[int]`, *optional*): Those of Dynamic S2. `None`: one, two and three tiles.
        chat_template (`str`, *optional*):
            `"chatml"` or the path of a Jinja template. `None`: the language model's, which must be ChatML.
        dtype (`str` or `torch.dtype`, *optional*):
            Of all weights. `None`: that of the language model; float32 of a GGUF file.
        seed (`int`, *optional*, defaults to 0): Of new weights.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): Bytes of the largest file of weights.
        force (`bool`, *optional*, defaults to `False`): Whether an older checkpoint at `destination` is replaced.
        hub (`token`, `cache_dir`, `local_files_only`, `force_download`): How the Hub is asked.

    Returns:
        [`Assembly`]: what was put together.

    Raises:
        OSError: something cannot be read or written: a file that is missing or damaged, a full disk.
        ValueError: a part or an option is not supported, or parts do not fit.
        TypeError: an option has the wrong type.
        ImportError: a GGUF file is given, and the package `gguf` is not installed.
    """
    destination, dtype = Path(destination), DTYPES.get(dtype, dtype)
    if dtype not in (None, *DTYPES.values()):
        raise ValueError(f"`dtype={dtype!r}` is not supported: {', '.join(DTYPES)} are accepted.")
    if vision_from not in VISION_FROM:
        raise ValueError(f"`vision_from={vision_from!r}` is not supported: {' and '.join(VISION_FROM)} are accepted.")
    if vision is None and vision_from == "weights":
        raise ValueError('`vision` is needed: an image encoder, or `vision_from="random"` for a new one.')
    check_vacant(destination, force)
    language = _Language(find_part("language model", language_model, accepts_gguf=True, **hub), chat_template)
    hearing = _Hearing(find_part("audio encoder", audio, **hub), audio_window)
    is_trained = vision_from == "weights"
    sight = _Sight(vision and find_part("image encoder", vision, weights=is_trained, **hub), is_trained, image_size)
    for source in filter(None, (language.source, hearing.source, sight.source)):
        check_apart(destination, source.folder, source.part)
    config = OmniVinciConfig(
        text_config=language.config,
        vision_config=sight.config,
        audio_config=hearing.config,
        **{f"{name}_token_id": language.tokenizer.convert_tokens_to_ids(token) for name, token in TOKENS.items()},
        s2_scales=s2_scales or [sight.config.image_size * number for number in (1, 2, 3)],
        audio_pooling=audio_pooling,
        align_loss_weight=align_loss_weight,
        architectures=["OmniVinciForConditionalGeneration"],
    )
    processor = _make_processor(config, language, hearing, sight)
    expected = expected_shapes(config)
    parts = {one: one.weights(expected) for one in (language, hearing, sight)}
    stored = {name: tensor for weights in parts.values() for name, tensor in weights.items()}
    names = [name for name in expected if name not in stored]
    fresh = new_weights(config, names, seed, with_vision=not is_trained)
    stored |= {name: given(language.source, name, tensor) for name, tensor in fresh.items()}
    dtype = dtype or _dtypes(parts[language])[0]
    for part in (config, config.text_config, config.vision_config, config.audio_config):
        part.dtype = dtype
    origins = [one.origin(weights, dtype) for one, weights in parts.items() if weights]
    origins.append(_origin_of_new(fresh, seed))
    shards, indices = plan_shards({name: stored[name] for name in expected}, dtype, max_shard_size)
    generation_config = language.generation_config()
    done = Assembly(config, processor, generation_config, dtype, origins, shards, indices)
    check_space(destination, done.num_bytes)
    with new_folder(destination, force) as folder:
        _write(done, folder)
    return done


class _Language:
    """The language model: its tokenizer has got placeholders of media, and its embeddings are to get theirs."""

    def __init__(self, source: PartSource, chat_template: str | None):
        self.source = source
        self.kind, self.config = read_language_config(source)
        self.tokenizer, self.template, self.added = read_tokenizer(source, self.config.vocab_size, chat_template)
        self.config.vocab_size = extended_size(self.config.vocab_size, len(self.tokenizer))

    def weights(self, expected: dict) -> dict[str, TensorHeader]:
        new_ids = self.tokenizer.convert_tokens_to_ids(self.added)
        extend = extend_rows(self.config.vocab_size, new_ids, len(self.tokenizer) - len(self.added))
        matrices = (f"{LANGUAGE.target}embed_tokens.weight", HEAD)
        changes = dict.fromkeys(matrices, extend) if self.added else {}
        return take_part(self.source, LANGUAGE, expected, changes, without_biases=self.kind == "llama")

    def generation_config(self) -> GenerationConfig:
        return read_generation_config(self.source, self.config, self.tokenizer, self.template)

    def origin(self, weights: dict, dtype: torch.dtype) -> PartOrigin:
        changes = ["biases of zero, as in a Qwen2"] if self.kind == "llama" else []
        if self.added:
            named = ", ".join(f"`{token}`" for token in self.added)
            changes.append(f"tokens added: {named}, whose embeddings are the mean of the others")
        return _origin(self, weights, dtype, changes)


class _Hearing:
    """The audio encoder."""

    def __init__(self, source: PartSource, window: float | None):
        self.source = source
        self.kind, self.config = read_audio_config(source)
        self.extractor = read_feature_extractor(source, self.config)
        self.num_positions = self.config.max_source_positions
        self.window = cut_window(source, self.config, self.extractor, window)

    def weights(self, expected: dict) -> dict[str, TensorHeader]:
        positions, name = self.config.max_source_positions, f"{AUDIO.target}embed_positions.weight"
        changes = {name: cut_positions(positions)} if positions < self.num_positions else {}
        return take_part(self.source, AUDIO, expected, changes)

    def origin(self, weights: dict, dtype: torch.dtype) -> PartOrigin:
        changes = ["pairs of vectors are averaged before the last layer norm"] if self.kind == "whisper" else []
        if self.config.max_source_positions < self.num_positions:
            changes.append(f"windows of {self.window:g} s, the first {self.config.max_source_positions} positions")
        return _origin(self, weights, dtype, changes)


class _Sight:
    """The image encoder, whose weights are those of its source or new."""

    def __init__(self, source: PartSource | None, is_trained: bool, image_size: int | None):
        self.source, self.is_trained = source, is_trained
        self.kind, self.config, own_size = read_vision_config(source, image_size)
        self.pixel_options = read_pixel_options(source, own_size)
        self.sides = own_size // self.config.patch_size, self.config.image_size // self.config.patch_size

    def weights(self, expected: dict) -> dict[str, TensorHeader]:
        if not self.is_trained:
            return {}
        name = f"{VISION.target}embeddings.position_embedding.weight"
        return take_part(self.source, VISION, expected, {name: resize_positions(*self.sides)})

    def origin(self, weights: dict, dtype: torch.dtype) -> PartOrigin:
        changes = ["without the layers above the one that is read"]
        if self.sides[0] != self.sides[1]:
            changes.append("positions resized from {0} x {0} patches to {1} x {1}".format(*self.sides))
        return _origin(self, weights, dtype, changes)


def _dtypes(weights: dict[str, TensorHeader]) -> list[torch.dtype]:
    """The dtypes of weights as they are stored, that of the most parameters first."""
    sizes = {}
    for tensor in weights.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.num_parameters
    return sorted(sizes, key=sizes.get, reverse=True)


def _origin(part, weights: dict[str, TensorHeader], dtype: torch.dtype, changes: list[str]) -> PartOrigin:
    cast = [str(one).removeprefix("torch.") for one in _dtypes(weights) if one != dtype]
    if cast:
        changes = [*changes, f"cast from {' and '.join(cast)}"]
    source, number = part.source, sum(tensor.num_parameters for tensor in weights.values())
    return PartOrigin(source.part, source.name, source.revision, part.kind, number, changes)


def _origin_of_new(weights: dict[str, torch.Tensor], seed: int) -> PartOrigin:
    modules = sorted({name.split(".")[1] for name in weights})
    number = sum(tensor.numel() for tensor in weights.values())
    changes = [f"random, of seed {seed}, as the model initialises them: to be trained"]
    return PartOrigin(", ".join(modules).replace("_", " "), None, None, None, number, changes)


def _make_processor(config: OmniVinciConfig, language: _Language, hearing: _Hearing, sight: _Sight):
    """The processor, which takes no more frames of a video than fill half of the sequence."""
    shared = OmniVinciProcessor.settings_of(config)
    tile, scales = config.vision_config.image_size, config.s2_scales
    per_frame = (-(-(tile // config.vision_config.patch_size) // config.spatial_merge_size)) ** 2
    num_frames = max(1, min(MOST_FRAMES, config.text_config.max_position_embeddings // 2 // per_frame))
    most_tiles = max(MOST_TILES, (scales[-1] // scales[0]) ** 2) if len(scales) > 1 else 1
    size = {"height": tile, "width": tile}
    return OmniVinciProcessor(
        OmniVinciImageProcessor(s2_scales=scales, max_tiles=most_tiles, **sight.pixel_options),
        OmniVinciVideoProcessor(size=size, num_frames=num_frames, **sight.pixel_options),
        hearing.extractor,
        language.tokenizer,
        chat_template=language.template,
        audio_pad_to_multiple_of=hearing.window,
        load_audio_from_video=True,
        **shared,
    )


def _write(done: Assembly, folder: Path) -> None:
    """The files of a checkpoint. The config, without which nothing loads the folder, comes last."""
    metadata = {"format": "pt", "transformers_omnivinci_version": __version__}
    write_shards(done.shards, done.indices, folder, done.dtype, metadata, "Assembling")
    done.generation_config.save_pretrained(folder)
    build_assembled_card(done.origins, num_parameters=done.num_parameters, dtype=done.dtype).save(folder / "README.md")
    done.processor.save_pretrained(folder)
    done.config.save_pretrained(folder)
