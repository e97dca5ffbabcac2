"""
Sequence packing: several samples in one row, without padding.

The positions of each sample in a row start anew at 0 and there is no attention mask: transformers reads from that
where samples begin, for FlashAttention (`cu_seq_lens`) as for the block-diagonal masks of other attentions.
[`OmniVinciCollator`] writes such rows; this module decides which samples share one.
"""

from collections.abc import Iterable, Sequence


def pack(indices: Iterable[int], lengths: Sequence[int], capacity: int) -> list[tuple[int, ...]]:
    """
    Fills rows by first fit, the longest samples first.

    Args:
        indices (`Iterable[int]`): The samples.
        lengths (`Sequence[int]`): Length of each sample, by its index.
        capacity (`int`): The most positions of a row.

    Returns:
        `list[tuple[int, ...]]`: The samples of each row.

    Raises:
        ValueError: a sample is longer than a row.
    """
    order = sorted(indices, key=lambda index: -lengths[index])
    shortest = lengths[order[-1]] if order else 0
    rows: list[list[int]] = []
    room: list[int] = []
    is_open: list[int] = []  # rows that the shortest sample still fits
    for index in order:
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"A sample of {length:,} positions does not fit a row of {capacity:,}.")
        row = next((row for row in is_open if room[row] >= length), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(capacity)
            is_open.append(row)
        rows[row].append(index)
        room[row] -= length
        if room[row] < shortest:
            is_open.remove(row)
    return [tuple(row) for row in rows]
