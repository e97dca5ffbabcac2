"""Compression of the audio sequence before its projector. Appendix D.1, table 18."""

import torch
from torch import nn


class AudioCompression(nn.Module):
    """
    Halves a clip's sequence of audio vectors, or leaves it: `"max"` and `"avg"` pool pairs of neighbours, `"conv"` is
    a convolution of width 3, `"none"` the baseline of table 18.

    Args:
        pooling (`str`): `"none"`, `"max"`, `"avg"` or `"conv"`.
        hidden_size (`int`): Width of the audio vectors.
    """

    def __init__(self, pooling: str, hidden_size: int):
        super().__init__()
        self.pooling = pooling
        if pooling == "conv":
            self.conv = nn.Conv1d(hidden_size, hidden_size, kernel_size=3, stride=2, padding=1)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """
        Args:
            vectors (`torch.Tensor` of shape `(num_clips, num_vectors, hidden_size)`):
                The whole sequence of each clip; shorter clips are followed by zeros.

        Returns:
            `torch.Tensor` of shape `(num_clips, compressed num_vectors, hidden_size)`.
        """
        if self.pooling == "none":
            return vectors
        channels_first = vectors.transpose(1, 2)
        if self.pooling == "conv":
            compressed = self.conv(channels_first)
        elif self.pooling == "max":
            compressed = nn.functional.max_pool1d(channels_first, kernel_size=2, stride=2)
        else:
            compressed = nn.functional.avg_pool1d(channels_first, kernel_size=2, stride=2)
        return compressed.transpose(1, 2)

    def extra_repr(self) -> str:
        return f"pooling={self.pooling!r}"
