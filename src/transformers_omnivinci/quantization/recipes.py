"""
Which part of the model is quantized, and how (paper, appendix D.2): plain data, and the names of the modules meant.

Importing this module brings neither torch nor llm-compressor.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

MAX_CHATS = 128
"""How many chats a model is calibrated with at most, unless told otherwise."""
GROUP_SIZES = (128, 64, 32, 16)
"""How many weights of a row may share a scale: the first of them that divides all rows of a part."""


@dataclass(frozen=True)
class Scheme:
    """
    How the numbers of a linear layer are stored and multiplied. Weights are rounded once; activations as they come,
    with a scale for each token. Both symmetrically: compressed-tensors 0.19 and 0.20 do not load zero points of 4 bits
    beside transformers 5.24.

    Attributes:
        name (`str`): As papers and engines call it.
        type (`str`): `"int"` or `"float"`, of weights and activations.
        weight_bits (`int`): Bits of a weight.
        activation_bits (`int`, *optional*): Bits of an activation. `None`: activations stay as they are.
        grouped (`bool`): Whether a scale is for a group of weights of a row, and not for the row.
        format (`str`): As compressed-tensors names how the weights lie in a file.
    """

    name: str
    type: Literal["int", "float"]
    weight_bits: int
    activation_bits: int | None
    grouped: bool
    format: str

    def config(self, group_size: int | None) -> dict:
        """What compressed-tensors calls a scheme, without its targets; `group_size` is of grouped weights."""
        weights = {"num_bits": self.weight_bits, "type": self.type, "symmetric": True, "dynamic": False}
        weights |= {"strategy": "group", "group_size": group_size} if self.grouped else {"strategy": "channel"}
        activations = None
        if self.activation_bits is not None:
            activations = {"num_bits": self.activation_bits, "type": self.type, "symmetric": True}
            activations |= {"strategy": "token", "dynamic": True}
        return {"weights": weights, "input_activations": activations, "format": self.format}


W8A8 = Scheme("W8A8", "int", 8, 8, grouped=False, format="int-quantized")
W4A16 = Scheme("W4A16", "int", 4, None, grouped=True, format="pack-quantized")
FP8 = Scheme("FP8", "float", 8, 8, grouped=False, format="float-quantized")


@dataclass(frozen=True)
class Smoothing:
    """
    Channels that are scaled down where they are made and up where they are read, which leaves the result as it is.

    Attributes:
        made_by (`str`): The norm or linear layer of a block that makes them.
        read_by (`tuple[str, ...]`): All linear layers that read them.
    """

    made_by: str
    read_by: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """
    A part of figure 2 that can be quantized: blocks that are all alike. Modules of a block go by their last name.

    Attributes:
        name (`str`): As messages call it.
        root (`str`): The module that has the blocks, as `layers`, somewhere inside.
        linears (`tuple[str, ...]`): The linear layers of a block.
        after_norms (`tuple[Smoothing, ...]`): What SmoothQuant and AWQ may scale at the norms of a block.
        after_linears (`tuple[Smoothing, ...]`): What AWQ may scale besides, where the sizes fit.
        seen_with (`frozenset[str]`): The part is run for chats with any of these modalities; empty: for all chats.
    """

    name: str
    root: str
    linears: tuple[str, ...]
    after_norms: tuple[Smoothing, ...]
    after_linears: tuple[Smoothing, ...] = ()
    seen_with: frozenset[str] = frozenset()

    def pattern(self, *modules: str, inside: bool = False) -> str:
        """
        A target of compressed-tensors: modules of all blocks, by their names in any model that has the part, or
        `inside` it. It also holds in engines that put more names in between, such as `language_model.model.layers`.
        """
        root = "" if inside else rf"(.*\.)?{self.root}\."
        return rf"re:{root}(.*\.)?layers\.\d+\.(.*\.)?({'|'.join(modules)})$"

    @property
    def target(self) -> str:
        """What is quantized, as [`pattern`]."""
        return self.pattern(*self.linears)


QUERIES_KEYS_VALUES = ("q_proj", "k_proj", "v_proj")

VISION_TOWER = Part(
    "image encoder",
    "vision_tower",
    (*QUERIES_KEYS_VALUES, "out_proj", "fc1", "fc2"),
    (Smoothing("layer_norm1", QUERIES_KEYS_VALUES), Smoothing("layer_norm2", ("fc1",))),
    seen_with=frozenset({"image", "video"}),
)
AUDIO_TOWER = Part(
    "audio encoder",
    "audio_tower",
    (*QUERIES_KEYS_VALUES, "out_proj", "fc1", "fc2"),
    (Smoothing("self_attn_layer_norm", QUERIES_KEYS_VALUES), Smoothing("final_layer_norm", ("fc1",))),
    seen_with=frozenset({"audio"}),
)
LANGUAGE_MODEL = Part(
    "language model",
    "language_model",
    (*QUERIES_KEYS_VALUES, "o_proj", "gate_proj", "up_proj", "down_proj"),
    (
        Smoothing("input_layernorm", QUERIES_KEYS_VALUES),
        Smoothing("post_attention_layernorm", ("gate_proj", "up_proj")),
    ),
    # With fewer heads of values than of queries, the first of them has no like channels, and is left out.
    (Smoothing("v_proj", ("o_proj",)), Smoothing("up_proj", ("down_proj",))),
)


@dataclass(frozen=True)
class Treatment:
    """
    What a part gets.

    Attributes:
        part ([`Part`]), scheme ([`Scheme`]): Which, and how it is rounded.
        method (`str`, *optional*):
            What makes it ready to be rounded by looking at activations: `"smoothquant"` or `"awq"`. `None`: nothing.
            After AWQ, weights are rounded by GPTQ.
    """

    part: Part
    scheme: Scheme
    method: Literal["smoothquant", "awq"] | None = None


@dataclass(frozen=True)
class QuantizationRecipe:
    """
    Which part gets what. All other modules stay as they are: projectors, time embeddings, embeddings, `lm_head`.

    Attributes:
        name (`str`): How the command calls it.
        treatments (`tuple[Treatment, ...]`): Of the parts that are quantized.
        about (`str`): What it is for, in a line.
    """

    name: str
    treatments: tuple[Treatment, ...]
    about: str

    @property
    def needs_calibration(self) -> bool:
        """Whether activations are looked at."""
        return any(treatment.method for treatment in self.treatments)

    def config(self, group_sizes: Mapping[str, int]) -> dict:
        """
        The `quantization_config` of the result, in the format of compressed-tensors.

        Args:
            group_sizes (`Mapping[str, int]`): Of each part with grouped weights, by its name, see [`group_size`].
        """
        formats = list(dict.fromkeys(treatment.scheme.format for treatment in self.treatments))
        return {
            "quant_method": "compressed-tensors",
            "format": formats[0] if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "config_groups": {
                f"group_{number}": {
                    "targets": [treatment.part.target],
                    **treatment.scheme.config(group_sizes.get(treatment.part.name)),
                }
                for number, treatment in enumerate(self.treatments)
            },
            "ignore": [],
        }

    def quantized(self, names: Iterable[str]) -> dict[str, Treatment]:
        """The treatment of each module that is quantized, of modules by name."""
        return {
            name: treatment
            for name in names
            for treatment in self.treatments
            if re.match(treatment.part.target.removeprefix("re:"), name)
        }


_RECIPES = (
    QuantizationRecipe(
        "paper",
        (
            Treatment(VISION_TOWER, W8A8, "smoothquant"),
            Treatment(AUDIO_TOWER, W8A8, "smoothquant"),
            Treatment(LANGUAGE_MODEL, W4A16, "awq"),
        ),
        "appendix D.2: the encoders multiply in 8 bits, the language model holds its weights in 4",
    ),
    QuantizationRecipe(
        "w4a16", (Treatment(LANGUAGE_MODEL, W4A16, "awq"),), "the language model holds its weights in 4 bits"
    ),
    QuantizationRecipe(
        "w8a8",
        tuple(Treatment(part, W8A8, "smoothquant") for part in (VISION_TOWER, AUDIO_TOWER, LANGUAGE_MODEL)),
        "encoders and language model multiply in 8 bits",
    ),
    QuantizationRecipe(
        "fp8",
        tuple(Treatment(part, FP8) for part in (VISION_TOWER, AUDIO_TOWER, LANGUAGE_MODEL)),
        "encoders and language model multiply in float8, for GPUs that can; made without calibration",
    ),
)
QUANTIZATION_RECIPES = {recipe.name: recipe for recipe in _RECIPES}


def get_quantization_recipe(name: str) -> QuantizationRecipe:
    """
    The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in QUANTIZATION_RECIPES:
        raise ValueError(f"There is no recipe {name!r}: {', '.join(QUANTIZATION_RECIPES)} are accepted.")
    return QUANTIZATION_RECIPES[name]


def group_size(row_sizes: Mapping[str, int]) -> int:
    """
    How many weights share a scale.

    Args:
        row_sizes (`Mapping[str, int]`): Inputs of each linear layer of a part, by its name.

    Returns:
        `int`: the first of [`GROUP_SIZES`] that divides them all: engines want one for the part.

    Raises:
        ValueError: none of them does.
    """
    fitting = [size for size in GROUP_SIZES if all(inputs % size == 0 for inputs in row_sizes.values())]
    if not fitting:
        name, inputs = next((n, i) for n, i in row_sizes.items() if i % GROUP_SIZES[-1])
        raise ValueError(
            f"{name} has {inputs} inputs, which no group of {', '.join(map(str, GROUP_SIZES))} weights divides: "
            "take a recipe with 8 bits."
        )
    return fitting[0]
