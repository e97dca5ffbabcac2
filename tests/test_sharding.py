"""Weights sharded over two processes that encode different numbers of tiles, frames and windows, or none."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoProcessor

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration

from .conftest import PARITY
from .media_samples import audio_item, image_item, user, video_item
from .processes import run_in_processes

SHARDED = (
    *("Qwen2DecoderLayer", "SiglipEncoderLayer", "Qwen2AudioEncoderLayer", "VisionProjector", "AudioProjector"),
    *("LearnedTimeEmbedding", "AudioCompression"),
)
BATCHES = {
    "tiles and frames": ([image_item()], [video_item(num_frames=5), video_item(num_frames=2)]),
    "several images and one": ([image_item(), image_item(seed=1), image_item(seed=2)], [image_item()]),
    "windows and text": ([audio_item(seconds=9)], []),
    "text and everything": ([], [image_item(), video_item(num_frames=3), audio_item()]),
    "text alone": ([], []),
}
"""What the chats of the first and of the second process hold."""


def build() -> OmniVinciForConditionalGeneration:
    """Every part of it has weights, and takes two inputs at a time."""
    settings = OmniVinciConfig.from_pretrained(PARITY / "published-tiny").to_dict()
    changes = {"video_time_embedding": "learned", "audio_time_embedding": "learned", "audio_pooling": "conv"}
    chunks = {"vision_chunk_size": 2, "audio_chunk_size": 1, "video_max_time": 90, "audio_max_time": 90}
    torch.manual_seed(0)
    return OmniVinciForConditionalGeneration(OmniVinciConfig.from_dict(settings | changes | chunks)).eval()


def gradients(model: nn.Module, batch: dict) -> tuple[float, dict[str, torch.Tensor]]:
    loss = model(**batch, labels=batch["input_ids"]).loss
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    return loss.item(), found


def train(rank: int, rendezvous: str) -> None:
    """A process: its losses and gradients alone and sharded, and how many inputs the encoders took at most."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    processor = AutoProcessor.from_pretrained(PARITY / "published-tiny")
    processor.audio_pooling = "conv"
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batches = {
        name: [processor.apply_chat_template(user(*media, "Compare."), **options) for media in pair]
        for name, pair in BATCHES.items()
    }
    alone = {name: [gradients(build(), batch) for batch in pair] for name, pair in batches.items()}
    model, mesh, sizes = build(), init_device_mesh("cpu", (2,)), []
    for module in model.modules():
        if type(module).__name__ in ("SiglipEncoderLayer", "Qwen2AudioEncoderLayer"):
            module.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
        if type(module).__name__ in SHARDED:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name, pair in batches.items():
        loss, sharded = gradients(model, pair[rank])
        assert loss == pytest.approx(alone[name][rank][0], abs=1e-5), name
        for weight, gradient in sharded.items():
            parts = [part[weight] for _, part in alone[name]]
            expected = sum(part for part in parts if part is not None) / 2
            if gradient is None:
                assert all(part is None for part in parts), (name, weight)
            else:
                gradient = gradient.full_tensor()
                expected = torch.zeros_like(gradient) + expected
                torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3, msg=f"{name}: {weight}")
        with torch.no_grad():
            assert model(**pair[rank], labels=pair[rank]["input_ids"]).loss.item() == pytest.approx(loss, abs=1e-5)
    assert max(sizes) == 2
    distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_make_the_same_number_of_passes(tmp_path):
    run_in_processes(train, str(tmp_path / "rendezvous"))
