"""
Encoding frames: the image encoder and the vision projector, against the way of the release.

The release runs all layers of SigLIP over all frames at once, keeps the hidden states of every layer and reads one
of them; and it projects the features of a frame repeated once for each scale of Dynamic S2, as we do but for `fuse`.
"""

import copy

import torch
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from transformers_omnivinci import OmniVinciConfig
from transformers_omnivinci.modeling.projectors import VisionProjector
from transformers_omnivinci.modeling.vision_tower import OmniVinciVisionTower

from ._harness import MB, PeakMemory, Report, in_fresh_process, parser_on_device, take_turns

NOTE = (
    "Shapes of SigLIP-so400m at 448 px and of the published projector, random weights. Memory is what is held at "
    "most beyond weights, pixels and the features that are returned."
)
READ = -2  # the hidden state that is read


def build_towers(num_layers: int, device: torch.device, dtype: torch.dtype):
    """The whole encoder of the release, and ours up to the layer that is read; they share their weights."""
    settings = OmniVinciConfig().vision_config.to_dict() | {"num_hidden_layers": num_layers}
    config = SiglipVisionConfig(**settings)
    release = SiglipVisionModel._from_config(config).to(device, dtype).eval()
    with torch.device("meta"):
        ours = OmniVinciVisionTower._from_config(config, num_layers=num_layers + 1 + READ).eval()
    ours.embeddings = release.embeddings
    ours.encoder.layers = release.encoder.layers[: len(ours.encoder.layers)]
    return release, ours


@torch.inference_mode()
def compare_towers(sizes: list[tuple[int, int]], chunk_size: int, device: torch.device, dtype) -> list[dict]:
    """Rows for (layers, frames) in turn."""
    _compare_towers(2, 1, 1, device, dtype)  # fills the caches of the libraries
    return [_compare_towers(*size, chunk_size, device, dtype) for size in sizes]


def _compare_towers(num_layers: int, num_frames: int, chunk_size: int, device, dtype) -> dict:
    """Time and memory of both towers over the same frames, measured in the same passes."""
    torch.manual_seed(0)
    release, ours = build_towers(num_layers, device, dtype)
    pixels = torch.rand(num_frames, 3, 448, 448).mul_(2).sub_(1).to(device, dtype)
    features, held = {}, {}

    def run(name, forward):
        def measured():
            features[name] = None
            with PeakMemory(device) as peak:
                features[name] = forward()
            held[name] = peak.bytes - features[name].nbytes

        return measured

    timings = take_turns(
        {
            "release": run("release", lambda: release(pixels, output_hidden_states=True).hidden_states[READ]),
            "ours": run("ours", lambda: ours(pixels, chunk_size=chunk_size).last_hidden_state),
        },
        repeats=1,
        warm_up=device.type == "cuda",
    )
    return {
        "layers": num_layers,
        "frames": num_frames,
        "release (s/frame)": timings.median("release") / num_frames,
        "ours (s/frame)": timings.median("ours") / num_frames,
        "release/ours ×": timings.ratio("release", "ours"),
        "by CPU time ×": timings.ratio("release", "ours", "cpu"),
        "release (MB)": held["release"] / MB,
        "ours (MB)": held["ours"] / MB,
        "features (MB)": features["ours"].nbytes / MB,
        "most difference": (features["release"] - features["ours"]).abs().max().item(),
    }


def compare_projections(projector: VisionProjector, num_frames: int, repeats: int) -> dict:
    """The projector as it is, which repeats the features of frames once for each scale, and fused, in chunks alike."""
    config, weight = OmniVinciConfig(), projector.linear_1.weight
    features = torch.randn(num_frames, 32, 32, config.vision_config.hidden_size).to(weight.device, weight.dtype)
    fused = copy.deepcopy(projector)
    fused.fuse()

    def repeated():
        return projector(features, chunk_size=config.vision_chunk_size)

    def one_copy():
        return fused(features, chunk_size=config.vision_chunk_size)

    timings = take_turns({"repeated": repeated, "fused": one_copy}, repeats)
    expected, got = repeated().float(), one_copy().float()
    return {
        "frames": num_frames,
        "repeated (ms/frame)": 1e3 * timings.median("repeated") / num_frames,
        "fused (ms/frame)": 1e3 * timings.median("fused") / num_frames,
        "repeated/fused ×": timings.ratio("repeated", "fused"),
        "by CPU time ×": timings.ratio("repeated", "fused", "cpu"),
        "most difference": (expected - got).abs().max().item(),
        "most output": expected.abs().max().item(),
    }


def build_projector(device: torch.device, dtype: torch.dtype) -> VisionProjector:
    """The projector with random weights, also in its norm, which would be the identity else."""
    projector = VisionProjector(OmniVinciConfig())
    torch.nn.init.normal_(projector.norm.weight, 1.0, 0.1)
    torch.nn.init.normal_(projector.norm.bias, 0.0, 0.1)
    return projector.to(device, dtype).eval()


@torch.inference_mode()
def main() -> None:
    parser = parser_on_device("python -m benchmarks.encode", __doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=8, help="the most frames that are encoded (default: 8)")
    parser.add_argument("--chunk-size", type=int, default=2, help="frames that we encode at a time (default: 2)")
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 13, 27], help="depths (default: 6 13 27)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the projector (default: 3)")
    arguments = parser.parse_args()
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    report = Report("encode", vars(arguments), NOTE)
    depths = [(num_layers, max(1, arguments.frames // 2)) for num_layers in arguments.layers]
    lengths = [(min(arguments.layers), max(1, arguments.frames // part)) for part in (4, 2, 1)]
    rows = in_fresh_process(compare_towers, depths + lengths, arguments.chunk_size, device, dtype)
    report.add("Image encoder by depth: what we hold does not grow with it", rows[: len(depths)])
    report.add("Image encoder by frames: nor with these, but for the features", rows[len(depths) :])

    torch.manual_seed(0)
    projector = build_projector(device, dtype)
    projections = [compare_projections(projector, num_frames, arguments.repeats) for num_frames in (1, 8, 32)]
    report.add("Vision projector, 3 scales, by frames, fused (wanted: 2×)", projections)
    report.save()


if __name__ == "__main__":
    main()
