"""Quantization as far as it needs no llm-compressor: recipes, calibration, environments, and what is refused."""

import json
import re
import subprocess
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.cli import app
from transformers_omnivinci.modeling.compressed import unpack_before_encoding
from transformers_omnivinci.quantization import environment
from transformers_omnivinci.quantization.calibration import ChatInputs, PromptEmbeddings, SeenLayers, choose_chats
from transformers_omnivinci.quantization.compressor import Request, quantize
from transformers_omnivinci.quantization.recipes import (
    AUDIO_TOWER,
    GROUP_SIZES,
    LANGUAGE_MODEL,
    QUANTIZATION_RECIPES,
    VISION_TOWER,
    get_quantization_recipe,
    group_size,
)
from transformers_omnivinci.training.encoding import SampleEncoder
from transformers_omnivinci.weight_files import check_files

from .checkpoints import edit_weights, quantized_nano
from .conftest import CLIP
from .media_files import write_video

PARTS = (VISION_TOWER, AUDIO_TOWER, LANGUAGE_MODEL)


def matches(target, name):
    """As compressed-tensors and vLLM match a target."""
    return re.match(target.removeprefix("re:"), name) is not None


def on_meta(config):
    with torch.device("meta"):
        return OmniVinciForConditionalGeneration(config)


MODELS = {"9B": OmniVinciConfig(), "nano": OmniVinciConfig.from_pretrained(NANO)}
MODELS["aligned"] = OmniVinciConfig(**MODELS["nano"].to_dict() | {"align_loss_weight": 0.1})


@pytest.fixture(params=MODELS, scope="module")
def model_on_meta(request):
    return on_meta(MODELS[request.param])


# ---------------------------------------------------------------------------------------------------------- recipes


def test_a_recipe_takes_all_linear_layers_of_the_blocks_and_nothing_else(model_on_meta):
    modules = dict(model_on_meta.named_modules())
    blocks = re.compile(r"model\.(vision_tower\.encoder|audio_tower|language_model)\.layers\.\d+\.")
    expected = {name for name, module in modules.items() if blocks.match(name) and isinstance(module, nn.Linear)}
    found = get_quantization_recipe("paper").quantized(modules)
    assert found.keys() == expected
    for name, treatment in found.items():
        assert treatment.scheme.name == ("W4A16" if ".language_model." in name else "W8A8")
        assert treatment.method == ("awq" if ".language_model." in name else "smoothquant")
    assert get_quantization_recipe("w4a16").quantized(modules).keys() == {n for n in expected if ".language_mod" in n}
    for name in ("w8a8", "fp8"):
        assert get_quantization_recipe(name).quantized(modules).keys() == expected


def test_targets_hold_where_engines_name_modules_otherwise():
    for name, part in {
        "language_model.model.layers.27.self_attn.q_proj": LANGUAGE_MODEL,
        "vision_tower.vision_model.encoder.layers.3.mlp.fc1": VISION_TOWER,
        "audio_tower.layers.0.mlp.fc2": AUDIO_TOWER,
    }.items():
        assert [matches(other.target, name) for other in PARTS] == [other is part for other in PARTS]
    for name in ("lm_head", "language_model.lm_head", "model.vision_projector.linear_1", "audio_projector.linear_2"):
        assert not any(matches(part.target, name) for part in PARTS)


def test_what_is_smoothed_is_read_by_all_that_is_named(model_on_meta):
    """The channels of a norm are scaled in all layers that read it: one that was forgotten would change the result."""
    modules = dict(model_on_meta.named_modules())
    for part in PARTS:
        block = next(name for name in modules if matches(part.pattern("[a-z0-9_]+"), name))
        block = re.match(r".*layers\.\d+\.", block)[0]
        inside = {name.rpartition(".")[2]: module for name, module in modules.items() if name.startswith(block)}
        for smoothing in part.after_norms:
            width = inside[smoothing.made_by].weight.shape[-1]
            assert all(inside[name].in_features == width for name in smoothing.read_by)
        # Of each block only what ends the attention and the feed-forward network is not behind a norm.
        behind = {name for smoothing in part.after_norms for name in smoothing.read_by}
        assert set(part.linears) - behind == {"out_proj", "fc2"} & set(part.linears) | (
            {"o_proj", "down_proj"} & set(part.linears)
        )


def test_targets_inside_a_part_are_those_of_the_whole(model_on_meta):
    whole = {name for name, _ in model_on_meta.named_modules() if matches(LANGUAGE_MODEL.target, name)}
    target = LANGUAGE_MODEL.pattern(*LANGUAGE_MODEL.linears, inside=True)
    inside = {name for name, _ in model_on_meta.model.language_model.named_modules() if matches(target, name)}
    assert {f"model.language_model.{name}" for name in inside} == whole


def test_the_config_is_that_of_compressed_tensors():
    config = get_quantization_recipe("paper").config({LANGUAGE_MODEL.name: 128})
    assert config["quant_method"] == "compressed-tensors" and config["format"] == "mixed-precision"
    vision, audio, language = config["config_groups"].values()
    assert vision["format"] == audio["format"] == "int-quantized" and language["format"] == "pack-quantized"
    assert vision["input_activations"]["dynamic"] and vision["weights"]["strategy"] == "channel"
    assert vision["weights"]["symmetric"] and language["weights"]["symmetric"]
    assert language["input_activations"] is None and language["weights"]["group_size"] == 128
    assert get_quantization_recipe("fp8").config({})["format"] == "float-quantized"
    assert json.loads(json.dumps(config)) == config


@given(st.lists(st.integers(1, 500).map(lambda n: 16 * n), min_size=1))
def test_a_group_divides_all_rows(sizes):
    found = group_size({str(index): size for index, size in enumerate(sizes)})
    assert not any(size % found for size in sizes)
    assert all(any(size % other for size in sizes) for other in GROUP_SIZES if other > found)


def test_groups_of_the_models():
    for name, expected in (("9B", 128), ("nano", 32)):
        config = MODELS[name].text_config
        assert group_size({"in": config.hidden_size, "down": config.intermediate_size}) == expected
    with pytest.raises(ValueError, match="down_proj has 100 inputs"):
        group_size({"q_proj": 64, "down_proj": 100})


# ------------------------------------------------------------------------------------------------------ calibration


def write_chats(path, *chats):
    lines = []
    for items in chats:
        content = [*items, {"type": "text", "text": "What happens?"}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "A star appears."}]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines))
    return path


WATCHED = [{"type": "video", "path": CLIP}]


def test_chats_are_spread_over_the_file(tmp_path):
    file = write_chats(tmp_path / "chats.jsonl", *[WATCHED] * 10)
    ids = [int(chat.id.rpartition(":")[2]) for chat in choose_chats(file, 4)]
    assert ids == [1, 3, 6, 8]
    assert len(choose_chats(file, 100)) == 10


@pytest.fixture(scope="module")
def nano():
    return OmniVinciForConditionalGeneration.from_pretrained(NANO).eval(), OmniVinciProcessor.from_pretrained(NANO)


@torch.no_grad()
def test_the_language_model_reads_what_the_model_gives_it(nano, tmp_path):
    model, processor = nano
    file = write_chats(tmp_path / "chats.jsonl", WATCHED)
    inputs = ChatInputs(choose_chats(file, 1), SampleEncoder(processor), model.dtype)
    assert len(inputs) == 1 and inputs[0]["pixel_values_videos"].dtype == model.dtype
    (prompt,) = PromptEmbeddings(inputs, model)[0].values()
    hidden = model.model.language_model(inputs_embeds=prompt).last_hidden_state
    assert torch.equal(model.lm_head(hidden), model(**inputs[0]).logits)


@torch.no_grad()
def test_layers_that_no_chat_runs_are_named(nano, tmp_path):
    model, processor = nano
    names = list(get_quantization_recipe("paper").quantized(name for name, _ in model.named_modules()))
    for chat, unseen in (([], "36 layers .*model.vision_tower.encoder.layers.0"), (WATCHED, None)):
        file = write_chats(tmp_path / "chats.jsonl", chat)
        seen = SeenLayers(model, names)
        model(**ChatInputs(choose_chats(file, 1), SampleEncoder(processor), model.dtype)[0])
        if unseen is None:
            seen.check()
        else:
            with pytest.raises(ValueError, match=unseen):
                seen.check()


# ---------------------------------------------------------------------------------------------------------- refusals


def refuse(*arguments):
    result = CliRunner().invoke(app, ["quantize", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    return " ".join(result.output.split())


def test_what_cannot_be_quantized_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "make_environment", lambda engine: pytest.fail("an environment was made"))
    file, text = tmp_path / "chats.jsonl", write_chats(tmp_path / "text.jsonl", [])
    silent = write_video(tmp_path / "silent.mp4", 4)
    silent = write_chats(tmp_path / "silent.jsonl", [{"type": "video", "path": str(silent)}])
    write_chats(file, WATCHED)
    (tmp_path / "empty.jsonl").write_text("\n")
    new = tmp_path / "new"
    for arguments, message in (
        ((NANO, new, "--recipe", "w2a2", "--calibration", file), "There is no recipe 'w2a2': paper, w4a16, w8a8, fp8"),
        ((NANO, new), "The recipe 'paper' is calibrated: give it a JSONL file of chats"),
        ((NANO, new, "--calibration", tmp_path / "none.jsonl"), "none.jsonl cannot be read"),
        ((NANO, new, "--calibration", tmp_path / "empty.jsonl"), "empty.jsonl is empty"),
        ((NANO, new, "--calibration", text), "quantizes the image encoder, but none of the 1 chats"),
        ((NANO, new, "--calibration", silent), "quantizes the audio encoder, but none of the 1 chats"),
        ((NANO, tmp_path, "--calibration", file), "is there already"),
        ((tmp_path / "nowhere", new, "--calibration", file), "There is no folder"),
    ):
        assert message in refuse(*arguments)
    assert not new.exists()
    assert not list(tmp_path.glob(".new*"))


def test_quantized_checkpoints_are_neither_quantized_again_nor_converted(tmp_path):
    folder = quantized_nano(tmp_path / "quantized")
    with pytest.raises(ValueError, match="is quantized already"):
        Request(folder, tmp_path / "new", "fp8")
    result = CliRunner().invoke(app, ["convert", str(folder), str(tmp_path / "new")])
    assert result.exit_code == 1 and "is quantized" in result.output


@pytest.mark.parametrize(
    "missing",
    [
        "up_proj.weight_scale",
        "up_proj.weight_shape",
        "up_proj.weight_packed",
        "up_proj.weight_zero_point",
        "fc1.weight_scale",
    ],
)
def test_a_missing_scale_is_named(missing, tmp_path):
    folder = quantized_nano(tmp_path / "quantized")
    check_files(folder, None)

    def drop(tensors):
        for name in [name for name in tensors if ".layers.0." in name and name.endswith(missing)]:
            del tensors[name]

    edit_weights(folder / "model.safetensors", drop)
    with pytest.raises(OSError, match=rf"quantized is quantized, but has no \S+{missing} .* in model.safetensors"):
        OmniVinciForConditionalGeneration.from_pretrained(folder)


@torch.no_grad()
def test_packed_weights_are_unpacked_before_the_first_medium(make_fresh):
    model = make_fresh()
    config, unpacked = SimpleNamespace(quantization_status="compressed"), []

    def decompress_model(whole):
        config.quantization_status = "decompressed"
        unpacked.append(whole)

    unpack_before_encoding(model)  # not quantized
    model.hf_quantizer = SimpleNamespace(
        compressor=SimpleNamespace(quantization_config=config, decompress_model=decompress_model)
    )
    unpack_before_encoding(model)
    assert not unpacked
    side = model.config.vision_config.image_size
    for _ in range(2):
        model.model.vision_tower(torch.zeros(1, 3, side, side))
    assert unpacked == [model]


# ------------------------------------------------------------------------------------------------------ environments


@pytest.mark.parametrize(
    ("engine", "recipe", "has_accelerator", "expected"),
    [
        (None, "fp8", True, False),
        ("0.14.0.1", "paper", True, True),
        ("0.14.0.1", "paper", False, False),
        ("0.14.0.1", "w8a8", False, True),
        ("0.13.0", "w4a16", False, False),
        ("0.12.0.2", "paper", False, True),
    ],
)
def test_awq_of_newer_versions_needs_an_accelerator(engine, recipe, has_accelerator, expected):
    assert environment.suits(engine, QUANTIZATION_RECIPES[recipe], has_accelerator) == expected


@pytest.mark.parametrize("has_accelerator", [True, False])
def test_an_environment_of_its_own_can_carry_out_all_recipes(has_accelerator):
    engine = environment.engine_for(has_accelerator)
    assert all(environment.suits(engine, recipe, has_accelerator) for recipe in QUANTIZATION_RECIPES.values())


def test_without_llm_compressor_the_function_says_so(tmp_path, monkeypatch):
    request = Request(NANO, tmp_path / "new", "paper", write_chats(tmp_path / "chats.jsonl", WATCHED))
    for engine, message in ((None, r"transformers-omnivinci\[quantize\]"), ("0.14.0.1", "0.14.0.1 needs a GPU")):
        monkeypatch.setattr(environment, "installed_engine", lambda engine=engine: engine)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        with pytest.raises(ImportError, match=message):
            quantize(request)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """What is run to make environments; the packages that `fails` names cannot be installed."""
    ran = SimpleNamespace(commands=[], fails="")

    def run(command, **options):
        ran.commands.append(command)
        if "venv" in command:
            environment._packages(tmp_path / "cache" / command[-1].rpartition("/")[2]).mkdir(parents=True)
        failed = bool(ran.fails) and any(ran.fails in word for word in command)
        return SimpleNamespace(returncode=int(failed), stderr="WARNING: slow\nERROR: no such version\nmore")

    monkeypatch.setenv("OMNIVINCI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_an_environment_is_made_once(commands):
    python = environment.make_environment("0.12.0.2")
    assert python.is_relative_to(environment.environment_folder("0.12.0.2"))
    number = len(commands.commands)
    assert commands.commands[-1][-2:] == ["--no-deps", "llmcompressor==0.12.0.2"]
    assert environment.make_environment("0.12.0.2") == python and len(commands.commands) == number
    environment.make_environment("0.14.0.1")
    assert len(commands.commands) == 2 * number


def test_an_environment_that_fails_leaves_nothing(commands):
    commands.fails = "compressed-tensors"
    with pytest.raises(OSError, match="could not be made: .* said: ERROR: no such version"):
        environment.make_environment("0.12.0.2")
    assert not environment.environment_folder("0.12.0.2").exists()


def test_the_command_goes_on_elsewhere_and_says_so(commands, tmp_path, monkeypatch):
    file = write_chats(tmp_path / "chats.jsonl", WATCHED)
    monkeypatch.setattr(environment, "installed_engine", lambda: None)
    monkeypatch.setattr("sys.argv", ["omnivinci", "quantize", NANO, "new", "--calibration", str(file)])
    result = CliRunner().invoke(app, ["quantize", NANO, str(tmp_path / "new"), "--calibration", str(file)])
    assert result.exit_code == 0 and "Runs llm-compressor 0.1" in result.output
    assert commands.commands[-1][1:] == [
        "-m",
        "transformers_omnivinci.cli",
        "quantize",
        NANO,
        "new",
        "--calibration",
        str(file),
    ]
