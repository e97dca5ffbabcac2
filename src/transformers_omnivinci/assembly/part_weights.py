"""The weights of the new model by their names in it: those of its parts, changed where needed, and new ones."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import set_zero3_state

from ..configuration_omnivinci import OmniVinciConfig
from ..modeling import OmniVinciForConditionalGeneration
from ..processing.prompts import TOKENS
from ..weight_files import FLOATS, TensorHeader, open_folder
from .part_sources import UNREADABLE, PartSource

STORED_NAMES = {dtype: name for name, dtype in FLOATS.items()}
ROWS = 2**14
"""How many rows of a large matrix are taken into float32 at a time."""


@dataclass(frozen=True)
class MadeTensor(TensorHeader):
    """A tensor that is computed when it is asked for."""

    make: Callable[[], torch.Tensor]

    def read(self) -> torch.Tensor:
        """Its values."""
        return self.make()


def change(tensor: TensorHeader, shape, make: Callable[[torch.Tensor], torch.Tensor]) -> MadeTensor:
    """What `make` gives for the values of a tensor, of the same dtype and of a `shape`."""
    return MadeTensor(tensor.path, tensor.key, tuple(shape), tensor.stored_dtype, lambda: make(tensor.read()))


def open_part(source: PartSource) -> dict[str, TensorHeader]:
    """
    The weights of a source by their names in it. Those of a GGUF file are loaded, as float32.

    Raises:
        OSError: a file is missing or damaged.
    """
    if source.gguf_file is None:
        return open_folder(source.folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.float32, **source.options)
    except UNREADABLE as error:
        raise OSError(f"{source.file} cannot be read: {' '.join(str(error).split())}") from error
    return {name: given(source, name, tensor) for name, tensor in model.state_dict().items()}


def given(source: PartSource, name: str, tensor: torch.Tensor) -> MadeTensor:
    """A tensor that is in memory."""
    return MadeTensor(source.file, name, tuple(tensor.shape), STORED_NAMES[tensor.dtype], lambda: tensor)


@dataclass(frozen=True)
class PartLayout:
    """
    How the weights of a part are found among those of a source.

    Attributes:
        target (`str`): How the names of the part begin in [`OmniVinciForConditionalGeneration`].
        prefixes (`tuple[str, ...]`): How they may begin in a source, the longest first.
        unread (`tuple[str, ...]`): How the names of weights begin or end that the part does not read.
    """

    target: str
    prefixes: tuple[str, ...]
    unread: tuple[str, ...] = ()


LANGUAGE = PartLayout("model.language_model.", ("model.language_model.", "model.", ""), (".rotary_emb.inv_freq",))
VISION = PartLayout(
    "model.vision_tower.",
    ("model.vision_tower.", "vision_model.", ""),
    ("head.", "post_layernorm.", "embeddings.position_ids"),
)
# A bias of keys adds the same to all that a query is compared with, which attention does not feel.
AUDIO = PartLayout(
    "model.audio_tower.",
    ("model.audio_tower.", "model.encoder.", "audio_tower.", "encoder.", ""),
    (".self_attn.k_proj.bias",),
)
HEAD = "lm_head.weight"


def expected_shapes(config: OmniVinciConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights of a model that are stored, by their names."""
    # With ZeRO-3, transformers would hand the weights of parts to DeepSpeed as they are made, which takes real ones.
    with torch.device("meta"), set_zero3_state():
        model = OmniVinciForConditionalGeneration(config)
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items() if name not in tied}


def take_part(
    source: PartSource,
    layout: PartLayout,
    expected: dict[str, tuple[int, ...]],
    changes: dict[str, Callable[[TensorHeader], TensorHeader]] | None = None,
    without_biases: bool = False,
) -> dict[str, TensorHeader]:
    """
    The weights of a part, by their names in [`OmniVinciForConditionalGeneration`].

    Args:
        source ([`PartSource`]): Where they are.
        layout ([`PartLayout`]): How they are called.
        expected (`dict[str, tuple[int, ...]]`): The shapes of all weights of the model.
        changes (`dict`, *optional*): By names in the model, what becomes of a weight.
        without_biases (`bool`, *optional*, defaults to `False`):
            Whether queries, keys and values have no biases in the source, which then are zero.

    Raises:
        OSError: a file is missing or damaged.
        ValueError: weights are missing, unexpected, of another shape or no floats; the message names the files.
    """
    stored, changes = open_part(source), changes or {}
    names = {name.removeprefix(layout.target): name for name in expected if name.startswith(layout.target)}
    prefix = next((one for one in layout.prefixes if any(one + name in stored for name in names)), None)
    if prefix is None:
        raise ValueError(f"The weights in {source.folder} have no {source.part} among them.")
    keys = {name: prefix + rest for rest, name in names.items()}
    if layout is LANGUAGE and HEAD in expected:
        keys[HEAD] = HEAD
    if without_biases:
        stored = _zero_biases(stored, keys.values()) | stored
    problems = {
        "missing": [key for key in keys.values() if key not in stored],
        "unexpected": [key for key in stored if key.startswith(prefix) and not _is_known(key, prefix, layout, names)],
        "of another shape": [],
    }
    taken = {}
    for name, key in keys.items():
        if key not in stored:
            continue
        if stored[key].stored_dtype not in FLOATS:
            raise ValueError(
                f"{stored[key].path} holds {key} as {stored[key].stored_dtype}: a {source.part} in "
                f"{', '.join(FLOATS)} is accepted."
            )
        tensor = taken[name] = changes.get(name, lambda one: one)(stored[key])
        if tensor.shape != expected[name]:
            problems["of another shape"].append(f"{key} {list(stored[key].shape)}")
    told = [f"{kind}: {_some(keys)}" for kind, keys in problems.items() if keys]
    if told:
        raise ValueError(f"The weights in {source.folder} do not fit {source.file.name}: {'; '.join(told)}.")
    return taken


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def _is_known(key: str, prefix: str, layout: PartLayout, names: dict[str, str]) -> bool:
    """Whether a weight is one of the part, or one of which it is known that the part does not read it."""
    rest = key.removeprefix(prefix)
    is_above = layout is VISION and re.match(r"encoder\.layers\.\d+\.", rest)  # the layer that is read
    return rest in names or key == HEAD or rest.startswith(layout.unread) or rest.endswith(layout.unread) or is_above


def _zero_biases(stored: dict[str, TensorHeader], keys: Iterable[str]) -> dict[str, MadeTensor]:
    """Zeros for the biases of queries, keys and values."""
    made = {}
    for key in keys:
        weight = stored.get(f"{key.removesuffix('bias')}weight")
        if key.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")) and weight is not None:
            size, dtype = weight.shape[0], FLOATS[weight.stored_dtype]
            make = partial(torch.zeros, size, dtype=dtype)
            made[key] = MadeTensor(weight.path, key, (size,), weight.stored_dtype, make)
    return made


def extend_rows(num_rows: int, new_ids: Sequence[int], num_known: int) -> Callable[[TensorHeader], TensorHeader]:
    """
    What gives a matrix of tokens `num_rows` rows: those of `new_ids`, and all that are added, are the mean of the
    first `num_known`.
    """

    def extend(weight: torch.Tensor) -> torch.Tensor:
        total = sum(rows.double().sum(0) for rows in weight[:num_known].split(ROWS))
        mean = (total / num_known).to(weight.dtype)
        extended = torch.cat([weight, mean.expand(num_rows - len(weight), -1)])
        extended[list(new_ids)] = mean
        return extended

    return lambda tensor: change(tensor, (num_rows, *tensor.shape[1:]), extend)


def cut_positions(num_positions: int) -> Callable[[TensorHeader], TensorHeader]:
    """What keeps the first positions of an audio encoder."""
    return lambda tensor: change(
        tensor, (num_positions, *tensor.shape[1:]), lambda weight: weight[:num_positions].contiguous()
    )


def resize_positions(side: int, new_side: int) -> Callable[[TensorHeader], TensorHeader]:
    """What resizes the positions of an image encoder, a square of `side` patches, as SigLIP does for larger images."""

    def resize(weight: torch.Tensor) -> torch.Tensor:
        grid = weight.float().unflatten(0, (side, side)).permute(2, 0, 1)[None]
        resized = nn.functional.interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
        return resized[0].permute(1, 2, 0).flatten(0, 1).to(weight.dtype).contiguous()

    def changed(tensor: TensorHeader) -> TensorHeader:
        if side == new_side or tensor.shape[0] != side**2:
            return tensor
        return change(tensor, (new_side**2, *tensor.shape[1:]), resize)

    return changed


def new_weights(
    config: OmniVinciConfig, names: Iterable[str], seed: int, with_vision: bool
) -> dict[str, torch.Tensor]:
    """
    Weights as the model initialises them, of a model whose other parts are small.

    Args:
        config ([`OmniVinciConfig`]): Of the model.
        names (`Iterable[str]`): Which weights.
        seed (`int`): That of the random numbers.
        with_vision (`bool`): Whether those of the image encoder are among them.
    """
    values = config.to_dict()
    one_layer = {"num_hidden_layers": 1, "intermediate_size": 8}
    values["text_config"] |= one_layer | {"vocab_size": 8, "layer_types": ["full_attention"]}
    values["text_config"] |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    values |= {f"{modality}_token_id": index for index, modality in enumerate(TOKENS)}
    values["audio_config"] |= {"encoder_layers": 1, "encoder_ffn_dim": 8}
    if not with_vision:
        values["vision_config"] |= one_layer
        values["vision_feature_layer"] = 1
    with torch.random.fork_rng(devices=[]), set_zero3_state():
        torch.manual_seed(seed)
        model = OmniVinciForConditionalGeneration(OmniVinciConfig.from_dict(values))
    weights = model.state_dict()
    return {name: weights[name].float() for name in names}
