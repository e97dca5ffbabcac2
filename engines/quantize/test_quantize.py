"""Recipes carried out by llm-compressor, in the version of this environment."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from transformers_omnivinci import NANO, OmniVinciProcessor
from transformers_omnivinci.conversion.converter import convert
from transformers_omnivinci.quantization import compressor
from transformers_omnivinci.quantization.calibration import ChatInputs, choose_chats
from transformers_omnivinci.quantization.compressor import Request, quantize
from transformers_omnivinci.quantization.environment import installed_engine, suits
from transformers_omnivinci.quantization.recipes import QUANTIZATION_RECIPES, QuantizationRecipe
from transformers_omnivinci.synthetic import SyntheticDataset, write_dataset
from transformers_omnivinci.training.encoding import SampleEncoder

PARITY = Path(__file__).parents[2] / "tests" / "fixtures" / "parity"
HERE = {
    name: recipe
    for name, recipe in QUANTIZATION_RECIPES.items()
    if suits(installed_engine(), recipe, torch.accelerator.is_available())
}
ELSEWHERE = QUANTIZATION_RECIPES.keys() - HERE.keys()
DIVERGENCE = {"paper": 0.05, "w4a16": 0.05, "w8a8": 0.02, "fp8": 0.02}
"""The most that the next token of nano may diverge, in nats: several times what is measured."""


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("chats"), SyntheticDataset("train", 12, seed=7))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, chats):
    """nano by each recipe, made once."""
    made, folder = {}, tmp_path_factory.mktemp("quantized")

    def make(name):
        if name not in made:
            made[name] = quantize(Request(NANO, folder / name, name, chats), device_map="cpu"), folder / name
        return made[name]

    return make


@torch.no_grad()
def next_tokens(folder, chats):
    """Logarithms of the probabilities of all next tokens of some chats."""
    model, processor = AutoModel.from_pretrained(folder).eval(), OmniVinciProcessor.from_pretrained(folder)
    inputs = ChatInputs(choose_chats(chats, 4), SampleEncoder(processor), model.dtype)
    return torch.cat([model(**inputs[index]).logits[0].float().log_softmax(-1) for index in range(len(inputs))])


@pytest.mark.parametrize("name", HERE)
def test_a_recipe_quantizes_its_parts_alone(name, quantized):
    done, folder = quantized(name)
    tensors, before = load_file(folder / "model.safetensors"), load_file(Path(NANO) / "model.safetensors")
    layers = HERE[name].quantized(key.removesuffix(".weight") for key in before if key.endswith(".weight"))
    assert sum(done.num_layers.values()) == len(layers)
    for layer, treatment in layers.items():
        stored = tensors[f"{layer}.weight_packed" if treatment.scheme.grouped else f"{layer}.weight"]
        assert (
            stored.dtype
            == {"W4A16": torch.int32, "W8A8": torch.int8, "FP8": torch.float8_e4m3fn}[treatment.scheme.name]
        )
        assert torch.isfinite(tensors[f"{layer}.weight_scale"].float()).all()
    parts = ("projector", "embed", "lm_head", "conv")
    left = [key for key in before if any(part in key for part in parts)]
    assert len(left) > 10 and all(torch.equal(before[key], tensors[key]) for key in left)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors" and config["quantization_status"] == "compressed"
    assert done.num_bytes < 0.7 * done.num_bytes_before
    assert f"**Quantized:** recipe `{name}`" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", HERE)
def test_the_result_answers_alike(name, quantized, chats):
    _, folder = quantized(name)
    before, after = next_tokens(NANO, chats), next_tokens(folder, chats)
    divergence = torch.nn.functional.kl_div(after, before, reduction="none", log_target=True).sum(-1)
    assert 0 < divergence.mean() < DIVERGENCE[name]


@pytest.mark.parametrize("layout", ["transformers", "published"])
def test_either_layout_is_quantized(layout, chats, tmp_path):
    source, recipe = PARITY / "published-tiny", list(HERE)[0]
    if layout == "transformers":
        convert(source, tmp_path / "converted")
        source = tmp_path / "converted"
    quantize(Request(source, tmp_path / "new", recipe, chats, max_chats=4, num_frames=4), device_map="cpu")
    before, after = next_tokens(source, chats), next_tokens(tmp_path / "new", chats)
    unlike = torch.nn.functional.kl_div(before.roll(1, 0), before, reduction="batchmean", log_target=True)
    divergence = torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True)
    print(f"{divergence:.4f} nats, between other positions {unlike:.4f}")
    assert 0 < divergence < unlike / 5


def test_float8_needs_no_calibration(tmp_path):
    quantize(Request(NANO, tmp_path / "new", "fp8"), device_map="cpu")
    assert load_file(tmp_path / "new" / "model.safetensors")[
        "model.language_model.layers.0.mlp.up_proj.weight"
    ].dtype == (torch.float8_e4m3fn)


def test_layers_that_no_chat_runs_leave_no_result(chats, tmp_path):
    """What `check_chats` cannot know, as of modules that a model does not run."""
    (treatment,) = [one for one in QUANTIZATION_RECIPES["w8a8"].treatments if one.part.name == "audio encoder"]
    unchecked = dataclasses.replace(treatment.part, seen_with=frozenset())
    recipe = QuantizationRecipe("unchecked", (dataclasses.replace(treatment, part=unchecked),), "")
    silent = tmp_path / "silent.jsonl"
    row = json.loads(chats.read_text().splitlines()[0])
    row["messages"][0]["content"] = row["messages"][0]["content"][1:]
    silent.write_text(json.dumps(row))
    with pytest.raises(ValueError, match="12 layers that are quantized were not run"):
        quantize(Request(NANO, tmp_path / "new", recipe, silent), device_map="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["silent.jsonl"]


def test_a_failure_while_writing_leaves_no_result(tmp_path, monkeypatch):
    def fail(**options):
        raise OSError("disk full")

    monkeypatch.setattr(compressor, "build_card", fail)
    with pytest.raises(OSError, match="disk full"):
        quantize(Request(NANO, tmp_path / "new", "fp8"), device_map="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(ELSEWHERE) or ["none"])
def test_recipes_that_need_an_accelerator_say_so(name, chats, tmp_path):
    if not ELSEWHERE:
        assert HERE.keys() == QUANTIZATION_RECIPES.keys()
        return
    with pytest.raises(ImportError, match=f"{name!r} uses AWQ, which in llm-compressor .* needs a GPU"):
        quantize(Request(NANO, tmp_path / "new", name, chats), device_map="cpu")
    assert not list(tmp_path.iterdir())
