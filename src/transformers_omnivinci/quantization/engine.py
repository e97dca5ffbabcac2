"""What llm-compressor is asked to do, by its public modifiers. Importing this module imports it."""

import os
from collections.abc import Iterable

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

# llm-compressor reads both when it is imported: the first would warn, the second log each step.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")

from compressed_tensors import ModelCompressor  # noqa: E402
from compressed_tensors.quantization import QuantizationScheme  # noqa: E402
from llmcompressor import oneshot  # noqa: E402
from llmcompressor.modifiers.gptq import GPTQModifier  # noqa: E402
from llmcompressor.modifiers.quantization import QuantizationModifier  # noqa: E402
from llmcompressor.modifiers.transform.awq import AWQMapping, AWQModifier  # noqa: E402
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier  # noqa: E402

from .recipes import Part, QuantizationRecipe, Treatment  # noqa: E402

SMOOTHING_STRENGTH = 0.5
"""What SmoothQuant's authors take: the range of activations and that of weights count alike."""


def calibrate(
    model: nn.Module, processor, source: str, recipe: QuantizationRecipe, config: dict, chats: Dataset | None, prompts
) -> None:
    """
    Scales and rounds the weights of a model in place. First the parts that need no AWQ, in forward passes of the whole
    model; then those with AWQ, block by block, upon what the parts before them give when they are rounded.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The model.
        processor ([`OmniVinciProcessor`]): Its processor.
        source (`str`): The checkpoint, which llm-compressor looks up.
        recipe ([`QuantizationRecipe`]), config (`dict`): What is done, and its `quantization_config`.
        chats ([`ChatInputs`], *optional*): What the whole model reads. `None`: nothing is looked at.
        prompts ([`PromptEmbeddings`]): What its language model reads.
    """
    schemes = dict(zip(recipe.treatments, config["config_groups"].values(), strict=True))
    at_once = {one: scheme for one, scheme in schemes.items() if one.method != "awq"}
    by_blocks = {one: scheme for one, scheme in schemes.items() if one.method == "awq"}
    if at_once:
        modifiers = [*_smoothquant(at_once), _rounding(at_once.values())]
        _run(model, processor, source, modifiers, chats, pipeline="datafree" if chats is None else "basic")
    for treatment, scheme in by_blocks.items():
        target = treatment.part.pattern(*treatment.part.linears, inside=True)
        # Of 4 bits, ranges that cut off what is rare lose less than those from the least to the largest weight.
        inside = {**scheme, "targets": [target], "weights": {**scheme["weights"], "observer": "mse"}}
        # AWQ scales channels; GPTQ then rounds weights, and makes up for the error of each by those not yet rounded.
        # It has to see what the layers read after scaling, thus the second run.
        for modifiers in ([_awq(treatment.part), _rounding([inside])], [_compensated_rounding([inside])]):
            _run(model.model.language_model, processor, source, modifiers, prompts, pipeline="sequential")


def compress(model: nn.Module) -> None:
    """Packs the rounded weights of a model, as they are saved."""
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)


def _smoothquant(treatments: Iterable[Treatment]) -> list[SmoothQuantModifier]:
    mappings = [
        ([part.pattern(name) for name in smoothing.read_by], part.pattern(smoothing.made_by))
        for part in (treatment.part for treatment in treatments if treatment.method == "smoothquant")
        for smoothing in part.after_norms
    ]
    return [SmoothQuantModifier(smoothing_strength=SMOOTHING_STRENGTH, mappings=mappings)] if mappings else []


def _awq(part: Part) -> AWQModifier:
    mappings = [
        AWQMapping(
            part.pattern(smoothing.made_by, inside=True),
            [part.pattern(name, inside=True) for name in smoothing.read_by],
        )
        for smoothing in (*part.after_norms, *part.after_linears)
    ]
    return AWQModifier(mappings=mappings)


def _rounding(schemes: Iterable[dict]) -> QuantizationModifier:
    return QuantizationModifier(config_groups=_groups(schemes))


def _compensated_rounding(schemes: Iterable[dict]) -> GPTQModifier:
    return GPTQModifier(config_groups=_groups(schemes))


def _groups(schemes: Iterable[dict]) -> dict[str, QuantizationScheme]:
    return {f"group_{number}": QuantizationScheme(**scheme) for number, scheme in enumerate(schemes)}


def _run(model: nn.Module, processor, source: str, modifiers: list, data: Dataset | None, pipeline: str) -> None:
    loader = None if data is None else DataLoader(data, batch_size=None)
    name, model.config.name_or_path = model.config.name_or_path, source
    try:
        with torch.no_grad():
            oneshot(model=model, processor=processor, recipe=modifiers, dataset=loader, pipeline=pipeline)
    finally:
        model.config.name_or_path = name
