"""What one forward pass computes in every layer: attention over all regions of a position map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lampe.attention.kernels import attend_tile, capped
from lampe.attention.merge import Merge, merging_dtype
from lampe.attention.tiles import Tile, tiles
from lampe.positions import PositionMap

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model's own rotation: (x of shape (batch, heads, tokens, head_dim), cos, sin) → x rotated."""

Table = tuple[Tensor, Tensor]
"""Cosine and sine of a rotation, each of shape (1, tokens, rotary_dim)."""

Tables = Callable[[Tensor], Table]
"""By how many positions to rotate further, shape (tokens,), also negative → cosine and sine, float32 at least."""

_ROWS = 1024  # tokens rotated at once


def resting_map(position_map: PositionMap) -> Any:
    """The rotation in which keys rest in the cache: that of the region where the last query meets the most keys."""
    counts = position_map.key_counts(position_map.length - 1)
    return position_map.regions[counts.index(max(counts))].key_map


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


@dataclass(frozen=True)
class _RegionStep:
    """One region's share of a forward pass: its tiles, and the tables that rotate queries and keys further, or None."""

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
        The model's cosine and sine for rotating further by given positions.
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
        # A lone query is rotated once, for the home region's resting keys; the other regions' keys make up for it.
        lone = stop - first == 1

        def further(there: Any, here: Any, index: Tensor) -> Table | None:
            return None if there == here else tables(there(index) - here(index))

        self.query_table = further(home.query_map, resting, torch.arange(first, stop, device=device)) if lone else None
        for number, region in enumerate(position_map.regions):
            parts = tuple(tiles(region, first, stop, device.type))
            if not parts:
                continue
            query = slice(min(t.query[0] for t in parts), max(t.query[1] for t in parts))
            key = slice(min(t.key[0] for t in parts), max(t.key[1] for t in parts))
            i = torch.arange(query.start, query.stop, device=device)
            j = torch.arange(key.start, key.stop, device=device)
            query_table = None if lone else further(region.query_map, resting, i)
            if lone and region is not home:
                key_table: Table | None = tables(
                    region.key_map(j) - resting(j) + home.query_map(i) - region.query_map(i)
                )
            else:
                key_table = further(region.key_map, resting, j)
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
            query = _rotated_further(query, self.query_table, rotate)
        if self._alone is not None:
            out, lse = attend_tile(query, key, value, self._alone, scaling, softcap, fold=False)
            return out.to(query.dtype), lse.select(2, -1).unsqueeze(0)
        merged = Merge(query, len(self.position_map.regions))
        for step in self.regions:
            q = query[:, :, step.query.start - self.first : step.query.stop - self.first]
            k, v = key[:, :, step.key], value[:, :, step.key]
            if step.query_table is not None:
                q = _rotated_further(q, step.query_table, rotate)
            if step.key_table is not None:
                k = _rotated_further(k, step.key_table, rotate)
            for tile in step.tiles:
                in_q = slice(tile.query[0] - step.query.start, tile.query[1] - step.query.start)
                in_k = slice(tile.key[0] - step.key.start, tile.key[1] - step.key.start)
                out, lse = attend_tile(q[:, :, in_q], k[:, :, in_k], v[:, :, in_k], tile.shape, scaling, softcap)
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
            last = _rotated_further(last, self.query_table, rotate)
        exact = merging_dtype(query)
        scores = torch.full((batch, heads, self.stop), -torch.inf, dtype=exact, device=query.device)
        for step in self.regions:
            first, stop = self.position_map.regions[step.number].key_span(self.stop - 1)
            if first == stop:
                continue
            q, k = last, key[:, :, first:stop]
            if step.query_table is not None:
                q = _rotated_further(q, _part(step.query_table, slice(-1, None)), rotate)
            if step.key_table is not None:
                k = _rotated_further(
                    k, _part(step.key_table, slice(first - step.key.start, stop - step.key.start)), rotate
                )
            found = q.reshape(batch, k.shape[1], -1, dim).to(exact) @ k.to(exact).transpose(2, 3) * scaling
            scores[:, :, first:stop] = capped(found, softcap).reshape(batch, heads, -1)
        return scores.softmax(-1)


def _part(table: Table, tokens: slice) -> Table:
    cos, sin = table
    return cos[:, tokens], sin[:, tokens]


def _rotated_further(x: Tensor, table: Table, rotate: Rotate) -> Tensor:
    # Rounded once, at the end. A part at a time, because what is in between would be several times as large as x.
    rotated = torch.empty_like(x)
    for rows in range(0, x.shape[2], _ROWS):
        part = slice(rows, rows + _ROWS)
        # A model spread over several GPUs has its layers elsewhere than its rotary embedding.
        rotated[:, :, part] = rotate(x[:, :, part], *(t.to(x.device) for t in _part(table, part)))
    return rotated
