"""Adapters, quantized weights and several processes: what vLLM's own layers bring along."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor
from vllm.lora.request import LoRARequest

from engines.vllm.asking import answer, messages_of
from engines.vllm.conftest import greedy, tokens_of
from engines.vllm.split import CHATS, SOUND
from tests.hub_server import HubServer
from transformers_omnivinci.nano import NANO

RANK, ALPHA = 8, 64


def make_adapter(folder, seed=0):
    """An adapter of the language model as PEFT writes it, of random matrices, and what it adds to each weight."""
    weights, added = {}, {}
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in load_file(Path(NANO, "model.safetensors")).items():
        module = name.removesuffix(".weight")
        if "language_model.layers" not in name or module.rpartition(".")[2] not in ("q_proj", "v_proj", "down_proj"):
            continue
        if tensor.ndim != 2:
            continue
        down = torch.randn(RANK, tensor.shape[1], generator=generator) / tensor.shape[1] ** 0.5
        up = torch.randn(tensor.shape[0], RANK, generator=generator) / tensor.shape[0] ** 0.5
        weights |= {f"base_model.model.{module}.lora_{one}.weight": matrix for one, matrix in (("A", down), ("B", up))}
        added[name] = ALPHA / RANK * up @ down
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return added


def test_an_adapter_of_the_language_model_changes_answers_as_in_transformers(engines, references, tmp_path):
    added = make_adapter(tmp_path / "adapter")
    model, processor = AutoModel.from_pretrained(NANO, dtype=torch.float32), references(NANO)[1]
    engine = engines(NANO, enable_lora=True, max_lora_rank=RANK, allowed_local_media_path="/")
    request = LoRARequest("adapter", 1, str(tmp_path / "adapter"))
    messages = [messages_of(chat) for chat in CHATS]
    options = {"mm_processor_kwargs": SOUND, "use_tqdm": False}
    plain = tokens_of(engine.chat(messages, greedy(), **options))
    assert plain == answer(model, processor, CHATS, **SOUND)
    weights = model.state_dict()
    with torch.no_grad():
        for name, change in added.items():
            weights[name] += change
    adapted = tokens_of(engine.chat(messages, greedy(), lora_request=request, **options))
    assert adapted == answer(model, processor, CHATS, **SOUND) != plain
    assert tokens_of(engine.chat(messages, greedy(), **options)) == plain


INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
TOKENS8 = INT8 | {"strategy": "token", "dynamic": True}
TOWERS = r"re:(.*\.)?(vision_tower|audio_tower)\.(.*\.)?layers\.\d+\.(.*\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)$"
LANGUAGE = r"re:(.*\.)?language_model\.(.*\.)?layers\.\d+\.(.*\.)?([qkvo]_proj|gate_proj|up_proj|down_proj)$"
GROUP = 32


def quantize(tensor, bits, group):
    """Rounded to the nearest: integers, (rows, columns), and a scale for each group of a row's columns."""
    parts = tensor.float().unflatten(1, (-1, group))
    most = 2 ** (bits - 1) - 1
    scale = (parts.abs().amax(-1, keepdim=True) / most).clamp(min=1e-8).to(torch.bfloat16)
    integers = (parts / scale.float()).round().clamp(-most - 1, most)
    return integers.flatten(1).to(torch.int8), scale[..., 0]


def write_quantized(folder, language_bits):
    """
    nano in compressed-tensors, rounded to the nearest without calibration: encoders in 8 bits, with activations in 8
    bits, and the language model likewise or in 4 bits. Returns the folder of the same weights in bfloat16.
    """
    plain = folder.with_name("plain")
    for one in (folder, plain):
        shutil.copytree(NANO, one)
    stored, weights, rounded = load_file(Path(NANO, "model.safetensors")), {}, {}
    for name, tensor in stored.items():
        module = name.removesuffix(".weight")
        is_linear = tensor.ndim == 2 and ".layers." in name
        weights[name] = rounded[name] = tensor.to(torch.bfloat16)
        if not is_linear:
            continue
        bits = language_bits if "language_model" in name else 8
        group = GROUP if bits == 4 else tensor.shape[1]
        integers, scale = quantize(tensor, bits, group)
        rounded[name] = (integers.unflatten(1, (-1, group)) * scale.float()[..., None]).flatten(1).to(torch.bfloat16)
        weights[f"{module}.weight_scale"] = scale
        if bits == 8:
            weights[name] = integers
            continue
        del weights[name]
        nibbles = (integers.to(torch.int64) + 8).unflatten(1, (-1, 8)) << (4 * torch.arange(8))
        packed = nibbles.sum(-1)
        weights[f"{module}.weight_packed"] = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
        weights[f"{module}.weight_shape"] = torch.tensor(integers.shape)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(rounded, plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    eight = {"weights": INT8 | {"strategy": "channel"}, "input_activations": TOKENS8, "format": "int-quantized"}
    four = {"weights": INT8 | {"num_bits": 4, "strategy": "group", "group_size": GROUP}, "format": "pack-quantized"}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {
            "towers": eight | {"targets": [TOWERS]},
            "language": (four if language_bits == 4 else eight) | {"targets": [LANGUAGE]},
        },
        "ignore": [],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return plain


@pytest.mark.parametrize("language_bits", [4, 8])
def test_quantized_encoders_and_a_quantized_language_model_are_loaded(engines, tmp_path, language_bits):
    """vLLM's kernels for 4 bits on CPUs take bfloat16 alone, so references are in bfloat16, too."""
    plain = write_quantized(tmp_path / "quantized", language_bits)
    engine = engines(tmp_path / "quantized", dtype="bfloat16", allowed_local_media_path="/")
    [layer] = engine.apply_model(lambda model: type(model.vision_tower.encoder.layers[0].mlp.fc1).__name__)
    outputs = engine.chat([messages_of(chat) for chat in CHATS], greedy(), mm_processor_kwargs=SOUND, use_tqdm=False)
    model, processor = AutoModel.from_pretrained(plain, dtype=torch.bfloat16), AutoProcessor.from_pretrained(plain)
    with torch.no_grad():
        expected = [answer(model, processor, [chat], **SOUND)[0] for chat in CHATS]
    assert tokens_of(outputs) == expected
    assert layer == "ReplicatedLinear"


@pytest.mark.parametrize(
    ("lost", "said"),
    [("k_proj.weight_scale", "scales of 4 quantized weights"), ("vision_projector.linear_1.bias", "linear_1.bias")],
)
def test_a_quantized_checkpoint_that_lacks_something_is_refused(engines, tmp_path, lost, said):
    folder = tmp_path / "quantized"
    write_quantized(folder, 4)
    weights = load_file(folder / "model.safetensors")
    kept = {name: one for name, one in weights.items() if "tower" in name or not name.endswith(lost)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=said):
        engines(folder, dtype="bfloat16")


# Without a warm-up, which it leaves out where nothing is compiled, vLLM cannot pass layers' outputs on on CPUs.
WARM = {"enforce_eager": False, "compilation_config": {"mode": 3, "backend": "eager"}}


@pytest.mark.parametrize(
    "split",
    [{"tensor_parallel_size": 2, "mm_encoder_tp_mode": "data"}, {"pipeline_parallel_size": 2} | WARM],
    ids=["tensors, and each process encodes its share", "layers, warmed up with the largest media"],
)
def test_two_processes_give_the_same_tokens(split, references):
    assert run_apart(split) == answer(*references(NANO), CHATS, **SOUND)


def test_the_release_is_served_by_its_name_on_the_hub(checkpoints, references, tmp_path):
    path = checkpoints("published-tiny")
    with HubServer(tmp_path / "hub") as hub:
        hub.create_repo("nvidia/omnivinci")
        hub.add_commit("nvidia/omnivinci", path)
        tokens = run_apart({"model": "nvidia/omnivinci"}, hub.environment())
    model, processor = references(path)
    assert tokens == [answer(model, processor, [chat], **SOUND)[0] for chat in CHATS]


def run_apart(options, environment=os.environ):
    """The tokens of the questions of `split`, from a process of its own."""
    command = [sys.executable, "-m", "engines.vllm.split", json.dumps(options)]
    environment = environment | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("[[")))
