"""What the tests of quantizers share: nano by the three roads of loading, the quantizers, and a question."""

from pathlib import Path

import pytest
import torch
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
from transformers import AutoModel, AutoProcessor, BitsAndBytesConfig, TorchAoConfig

from transformers_omnivinci import NANO
from transformers_omnivinci.conversion.converter import convert

CLIP = str(Path(__file__).parents[2] / "demo" / "clip.mp4")
QUANTIZERS = {
    "bnb-nf4": lambda **options: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **options),
    "bnb-fp4": lambda **options: BitsAndBytesConfig(load_in_4bit=True, **options),
    "bnb-nf4-double": lambda **options: BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, **options
    ),
    "bnb-int8": lambda **options: BitsAndBytesConfig(load_in_8bit=True, **options),
    "torchao-int8": lambda **options: TorchAoConfig(Int8WeightOnlyConfig(), **options),
    "torchao-int4": lambda **options: TorchAoConfig(IntxWeightOnlyConfig(torch.int4, PerGroup(32)), **options),
    "torchao-hqq": lambda **options: TorchAoConfig(
        IntxWeightOnlyConfig(torch.int4, PerGroup(32), intx_choose_qparams_algorithm="hqq_scale_only"), **options
    ),
}
"""The configs, given the modules that they leave out or nothing."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def roads(tmp_path_factory):
    """The same weights as they are shipped, in the published layout, and converted from that."""
    folder = tmp_path_factory.mktemp("roads")
    convert(NANO, folder / "published", to="published")
    convert(folder / "published", folder / "converted")
    return {"nano": NANO, "published": folder / "published", "converted": folder / "converted"}


@pytest.fixture(scope="session")
def processor():
    return AutoProcessor.from_pretrained(NANO)


@pytest.fixture(scope="session")
def ask(processor):
    """Inputs of a question about a clip with sound."""

    def inputs(question="Which sound is heard first?", answer=None):
        chat = [{"role": "user", "content": [{"type": "video", "path": CLIP}, {"type": "text", "text": question}]}]
        if answer is not None:
            chat.append({"role": "assistant", "content": answer})
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return processor.apply_chat_template(chat, add_generation_prompt=answer is None, **options)

    return inputs


@pytest.fixture(scope="session")
def plain():
    """Nano as it is."""
    return AutoModel.from_pretrained(NANO)


def quantized_layers(model) -> set[str]:
    """Names of the linear layers whose weights are not plain ones."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and type(module.weight) is not torch.nn.Parameter
    }


def linear_layers(model, *parts: str) -> set[str]:
    """Names of all linear layers, or of those of some parts."""
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return {name for name in linear if not parts or name.startswith(parts)}


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs.to(model.device, model.dtype)).logits


def answer(model, processor, inputs) -> str:
    ids = model.generate(**inputs.to(model.device, model.dtype), max_new_tokens=12, do_sample=False)
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
