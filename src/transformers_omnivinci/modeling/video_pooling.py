"""Pooling of a clip's projected embeddings along time, height and width."""

import torch


def _pool(values: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    if size == 1:
        return values
    remainder = values.shape[dim] % size
    if remainder:
        # The release completes the last group by one scalar, the mean over all values of the incomplete group.
        filler = values.narrow(dim, values.shape[dim] - remainder, remainder).mean()
        shape = list(values.shape)
        shape[dim] = size - remainder
        values = torch.cat((values, filler.expand(shape)), dim=dim)
    return values.unflatten(dim, (-1, size)).mean(dim + 1)


def pool_clip(
    embeddings: torch.Tensor, timestamps: torch.Tensor, pool_size: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Average-pools one clip by (frames, rows, columns).

    Args:
        embeddings (`torch.Tensor` of shape `(num_frames, rows, columns, hidden_size)`): Projected embeddings.
        timestamps (`torch.Tensor` of shape `(num_frames,)`): Seconds.
        pool_size (`list[int]`): Frames, rows and columns that become one.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: (pooled frames, pooled rows · pooled columns, hidden_size) and the pooled
        seconds (pooled frames,).
    """
    for dim, size in enumerate(pool_size):
        embeddings = _pool(embeddings, size, dim)
    return embeddings.flatten(1, 2), _pool(timestamps, pool_size[0], 0)
