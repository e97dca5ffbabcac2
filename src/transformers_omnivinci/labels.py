"""What of a sequence is learned: never placeholders, which media replace before the language model reads them."""

from collections.abc import Iterable

import numpy as np
import torch

IGNORED = -100
"""The label of what is not learned."""


def without_placeholders(labels, placeholder_ids: Iterable[int]):
    """
    Labels in which placeholders are [`IGNORED`], as a copy if there are any.

    Args:
        labels (`torch.Tensor`, `np.ndarray` or nested lists of `int`): Next-token targets.
        placeholder_ids (`Iterable[int]`): The tokens that stand for media.
    """
    ids = list(placeholder_ids)
    if isinstance(labels, torch.Tensor):
        return labels.masked_fill(torch.isin(labels, torch.tensor(ids, device=labels.device)), IGNORED)
    if isinstance(labels, np.ndarray):
        return np.where(np.isin(labels, ids), IGNORED, labels)
    if isinstance(labels, (list, tuple)):
        return [without_placeholders(label, ids) for label in labels]
    return IGNORED if labels in ids else labels


def learned_targets(
    labels: torch.Tensor,
    placeholder_ids: Iterable[int],
    input_ids: torch.Tensor | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
    shift_labels: torch.Tensor | None = None,
) -> dict:
    """
    The targets of a loss without placeholders, and the number that its sum is divided by.

    Trainer counts targets over all processes and accumulated batches before the model sees them. If labels hold
    placeholders, its number is too large: it is reduced by their share here, so that the loss is a mean over what is
    learned. Batches of unlike shares then weigh by what was counted of them: mask placeholders in the labels, as what
    the processor returns does when it is given labels, to weigh every token alike.

    Args:
        labels (`torch.Tensor` of shape `(batch_size, sequence_length)`): Next-token targets.
        placeholder_ids (`Iterable[int]`): The tokens that stand for media.
        input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*): Where placeholders stand.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): Targets that Trainer has counted.
        shift_labels (`torch.Tensor` of shape `(batch_size, kept positions)`, *optional*):
            Targets that are shifted already; then they are the ones that count.

    Returns:
        `dict`: `labels`, `num_items_in_batch` and, where they are given, `shift_labels`.
    """
    ids = list(placeholder_ids)
    learned = {"labels": without_placeholders(labels, ids)}
    if input_ids is not None:
        is_placeholder = torch.isin(input_ids, torch.tensor(ids, device=input_ids.device))
        learned["labels"] = learned["labels"].masked_fill(is_placeholder.to(labels.device), IGNORED)
    counted, kept = labels[..., 1:], learned["labels"][..., 1:]
    if shift_labels is not None:
        learned["shift_labels"] = without_placeholders(shift_labels, ids)
        counted, kept = shift_labels, learned["shift_labels"]
    if num_items_in_batch is not None:
        num_counted, num_kept = (counted != IGNORED).sum(), (kept != IGNORED).sum()
        num_items = torch.as_tensor(num_items_in_batch, device=labels.device)
        reduced = num_items * num_kept.clamp(min=1) / num_counted.clamp(min=1)
        num_items_in_batch = torch.where(num_kept == num_counted, num_items, reduced)
    return {**learned, "num_items_in_batch": num_items_in_batch}


def share_of_targets(labels: torch.Tensor, num_items_in_batch=None, shift_labels=None) -> torch.Tensor | float:
    """
    The share of a batch in the targets that Trainer counted over all processes and accumulated steps, from what
    [`learned_targets`] returned. Trainer adds up their losses: means must be weighted by this, as sums over targets
    are by `num_items_in_batch`.
    """
    if num_items_in_batch is None:
        return 1.0
    targets = labels[..., 1:] if shift_labels is None else shift_labels
    return (targets != IGNORED).sum() / num_items_in_batch
