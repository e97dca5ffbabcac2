"""Writes a checkpoint with smaller weights, in the format of compressed-tensors."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig

from ..configuration_omnivinci import OmniVinciConfig
from ..hub_options import may_be_repository
from ..modeling import OmniVinciForConditionalGeneration
from ..new_folder import check_vacant, new_folder
from ..processing import OmniVinciProcessor
from ..publishing.card import build_card
from ..training.encoding import SampleEncoder
from .calibration import ChatInputs, PromptEmbeddings, SeenLayers, check_chats, choose_chats
from .environment import check_engine
from .recipes import MAX_CHATS, QuantizationRecipe, get_quantization_recipe, group_size


@dataclass(frozen=True)
class Quantized:
    """
    What was done.

    Attributes:
        num_layers (`dict[str, int]`): How many linear layers were quantized, by part and scheme as in
            `"language model W4A16"`.
        num_bytes_before (`int`), num_bytes (`int`): The weights as they were in memory, and in the files.
    """

    num_layers: dict[str, int]
    num_bytes_before: int
    num_bytes: int


@dataclass
class Request:
    """
    What is to be done, checked as far as headers tell.

    Args:
        source (`str` or `Path`): A folder in either layout, or a repository of the Hub.
        destination (`str` or `Path`): The folder to be made.
        recipe (`str`): One of `QUANTIZATION_RECIPES`.
        calibration (`str` or `Path`, *optional*):
            A JSONL file of chats with media, as for training. Not needed by a recipe that looks at no activations.
        max_chats (`int`, *optional*, defaults to 128): How many of its chats are taken, evenly spread over the file.
        num_frames (`int`, *optional*), fps (`float`, *optional*): Options of the processor. `None`: its own.
        force (`bool`, *optional*, defaults to `False`): Whether an older checkpoint at `destination` is replaced.

    Raises:
        OSError: something cannot be read, or there is a folder at `destination` already.
        ValueError: the recipe is unknown, the source is quantized already, or the chats do not suit the recipe.
    """

    source: str | Path
    destination: str | Path
    recipe: QuantizationRecipe | str
    calibration: str | Path | None = None
    max_chats: int = MAX_CHATS
    num_frames: int | None = None
    fps: float | None = None
    force: bool = False

    def __post_init__(self):
        self.source, self.destination = str(self.source), Path(self.destination)
        if isinstance(self.recipe, str):
            self.recipe = get_quantization_recipe(self.recipe)
        if not os.path.isdir(self.source) and not may_be_repository(self.source):
            raise OSError(
                f"There is no folder {self.source!r}: a folder is accepted, or a repository such as owner/name."
            )
        check_vacant(self.destination, self.force)
        if self.calibration is None and self.recipe.needs_calibration:
            raise ValueError(
                f"The recipe {self.recipe.name!r} is calibrated: give it a JSONL file of chats with media."
            )
        config = AutoConfig.from_pretrained(self.source)
        if not isinstance(config, OmniVinciConfig):
            raise ValueError(
                f"{self.source} holds a model of type {config.model_type!r}: a checkpoint of OmniVinci is accepted."
            )
        if getattr(config, "quantization_config", None) is not None:
            raise ValueError(
                f"{self.source} is quantized already: a checkpoint with its original weights is accepted."
            )
        self.processor = OmniVinciProcessor.from_pretrained(self.source)
        options = {"num_frames": self.num_frames, "fps": self.fps}
        self.encoder = SampleEncoder(
            self.processor,
            config.text_config.max_position_embeddings,
            **{name: value for name, value in options.items() if value is not None},
        )
        self.chats = None
        if self.calibration is not None:
            self.chats = choose_chats(self.calibration, self.max_chats)
            check_chats(self.chats, self.encoder, self.recipe, self.calibration)


def quantize(request: Request, device_map: str | dict = "auto", max_shard_size: int | str = "5GB") -> Quantized:
    """
    Quantizes a checkpoint by llm-compressor. The destination appears whole, at the end, or not at all.

    Args:
        request ([`Request`]): What is done.
        device_map (`str` or `dict`, *optional*, defaults to `"auto"`): Where the model is calibrated.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): Bytes of the largest file of weights.

    Returns:
        [`Quantized`]: what was done.

    Raises:
        ImportError: there is no llm-compressor, or one whose AWQ needs an accelerator that is not there.
        OSError: the checkpoint cannot be read or written.
        ValueError: a layer that is to be quantized was not run by the chats, or its size does not suit.
    """
    recipe = request.recipe
    check_engine(recipe, has_accelerator=torch.accelerator.is_available())
    with new_folder(request.destination, request.force) as folder:
        from . import engine

        model = OmniVinciForConditionalGeneration.from_pretrained(request.source, dtype="auto", device_map=device_map)
        model.eval()
        num_bytes = sum(weight.nbytes for weight in model.parameters())
        num_parameters = model.num_parameters()
        linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        quantized = recipe.quantized(linears)
        group_sizes = {
            treatment.part.name: group_size(
                {name: linears[name].in_features for name, one in quantized.items() if one is treatment}
            )
            for treatment in recipe.treatments
            if treatment.scheme.grouped
        }
        config = recipe.config(group_sizes)
        chats = None
        seen = SeenLayers(model, list(quantized) if request.chats else [])
        if request.chats:
            chats = ChatInputs(request.chats, request.encoder, model.dtype)
        prompts = PromptEmbeddings(chats, model)
        engine.calibrate(model, request.processor, request.source, recipe, config, chats, prompts)
        seen.check()
        _check_finite(model, quantized)
        engine.compress(model)
        model.config.quantization_config = config
        # Of the class: llm-compressor has put another in the place of that of the model.
        type(model).save_pretrained(model, folder, max_shard_size=max_shard_size)
        for path in folder.glob("*.safetensors"):
            path.chmod(folder.stat().st_mode & 0o666)  # safetensors lets nobody else read
        request.processor.save_pretrained(folder)
        num_layers = {}
        for one in quantized.values():
            name = f"{one.part.name} {one.scheme.name}"
            num_layers[name] = num_layers.get(name, 0) + 1
        card = build_card(
            source=request.source,
            num_parameters=num_parameters,
            quantization=f"recipe `{recipe.name}`, {', '.join(num_layers)}",
        )
        card.save(folder / "README.md")
    size = sum(path.stat().st_size for path in request.destination.glob("*.safetensors"))
    return Quantized(num_layers, num_bytes, size)


def _check_finite(model: nn.Module, names) -> None:
    """Raises a `ValueError` if a scale came out as no number, as where activations overflow."""
    for name in names:
        scale = getattr(model.get_submodule(name), "weight_scale", None)
        if scale is None or not torch.isfinite(scale.float()).all():
            raise ValueError(f"No scale was found for {name}: its weights or activations are not finite.")
