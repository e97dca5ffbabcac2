"""The four ways in which the paper lets seconds enter embeddings: the rows of table 1."""

import torch
from torch import nn

from .constrained_rotary_time_embedding import ConstrainedRotaryTimeEmbedding, RotaryTimeEmbedding


class NoTimeEmbedding(nn.Module):
    """Embeddings pass unchanged; time is told by their order alone."""

    def forward(self, embeddings: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        return embeddings


class RoTE(RotaryTimeEmbedding):
    """
    Rotary time embedding (RoTE, reference [38] of the paper): the frequencies of RoPE, θ^(-2i/size) for pair i, with
    seconds in the place of token positions. Nothing bounds the angle, so the first channels turn once in 2π seconds.

    Args:
        size (`int`): How many channels are rotated.
        theta (`float`): Base of the frequencies.
    """

    def __init__(self, size: int, theta: float):
        super().__init__(size)
        self.theta = theta

    def frequencies(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        pairs = torch.arange(0, self.size, 2, device=device, dtype=dtype)
        return (self.theta ** (-pairs / self.size)).repeat_interleave(2)

    def extra_repr(self) -> str:
        return f"size={self.size}, theta={self.theta}"


class LearnedTimeEmbedding(nn.Module):
    """
    Learned time embedding (section 4.1.1): a trainable table with one row for every whole second in [0, max_time],
    mapped by a perceptron and added. Later times share the last row.

    Args:
        hidden_size (`int`): Width of the embeddings.
        max_time (`float`): T_max in seconds.
    """

    def __init__(self, hidden_size: int, max_time: float):
        super().__init__()
        self.table = nn.Embedding(int(max_time) + 1, hidden_size)
        self.linear_1 = nn.Linear(hidden_size, hidden_size)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, embeddings: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        """As [`RotaryTimeEmbedding.forward`]."""
        seconds = timestamps.to(embeddings.device).round().long().clamp(0, self.table.num_embeddings - 1)
        time = self.linear_2(self.act(self.linear_1(self.table(seconds))))  # (num_embeddings, hidden_size)
        return embeddings + time.view(len(time), *[1] * (embeddings.ndim - 2), -1).to(embeddings)


def build_time_embedding(config, modality: str) -> nn.Module:
    """The time embedding that an [`OmniVinciConfig`] names for `modality`, `"video"` or `"audio"`."""
    kind = getattr(config, f"{modality}_time_embedding")
    max_time = getattr(config, f"{modality}_max_time")
    size = getattr(config, f"{modality}_time_rotated_size") or config.text_config.hidden_size
    if kind == "crte":
        return ConstrainedRotaryTimeEmbedding(size, max_time, getattr(config, f"{modality}_time_period"))
    if kind == "rote":
        return RoTE(size, getattr(config, f"{modality}_time_theta"))
    if kind == "learned":
        return LearnedTimeEmbedding(config.text_config.hidden_size, max_time)
    return NoTimeEmbedding()
