"""`omnivinci quantize` where there is no llm-compressor, and its result beside the newest transformers."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO
from transformers_omnivinci.evaluation.synthetic import answer_rows, read_rows
from transformers_omnivinci.processing.batch import select_media
from transformers_omnivinci.quantization.recipes import QUANTIZATION_RECIPES
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, write_dataset


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("clips"), SyntheticDataset("train", 24, 8, None, CLOSED_TYPES))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, clips):
    """The folder of nano by a recipe, made once by the command; an environment for it is made first."""
    folder, made = tmp_path_factory.mktemp("quantized"), {}

    def make(recipe):
        if recipe not in made:
            command = [sys.executable, "-m", "transformers_omnivinci.cli", "quantize", NANO, folder / recipe]
            command += ["--recipe", recipe, "--calibration", clips, "--device", "cpu"]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert "Runs llm-compressor" in done.stderr and "Quantized" in done.stdout
            made[recipe] = folder / recipe
        return made[recipe]

    return make


def inputs_of(processor, clips, dtype):
    row = read_rows(clips)[0]
    row["messages"][0]["content"][0]["path"] = str(clips.parent / row["messages"][0]["content"][0]["path"])
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    return processor.apply_chat_template(row["messages"][:1], **options).to("cpu", dtype)


@pytest.mark.parametrize("recipe", QUANTIZATION_RECIPES)
def test_the_result_answers_as_nano_does(recipe, quantized, clips):
    rows, answers = read_rows(clips), {}
    for folder in (NANO, quantized(recipe)):
        model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
        answers[folder] = answer_rows(model, processor, rows, clips.parent)
    assert sum(one == other for one, other in zip(*answers.values(), strict=True)) >= len(rows) - 3


@torch.no_grad()
def test_media_may_be_encoded_before_the_first_forward(quantized, clips):
    folder = quantized("paper")
    first, second = (AutoModel.from_pretrained(folder).eval() for _ in range(2))
    inputs = inputs_of(AutoProcessor.from_pretrained(folder), clips, first.dtype)
    encoded = first.encode_media(**select_media(inputs))
    logits = first(inputs["input_ids"], mm_encoder_outputs=encoded).logits
    assert torch.equal(logits, second(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("is_used", [False, True])
def test_what_is_saved_again_gives_the_same(is_used, quantized, clips, tmp_path):
    folder = quantized("paper")
    model = AutoModel.from_pretrained(folder).eval()
    inputs = inputs_of(AutoProcessor.from_pretrained(folder), clips, model.dtype)
    if is_used:
        model(**inputs)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_a_missing_scale_is_refused(quantized, tmp_path):
    folder = quantized("paper")
    tensors = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.2.self_attn.k_proj.weight_scale"
    del tensors[name]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match=name):
        AutoModel.from_pretrained(tmp_path)
