"""
What quantizers of transformers leave as it is when a checkpoint is quantized while it is loaded: all but the layers of
the language model, which are three quarters of the 9B model. In the paper, too, only they are held in 4 bits, and
projectors stay in full precision (appendix D.2).
"""

import copy
import inspect

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers import AutoQuantizationConfig, HfQuantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.utils import logging
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..compat import INSTALLED
from ..configuration_omnivinci import OmniVinciConfig
from ..hub_options import HUB_OPTIONS
from .parts import PARTS

logger = logging.get_logger(__name__)

QUANTIZED = "model.language_model"
LEFT_OUT = tuple(name for names in PARTS.values() for name in names if name != QUANTIZED)
"""The modules of [`OmniVinciForConditionalGeneration`] that are left as they are. Embeddings are no layer."""

FIELDS = ("llm_int8_skip_modules", "modules_to_not_convert")
"""What configs of transformers call the modules that they leave out: that of bitsandbytes, and the others."""

HQQ = "hqq"
"""The method that transformers has a config for, and in some versions no more than that."""

ADAPTERS = r".*\.lora_.*"
"""Adapters, as a pattern: torchao's quantizer would quantize those that transformers loads with the model."""

BLOCK, PACKED_ROWS = 64, 32
"""Weights that share a scale in the 4 bits of bitsandbytes, and rows that its kernels for CPUs take together."""
PACKS = "support_avx512bf16_for_cpu"
"""What a 4-bit layer of bitsandbytes calls whether it packs its weights for passes on a CPU."""


def choose_quantized(given, config: OmniVinciConfig | None, source: str = ""):
    """
    A `quantization_config` that leaves out all but the layers of the language model, unless it names modules itself.
    A line of the log says so.

    Args:
        given (`QuantizationConfigMixin` or `dict`): What `from_pretrained` was given; it stays as it is.
        config (`OmniVinciConfig`, *optional*): That of the checkpoint, see [`read_config`].
        source (`str`, *optional*): Name of the checkpoint, for errors.

    Returns the config for `from_pretrained` of transformers. Of a quantized checkpoint that is what was given.

    Raises:
        TypeError: it is no such config.
        ValueError: it cannot be used, or the checkpoint is quantized in another way.
        ImportError: what it needs is not installed.
    """
    given = _read(given)
    _check_usable(given)
    stored = _read(getattr(config, "quantization_config", None))
    if stored is not None:
        if _kind(given) != _kind(stored):
            raise ValueError(
                f"{source} is quantized as {describe(stored)}, and cannot be loaded as {describe(given)}: load it "
                "without `quantization_config`, or quantize the checkpoint that it was made from."
            )
        return given
    field = next((name for name in FIELDS if hasattr(given, name)), None)
    if field is None or _names_modules(given, field):
        return given
    left = [name for name in LEFT_OUT if not (name == "lm_head" and _takes_embeddings(given))]
    filled = copy.deepcopy(given)
    # Also as `OmniVinciModel` has them, which may load what the model with a head has saved.
    names = dict.fromkeys([*left, *(name.removeprefix("model.") for name in left)])
    setattr(filled, field, [*names, ADAPTERS])
    logger.warning(
        f"The layers of {QUANTIZED} are quantized, as {describe(given)}. These are left as they are, unless `{field}` "
        f"names others: {', '.join(left)}."
    )
    return filled


def read_config(config, name_or_path, **kwargs) -> OmniVinciConfig | None:
    """
    The config of a checkpoint; `None` for what has none, as an adapter, which transformers loads with its base.

    Args:
        config (`OmniVinciConfig`, `str` or `Path`, *optional*): The config, or where it is.
        name_or_path (`str` or `Path`, *optional*): Where it is else.
        kwargs: The other options of `from_pretrained`.
    """
    if isinstance(config, OmniVinciConfig):
        return config
    where = {name: kwargs[name] for name in (*HUB_OPTIONS, "subfolder") if name in kwargs}
    try:
        return OmniVinciConfig.from_pretrained(config or name_or_path, **where)
    except OSError:
        return None


def _read(config):
    return AutoQuantizationConfig.from_dict(config) if isinstance(config, dict) else config


def _check_usable(given) -> None:
    """What transformers and the libraries would not say, or not in a sentence."""
    if not isinstance(given, QuantizationConfigMixin):
        raise TypeError(
            "`quantization_config` must be a config of transformers, such as `BitsAndBytesConfig(load_in_4bit=True)`, "
            f"or the dictionary of one, but got {given!r:.80}."
        )
    if isinstance(given, BitsAndBytesConfig) and not given.is_quantizable():
        raise ValueError(
            "`quantization_config` is a BitsAndBytesConfig with neither `load_in_4bit` nor `load_in_8bit`: set one."
        )
    if given.quant_method == HQQ and not _quantizes(given.quant_method):
        raise ValueError(
            f"transformers {INSTALLED} has an HqqConfig, but cannot quantize by it: torchao can, by a `TorchAoConfig` "
            "of `IntxWeightOnlyConfig(..., intx_choose_qparams_algorithm='hqq_scale_only')`."
        )
    if hasattr(getattr(given, "quant_type", None), "int4_packing_format") and not torch.accelerator.is_available():
        raise ValueError(
            f"{type(given.quant_type).__name__} packs weights for a GPU, and there is none: on a CPU "
            "`IntxWeightOnlyConfig(weight_dtype=torch.int4)` quantizes to 4 bits."
        )


def _quantizes(method: str) -> bool:
    """Whether transformers quantizes by a method, and not only has its name."""
    return AUTO_QUANTIZER_MAPPING.get(method, HfQuantizer).get_quantize_ops is not HfQuantizer.get_quantize_ops


def prepare_loaded(model: PreTrainedModel) -> None:
    """
    Keeps bitsandbytes from packing 4-bit weights for a CPU where rows are no whole blocks, at which it would fail.
    Those of the 9B model's language model are whole.
    """
    if getattr(model, "is_loaded_in_4bit", False):
        for module in model.modules():
            if hasattr(module, PACKS) and (module.in_features % BLOCK or module.out_features % PACKED_ROWS):
                setattr(module, PACKS, False)


def prepare_training(model: PreTrainedModel) -> None:
    """
    Keeps bitsandbytes from packing 4-bit weights for a CPU, which it does at the first pass that needs no gradient, as
    in an evaluation: they let no gradient through afterwards.

    Raises:
        ValueError: they are packed.
    """
    if getattr(model, "is_loaded_in_4bit", False):
        _check_unpacked(model, "load the model anew and call `train()` before it answers")
        for module in model.modules():
            if hasattr(module, PACKS):
                setattr(module, PACKS, False)


def check_savable(model: PreTrainedModel) -> None:
    """Raises a `ValueError` if 4-bit weights are packed for a CPU: what is saved of them would be wrong."""
    if getattr(model, "is_loaded_in_4bit", False):
        _check_unpacked(model, "save the model before its first answer")


def _check_unpacked(model: PreTrainedModel, remedy: str) -> None:
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise ValueError(
                f"bitsandbytes has packed the 4-bit weights, such as {name}, for passes on this CPU, and does not get "
                f"them back as they were: {remedy}."
            )


def describe(config: QuantizationConfigMixin) -> str:
    """Method and kind of weights, such as "bitsandbytes nf4"."""
    return " ".join(str(part) for part in _kind(config) if part is not None)


def _kind(config: QuantizationConfigMixin) -> tuple:
    """What decides which numbers are stored, as far as configs of all methods tell it."""
    method = config.quant_method
    is_bnb = isinstance(config, BitsAndBytesConfig)
    weights = config.quantization_method() if is_bnb else getattr(config, "quant_type", None)
    return getattr(method, "value", method), weights


def _names_modules(config: QuantizationConfigMixin, field: str) -> bool:
    """Whether whoever made the config chose the modules: by another value than the default, or torchao's by name."""
    parameter = inspect.signature(type(config)).parameters.get(field)
    default = None if parameter is None else parameter.default
    by_name = hasattr(getattr(config, "quant_type", None), "fqn_to_config")
    return by_name or getattr(config, field) not in (None, default)


def _takes_embeddings(config: QuantizationConfigMixin) -> bool:
    """Whether it asks for the embeddings of tokens and the head by itself, as torchao's may."""
    return getattr(config, "include_input_output_embeddings", False)
