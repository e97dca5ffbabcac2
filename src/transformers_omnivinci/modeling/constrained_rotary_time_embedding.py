"""Constrained Rotary Time Embedding (CRTE): absolute seconds rotated into embeddings. Section 2.1, equations 4, 5."""

import math
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**20
"""Channels of embeddings that are rotated at a time, in double precision."""


def rotate_half(hidden_states: torch.Tensor) -> torch.Tensor:
    """[-x_2, x_1, -x_4, x_3, ...] along the last axis, of even size (equation 5)."""
    first, second = hidden_states[..., 0::2], hidden_states[..., 1::2]
    return torch.stack((-second, first), dim=-1).flatten(-2)


class RotaryTimeEmbedding(nn.Module):
    """
    Rotates the first `size` channels of embeddings by an angle proportional to their time (equation 5); the other
    channels pass through. Subclasses say how fast each channel turns. There is nothing to train and nothing to save.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def frequencies(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Angular frequency of each rotated channel, in radians per second: (size,)."""
        raise NotImplementedError

    def forward(self, embeddings: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        """
        Args:
            embeddings (`torch.Tensor` of shape `(num_embeddings, ..., hidden_size)`): What is rotated.
            timestamps (`torch.Tensor` of shape `(num_embeddings,)`): Their time in seconds.

        Returns:
            `torch.Tensor`: as `embeddings`. It is computed some rows at a time, which bounds the memory.
        """
        rows = max(1, CHUNK_ELEMENTS // max(1, embeddings[:1].numel()))
        pairs = zip(embeddings.split(rows), timestamps.to(embeddings.device).split(rows), strict=True)
        if torch.is_grad_enabled() and embeddings.requires_grad:
            # Angles are computed again in the backward pass: kept, they would take several times the embeddings.
            rotate = partial(checkpoint, self._rotate, use_reentrant=False, preserve_rng_state=False)
            return torch.cat([rotate(*pair) for pair in pairs])
        rotated = torch.empty_like(embeddings)
        for part, pair in zip(rotated.split(rows), pairs, strict=True):
            part.copy_(self._rotate(*pair))
        return rotated

    def _rotate(self, embeddings: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        # An hour is thousands of turns of the fastest channel, so the angles are kept in double precision where
        # the device has it.
        precision = torch.float32 if embeddings.device.type == "mps" else torch.float64
        frequencies = self.frequencies(embeddings.device, precision)
        angles = timestamps.to(precision)[:, None] * frequencies  # (num_embeddings, size)
        angles = angles.view(len(angles), *[1] * (embeddings.ndim - 2), self.size)
        rotated = embeddings[..., : self.size].float()
        rotated = rotated * angles.cos().float() + rotate_half(rotated) * angles.sin().float()
        return torch.cat((rotated.to(embeddings.dtype), embeddings[..., self.size :]), dim=-1)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class ConstrainedRotaryTimeEmbedding(RotaryTimeEmbedding):
    """
    CRTE. Every channel has its own frequency, also the two channels of a pair.

    With period `"shortest"` even the fastest channel completes one turn only after `max_time` seconds: equation 4 with
    θ = 5. With `"longest"` the periods run from one second up to `max_time`.

    Args:
        size (`int`): How many channels are rotated, C in equation 4.
        max_time (`float`): T_max in seconds.
        period (`str`): `"shortest"` or `"longest"`.
    """

    theta = 5.0

    def __init__(self, size: int, max_time: float, period: str = "shortest"):
        super().__init__(size)
        self.max_time = max_time
        self.period = period

    def frequencies(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        channels = torch.arange(self.size, device=device, dtype=dtype)
        if self.period == "shortest":
            return 2 * math.pi / (self.max_time * self.theta ** (channels / self.size))
        return 2 * math.pi / self.max_time ** (channels / (self.size - 1))

    def extra_repr(self) -> str:
        return f"size={self.size}, max_time={self.max_time}, period={self.period!r}"
