"""Attention under a position map, in exact pieces.

Each region of a position map is cut into tiles: rectangles of (query, key) pairs that a stock attention
kernel computes in one call, either whole, causal, or the strict other triangle. Every pair belongs to one
tile, so the cost is that of one causal attention. The kernels also give the log-sum-exp of their scores;
with it the pieces are merged into the softmax over all regions, and its weights are the share of attention
that fell in each region (LaMPE, arXiv 2508.02308, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from lampe.positions import PositionMap, Region

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model's own rotation: (x of shape (batch, heads, tokens, head_dim), cos, sin) → x rotated."""

Tables = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rotary positions, shape (tokens,) → the model's cos and sin for them, each (1, tokens, rotary_dim)."""


class Shape(Enum):
    """Which pairs of a tile attend: t and u are the row and column within it."""

    FULL = "all"
    CAUSAL = "u ≤ t"
    ANTICAUSAL = "u ≥ t"


@dataclass(frozen=True)
class Tile:
    """A rectangle of pairs: query and key indices as half-open ranges. CAUSAL and ANTICAUSAL are square."""

    query: tuple[int, int]
    key: tuple[int, int]
    shape: Shape


def tiles(region: Region, first: int, stop: int) -> Iterator[Tile]:
    """Cut a region into tiles, for the queries ``first … stop − 1`` and all keys up to each of them.

    The tiles of all regions of a map together hold each causal pair of those queries exactly once.
    """
    if region.block > 1:
        yield from _chunk_tiles(region, first, stop)
        return
    lower, upper = region.lower, stop if region.upper is None else region.upper
    row = max(first, lower)
    # Queries that see the text's start in this region: their keys begin at 0 and end `lower` before them.
    if row < min(stop, upper):
        yield from _trapezoid(row, min(stop, upper), 0, row - lower)
        row = min(stop, upper)
    # The others see a band: each row's keys begin one later than the last one's.
    while row < stop:
        rows = min(upper - lower, stop - row)
        start = row - upper + 1
        if rows > 1:
            yield Tile((row, row + rows - 1), (start, start + rows - 1), Shape.ANTICAUSAL)
        yield from _trapezoid(row, row + rows, start + rows - 1, row - lower)
        row += rows


def _trapezoid(row: int, stop: int, key: int, diagonal: int) -> Iterator[Tile]:
    """Keys from `key` on; the first row ends with key `diagonal`, each further row one later."""
    if stop - row == 1:
        yield Tile((row, stop), (key, diagonal + 1), Shape.FULL)
        return
    if key < diagonal:
        yield Tile((row, stop), (key, diagonal), Shape.FULL)
    yield Tile((row, stop), (diagonal, diagonal + stop - row), Shape.CAUSAL)


def _chunk_tiles(region: Region, first: int, stop: int) -> Iterator[Tile]:
    """The same for regions measured in chunks: all queries of one chunk see the same chunks of keys."""
    row = first
    while row < stop:
        end = min(stop, (row // region.block + 1) * region.block)
        key, last = region.key_span(row)
        if region.lower == 0:  # the query's own chunk is among them, and there keys end at the query
            yield from _trapezoid(row, end, key, row)
        elif key < last:
            yield Tile((row, end), (key, last), Shape.FULL)
        row = end


@dataclass(frozen=True)
class _RegionStep:
    """One region's share of a forward pass: its tiles and the rotations they need."""

    tiles: tuple[Tile, ...]
    query_start: int
    query_table: tuple[Tensor, Tensor]
    key_start: int
    key_table: tuple[Tensor, Tensor]


class Step:
    """All that the layers of one forward pass share: the tiles of a position map and its cos/sin tables.

    Parameters
    ----------
    position_map : PositionMap
    first, stop : int
        The queries of this pass, as token indices; keys 0 … stop − 1 are at hand.
    tables : Tables
        The model's cos and sin at given positions.
    device : torch.device
    """

    def __init__(self, position_map: PositionMap, first: int, stop: int, tables: Tables, device: torch.device) -> None:
        self.position_map, self.first, self.stop = position_map, first, stop
        self.regions: list[_RegionStep | None] = []
        for region in position_map.regions:
            parts = tuple(tiles(region, first, stop))
            if not parts:
                self.regions.append(None)
                continue
            query_start, query_stop = min(t.query[0] for t in parts), max(t.query[1] for t in parts)
            key_start, key_stop = min(t.key[0] for t in parts), max(t.key[1] for t in parts)
            self.regions.append(
                _RegionStep(
                    parts,
                    query_start,
                    tables(region.query_map(torch.arange(query_start, query_stop, device=device))),
                    key_start,
                    tables(region.key_map(torch.arange(key_start, key_stop, device=device))),
                )
            )

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rotate: Rotate, scaling: float
    ) -> tuple[Tensor, Tensor]:
        """Softmax attention of this pass's queries over all keys, each pair at its mapped position.

        Parameters
        ----------
        query : Tensor, shape (batch, heads, stop − first, head_dim)
            Not rotated.
        key, value : Tensor, shape (batch, key_value_heads, stop, head_dim)
            Not rotated, from the text's first token on.
        rotate : Rotate
        scaling : float
            Factor on the scores.

        Returns
        -------
        output : Tensor, shape (batch, heads, stop − first, head_dim)
        region_lse : Tensor, shape (regions, batch, heads)
            Log-sum-exp of the last query's scores in each region, −inf where it has no key.
        """
        # One region is the model's own attention: the same kernel call as without the patch gives the same bits.
        fold = len(self.regions) > 1
        merged = _Merge(query, len(self.regions))
        for number, step in enumerate(self.regions):
            if step is None:
                continue
            rows = len(step.query_table[0][0])
            columns = len(step.key_table[0][0])
            skip = step.query_start - self.first
            # A model spread over several GPUs has its layers elsewhere than its rotary embedding.
            query_table, key_table = ([t.to(query.device) for t in pair] for pair in (step.query_table, step.key_table))
            q = rotate(query[:, :, skip : skip + rows], *query_table)
            k = rotate(key[:, :, step.key_start : step.key_start + columns], *key_table)
            v = value[:, :, step.key_start : step.key_start + columns]
            for tile in step.tiles:
                in_q = slice(tile.query[0] - step.query_start, tile.query[1] - step.query_start)
                in_k = slice(tile.key[0] - step.key_start, tile.key[1] - step.key_start)
                out, lse = _attend_tile(q[:, :, in_q], k[:, :, in_k], v[:, :, in_k], tile.shape, scaling, fold)
                merged.add(number, slice(tile.query[0] - self.first, tile.query[1] - self.first), out, lse)
        return merged.output.to(query.dtype), merged.region_lse


class _Merge:
    """The softmax over pieces of the keys, put together as they come (in float32 at least)."""

    def __init__(self, query: Tensor, regions: int) -> None:
        dtype = torch.promote_types(query.dtype, torch.float32)
        self.output = torch.zeros(query.shape, dtype=dtype, device=query.device)
        self.lse = torch.full(query.shape[:3], -torch.inf, dtype=dtype, device=query.device)
        self.region_lse = torch.full((regions, *query.shape[:2]), -torch.inf, dtype=dtype, device=query.device)

    def add(self, region: int, rows: slice, output: Tensor, lse: Tensor) -> None:
        lse = lse.to(self.lse.dtype)
        total = torch.logaddexp(self.lse[:, :, rows], lse)
        weight = (lse - total).exp_().unsqueeze(-1)
        self.output[:, :, rows].lerp_(output.to(self.output.dtype), weight)
        self.lse[:, :, rows] = total
        if rows.stop == self.lse.shape[2]:
            self.region_lse[region] = torch.logaddexp(self.region_lse[region], lse[:, :, -1])


def _attend_tile(
    query: Tensor, key: Tensor, value: Tensor, shape: Shape, scaling: float, fold: bool = True
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (natural, scores scaled) of one tile.

    `fold`: where all pairs attend, make a group's queries rows of one head. Its keys are then read once, not once for
    each query head.
    """
    if shape is Shape.ANTICAUSAL:
        # Read backwards, the upper triangle is the lower one: u ≥ t ⇔ n−1−u ≤ n−1−t.
        out, lse = _kernel(query.flip(2), key.flip(2), value.flip(2), True, scaling)
        return out.flip(2), lse.flip(2)
    if shape is Shape.FULL and fold:
        folded = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
        out, lse = _kernel(folded, key, value, False, scaling)
        return out.reshape(query.shape), lse.reshape(query.shape[:3])
    return _kernel(query, key, value, shape is Shape.CAUSAL, scaling)


def _kernel(query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    """A fused attention kernel that also returns the log-sum-exp; grouped key-value heads as they are."""
    heads, rows, dim = query.shape[1:]
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scaling)
    groups = heads // key.shape[1]
    if groups > 1:  # CUDA's kernels want as many key-value heads as query heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if query.dtype in (torch.float16, torch.bfloat16) and dim <= 256 and dim % 8 == 0:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scaling
        )[:2]
    else:
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, causal, scale=scaling
        )[:2]
    return out, lse.narrow(2, 0, rows)  # the latter pads its rows
