"""Which modules quantizers of transformers leave as they are: by their configs alone, without their libraries."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModel, BitsAndBytesConfig
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils.quantization_config import QuantizationConfigMixin, QuantizationMethod

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciModel
from transformers_omnivinci.modeling import quantized_loading
from transformers_omnivinci.modeling.quantized_loading import LEFT_OUT, choose_quantized, describe
from transformers_omnivinci.weight_files import check_files

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


class OtherConfig(QuantizationConfigMixin):
    """As those of torchao, Quanto and others."""

    def __init__(self, quant_type=None, modules_to_not_convert=None, include_input_output_embeddings=False):
        self.quant_method, self.quant_type = QuantizationMethod.QUANTO, quant_type
        self.modules_to_not_convert = modules_to_not_convert
        self.include_input_output_embeddings = include_input_output_embeddings


class HeadKept(OtherConfig):
    def __init__(self, modules_to_not_convert=("lm_head",)):
        super().__init__(modules_to_not_convert=modules_to_not_convert)


@pytest.fixture(scope="module")
def config():
    return OmniVinciConfig.from_pretrained(NANO)


@pytest.fixture(scope="module", params=[OmniVinciForConditionalGeneration, OmniVinciModel], ids=["head", "no head"])
def linear(request, config):
    """Names of the linear layers of a model with all parts that have some."""
    settings = config.to_dict() | {"align_loss_weight": 0.1, "video_time_embedding": "learned"}
    with torch.device("meta"):
        model = request.param(OmniVinciConfig.from_dict(settings))
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


@pytest.mark.compat
@pytest.mark.parametrize(
    ("given", "field"),
    [
        (BitsAndBytesConfig(**NF4), "llm_int8_skip_modules"),
        (BitsAndBytesConfig(load_in_8bit=True), "llm_int8_skip_modules"),
        (OtherConfig(), "modules_to_not_convert"),
        (HeadKept(), "modules_to_not_convert"),
    ],
    ids=["4 bits", "8 bits", "other", "default of its own"],
)
def test_the_layers_of_the_language_model_alone_are_quantized(given, field, config, linear, caplog):
    before = dict(vars(given))
    chosen = choose_quantized(given, config)
    assert vars(given) == before and type(chosen) is type(given)
    quantized = {name for name in linear if should_convert_module(name, getattr(chosen, field))}
    assert quantized == {name for name in linear if "language_model.layers" in name}
    (line,) = (record.getMessage() for record in caplog.records)
    assert describe(given) in line and f"unless `{field}` names others" in line
    assert all(name in line for name in LEFT_OUT)


@pytest.mark.compat
def test_adapters_are_left_out_too(config):
    names = choose_quantized(OtherConfig(), config).modules_to_not_convert
    layer = "model.language_model.layers.0.self_attn.q_proj"
    assert should_convert_module(layer, names)
    assert not should_convert_module(f"{layer}.lora_A.default.weight", names)


@pytest.mark.parametrize(
    "given",
    [
        BitsAndBytesConfig(**NF4, llm_int8_skip_modules=["lm_head"]),
        BitsAndBytesConfig(**NF4, llm_int8_skip_modules=[]),
        OtherConfig(modules_to_not_convert=["model.audio_tower"]),
        OtherConfig(SimpleNamespace(fqn_to_config={"lm_head": None})),
        QuantizationConfigMixin(quant_method=QuantizationMethod.GPTQ),
    ],
    ids=["bitsandbytes", "bitsandbytes all", "other", "layers by name", "no such list"],
)
def test_a_config_that_names_modules_stays_as_it_is(given, config, caplog):
    assert choose_quantized(given, config) is given
    assert not caplog.records


def test_embeddings_that_are_asked_for_are_quantized(config):
    names = choose_quantized(OtherConfig(include_input_output_embeddings=True), config).modules_to_not_convert
    assert "lm_head" not in names and "model.vision_tower" in names


@pytest.mark.compat
def test_a_dictionary_is_read_as_transformers_reads_it(config):
    chosen = choose_quantized({"quant_method": "bitsandbytes", **NF4}, config)
    assert isinstance(chosen, BitsAndBytesConfig) and chosen.llm_int8_skip_modules[0] == LEFT_OUT[0]


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.compat
@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ("4bit", TypeError, "must be a config of transformers, such as .* but got '4bit'"),
        (True, TypeError, "or the dictionary of one, but got True"),
        ({"quant_method": "made up"}, ValueError, "Unknown quantization type, got made up"),
        ({"bits": 4}, ValueError, "has no `quant_method` attribute"),
        (BitsAndBytesConfig(), ValueError, "neither `load_in_4bit` nor `load_in_8bit`"),
    ],
)
def test_what_is_no_quantization_config_is_told_before_weights_are_read(given, error, told, monkeypatch):
    monkeypatch.setattr("safetensors.safe_open", None)
    for load in (AutoModel, OmniVinciForConditionalGeneration):
        with pytest.raises(error, match=told):
            load.from_pretrained(NANO, quantization_config=given)


def test_what_is_not_installed_is_named(monkeypatch):
    """By transformers itself."""
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ImportError, match="pip install -U bitsandbytes"):
        AutoModel.from_pretrained(NANO, quantization_config=BitsAndBytesConfig(**NF4))


@pytest.mark.compat
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (BitsAndBytesConfig(load_in_8bit=True), "as bitsandbytes nf4, and cannot be loaded as bitsandbytes llm_int8"),
        (BitsAndBytesConfig(load_in_4bit=True), "as bitsandbytes nf4, and cannot be loaded as bitsandbytes fp4"),
        (OtherConfig(), "as bitsandbytes nf4, and cannot be loaded as quanto: load it without `quantization_config`"),
    ],
)
def test_a_quantized_checkpoint_keeps_its_way(given, told, config):
    stored = OmniVinciConfig.from_dict(config.to_dict() | {"quantization_config": BitsAndBytesConfig(**NF4).to_dict()})
    with pytest.raises(ValueError, match=re.escape(told)):
        choose_quantized(given, stored, "quantized")
    same = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype="bfloat16")
    assert choose_quantized(same, stored) is same


@pytest.mark.compat
def test_methods_that_transformers_only_names_are_refused(config):
    given = OtherConfig()
    given.quant_method = QuantizationMethod.HQQ
    with pytest.raises(ValueError, match="has an HqqConfig, but cannot quantize by it: torchao can"):
        choose_quantized(given, config)


def test_weights_that_a_gpu_packs_are_refused_without_one(config, monkeypatch):
    given = OtherConfig(SimpleNamespace(int4_packing_format="plain"))
    monkeypatch.setattr(quantized_loading.torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match="packs weights for a GPU, and there is none"):
        choose_quantized(given, config)
    monkeypatch.setattr(quantized_loading.torch.accelerator, "is_available", lambda: True)
    assert choose_quantized(given, config).modules_to_not_convert


HOLDS = {
    "bitsandbytes": {
        "a.weight": torch.uint8,
        **dict.fromkeys(["a.weight.absmax", "a.weight.quant_map"], torch.float32),
        "a.weight.quant_state.bitsandbytes__nf4": torch.uint8,
        "b.weight": torch.int8,
        "b.SCB": torch.float32,
        "c.weight": torch.bfloat16,
    },
    "torchao": {"a._weight_qdata": torch.int8, "a._weight_scale": torch.float32, "c.weight": torch.bfloat16},
}


@pytest.mark.parametrize(
    ("method", "lost", "told"),
    [
        ("bitsandbytes", "a.weight.absmax", "no a.weight.absmax to go with a.weight in model.safetensors"),
        ("bitsandbytes", "a.weight.quant_state.bitsandbytes__nf4", "no a.weight.quant_state to go with a.weight"),
        ("bitsandbytes", "b.SCB", "no b.SCB to go with b.weight"),
        ("torchao", "a._weight_scale", "no a._weight_scale to go with a._weight_qdata"),
    ],
)
def test_a_missing_scale_is_told_before_weights_are_read(method, lost, told, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    tensors = {name: torch.zeros(2, dtype=dtype) for name, dtype in HOLDS[method].items()}
    save_file(tensors, tmp_path / "model.safetensors")
    check_files(tmp_path, None)
    save_file({name: tensors[name] for name in tensors if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(OSError, match=re.escape(f"{tmp_path} is quantized, but has {told}")):
        OmniVinciForConditionalGeneration.from_pretrained(tmp_path)


# ---------------------------------------------------------------------------------------------- packed by bitsandbytes


class PackingLinear(nn.Linear):
    """What a 4-bit layer of bitsandbytes tells of itself on a CPU that it packs weights for."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.support_avx512bf16_for_cpu = True
        self.weight.quant_state = SimpleNamespace(packing_format_for_cpu=False)


@pytest.fixture
def packing():
    model = AutoModel.from_pretrained(NANO)
    model.is_loaded_in_4bit = True
    for name, module in list(model.model.language_model.named_modules()):
        if isinstance(module, nn.Linear):
            model.model.language_model.set_submodule(name, PackingLinear(module.in_features, module.out_features))
    return model


def packs(model):
    return {
        name.rpartition(".")[2] for name, one in model.named_modules() if getattr(one, quantized_loading.PACKS, False)
    }


def test_rows_that_are_no_whole_blocks_are_not_packed(packing):
    quantized_loading.prepare_loaded(packing)
    assert packs(packing) == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
    }  # 480 are no whole blocks


def test_nothing_is_packed_once_a_model_is_trained(packing):
    packing.eval()
    assert packs(packing)
    packing.train()
    assert not packs(packing)


def test_packed_weights_are_neither_saved_nor_trained(packing, tmp_path):
    packing.model.language_model.layers[1].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ValueError, match="such as .*1.mlp.up_proj, .* save the model before its first answer"):
        packing.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ValueError, match="load the model anew and call `train\\(\\)` before it answers"):
        packing.train()
    packing.eval()
