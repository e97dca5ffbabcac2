"""Keys and values of many prompts: what prompts begin with in common is held once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

OVERHEAD = 1024
"""Bytes that are counted for every tensor besides its values: small ones take room of their own."""

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, of shape (1, num_heads, length, head_dim)."""


@dataclass(eq=False)
class Node:
    """
    Some positions, and what may follow them.

    Attributes:
        keys (`np.ndarray` of shape `(length,)`): What stands at each position, see [`Content.keys`].
        layers (`Layers`): Of these positions alone, in memory of their own.
        parent (`Node`, *optional*): What goes before. `None`: this is the root.
        used (`int`): When it was last read.
        children (`dict[int, Node]`): What follows, by its first key.
    """

    keys: np.ndarray
    layers: Layers
    parent: "Node | None" = None
    used: int = 0
    children: dict[int, "Node"] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        return self.keys.nbytes + sum(map(size_of, (tensor for layer in self.layers for tensor in layer)))


class PrefixTree:
    """
    A tree in which each path is a prompt that was read. Its tensors are never written to, so that what was found goes
    on to be of use when it is not held here any more.
    """

    def __init__(self):
        self.root = Node(np.zeros(0, np.int64), [])
        self.num_bytes = 0

    def find(self, keys: np.ndarray, now: int) -> tuple[list[tuple[Node, int]], int]:
        """
        What is held of a prompt: nodes one after another, with how many positions of each agree, and the sum of these.
        They are used `now`.
        """
        path, node, start = [], self.root, 0
        while start < len(keys) and (child := node.children.get(int(keys[start]))) is not None:
            length = min(len(child.keys), len(keys) - start)
            differs = child.keys[:length] != keys[start : start + length]
            agreed = int(differs.argmax()) if differs.any() else length
            path.append((child, agreed))
            child.used, start, node = max(child.used, now), start + agreed, child
            if agreed < len(child.keys):
                break
        return path, start

    def cost(self, keys: np.ndarray, layers: Layers, now: int) -> int:
        """At most so many bytes [`insert`] adds."""
        path, start = self.find(keys, now)
        if start == len(keys):
            return 0
        tensors = [tensor for layer in layers for tensor in layer]
        # A node that is divided has its tensors twice, each with a part of the values.
        divided = len(tensors) * OVERHEAD if path and path[-1][1] < len(path[-1][0].keys) else 0
        return (
            (len(keys) - start) * keys.itemsize
            + divided
            + sum(size_of(one[..., start : len(keys), :]) for one in tensors)
        )

    def insert(self, keys: np.ndarray, layers: Layers, now: int) -> None:
        """Holds a prompt; `layers` are those of all its positions, of which what is new is copied."""
        path, start = self.find(keys, now)
        if start == len(keys):
            return
        parent = path[-1][0] if path else self.root
        if path and path[-1][1] < len(parent.keys):
            parent = self._split(*path[-1])
        self._add(Node(keys[start:].copy(), _part(layers, start, len(keys)), parent, now))

    def nodes(self) -> Iterator[Node]:
        """All of it but the root."""
        waiting = list(self.root.children.values())
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            yield node

    def leaves(self) -> Iterator[Node]:
        """The ends of all paths."""
        return (node for node in self.nodes() if not node.children)

    def drop(self, leaf: Node) -> None:
        """Forgets the end of a path."""
        del leaf.parent.children[int(leaf.keys[0])]
        self.num_bytes -= leaf.num_bytes

    def _add(self, node: Node) -> None:
        node.parent.children[int(node.keys[0])] = node
        self.num_bytes += node.num_bytes

    def _split(self, node: Node, length: int) -> Node:
        """Makes two of a node, of which the first one has `length` positions and is returned."""
        self.num_bytes -= node.num_bytes
        first = Node(node.keys[:length].copy(), _part(node.layers, 0, length), node.parent, node.used)
        self._add(first)
        node.layers = _part(node.layers, length, len(node.keys))
        node.keys, node.parent = node.keys[length:].copy(), first
        self._add(node)
        return first


def join_layers(path: Sequence[tuple[Node, int]]) -> Layers:
    """Keys and values of the positions of a path of [`PrefixTree.find`]."""
    parts = [_part(node.layers, 0, length, copies=False) for node, length in path]
    if len(parts) == 1:
        return parts[0]
    return [tuple(torch.cat(tensors, dim=-2) for tensors in zip(*layer, strict=True)) for layer in zip(*parts)]


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor that has memory of its own."""
    return tensor.numel() * tensor.element_size() + OVERHEAD


def _part(layers: Layers, start: int, stop: int, copies: bool = True) -> Layers:
    parts = [tuple(tensor[..., start:stop, :] for tensor in layer) for layer in layers]
    return [tuple(tensor.clone() for tensor in layer) for layer in parts] if copies else parts
