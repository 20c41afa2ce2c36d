"""From an input length to the positions that attention runs on.

`LampeConfig` says how a model is to be mapped, `position_map` applies it to one input length, and the
`PositionMap` that comes out is plain data: a list of regions, each with a map for the query's index and one
for the key's. The engine, the figures and the tests all read that object.

Source: LaMPE, arXiv 2508.02308, sections 3.2 (mapping length) and 3.3 (multi-grained positions).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

Indices = Any
"""An int, a numpy integer array or an integer tensor; what comes back is of the same kind."""


@dataclass(frozen=True)
class ScaledSigmoid:
    """Mapping length as a function of input length: ``m(l) = ⌊maximum / (1 + e^−(slope·l + intercept))⌋``.

    Parameters
    ----------
    maximum : float
        Greatest mapping length L, in positions (paper: three quarters of the window).
    slope, intercept : float
        a (per token) and b of the fitted curve.
    short_length : int
        Inputs of fewer tokens than this take `short_mapping` instead of the curve.
    short_mapping : int or None
        The constant for short inputs; None uses the curve everywhere.

    Raises
    ------
    ValueError
        If a number is not finite, or `maximum` or `short_mapping` is not positive.
    """

    maximum: float
    slope: float
    intercept: float
    short_length: int = 0
    short_mapping: int | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.maximum, self.slope, self.intercept)):
            raise ValueError("A scaled sigmoid needs finite numbers for maximum, slope and intercept.")
        if self.maximum < 1:
            raise ValueError(f"The greatest mapping length must be at least 1 position, not {self.maximum:g}.")
        if self.short_mapping is not None and self.short_mapping < 1:
            raise ValueError(f"The short mapping length must be at least 1 position, not {self.short_mapping}.")

    def __call__(self, length: int) -> int:
        """The mapping length, in positions, for `length` input tokens."""
        if self.short_mapping is not None and length < self.short_length:
            return self.short_mapping
        x = self.slope * length + self.intercept
        # Both branches are the same function; each is written so that its exponential can't overflow.
        share = 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
        return math.floor(self.maximum * share)


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
class Region:
    """The (query, key) pairs at some range of distances, and the positions they are rotated to.

    Parameters
    ----------
    name : str
        What people call it: "Head", "Middle", "Tail", "All".
    lower, upper : int
        Pairs with ``lower ≤ ⌊query/block⌋ − ⌊key/block⌋ < upper`` belong to it; upper None has no end.
    query_map, key_map : IndexMap
        Rotary position of a query's and of a key's index. Any callable on integer tensors will do.
    block : int
        1 measures in tokens (relative distance), s in chunks of s tokens.
    """

    name: str
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
        s₁ and s₂, in tokens.
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
    return PositionMap(length, length, head, tail, (Region("All", 0, reach),))


class Method(Protocol):
    """What `patch` needs of a method: LaMPE's `LampeConfig` is one."""

    @property
    def window(self) -> int: ...

    @property
    def attention_scale(self) -> float: ...

    def position_map(self, length: int, end: int | None = None) -> PositionMap: ...


BASES = {
    "measured": "measured on this model",
    "family": "an estimate: measured on other weights of this family",
    "rescaled": "not calibrated for this model",
    "given": "given",
}
"""What a mapping rests on, in words. Only what was measured on a model's own weights is calibrated for it."""


@dataclass(frozen=True)
class LampeConfig:
    """How LaMPE is to be applied to a model.

    Parameters
    ----------
    window : int
        W₀, the pretraining window in tokens, before any scaling of RoPE. No mapping length exceeds it.
    head, tail : int
        s₁ and s₂, in tokens. The paper finds s₁ from W₀/16 to W₀/8 and s₂ from 8 to 1024 good.
    mapping : ScaledSigmoid or int
        The mapping length as a function of the input length, or a fixed one, in positions.
    attention_scale : float
        Factor on the attention logits. 1 is the paper's text; the authors' scripts use
        `REFERENCE_ATTENTION_SCALE`.
    basis : str
        One of `BASES`: what the mapping rests on. It moves no position, and doesn't tell configurations apart.

    Raises
    ------
    ValueError
        If a size is negative or zero where it can't be, or the attention scale isn't positive.
    TypeError
        If a size isn't a whole number.
    """

    window: int
    head: int
    tail: int
    mapping: ScaledSigmoid | int
    attention_scale: float = 1.0
    basis: str = field(default="given", kw_only=True, compare=False)

    def __post_init__(self) -> None:
        for name in ("window", "head", "tail", "mapping"):
            value = getattr(self, name)
            if not isinstance(value, ScaledSigmoid):
                try:
                    object.__setattr__(self, name, operator.index(value))  # numpy's integers become Python's
                except TypeError:
                    raise TypeError(f"{name} must be a whole number, not {value!r}.") from None
        if self.basis not in BASES:
            raise ValueError(f"What a mapping rests on is one of {', '.join(BASES)}, not {self.basis!r:.40}.")
        if self.window < 1:
            raise ValueError(f"The window must be at least 1 token, not {self.window}.")
        if self.head < 0 or self.tail < 0:
            raise ValueError(f"Head ({self.head}) and Tail ({self.tail}) can't be negative.")
        if isinstance(self.mapping, int) and self.mapping < 1:
            raise ValueError(f"The mapping length must be at least 1 position, not {self.mapping}.")
        if not (math.isfinite(self.attention_scale) and self.attention_scale > 0):
            raise ValueError(f"The attention scale must be a positive number, not {self.attention_scale}.")

    @property
    def doubt(self) -> str:
        """What is to be said wherever the mapping length is shown; empty where nothing is."""
        return BASES[self.basis] if self.basis in ("family", "rescaled") else ""

    @classmethod
    def for_model(cls, model_or_config: Any) -> LampeConfig:
        """The preset of a model's family, or the rescaled curve when it has none; `basis` says which.

        Parameters
        ----------
        model_or_config : transformers model or its config

        Raises
        ------
        ValueError
            If the config doesn't say how long the pretraining window is.
        """
        from lampe.presets import config_for  # presets are values of this class

        return config_for(model_or_config)

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        """See `lampe.position_map`."""
        end = length if end is None else end
        if min(length, end) < 1:
            raise ValueError(f"An input has at least 1 token, not {min(length, end)}.")
        if end > length:
            raise ValueError(
                f"The prompt has {end:,} tokens, and the plan is for {length:,}: plan for at least as many as it has."
            )
        m, head, tail = self.mapping_length(length), self.head, self.tail
        if not head + tail < m < length:
            return replace(plain_map(length, head, tail), end=end)
        if end <= head + tail:
            raise ValueError(
                f"The prompt ends after {end:,} tokens, within Head + Tail ({head:,} + {tail:,}), so Tail would begin "
                f"inside Head: plan so short a prompt for its own length, or take a smaller Head or Tail."
            )
        # Middle's stretch of distances and the positions left for it: c = slots / tokens.
        slots, tokens = m - head - tail, length - head - tail
        border = end - tail  # the distance at which Tail begins
        # Rounded up, s₁ + ⌈c·(e − s₂ − s₁)⌉: the least position there that Middle never exceeds before it.
        position = head - (head - border) * slots // tokens
        regions = (
            Region("Head", 0, head + 1),
            Region(
                "Middle",
                head + 1 if head else 0,
                border if tail else None,
                IndexMap(slots, tokens, origin=head, offset=head),
                IndexMap(slots, tokens),
            ),
            Region("Tail", border, None, IndexMap(offset=position - border)),
        )
        # Without a Head, distance 0 is Middle's, which gives it the same position.
        return PositionMap(length, m, head, tail, regions[not head : 2 + bool(tail)], end)

    def mapping_length(self, length: int) -> int:
        """The mapping length m for an input length, clamped to it and to the window; in positions."""
        curve = self.mapping
        return min(curve if isinstance(curve, int) else curve(length), length, self.window)


def position_map(config: Method, length: int, end: int | None = None) -> PositionMap:
    """The position map of one input length, or of a prompt that ends before the length it was planned for.

    LaMPE applies when ``head + tail < m < length``; otherwise the map is plain RoPE. The mapping length m is
    clamped to the planned length (nothing is stretched) and to the window. A Head or Tail of 0 tokens is no region;
    without both, one region is compressed uniformly. Middle is
    ``(head + ⌊c·(i − head)⌋) − ⌊c·j⌋`` with ``c = (m − head − tail)/(length − head − tail)``: the paper's
    ``⌊c·(d − head)⌋ + head`` or one more (section 3.3), written as a rotation of query and key apart.

    A plan has two lengths, so that what was read of a document serves several questions on it. `length` alone sets m
    and c; Tail is ``d ≥ end − tail``, where positions go on by one a token from ``head + ⌈c·(end − tail − head)⌉``.
    With ``end = length`` this is the paper's map. No query before ``end − tail`` depends on `end`.

    Parameters
    ----------
    config : LampeConfig
    length : int
        Planned length in tokens: the prompt's own, or more for an answer and further questions.
    end : int, optional
        Where the prompt ends, in tokens; by default at `length`.

    Returns
    -------
    PositionMap

    Raises
    ------
    ValueError
        If `length` or `end` is less than 1, `end` more than `length`, or not more than Head + Tail where distances
        are compressed.
    """
    return config.position_map(length, end)
