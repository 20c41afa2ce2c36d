"""The positions that attention runs on, as plain data.

A `PositionMap` is a list of regions, each with a map for the query's index and one for the key's. Every method of
`lampe.methods` makes one for an input length; the engine, the figures and the tests all read that object.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

Indices = Any
"""An int, a numpy integer array or an integer tensor; what comes back is of the same kind."""


@dataclass(frozen=True)
class IndexMap:
    """Token index → rotary position: ``⌊(index − origin)·numerator / denominator⌋ + offset``.

    Integers throughout, so that the positions are exact at any length. The default is the identity.
    """

    numerator: int = 1
    denominator: int = 1
    origin: int = 0
    offset: int = 0

    def __call__(self, index: Indices) -> Indices:
        return (_wide(index) - self.origin) * self.numerator // self.denominator + self.offset


@dataclass(frozen=True)
class RealMap:
    """Token index → rotary position, in fractions: ``(index − origin)/divisor + offset``, float64."""

    divisor: float
    origin: int = 0
    offset: float = 0.0

    def __call__(self, index: Indices) -> Indices:
        index = _wide(index)
        exact = index.double() if isinstance(index, torch.Tensor) else index
        return (exact - self.origin) / self.divisor + self.offset


@dataclass(frozen=True)
class ChunkMap:
    """Token index → rotary position within chunks: ``min(index mod chunk + offset, greatest)``."""

    chunk: int
    greatest: int
    offset: int = 0

    def __call__(self, index: Indices) -> Indices:
        position = _wide(index) % self.chunk + self.offset
        return position - (position - self.greatest) * (position > self.greatest)


class Role(StrEnum):
    """What a region does with distances; its colour, its pattern and its words follow from it."""

    NEAR = "near"  # exact distances
    COMPRESSED = "compressed"  # several distances share a position
    FAR = "far"  # exact steps, moved nearer
    END = "end"  # exact steps at the text's start


@dataclass(frozen=True)
class Region:
    """The (query, key) pairs at some range of distances, and the positions they are rotated to.

    Parameters
    ----------
    name : str
        What people call it: "Head", "Middle", "Tail", "All".
    role : Role
    lower, upper : int
        Pairs with ``lower ≤ ⌊query/block⌋ − ⌊key/block⌋ < upper`` belong to it; upper None has no end.
    query_map, key_map : IndexMap
        Rotary position of a query's and of a key's index. Any callable on integer tensors will do.
    block : int
        1 measures in tokens (relative distance), s in chunks of s tokens.
    """

    name: str
    role: Role
    lower: int
    upper: int | None
    query_map: Any = IndexMap()
    key_map: Any = IndexMap()
    block: int = 1

    def contains(self, query: Indices, key: Indices) -> Indices:
        """Whether the pair is in this region; key after query is in none."""
        query, key = _wide(query), _wide(key)
        distance = query // self.block - key // self.block
        inside = (distance >= self.lower) & (key <= query)
        return inside if self.upper is None else inside & (distance < self.upper)

    def key_span(self, query: int) -> tuple[int, int]:
        """First key and one past the last key that this query meets in this region; equal if there is none."""
        block = query // self.block
        stop = min(query + 1, (block - self.lower + 1) * self.block)
        first = 0 if self.upper is None else max(0, (block - self.upper + 1) * self.block)
        return (first, stop) if first < stop else (0, 0)


@dataclass(frozen=True)
class PositionMap:
    """Which rotary positions every (query, key) pair of one input is given.

    Parameters
    ----------
    length : int
        The length L, in tokens, that the map was planned for: the paper's input length l. It sets the compression.
    mapping_length : int
        m: the number of positions those tokens share. Equal to `length` when nothing is compressed.
    head, tail : int
        s₁ and s₂, in tokens: distances up to s₁ are exact, and so are steps over the text's first s₂ tokens.
    regions : tuple of Region
        They partition all pairs with key ≤ query, also those beyond `length`.
    end : int
        e: where the prompt ends, in tokens; what Tail is measured from. From 1 to `length`, which is the default.
    """

    length: int
    mapping_length: int
    head: int
    tail: int
    regions: tuple[Region, ...]
    end: int = 0

    def __post_init__(self) -> None:
        if not self.end:
            object.__setattr__(self, "end", self.length)

    @property
    def compresses(self) -> bool:
        """Whether any distance is mapped to another; False is plain RoPE."""
        return self.mapping_length < self.length

    @property
    def shared(self) -> int:
        """Queries before this one are mapped alike wherever a prompt of this plan ends: what was read serves all."""
        return self.end - self.tail if self.compresses and self.tail else self.length

    def region(self, query: Indices, key: Indices) -> Indices:
        """Index into `regions` for each pair, by broadcasting; −1 where the key comes after the query."""
        query, key = _wide(query), _wide(key)
        index = (query - key) * 0 - 1
        for number, region in enumerate(self.regions):
            index = index + region.contains(query, key) * (number + 1)
        return index

    def relative(self, query: Indices, key: Indices) -> Indices:
        """Mapped relative position of each pair, by broadcasting: the one the engine rotates by.

        Where the key comes after the query, which attention never looks at, it is query − key (negative).
        """
        query, key = _wide(query), _wide(key)
        relative = (query - key) * (key > query)
        for region in self.regions:
            relative = relative + (region.query_map(query) - region.key_map(key)) * region.contains(query, key)
        return relative

    def key_counts(self, query: int) -> tuple[int, ...]:
        """How many keys this query meets in each region; they sum to query + 1."""
        return tuple(stop - first for first, stop in (region.key_span(query) for region in self.regions))


def _wide(index: Indices) -> Indices:
    """The index in 64 bits: a product of two lengths doesn't fit in 32."""
    if isinstance(index, int):
        return index
    if isinstance(index, torch.Tensor):
        if index.is_floating_point():
            raise TypeError(f"Query and key indices must be integers, not {index.dtype}.")
        return index.long()
    if hasattr(index, "astype"):
        if index.dtype.kind not in "iu":
            raise TypeError(f"Query and key indices must be integers, not {index.dtype}.")
        return index.astype("int64")
    return operator.index(index)


def plain_map(length: int, head: int = 0, tail: int = 0, reach: int | None = None) -> PositionMap:
    """Plain RoPE as a position map: one region, every distance exact, and below `reach` where that is given."""
    return PositionMap(length, length, head, tail, (Region("All", Role.NEAR, 0, reach),))
