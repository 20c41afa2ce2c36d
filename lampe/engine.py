"""Attention under a position map, in exact pieces.

Each region of a position map is cut into tiles: rectangles of (query, key) pairs that a stock attention
kernel computes in one call, whole, as a triangle or as a band. Every pair belongs to one tile, so the cost is
that of one causal attention, and what a band's blocks compute beyond it. The kernels also give the log-sum-exp
of their scores; with it the pieces are merged into the softmax over all regions, and its weights are the share
of attention that fell in each region (LaMPE, arXiv 2508.02308, section 3.3).

Queries and keys come rotated to one position for each token, the resting map's, and each region turns them on
by the difference. The resting map is that of the region with the most keys, so those are used as they lie in
the cache: a decode step turns Head's and Tail's keys, however long the text is. (Where a cache outlives its
plan, the longer plan's Middle has to be turned too.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from lampe.positions import PositionMap, Region

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model's own rotation: (x of shape (batch, heads, tokens, head_dim), cos, sin) → x rotated."""

Table = tuple[Tensor, Tensor]
"""Cosine and sine of a rotation, each of shape (1, tokens, rotary_dim)."""

Tables = Callable[[Tensor], Table]
"""By how many positions to turn on, shape (tokens,), negative too → cosine and sine for that, float32 at least."""


_ROWS = 1024  # tokens turned at once
_SCORES = 2**22  # scores of capped attention held at once


class Shape(Enum):
    """Which pairs of a tile attend: t and u are the row and column within it."""

    FULL = "all"
    CAUSAL = "u ≤ t"
    ANTICAUSAL = "u ≥ t"
    BAND = "t ≤ u ≤ t + columns − rows"


@dataclass(frozen=True)
class Tile:
    """A rectangle of pairs: query and key indices as half-open ranges. CAUSAL and ANTICAUSAL are square."""

    query: tuple[int, int]
    key: tuple[int, int]
    shape: Shape


def tiles(region: Region, first: int, stop: int, device_type: str = "cpu") -> Iterator[Tile]:
    """Cut a region into tiles, for the queries ``first … stop − 1`` and all keys up to each of them.

    The tiles of all regions of a map together hold each causal pair of those queries exactly once.
    """
    if region.upper is not None and region.upper <= region.lower:
        return
    if region.block > 1:
        yield from _chunk_tiles(region, first, stop)
        return
    lower, upper, end = region.lower, stop if region.upper is None else region.upper, stop
    row = max(first, lower)
    # As many queries as fill whole blocks of a band are one tile.
    if region.upper is not None and (rows := _band_rows(upper - lower, device_type)):
        stop -= max(0, stop - max(row, upper - 1)) // rows * rows
    # Queries that see the text's start in this region: their keys begin at 0 and end `lower` before them.
    if row < min(stop, upper):
        yield from _trapezoid(row, min(stop, upper), 0, row - lower)
        row = min(stop, upper)
    # The others see a band: each row's keys begin one later than the last one's.
    while row < stop:
        rows = min(upper - lower, stop - row)
        start = row - upper + 1
        yield from _trapezoid(row, row + rows, start + rows - 1, row - lower)
        if rows > 1:
            yield Tile((row, row + rows - 1), (start, start + rows - 1), Shape.ANTICAUSAL)
        row += rows
    if stop < end:
        yield Tile((stop, end), (stop - upper + 1, end - lower), Shape.BAND)


def _band_rows(width: int, device_type: str) -> int:
    """Queries in a block of a band of so many keys for each; 0 where it isn't cut into such blocks."""
    if device_type != "cpu":
        return width - 1  # a block's keys are then two triangles
    # The CPU kernel takes a triangle of less than 512 rows for a square: a mask over narrow blocks wastes less, as
    # long as there aren't too many keys for it.
    return 64 if width <= 4096 else 0


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


def resting_map(position_map: PositionMap) -> Any:
    """The rotation in which keys rest in the cache: that of the region where the last query meets the most keys."""
    counts = position_map.key_counts(position_map.length - 1)
    return position_map.regions[counts.index(max(counts))].key_map


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


@dataclass(frozen=True)
class _RegionStep:
    """One region's share of a forward pass: its tiles, and how its queries and keys are turned (None: not at all)."""

    number: int
    tiles: tuple[Tile, ...]
    query: slice
    key: slice
    query_table: Table | None
    key_table: Table | None


class Step:
    """All that the layers of one forward pass share: the tiles of a position map and its cos/sin tables.

    Parameters
    ----------
    position_map : PositionMap
    resting : IndexMap
        The positions that queries and keys come rotated to: `resting_map` of the first map of their cache.
    first, stop : int
        The queries of this pass, as token indices; keys 0 … stop − 1 are at hand.
    tables : Tables
        The model's cosine and sine for turning on by given positions.
    device : torch.device
    """

    def __init__(
        self, position_map: PositionMap, resting: Any, first: int, stop: int, tables: Tables, device: torch.device
    ) -> None:
        self.position_map, self.first, self.stop = position_map, first, stop
        self.regions: list[_RegionStep] = []
        # Of the regions whose keys lie ready in the cache, the one with the most.
        ready = [region for region in position_map.regions if region.key_map == resting]
        home = max(ready, key=lambda region: _length(region.key_span(stop - 1)), default=position_map.regions[0])
        # A lone query is turned once, to where the resting keys want it; the other regions' keys make up for it.
        lone = stop - first == 1

        def turn(there: Any, here: Any, index: Tensor) -> Table | None:
            return None if there == here else tables(there(index) - here(index))

        self.query_table = turn(home.query_map, resting, torch.arange(first, stop, device=device)) if lone else None
        for number, region in enumerate(position_map.regions):
            parts = tuple(tiles(region, first, stop, device.type))
            if not parts:
                continue
            query = slice(min(t.query[0] for t in parts), max(t.query[1] for t in parts))
            key = slice(min(t.key[0] for t in parts), max(t.key[1] for t in parts))
            i = torch.arange(query.start, query.stop, device=device)
            j = torch.arange(key.start, key.stop, device=device)
            query_table = None if lone else turn(region.query_map, resting, i)
            if lone and region is not home:
                key_table: Table | None = tables(
                    region.key_map(j) - resting(j) + home.query_map(i) - region.query_map(i)
                )
            else:
                key_table = turn(region.key_map, resting, j)
            self.regions.append(_RegionStep(number, parts, query, key, query_table, key_table))
        # One region in one tile: the kernel call of the unpatched model, and of plain RoPE the same bits.
        self._alone = None
        if len(position_map.regions) == 1:
            (only,) = self.regions
            everything = len(only.tiles) == 1 and only.key == slice(0, stop)
            if everything and only.query_table is only.key_table is self.query_table is None:
                self._alone = only.tiles[0].shape

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rotate: Rotate, scaling: float, softcap: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Softmax attention of this pass's queries over all keys, each pair at its mapped position.

        Parameters
        ----------
        query : Tensor, shape (batch, heads, stop − first, head_dim)
        key, value : Tensor, shape (batch, key_value_heads, stop, head_dim)
            From the text's first token on. Queries and keys are rotated to the resting positions.
        rotate : Rotate
        scaling : float
            Factor on the scores.
        softcap : float, optional
            Scores are then bent to stay within ± this: ``softcap·tanh(score/softcap)``.

        Returns
        -------
        output : Tensor, shape (batch, heads, stop − first, head_dim)
        region_lse : Tensor, shape (regions, batch, heads)
            Log-sum-exp of the last query's scores in each region, −inf where it has no key.
        """
        if self.query_table is not None:
            query = _turned(query, self.query_table, rotate)
        if self._alone is not None:
            out, lse = _attend_tile(query, key, value, self._alone, scaling, softcap, fold=False)
            return out.to(query.dtype), lse.select(2, -1).unsqueeze(0)
        merged = _Merge(query, len(self.position_map.regions))
        for step in self.regions:
            q = query[:, :, step.query.start - self.first : step.query.stop - self.first]
            k, v = key[:, :, step.key], value[:, :, step.key]
            if step.query_table is not None:
                q = _turned(q, step.query_table, rotate)
            if step.key_table is not None:
                k = _turned(k, step.key_table, rotate)
            for tile in step.tiles:
                in_q = slice(tile.query[0] - step.query.start, tile.query[1] - step.query.start)
                in_k = slice(tile.key[0] - step.key.start, tile.key[1] - step.key.start)
                out, lse = _attend_tile(q[:, :, in_q], k[:, :, in_k], v[:, :, in_k], tile.shape, scaling, softcap)
                merged.add(step.number, tile.query[0] - self.first, out, lse)
                del out, lse  # the next piece is as large
            del q, k
        return merged.output.to(query.dtype), torch.stack(merged.region_lse)

    def weights(
        self, query: Tensor, key: Tensor, rotate: Rotate, scaling: float, softcap: float | None = None
    ) -> Tensor:
        """The last query's attention to each key, at the mapped positions; arguments as in `attend`.

        Returns
        -------
        Tensor, shape (batch, heads, stop), float32 at least; sums to 1 over the keys.
        """
        batch, heads, _, dim = query.shape
        last = query[:, :, -1:]
        if self.query_table is not None:
            last = _turned(last, self.query_table, rotate)
        exact = _merging(query)
        scores = torch.full((batch, heads, self.stop), -torch.inf, dtype=exact, device=query.device)
        for step in self.regions:
            first, stop = self.position_map.regions[step.number].key_span(self.stop - 1)
            if first == stop:
                continue
            q, k = last, key[:, :, first:stop]
            if step.query_table is not None:
                q = _turned(q, _part(step.query_table, slice(-1, None)), rotate)
            if step.key_table is not None:
                k = _turned(k, _part(step.key_table, slice(first - step.key.start, stop - step.key.start)), rotate)
            found = q.reshape(batch, k.shape[1], -1, dim).to(exact) @ k.to(exact).transpose(2, 3) * scaling
            scores[:, :, first:stop] = _capped(found, softcap).reshape(batch, heads, -1)
        return scores.softmax(-1)


def _part(table: Table, tokens: slice) -> Table:
    cos, sin = table
    return cos[:, tokens], sin[:, tokens]


def _turned(x: Tensor, table: Table, rotate: Rotate) -> Tensor:
    # Rounded once, at the end. A part at a time, because what is in between would be several times as large as x.
    turned = torch.empty_like(x)
    for rows in range(0, x.shape[2], _ROWS):
        part = slice(rows, rows + _ROWS)
        # A model spread over several GPUs has its layers elsewhere than its rotary embedding.
        turned[:, :, part] = rotate(x[:, :, part], *(t.to(x.device) for t in _part(table, part)))
    return turned


def _merging(x: Tensor) -> torch.dtype:
    """What pieces of x's dtype are put together in: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


class _Merge:
    """The softmax over pieces of the keys, put together as they come.

    Rows that one piece covers alone keep its bits.
    """

    output: Tensor
    lse: Tensor

    def __init__(self, query: Tensor, regions: int) -> None:
        self._rows, self._dtype = query.shape[2], _merging(query)
        self._reached = 0  # rows from here on have nothing yet
        empty = torch.full(query.shape[:2], -torch.inf, dtype=self._dtype, device=query.device)
        self.region_lse = [empty] * regions

    def add(self, region: int, first: int, output: Tensor, lse: Tensor) -> None:
        """A piece for the rows from `first` on."""
        lse = lse.to(self._dtype)
        rows = lse.shape[2]
        stop = first + rows
        if stop == self._rows:
            self.region_lse[region] = torch.logaddexp(self.region_lse[region], lse.select(2, -1))
        if not self._reached and rows == self._rows:
            self.output, self.lse = output, lse
        elif first >= self._reached:
            self._make_room(output, first)
            self.output.narrow(2, first, rows).copy_(output)
            self.lse.narrow(2, first, rows).copy_(lse)
        else:
            self._make_room(output, stop)
            mine = self.lse.narrow(2, first, rows)
            total = torch.logaddexp(mine, lse)
            weight = (lse - total).exp_().unsqueeze(-1)
            self.output.narrow(2, first, rows).lerp_(output.to(self._dtype), weight)
            mine.copy_(total)
        self._reached = max(self._reached, stop)

    def _make_room(self, piece: Tensor, reached: int) -> None:
        """A buffer in float32, with neutral rows up to where the next piece needs them."""
        if not self._reached or self.output.dtype != self._dtype:
            batch, heads, _, dim = piece.shape
            # The layout that the model wants next: a token's heads side by side.
            wide = torch.empty((batch, self._rows, heads, dim), dtype=self._dtype, device=piece.device).transpose(1, 2)
            if self._reached:
                wide.copy_(self.output)
            else:
                self.lse = torch.empty((batch, heads, self._rows), dtype=self._dtype, device=piece.device)
            self.output = wide
        if self._reached < reached:
            self.output.narrow(2, self._reached, reached - self._reached).zero_()
            self.lse.narrow(2, self._reached, reached - self._reached).fill_(-torch.inf)


def _attend_tile(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    shape: Shape,
    scaling: float,
    softcap: float | None = None,
    fold: bool = True,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (natural, scores scaled) of one tile.

    `fold`: where all pairs attend, make a group's queries rows of one head. Its keys are then read once, not once for
    each query head.
    """
    if shape is Shape.BAND:
        return _attend_band(query, key, value, scaling, query.device.type, softcap)
    if shape is Shape.ANTICAUSAL:
        # Read backwards, the upper triangle is the lower one: u ≥ t ⇔ n−1−u ≤ n−1−t.
        out, lse = _kernel(query.flip(2), key.flip(2), value.flip(2), True, scaling, softcap)
        return out.flip(2), lse.flip(2)
    if shape is Shape.FULL and fold:
        folded = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
        out, lse = _kernel(folded, key, value, False, scaling, softcap)
        return out.reshape(query.shape), lse.reshape(query.shape[:3])
    return _kernel(query, key, value, shape is Shape.CAUSAL, scaling, softcap)


def _attend_band(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, device_type: str, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """A band as a batch of its blocks, each with the keys that it sees."""
    if len(query) > 1:  # the blocks of one row of a batch are overlapping views, those of several would be copies
        rows_apart = [
            _attend_band(q, k, v, scaling, device_type, softcap)
            for q, k, v in zip(query.split(1), key.split(1), value.split(1), strict=True)
        ]
        out, lse = (torch.cat(parts) for parts in zip(*rows_apart, strict=True))
        return out, lse
    width = key.shape[2] - query.shape[2] + 1
    rows = _band_rows(width, device_type)
    blocks = query.unflatten(2, (-1, rows)).transpose(1, 2).flatten(0, 1)
    keys, values = (x.unfold(2, rows + width - 1, rows).permute(0, 2, 1, 4, 3).flatten(0, 1) for x in (key, value))
    if device_type == "cpu":
        band = torch.ones(rows, rows + width - 1, dtype=torch.bool).triu().tril(width - 1)
        mask = torch.zeros(band.shape, dtype=_merging(query)).masked_fill_(~band, -torch.inf)
        out, lse = _kernel(blocks, keys, values, False, scaling, softcap, mask)
    else:
        merged = _Merge(blocks, 1)
        for shape, start in ((Shape.ANTICAUSAL, 0), (Shape.CAUSAL, rows)):
            k, v = keys.narrow(2, start, rows), values.narrow(2, start, rows)
            merged.add(0, 0, *_attend_tile(blocks, k, v, shape, scaling, softcap))
        out, lse = merged.output, merged.lse
    return tuple(x.unflatten(0, (1, -1)).transpose(1, 2).flatten(2, 3) for x in (out, lse))


def _kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool,
    scaling: float,
    softcap: float | None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A fused attention kernel that also returns the log-sum-exp; key-value heads may be fewer than query heads."""
    if softcap is not None:
        return _capped_kernel(query, key, value, causal, scaling, softcap, mask)
    heads, rows, dim = query.shape[1:]
    if query.device.type == "cpu":
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        return kernel(query, key, value, 0.0, causal, attn_mask=mask, scale=scaling)
    half = query.dtype in (torch.float16, torch.bfloat16)
    if half and dim <= 256 and dim % 8 == 0 and _has_flash(query.device):
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention.default(
            query, key, value, 0.0, causal, False, scale=scaling
        )[:2]
    else:  # this one knows no groups
        key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention.default(
            query, key, value, None, True, 0.0, causal, scale=scaling
        )[:2]
    return out, lse.narrow(2, 0, rows)  # the latter pads its rows


def _has_flash(device: torch.device) -> bool:
    """PyTorch's flash attention wants an Ampere GPU or a newer one."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (8, 0)


def _capped_kernel(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float, softcap: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same in plain operations for capped scores, which no fused kernel knows: some rows at a time."""
    (heads, rows), (groups, keys) = query.shape[1:3], key.shape[1:3]
    exact = _merging(query)
    out = torch.empty(query.shape[:3] + value.shape[3:], dtype=exact, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=exact, device=query.device)
    step = max(1, _SCORES // (heads * keys))
    j = torch.arange(keys, device=query.device)
    for number in range(len(query)):  # a band's blocks are overlapping views: exact copies of all would be large
        q = query[number].unflatten(0, (groups, -1))
        k, v = key[number].unsqueeze(1).to(exact), value[number].unsqueeze(1).to(exact)
        for row in range(0, rows, step):
            part = slice(row, min(row + step, rows))
            scores = _capped(q[:, :, part].to(exact) @ k.transpose(2, 3) * scaling, softcap)
            if causal:
                scores.masked_fill_(j > j[part, None], -torch.inf)
            if mask is not None:
                scores += mask[part]
            lse[number, :, part] = scores.logsumexp(-1).flatten(0, 1)
            out[number, :, part] = (scores.softmax(-1) @ v).flatten(0, 1)
    return out, lse


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else (scores / softcap).tanh() * softcap
