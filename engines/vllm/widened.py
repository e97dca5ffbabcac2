"""
The parity checkpoints with wider heads, for engines whose kernels know no heads of 16 channels.

They compute the same: every vector of the language model is followed by zeros, each head has its channels where the
wider head's rotary embedding turns with the same frequencies, and scales are made up for. So what the released code
generated is what these generate.
"""

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FACTOR = 2
"""How many times as wide: heads of 32 channels, the smallest that vLLM's attention on CPUs has."""


def widen_checkpoint(source: Path, target: Path) -> Path:
    """Writes the checkpoint `source`, in the published layout, with wider vectors and heads to `target`."""
    shutil.copytree(source, target)
    text = json.loads((source / "llm" / "config.json").read_text())
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    for path in target.glob("*/*.safetensors"):
        folder, weights = path.parent.name, load_file(path)
        wide = {name: _widen(folder, name, tensor, hidden, hidden // heads) for name, tensor in weights.items()}
        save_file(wide, path, metadata={"format": "pt"})
    for path in target.glob("**/config.json"):
        path.write_text(json.dumps(_settings(json.loads(path.read_text()), hidden, path.parent.name)))
    return target


def _settings(settings: dict, hidden: int, folder: str) -> dict:
    """The width and the epsilon of norms, wherever a config says them of the language model."""
    wide = dict(settings)
    if "llm_cfg" in settings:
        wide |= {"hidden_size": hidden * FACTOR, "llm_cfg": _settings(settings["llm_cfg"], hidden, "llm")}
    elif folder == "llm":
        wide["hidden_size"] = hidden * FACTOR
        # The mean of squares is taken over more channels, which are zero.
        wide["rms_norm_eps"] = settings["rms_norm_eps"] / FACTOR
    return wide


def _widen(folder: str, name: str, tensor: torch.Tensor, hidden: int, head: int) -> torch.Tensor:
    part = name.split(".")
    if folder == "llm":
        if part[-2].endswith("norm"):
            return _with_zeros(tensor, 0) / math.sqrt(FACTOR)
        if part[-2] in ("q_proj", "k_proj"):
            tensor = _spread(tensor, head)
            # Scores are divided by the square root of the width.
            tensor = tensor * math.sqrt(FACTOR) if part[-2] == "q_proj" else tensor
            return _with_zeros(tensor, 1) if tensor.ndim == 2 else tensor
        if part[-2] == "v_proj":
            tensor = _append_to_heads(tensor, head)
            return _with_zeros(tensor, 1) if tensor.ndim == 2 else tensor
        if part[-2] == "o_proj":
            return _with_zeros(_append_to_heads(tensor.T.contiguous(), head).T, 0).contiguous()
        if part[-2] == "down_proj":
            return _with_zeros(tensor, 0)
        return _with_zeros(tensor, 1)  # embeddings, the head, gate and up
    if folder in ("mm_projector", "sound_mm_projector"):
        first, last = ("layers.2", "layers.4") if folder == "mm_projector" else ("layers.0", "layers.2")
        if name.startswith(first):
            return _with_zeros(tensor, 0)
        if name.startswith(last):
            tensor = _with_zeros(tensor, 0)
            return _with_zeros(tensor, 1) if tensor.ndim == 2 else tensor
    return tensor


def _with_zeros(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """`FACTOR` times as long along an axis."""
    return torch.cat([tensor, *[torch.zeros_like(tensor)] * (FACTOR - 1)], dim=axis)


def _append_to_heads(tensor: torch.Tensor, head: int) -> torch.Tensor:
    """Rows of each head, (heads · head, ...), followed by zeros."""
    return _with_zeros(tensor.unflatten(0, (-1, head)), 1).flatten(0, 1)


def _spread(tensor: torch.Tensor, head: int) -> torch.Tensor:
    """Rows of each head where the wider rotary embedding has their frequencies: every `FACTOR`-th of either half."""
    halves = tensor.unflatten(0, (-1, 2, head // 2))
    wide = torch.zeros(*halves.shape[:3], FACTOR, *halves.shape[3:], dtype=tensor.dtype)
    wide[:, :, :, 0] = halves
    return wide.flatten(0, 3)
