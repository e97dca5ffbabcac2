"""The cases of the parity fixtures as inputs of a processor."""

import numpy as np
import torch
from safetensors.torch import load_file

from .conftest import CASES, PARITY


def load_case(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The case's entry and its tensors."""
    case = CASES[name]
    return case, load_file(PARITY / case["file"])


def waveform(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.float32) / 32768


def media_of(case: dict, tensors: dict[str, torch.Tensor]) -> dict:
    """Keyword arguments of the processor: images, sampled frames with metadata, waveforms."""
    images = [tensors[f"image.{k}"].numpy() for k in range(sum(item["type"] == "image" for item in case["content"]))]
    videos, metadata, audio, links = [], [], [], []
    counts = {"video": 0, "audio": 0}
    for item in case["content"]:
        if item["type"] not in counts:
            continue
        index = counts[item["type"]]
        counts[item["type"]] += 1
        if item["type"] == "video":
            facts = case["videos"][index]
            videos.append(tensors[f"video.{index}.frames"].numpy())
            metadata.append({key: facts[key] for key in ("fps", "total_num_frames", "duration", "frames_indices")})
            if facts["has_audio"]:
                audio.append(waveform(tensors[f"video.{index}.waveform"]))
                links.append(index)
        else:
            audio.append(waveform(tensors[f"audio.{index}.waveform"]))
            links.append(None)
    arguments = {}
    if images:
        arguments["images"] = images
    if videos:
        arguments |= {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}
    if audio:
        arguments["audio"] = audio
    if any(link is not None for link in links):
        arguments |= {"load_audio_from_video": True, "audio_from_video_indices": links}
    return arguments
