"""The tools of the ecosystem on the model as it is: PEFT, accelerate, torch.compile, safetensors."""

import copy
import json
import shutil
import warnings

import accelerate
import peft
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, CompileConfig, PreTrainedModel, modeling_utils

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciModel
from transformers_omnivinci.compat import VERSION
from transformers_omnivinci.conversion import loading
from transformers_omnivinci.conversion import weights as weight_files
from transformers_omnivinci.processing.batch import MEDIA_INPUTS

from .conftest import PARITY
from .media_samples import audio_item, image_item, user, video_item

PUBLISHED = PARITY / "published-tiny"


@pytest.fixture(scope="module")
def inputs(load_checkpoint):
    chat = user(audio_item(), image_item(), video_item(num_frames=3), "Compare.")
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    return load_checkpoint()[1].apply_chat_template(chat, **options)


@pytest.fixture(scope="module")
def saved(load_checkpoint, tmp_path_factory):
    """The checkpoint in the transformers layout, in several shards."""
    folder = tmp_path_factory.mktemp("saved")
    load_checkpoint()[0].save_pretrained(folder, max_shard_size="200KB")
    return folder


@pytest.fixture(params=["published", "transformers"])
def folder(request, saved):
    """The same weights in either layout."""
    return PUBLISHED if request.param == "published" else saved


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs).logits


def answer(model, inputs, **kwargs):
    return model.generate(**inputs, max_new_tokens=6, do_sample=False, **kwargs).tolist()


# ------------------------------------------------------------------------------------------------------------ PEFT

PARTS = {
    "language model": ("language_model",),
    "encoders": ("vision_tower", "audio_tower"),
    "projectors": ("vision_projector", "audio_projector"),
    "everything": ("language_model", "vision_tower", "audio_tower", "vision_projector", "audio_projector"),
}


def lora(parts, **kwargs):
    modules = rf".*\.({'|'.join(parts)})\b.*\.(q_proj|v_proj|linear_1|linear_2)"
    return peft.LoraConfig(r=4, init_lora_weights=False, target_modules=modules, **kwargs)


def train_one_step(model, inputs):
    """One step of SGD; the loss before it."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    torch.optim.SGD(trained, lr=1e-2).step()
    return loss


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_lora_is_trained_saved_loaded_and_merged(model, inputs, tmp_path, parts):
    adapted = peft.get_peft_model(AutoModel.from_pretrained(PUBLISHED), lora(parts, task_type="CAUSAL_LM"))
    before = copy.deepcopy(adapted.state_dict())
    assert train_one_step(adapted, inputs).isfinite()
    changed = [name for name, weight in adapted.state_dict().items() if not torch.equal(weight, before[name])]
    assert all("lora_" in name for name in changed)
    for part in parts:
        assert any(f".{part}." in name for name in changed), part
    adapted.eval().save_pretrained(tmp_path)
    expected = logits_of(adapted, inputs)
    assert not torch.allclose(expected, logits_of(model, inputs), atol=1e-3)
    torch.testing.assert_close(logits_of(peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path), inputs), expected)
    again = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(PUBLISHED), tmp_path)
    torch.testing.assert_close(logits_of(again, inputs), expected)
    merged = again.merge_and_unload()
    assert type(merged) is OmniVinciForConditionalGeneration
    torch.testing.assert_close(logits_of(merged, inputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_adapters_of_the_model_itself(model, inputs, folder, tmp_path):
    adapted = AutoModel.from_pretrained(folder)
    if VERSION >= (5, 24) and tuple(map(int, peft.__version__.split(".")[:2])) < (0, 22):
        # What transformers asks for here had not been released with it; `peft.get_peft_model` works, see above.
        with pytest.raises(ValueError, match="version of PEFT.*0.22"):
            adapted.add_adapter(lora(PARTS["everything"]))
        return
    adapted.add_adapter(lora(PARTS["everything"]))
    train_one_step(adapted, inputs)
    adapted.eval().save_pretrained(tmp_path)
    assert not list(tmp_path.glob("model*"))  # the adapter alone
    expected = logits_of(adapted, inputs)
    loaded = AutoModel.from_pretrained(folder)
    loaded.load_adapter(tmp_path)
    torch.testing.assert_close(logits_of(loaded, inputs), expected)
    loaded.disable_adapters()
    torch.testing.assert_close(logits_of(loaded, inputs), logits_of(model, inputs))
    # The folder of an adapter names the model that it belongs to.
    for auto_class in (AutoModel, OmniVinciForConditionalGeneration):
        torch.testing.assert_close(logits_of(auto_class.from_pretrained(tmp_path), inputs), expected)


# ------------------------------------------------------------------------------------------------------ accelerate


ON_DISK = {
    "language model": ("model.language_model",),
    "encoders and projectors": tuple(
        f"model.{part}" for part in ("vision_tower", "vision_projector", "audio_tower", "audio_projector")
    ),
    "head": ("lm_head",),
}


def device_map_of(model, on_disk) -> dict[str, str]:
    names = [f"model.{name}" for name, _ in model.model.named_children()] + ["lm_head"]
    return {name: "disk" if name in on_disk else "cpu" for name in names}


def offloaded(model) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.is_meta}


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}], ids=str)
def test_device_maps_place_every_part(model, inputs, folder, device_map):
    placed = AutoModel.from_pretrained(folder, device_map=device_map)
    assert not offloaded(placed)
    torch.testing.assert_close(logits_of(placed, inputs), logits_of(model, inputs))


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("on_disk", [*ON_DISK.values(), sum(ON_DISK.values(), ())], ids=[*ON_DISK, "everything"])
def test_weights_stay_on_disk(model, inputs, folder, tmp_path, on_disk):
    placed = AutoModel.from_pretrained(
        folder, device_map=device_map_of(model, on_disk), offload_folder=tmp_path, dtype=torch.float32
    )
    assert offloaded(placed) == {name for name, _ in model.named_parameters() if name.startswith(on_disk)}
    torch.testing.assert_close(logits_of(placed, inputs), logits_of(model, inputs))
    assert answer(placed, inputs) == answer(model, inputs)


def test_parts_of_other_configs_stay_on_disk(model, inputs, tmp_path):
    changes = {"video_time_embedding": "learned", "audio_time_embedding": "learned", "audio_pooling": "conv"}
    config = OmniVinciConfig.from_dict(model.config.to_dict() | changes | {"video_max_time": 90, "audio_max_time": 90})
    other = OmniVinciForConditionalGeneration(config).eval()
    other.save_pretrained(tmp_path / "saved")
    media = {name: inputs[name] for name in MEDIA_INPUTS if name in inputs}
    media["audio_timestamps"] = media["audio_timestamps"][:, ::2]  # the convolution halves their number
    expected = other.encode_media(**media)
    everything = device_map_of(other, sum(ON_DISK.values(), ()))
    placed = AutoModel.from_pretrained(tmp_path / "saved", device_map=everything, offload_folder=tmp_path)
    assert expected.keys() == {"image", "video", "audio"}
    for name, features in placed.encode_media(**media).items():
        torch.testing.assert_close(features.pooler_output, expected[name].pooler_output)


@pytest.mark.skipif(VERSION < (5, 14), reason="transformers before 5.14 puts no whole model on disk, nor tied weights")
def test_tied_embeddings_stay_on_disk(inputs, tmp_path):
    tied = tmp_path / "tied"
    shutil.copytree(PUBLISHED, tied)
    settings = json.loads((tied / "llm" / "config.json").read_text())
    (tied / "llm" / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    expected = AutoModel.from_pretrained(tied)
    assert expected.lm_head.weight is expected.get_input_embeddings().weight
    expected.save_pretrained(tmp_path / "saved")
    for folder in (tied, tmp_path / "saved"):
        placed = AutoModel.from_pretrained(folder, device_map={"": "disk"}, offload_folder=tmp_path / "offload")
        torch.testing.assert_close(logits_of(placed, inputs), logits_of(expected, inputs))


@pytest.mark.compat
def test_what_exceeds_max_memory_goes_to_disk(model, inputs, folder, tmp_path):
    size = sum(weight.nbytes for weight in model.parameters())
    placed = AutoModel.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": size * 3 // 4}, offload_folder=tmp_path
    )
    assert 0 < len(offloaded(placed)) < len(list(model.parameters()))
    assert set(placed.hf_device_map.values()) == {"cpu", "disk"}
    torch.testing.assert_close(logits_of(placed, inputs), logits_of(model, inputs))


def test_offloaded_weights_take_the_dtype_asked_for(inputs, folder, tmp_path):
    half = AutoModel.from_pretrained(folder, dtype="bfloat16")
    on_disk = sum(ON_DISK.values(), ())
    placed = AutoModel.from_pretrained(
        folder, dtype="bfloat16", device_map=device_map_of(half, on_disk), offload_folder=tmp_path
    )
    cast = copy.deepcopy(inputs).to(torch.bfloat16)
    logits = logits_of(placed, cast)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits, logits_of(half, cast))


@pytest.mark.slow
@pytest.mark.parametrize("on_disk", [(), sum(ON_DISK.values(), ())], ids=["nothing", "everything"])
def test_load_checkpoint_and_dispatch(model, inputs, saved, tmp_path, on_disk):
    with accelerate.init_empty_weights():
        empty = OmniVinciForConditionalGeneration(model.config)
    placed = accelerate.load_checkpoint_and_dispatch(
        empty.eval(), saved, device_map=device_map_of(model, on_disk), offload_folder=tmp_path
    )
    assert bool(offloaded(placed)) == bool(on_disk)
    torch.testing.assert_close(logits_of(placed, inputs), logits_of(model, inputs))


# ---------------------------------------------------------------------------------------------------- transformers


@pytest.mark.compat
@pytest.mark.parametrize(
    "implementation", ["eager", {"vision_config": "eager", "text_config": "sdpa", "audio_config": "eager"}]
)
def test_attention_implementations_agree(model, inputs, folder, implementation):
    other = AutoModel.from_pretrained(folder, attn_implementation=implementation)
    expected = implementation if isinstance(implementation, str) else implementation["text_config"]
    assert other.model.vision_tower.config._attn_implementation == "eager"
    assert other.model.audio_tower.config._attn_implementation == "eager"
    assert other.model.language_model.config._attn_implementation == expected
    torch.testing.assert_close(logits_of(other, inputs), logits_of(model, inputs), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_compiled_forward(model, inputs):
    compiled = copy.deepcopy(model)
    compiled.forward = torch.compile(compiled.forward, backend="eager", dynamic=True)
    assert answer(compiled, inputs) == answer(model, inputs)


@pytest.mark.slow
@pytest.mark.compat
def test_generate_compiles_the_decoder_step_once(model, inputs):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # The backend that needs no C++ compiler; `fullgraph` refuses whatever would break the graph.
    config = CompileConfig(backend="aot_eager", fullgraph=True, mode=None)
    config._compile_all_devices = True
    compiled = answer(copy.deepcopy(model), inputs, cache_implementation="static", compile_config=config)
    assert compiled == answer(model, inputs)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_linear_layers_may_be_quantized(model, inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated for a package that is not installed here
        quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)
    assert not [name for name, module in quantized.named_modules() if type(module) is torch.nn.Linear]
    logits, expected = logits_of(quantized, inputs), logits_of(model, inputs)
    assert (logits - expected).abs().mean() < 0.1 * expected.abs().mean()
    assert len(answer(quantized, inputs)[0]) == inputs["input_ids"].shape[1] + 6


@pytest.mark.compat
def test_safetensors_reads_every_file_that_is_saved(model, saved):
    weights = {}
    for path in saved.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["format"] == "pt"
            weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_safetensors_may_be_asked_for(folder):
    assert type(AutoModel.from_pretrained(folder, use_safetensors=True)) is OmniVinciForConditionalGeneration


# ------------------------------------------------------------------------------------------------ DeepSpeed ZeRO-3


@pytest.mark.parametrize("model_class", [OmniVinciForConditionalGeneration, OmniVinciModel])
@pytest.mark.parametrize("overrides", [{}, {"align_loss_weight": 0.1}], ids=["all weights", "a part that it lacks"])
def test_published_weights_are_whole_tensors_where_zero3_copies_them(model, monkeypatch, model_class, overrides):
    """DeepSpeed itself is not installed here: what counts is what it is given."""
    monkeypatch.setattr(loading, "is_deepspeed_zero3_enabled", lambda: True)
    given, load = {}, PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls, *args, state_dict=None, **kwargs):
        given.update(state_dict)
        return load(cls, *args, state_dict=state_dict, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(from_pretrained))
    loaded = model_class.from_pretrained(PUBLISHED, **overrides)
    assert all(type(weight) is torch.Tensor for weight in given.values())
    expected = (model if model_class is OmniVinciForConditionalGeneration else model.model).state_dict()
    for name, weight in expected.items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_weights_are_checked_without_making_any_under_zero3(model, monkeypatch):
    # With it, transformers imports DeepSpeed for every part that is made outside of a model that is being loaded.
    monkeypatch.setattr(modeling_utils, "is_deepspeed_zero3_enabled", lambda: True)
    weights = weight_files.open_published(PUBLISHED, model.config)
    checked = weight_files.check_weights(OmniVinciForConditionalGeneration, model.config, weights)
    assert checked.keys() == model.state_dict().keys()
