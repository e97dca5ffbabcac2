"""The memory that `benchmarks.memory` computes from a config."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from benchmarks._harness import PeakMemory, in_fresh_process
from benchmarks.grpo_memory import TEXT, compute_grpo_need
from benchmarks.memory import (
    GIB,
    RECIPES,
    Need,
    Prompt,
    count_activations,
    count_cache,
    count_weights,
    largest_quantized,
    plan_prompt,
)
from transformers_omnivinci import NANO, OmniVinciConfig, OmniVinciModel

PARAMETERS = 8_730_535_584  # of the published checkpoint


@pytest.fixture(scope="module")
def sizes():
    config = OmniVinciConfig()
    return {recipe: count_weights(config, quantization) for recipe, quantization in RECIPES.items()}


def test_weights_are_those_of_the_checkpoint(sizes):
    assert sum(sizes["bf16"].values()) == 2 * PARAMETERS
    held = sum(tensor.nbytes for tensor in load_file(f"{NANO}/model.safetensors").values())
    assert sum(count_weights(OmniVinciConfig.from_pretrained(NANO)).values()) == held


def test_recipes_differ_in_what_they_quantize(sizes):
    towers, rest = ("vision_encoder", "audio_encoder"), ("vision_projector", "audio_projector", "embeddings")
    assert all(sizes[recipe][part] == sizes["bf16"][part] for recipe in sizes for part in rest)
    ratio = {name: [sizes[name][part] / sizes["bf16"][part] for part in (*towers, "layers")] for name in sizes}
    assert ratio["paper"] == pytest.approx([0.5, 0.5, 0.258], abs=0.01)  # 4 bits, and 16 for 128 weights
    assert ratio["w4a16"] == pytest.approx([1, 1, 0.258], abs=0.001)
    assert ratio["w8a8"] == ratio["fp8"] == pytest.approx([0.5, 0.5, 0.5], abs=0.01)
    assert ratio["bnb-nf4"] == pytest.approx([1, 1, 0.2815], abs=0.001)  # 4 bits, and 32 for 64 weights


def test_the_size_under_another_method_is_refused():
    with pytest.raises(ValueError, match="under 'gptq' is unknown"):
        count_weights(OmniVinciConfig.from_pretrained(NANO), {"quant_method": "gptq"})


def test_names_and_exceptions_of_a_quantization_config_are_followed():
    config = OmniVinciConfig.from_pretrained(NANO)
    plain, scheme = count_weights(config), {"weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}
    everything = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], **scheme}},
    }
    but_the_head = count_weights(config, {**everything, "ignore": ["lm_head", r"re:.*projector.*"]})
    smaller = {part for part in plain if but_the_head[part] < plain[part]}
    assert smaller == {"vision_encoder", "audio_encoder", "layers"}
    one = copy.deepcopy(everything) | {"ignore": []}
    one["config_groups"]["group_0"]["targets"] = ["model.vision_projector.linear_1"]
    assert {part for part in plain if count_weights(config, one)[part] < plain[part]} == {"vision_projector"}


def test_prompts_are_planned_as_the_processor_plans_them():
    prompt = plan_prompt(OmniVinciConfig(), 64, 60.0, text=100)
    assert (prompt.video, prompt.audio, prompt.windows) == (64 * 256, 1500, 2)
    assert prompt.positions == 64 * 256 + 1500 + 2 * 2 + 100  # two groups of 30 s, with a newline after each part
    silent = plan_prompt(OmniVinciConfig(), 8, 0.0, text=100)
    assert (silent.audio, silent.windows, silent.positions) == (0, 0, 8 * 256 + 100)


def test_the_cache_is_that_of_grouped_heads():
    assert count_cache(OmniVinciConfig(), 1) == 2 * 28 * 4 * 128 * 2


def test_chunks_bound_what_the_image_encoder_holds():
    small, large = (OmniVinciConfig(vision_chunk_size=size) for size in (4, 64))
    prompt = plan_prompt(small, 64, 60.0)
    bound, unbound = (count_activations(config, prompt) for config in (small, large))
    assert bound["image encoder"] < unbound["image encoder"] / 3
    assert bound["language model"] == unbound["language model"]


def test_kernels_unpack_the_largest_quantized_weight():
    config = OmniVinciConfig()
    assert largest_quantized(config, None) == 0
    assert largest_quantized(config, RECIPES["w4a16"]) == 18944 * 3584 * 2


def test_a_card_also_holds_what_is_not_counted():
    need = Need({"layers": 10 * GIB}, cache=1 * GIB, activations=GIB // 2)
    assert (need.total, need.fits(13), need.fits(16)) == (11.5 * GIB, False, True)


SIZES = {
    "text_config": {"model_type": "qwen2", "hidden_size": 512, "intermediate_size": 2048, "vocab_size": 1000}
    | {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2},
    "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 256, "intermediate_size": 1024}
    | {"num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 448, "patch_size": 14},
    "audio_config": {"model_type": "qwen2_audio_encoder", "d_model": 256, "encoder_ffn_dim": 1024}
    | {"encoder_layers": 2, "encoder_attention_heads": 4},
}
CHUNKS = {"vision_chunk_size": 8, "audio_chunk_size": 4}
PLACEHOLDERS = {"image_token_id": 1, "video_token_id": 2, "audio_token_id": 3}


@torch.no_grad()
def measure() -> dict[str, tuple[int, int]]:
    """Bytes that each stage of a small model holds at most, and those that are computed."""
    torch.set_num_threads(1)
    config = OmniVinciConfig(**SIZES, **CHUNKS, **PLACEHOLDERS)
    model, prompt = OmniVinciModel(config).eval(), Prompt(24, 6, 24 * 256, 6 * 750, 6000)
    pixels, seconds = torch.rand(24, 3, 448, 448), torch.arange(24.0)[None]
    mels, vectors = torch.rand(6, 128, 3000), torch.arange(4500.0)[None]
    embeddings = torch.rand(1, prompt.positions, 512)
    stages = {
        "image encoder": lambda: model.encode_media(pixel_values_videos=pixels, video_timestamps=seconds),
        "audio encoder": lambda: model.encode_media(
            input_features=mels, audio_timestamps=vectors, audio_num_windows=torch.tensor([6])
        ),
        "language model": lambda: model.language_model(inputs_embeds=embeddings),
    }
    computed, given = count_activations(config, prompt, 4), pixels.nbytes + mels.nbytes
    computed["image encoder"] = max(computed["image encoder"], computed["vision projector"])
    computed["language model"] += count_cache(config, prompt.positions, 4)
    result = {}
    for stage, run in stages.items():
        with PeakMemory() as peak:
            kept = run()
        result[stage] = peak.bytes, computed[stage] - given
        del kept
    return result


@pytest.mark.slow
def test_activations_are_near_those_that_are_measured():
    for stage, (measured, computed) in in_fresh_process(measure).items():
        assert computed == pytest.approx(measured, rel=0.25), stage


def test_memory_of_grpo_is_split_over_gpus():
    config = OmniVinciConfig()
    prompt = plan_prompt(config, 64, 60.0, TEXT)
    eight, more = (compute_grpo_need(config, prompt, gpus, 1) for gpus in (8, 64))
    weights = count_weights(config)
    learned = (weights["layers"] + weights["embeddings"]) // 2
    assert eight.policy == (2 * (PARAMETERS - learned) + 16 * learned) // 8
    assert (eight.policy // 8, eight.reference // 8) == (more.policy, more.reference)
    assert (eight.rollouts, eight.update) == (more.rollouts, more.update)
    assert eight.rollouts == 8 * count_cache(config, prompt.positions + 2048)
    assert eight.media == 8 * (prompt.video + prompt.audio) * config.text_config.hidden_size * 2 == 8 * more.media
    adapters = compute_grpo_need(config, prompt, 8, 1, adapters=True)
    assert (adapters.policy, adapters.reference) == (PARAMETERS * 2 // 8, 0)
    # Completions of one prompt share it; those of several, as TRL shuffles them, have it each.
    together, apart = (compute_grpo_need(config, prompt, gpus, 8).update for gpus in (64, 8))
    assert eight.update < together < apart == 8 * eight.update
