"""The cases of the parity fixtures as inputs of a processor."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import PIL.Image
import torch
from safetensors.torch import load_file

from .conftest import CASES, PARITY
from .media_files import Sound, write_audio, write_video


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


def write_media(folder, case: dict, tensors: dict[str, torch.Tensor]) -> dict:
    """Keyword arguments of the processor: files that hold the media of a case without loss."""
    arguments, audio = {"images": [], "videos": [], "audio": []}, Sound(rate=16_000, layout="mono", codec="pcm_s16le")
    for item in case["content"]:
        if item["type"] == "image":
            path = folder / f"{len(arguments['images'])}.png"
            PIL.Image.fromarray(tensors[f"image.{len(arguments['images'])}"].numpy()).save(path)
            arguments["images"].append(path)
        elif item["type"] == "audio":
            samples = waveform(tensors[f"audio.{len(arguments['audio'])}.waveform"])
            arguments["audio"].append(write_audio(folder / f"{len(arguments['audio'])}.wav", audio, samples[None]))
        elif item["type"] == "video":
            index = len(arguments["videos"])
            facts, frames = case["videos"][index], tensors[f"video.{index}.frames"].numpy()
            pictures = [np.zeros_like(frames[0])] * facts["total_num_frames"]
            for number, frame in zip(facts["frames_indices"], frames, strict=True):
                pictures[number] = frame
            sound = None
            if facts["has_audio"]:
                sound = replace(audio, samples=waveform(tensors[f"video.{index}.waveform"])[None])
            options = {"size": frames.shape[2:0:-1], "fps": Fraction(facts["fps"]), "codec": "ffv1", "pix_fmt": "bgr0"}
            path = folder / f"{index}.mkv"
            arguments["videos"].append(write_video(path, len(pictures), pictures=pictures, sound=sound, **options))
            arguments |= {"num_frames": len(frames), "load_audio_from_video": facts["has_audio"]}
    if arguments.get("load_audio_from_video"):
        arguments["audio_from_video_indices"] = [*range(len(arguments["videos"])), *[None] * len(arguments["audio"])]
    return {name: value for name, value in arguments.items() if value != []}
