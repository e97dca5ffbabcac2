"""Parts of the model against small independent computations, also where the parity fixtures do not reach."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration
from transformers_omnivinci.modeling.audio_compression import AudioCompression
from transformers_omnivinci.modeling.audio_tower import OmniVinciAudioTower
from transformers_omnivinci.modeling.constrained_rotary_time_embedding import ConstrainedRotaryTimeEmbedding
from transformers_omnivinci.modeling.dynamic_s2 import merge_scales, split_tiles, stitch_tiles
from transformers_omnivinci.modeling.projectors import VisionProjector, space_to_depth
from transformers_omnivinci.modeling.time_embedding import LearnedTimeEmbedding, RoTE, build_time_embedding
from transformers_omnivinci.modeling.video_pooling import pool_clip
from transformers_omnivinci.modeling.vision_tower import OmniVinciVisionTower


def tiny_config(**kwargs) -> OmniVinciConfig:
    sizes = {
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 64,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 12,
            "intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "audio_config": {
            "model_type": "qwen2_audio_encoder",
            "d_model": 8,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 12,
            "num_mel_bins": 8,
            "max_source_positions": 10,
        },
        "s2_scales": [28, 56, 84],
        "image_token_id": 60,
        "video_token_id": 61,
        "audio_token_id": 62,
    }
    return OmniVinciConfig(**(sizes | kwargs))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


# CRTE, equations 4 and 5


def rotate_slowly(vector, second, size, max_time, period):
    """Equations 4 and 5, channel by channel in Python floats."""
    rotated = list(vector)
    for channel in range(size):
        if period == "shortest":
            frequency = 2 * math.pi / (max_time * 5 ** (channel / size))
        else:
            frequency = 2 * math.pi / (max_time ** (size / (size - 1))) ** (channel / size)
        half = -vector[channel + 1] if channel % 2 == 0 else vector[channel - 1]
        angle = frequency * second
        rotated[channel] = vector[channel] * math.cos(angle) + half * math.sin(angle)
    return rotated


@pytest.mark.parametrize("period", ["shortest", "longest"])
@pytest.mark.parametrize("size", [2, 6, 10])
def test_crte(generator, period, size):
    embeddings = torch.randn(4, 3, 10, generator=generator)
    seconds = torch.tensor([0.0, 1.3, 77.25, 3599.5])
    rotated = ConstrainedRotaryTimeEmbedding(size, 3600.0, period)(embeddings, seconds)
    for frame, second in enumerate(seconds.tolist()):
        for token in range(3):
            expected = rotate_slowly(embeddings[frame, token].tolist(), second, size, 3600.0, period)
            torch.testing.assert_close(rotated[frame, token], torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert torch.equal(rotated[..., size:], embeddings[..., size:])


@pytest.mark.parametrize(("period", "first", "last"), [("shortest", 100.0, 500.0), ("longest", 1.0, 100.0)])
def test_crte_periods(period, first, last):
    size = 64
    frequencies = ConstrainedRotaryTimeEmbedding(size, 100.0, period).frequencies(torch.device("cpu"), torch.float64)
    periods = 2 * math.pi / frequencies
    assert periods[0] == pytest.approx(first)
    assert periods[-1] == pytest.approx(last, rel=0.03)
    assert (periods[1:] > periods[:-1]).all()


def test_crte_in_half_precision_keeps_time_exact(generator):
    embeddings = torch.randn(2, 8, generator=generator)
    crte = ConstrainedRotaryTimeEmbedding(8, 3600.0, "longest")
    seconds = torch.tensor([3000.0, 3000.25])
    exact = crte(embeddings, seconds)
    half = crte(embeddings.bfloat16(), seconds)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.03, rtol=0.02)


def test_rote_is_rope_in_seconds(generator):
    size, theta = 6, 50_000.0
    embeddings = torch.randn(3, 8, generator=generator)
    seconds = torch.tensor([0.0, 2.5, 40.0])
    rotated = RoTE(size, theta)(embeddings, seconds)
    for row, second in enumerate(seconds.tolist()):
        for pair in range(size // 2):
            turn = complex(
                math.cos(second * theta ** (-2 * pair / size)), math.sin(second * theta ** (-2 * pair / size))
            )
            expected = complex(*embeddings[row, 2 * pair : 2 * pair + 2].tolist()) * turn
            assert rotated[row, 2 * pair].item() == pytest.approx(expected.real, abs=1e-5)
            assert rotated[row, 2 * pair + 1].item() == pytest.approx(expected.imag, abs=1e-5)
    torch.testing.assert_close(rotated.norm(dim=-1), embeddings.norm(dim=-1))


def test_learned_time_embedding_adds_one_vector_a_second():
    learned = LearnedTimeEmbedding(8, 20.0)
    embeddings = torch.zeros(4, 2, 8)
    out = learned(embeddings, torch.tensor([3.0, 3.4, 4.0, 500.0]))
    torch.testing.assert_close(out[0], out[1])
    torch.testing.assert_close(out[0, 0], out[0, 1])
    assert not torch.allclose(out[0], out[2])
    torch.testing.assert_close(out[3], learned(embeddings[:1], torch.tensor([20.0]))[0])


@pytest.mark.parametrize("kind", ["none", "learned", "rote", "crte"])
def test_time_embeddings_of_table_1(kind, generator):
    config = tiny_config(video_time_embedding=kind, video_max_time=50.0)
    module = build_time_embedding(config, "video")
    embeddings = torch.randn(2, 3, 16, generator=generator)
    out = module(embeddings, torch.tensor([0.0, 7.0]))
    assert out.shape == embeddings.shape
    assert torch.equal(out[1], embeddings[1]) == (kind == "none")
    if kind in ("rote", "crte"):
        torch.testing.assert_close(out[0], embeddings[0])
        assert not list(module.parameters()) and not module.state_dict()


# Audio compression, table 18


@pytest.mark.parametrize("length", [2, 7, 8])
def test_audio_compression(generator, length):
    vectors = torch.randn(2, length, 4, generator=generator)
    pairs = vectors[:, : length // 2 * 2].unflatten(1, (-1, 2))
    assert torch.equal(AudioCompression("none", 4)(vectors), vectors)
    assert torch.equal(AudioCompression("max", 4)(vectors), pairs.amax(2))
    torch.testing.assert_close(AudioCompression("avg", 4)(vectors), pairs.mean(2))
    convolution = AudioCompression("conv", 4)
    out = convolution(vectors)
    padded = nn.functional.pad(vectors, (0, 0, 1, 1))
    assert out.shape == (2, math.ceil(length / 2), 4)
    for step in range(out.shape[1]):
        window = padded[:, 2 * step : 2 * step + 3]  # (2, 3, 4)
        expected = torch.einsum("btc,oct->bo", window, convolution.conv.weight) + convolution.conv.bias
        torch.testing.assert_close(out[:, step], expected)


# Dynamic S2


def test_stitching_and_splitting_tiles():
    feature_map = torch.arange(6 * 4 * 2).view(6, 4, 2)
    tiles = split_tiles(feature_map, 3, 2)
    assert tiles.shape == (6, 2, 2, 2)
    assert torch.equal(tiles[1], feature_map[:2, 2:]) and torch.equal(tiles[2], feature_map[2:4, :2])
    assert torch.equal(stitch_tiles(tiles, 3, 2), feature_map)


@pytest.mark.parametrize(("index", "grid"), [(-1, (2, 5)), (2, (2, 5)), (0, (1, 1)), (1, (2, 2))])
def test_merging_scales(generator, index, grid):
    rows, columns, side = 2, 5, 4
    tiles = torch.randn(1 + 4 + rows * columns, side, side, 3, generator=generator)
    merged, merged_grid = merge_scales(tiles, [56, 112, 168], rows, columns, index)
    assert merged_grid == grid
    assert merged.shape == (grid[0] * grid[1], side, side, 9)
    whole = stitch_tiles(merged, *grid)
    maps = [tiles[0], stitch_tiles(tiles[1:5], 2, 2), stitch_tiles(tiles[5:], rows, columns)]
    own = maps[index]
    torch.testing.assert_close(whole[..., 3 * (index % 3) : 3 * (index % 3) + 3], own)
    # Area interpolation: each value is the mean of the cells that its area touches.
    height, width = own.shape[:2]
    smallest = maps[0]
    for row, column in ((0, 0), (height - 1, width - 1), (height // 2, 1)):
        top, bottom = row * side // height, math.ceil((row + 1) * side / height)
        left, right = column * side // width, math.ceil((column + 1) * side / width)
        torch.testing.assert_close(whole[row, column, :3], smallest[top:bottom, left:right].mean((0, 1)))


def test_space_to_depth_pads_at_the_right_and_the_bottom():
    features = torch.arange(1, 10.0).view(1, 3, 3, 1)
    folded = space_to_depth(features, 2)
    assert folded.shape == (1, 2, 2, 4)
    assert folded[0, 0, 0].tolist() == [1, 2, 4, 5]
    assert folded[0, 0, 1].tolist() == [3, 0, 6, 0]
    assert folded[0, 1, 1].tolist() == [9, 0, 0, 0]


def test_space_to_depth_is_that_of_perceiver(generator):
    from transformers.models.perceiver.modeling_perceiver import space_to_depth as perceiver

    features = torch.randn(2, 4, 6, 5, generator=generator)
    expected = perceiver(features.permute(0, 3, 1, 2), spatial_block_size=2)
    torch.testing.assert_close(space_to_depth(features, 2).flatten(), expected.flatten())


def projector() -> VisionProjector:
    torch.manual_seed(0)
    module = VisionProjector(tiny_config())
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.5)
    return module


@torch.no_grad()
@pytest.mark.parametrize("side", [4, 5])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_fused_projector_is_the_repeated_one(generator, side, chunk_size):
    module = projector().eval()
    features = torch.randn(3, side, side, 12, generator=generator)
    expected = module(features, chunk_size)
    assert torch.equal(module(features), module(features.repeat(1, 1, 1, 3)))
    called = []
    module.linear_1.register_forward_hook(lambda *_: called.append("linear_1"))
    module.fuse()
    fused = module(features, chunk_size)
    assert not called
    assert (fused - expected).abs().max() < 1e-5 * expected.abs().max()
    tiles = torch.randn(3, side, side, 36, generator=generator)  # merged tiles differ by scale
    torch.testing.assert_close(module(tiles), projector()(tiles))
    module.unfuse()
    assert torch.equal(module(features), module(features.repeat(1, 1, 1, 3))) and called


def test_fused_projector_has_the_gradients_of_the_repeated_one(generator):
    features = torch.randn(2, 4, 4, 12, generator=generator)
    fused, plain = projector().eval(), projector()
    fused.fuse()
    for module in (fused, plain):
        module(features).sum().backward()
    for (name, weight), other in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, msg=name)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.train().eval(),
        lambda module: module.load_state_dict({name: 2 * weight for name, weight in module.state_dict().items()}),
        lambda module: setattr(module, "linear_1", nn.utils.parametrizations.weight_norm(module.linear_1)),
        lambda module: setattr(module, "norm", nn.RMSNorm(module.norm.normalized_shape)),
    ],
    ids=["training", "new weights", "parametrized", "another norm"],
)
def test_fused_projector_follows_what_changes(generator, change):
    features = torch.randn(2, 4, 4, 12, generator=generator)
    module, plain = projector().eval(), projector().eval()
    module.fuse()
    for either in (module, plain):
        change(either)
    assert torch.equal(module(features), plain(features))


class Quantized(torch.Tensor):
    """A weight that only knows how to be a linear layer's, as those of quantizers."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is nn.functional.linear:
            inputs, weight, *bias = args
            return function(inputs, weight.as_subclass(torch.Tensor), *bias)
        if function.__name__ in ("__get__", "detach", "requires_grad_", "numel", "is_floating_point"):
            return super().__torch_function__(function, types, args, kwargs or {})
        raise NotImplementedError(f"{function} on a quantized weight")


class Wrapped(nn.Module):
    """A layer in the place of a linear one, without a weight of its own, as those of adapters."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer

    def forward(self, inputs):
        return self.base_layer(inputs)


def quantized(module):
    module.linear_1.weight = nn.Parameter(module.linear_1.weight.detach().as_subclass(Quantized), requires_grad=False)


def wrapped(module):
    module.linear_1 = Wrapped(module.linear_1)


def on_meta(module):
    module.linear_1.to("meta")


@torch.no_grad()
@pytest.mark.parametrize("change", [quantized, wrapped], ids=["tensor subclass", "wrapped layer"])
def test_projector_reads_its_weights_through_its_layers(generator, change):
    features = torch.randn(3, 4, 4, 12, generator=generator)
    module, called = projector().eval(), []
    expected = module(features)
    change(module)
    for layer in (module.norm, module.linear_1):
        layer.register_forward_hook(lambda layer, *_: called.append(layer))
    assert torch.equal(module(features, chunk_size=2), expected)
    assert called == 2 * [module.norm, module.linear_1]


@torch.no_grad()
def test_layers_of_the_projector_get_a_sequence(generator):
    """Kernels of quantizers take (batch, positions, width), and no more axes."""
    module, shapes = projector().eval(), []
    for layer in (module.norm, module.linear_1, module.linear_2):
        layer.register_forward_pre_hook(lambda layer, args: shapes.append(args[0].ndim))
    assert module(torch.randn(3, 4, 5, 12, generator=generator)).shape == (3, 2, 3, 16)
    assert shapes == [3, 3, 3]


class LookedUp(Quantized):
    """Rows that can be looked up, as of embeddings that are quantized, but not added to anything."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is nn.functional.embedding:
            return function(args[0], args[1].as_subclass(torch.Tensor), *args[2:])
        return super().__torch_function__(function, types, args, kwargs)


@torch.no_grad()
def test_positions_of_the_audio_tower_are_looked_up_where_they_are_no_plain_weight(generator):
    tower = OmniVinciAudioTower._from_config(tiny_config().audio_config).eval()
    windows = torch.randn(2, 8, 20, generator=generator)
    expected, called = tower(windows).last_hidden_state, []
    table = tower.embed_positions.weight.detach().as_subclass(LookedUp)
    tower.embed_positions.weight = nn.Parameter(table, requires_grad=False)
    tower.embed_positions.register_forward_hook(lambda *_: called.append("looked up"))
    assert torch.equal(tower(windows).last_hidden_state, expected)
    assert called and type(tower.embed_positions.weight) is LookedUp


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (quantized, "a weight of `linear_1` is a Quantized"),
        (wrapped, "`linear_1` is a Wrapped"),
        (on_meta, "a weight of `linear_1` is offloaded"),
        (lambda module: module.train(), "in training mode"),
    ],
    ids=["tensor subclass", "wrapped layer", "offloaded", "training"],
)
def test_projector_is_not_fused_where_weights_are_no_plain_ones(change, message):
    module = projector().eval()
    change(module)
    with pytest.raises(ValueError, match=message):
        module.fuse()
    assert module.fused_weight is None


@pytest.mark.parametrize("layer", [-2, -1, 0, 1, 3, -4])
def test_vision_tower_stops_after_the_layer_that_is_read(generator, layer):
    from transformers import SiglipVisionModel

    config = tiny_config(vision_feature_layer=layer)
    whole = SiglipVisionModel(config.vision_config).eval()
    tower = OmniVinciVisionTower(config.vision_config, num_layers=config.num_vision_layers).eval()
    tower.load_state_dict({name: value for name, value in whole.state_dict().items() if name in tower.state_dict()})
    pixels = torch.randn(5, 3, 28, 28, generator=generator)
    expected = whole.embeddings(pixels)
    hidden_states = [expected]
    for encoder_layer in whole.encoder.layers:
        expected = encoder_layer(expected, None)
        hidden_states.append(expected)
    with torch.no_grad():
        read = tower(pixels, chunk_size=2).last_hidden_state
    torch.testing.assert_close(read, hidden_states[layer])
    assert len(tower.encoder.layers) == config.num_vision_layers


# Temporal pooling


@pytest.mark.parametrize("pool_size", [[1, 1, 1], [2, 1, 1], [3, 1, 1], [2, 2, 3], [1, 2, 2]])
@pytest.mark.parametrize("num_frames", [1, 4, 5])
def test_pooling_completes_the_last_group_by_one_scalar(generator, pool_size, num_frames):
    clip = torch.randn(num_frames, 4, 4, 2, generator=generator)
    seconds = torch.arange(num_frames) * 1.5
    pooled, times = pool_clip(clip, seconds, pool_size)

    def pool(array, size, axis):
        remainder = array.shape[axis] % size
        if remainder:
            rest = np.take(array, range(array.shape[axis] - remainder, array.shape[axis]), axis=axis)
            shape = list(array.shape)
            shape[axis] = size - remainder
            array = np.concatenate([array, np.full(shape, rest.mean())], axis=axis)
        groups = np.split(array, array.shape[axis] // size, axis=axis)
        return np.concatenate([group.mean(axis=axis, keepdims=True) for group in groups], axis=axis)

    expected = clip.numpy().astype(np.float64)
    for axis, size in enumerate(pool_size):
        expected = pool(expected, size, axis)
    expected = expected.reshape(expected.shape[0], -1, 2)
    torch.testing.assert_close(pooled, torch.from_numpy(expected).float())
    expected_times = pool(seconds.numpy().astype(np.float64), pool_size[0], 0)
    torch.testing.assert_close(times, torch.from_numpy(expected_times).float())


# Whole models with other settings: what the processor plans is what the model produces


@pytest.mark.parametrize(
    "settings",
    [
        {"video_pool_sizes": [[2, 1, 1]]},
        {"video_pool_sizes": [[1, 1, 1], [3, 1, 1]]},
        {"audio_pooling": "max"},
        {"audio_pooling": "avg"},
        {"audio_pooling": "conv"},
        {"s2_output_scale_index": 0},
        {"s2_output_scale_index": 1},
        {"video_time_embedding": "learned", "audio_time_embedding": "rote"},
        {"video_time_period": "longest", "audio_time_embedding": "none"},
        {"vision_feature_layer": -1},
    ],
    ids=str,
)
def test_features_of_other_settings(settings, generator):
    config = tiny_config(**settings)
    torch.manual_seed(0)
    model = OmniVinciForConditionalGeneration(config).eval()
    tiles = torch.randn(1 + 4 + 9 + 1, 3, 28, 28, generator=generator)
    frames = torch.randn(5, 3, 28, 28, generator=generator)
    windows = torch.randn(3, 8, 20, generator=generator)
    num_vectors = {"none": 10, "max": 5, "avg": 5, "conv": 5}[config.audio_pooling]
    clips = torch.full((2, num_vectors), -1.0)
    clips[0] = torch.arange(num_vectors) * 0.1
    clips[1, :2] = torch.tensor([0.1, 0.2])
    with torch.no_grad():
        image = model.get_image_features(tiles, torch.tensor([[3, 3], [1, 1]])).pooler_output
        video = model.get_video_features(frames, torch.tensor([[0.0, 1, 2], [0, 0.5, -1]])).pooler_output
        audio = model.get_audio_features(windows, clips, torch.tensor([2, 1])).pooler_output
    squares = {-1: 9, 0: 1, 1: 4}
    assert [len(item) for item in image] == [squares[config.s2_output_scale_index], 1]
    expected = [sum(math.ceil(n / pool[0]) for pool in config.video_pool_sizes) for n in (3, 2)]
    assert [len(item) for item in video] == expected
    assert [len(item) for item in audio] == [num_vectors, 2]
    # The second clip and the second video are what they are alone.
    with torch.no_grad():
        alone = model.get_audio_features(windows[2:], clips[1:], torch.tensor([1])).pooler_output[0]
        torch.testing.assert_close(audio[1], alone)
        alone = model.get_video_features(frames[3:], torch.tensor([[0.0, 0.5]])).pooler_output[0]
        torch.testing.assert_close(video[1], alone)


def test_sound_of_two_windows_is_compressed_as_one_sequence(generator):
    torch.manual_seed(0)
    model = OmniVinciForConditionalGeneration(tiny_config(audio_pooling="conv", audio_time_embedding="none")).eval()
    windows = torch.randn(2, 8, 20, generator=generator)
    with torch.no_grad():
        together = model.get_audio_features(windows, torch.arange(5.0)[None], torch.tensor([2])).pooler_output[0]
        vectors = model.model.audio_tower(windows).last_hidden_state.flatten(0, 1)[None]
        expected = model.model.audio_projector(model.model.audio_compression(vectors))[0]
    torch.testing.assert_close(together, expected)
