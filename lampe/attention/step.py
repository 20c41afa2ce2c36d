"""What one forward pass computes in every layer: attention over all regions of a position map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lampe.attention.backends import Backend, backend_for
from lampe.attention.kernels import attend_tile, capped
from lampe.attention.merge import Merge, merging_dtype
from lampe.attention.tiles import Tile, tiles
from lampe.attention.turning import Rotate, Table, Tables, Turn, make_turn
from lampe.positions import PositionMap

_TOGETHER = 4096  # queries

RegionLse = Callable[[], Tensor]
"""Gives the log-sum-exp of the last query's scores in each region, shape (regions, batch, heads), −inf where it has no
key. It is computed when it is asked for, before the next pass."""


def resting_map(position_map: PositionMap) -> Any:
    """The rotation in which keys rest in the cache: that of the region where the last query meets the most keys."""
    counts = position_map.key_counts(position_map.length - 1)
    return position_map.regions[counts.index(max(counts))].key_map


@dataclass(frozen=True)
class _RegionStep:
    """One region's share of a forward pass: its tiles, and the tables that rotate queries and keys further, or None."""

    number: int
    tiles: tuple[Tile, ...]
    query: slice
    key: slice
    query_table: Table | None
    key_table: Table | None
    _turns: dict[Any, tuple[Turn | None, Turn | None]] = field(default_factory=dict, repr=False)

    def turns(self, like: Tensor, rotate: Rotate) -> tuple[Turn | None, Turn | None]:
        """How queries and keys get to the region's positions; all layers share the tables."""
        key = (rotate, like.device, like.dtype, like.shape[3])
        if key not in self._turns:
            made = [table and make_turn(table, rotate, like) for table in (self.query_table, self.key_table)]
            self._turns[key] = made[0], made[1]
        return self._turns[key]


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
        self._resting, self._tables, self._device = resting, tables, device
        self._regions: dict[Backend, tuple[list[_RegionStep], Tile | None]] = {}
        self._turns: dict[Any, Turn] = {}  # of the queries of several regions

    def _cut(self, backend: Backend) -> tuple[list[_RegionStep], Tile | None]:
        """The regions in tiles for a backend; and the tile that is all of it, where there is one."""
        if backend not in self._regions:
            self._regions[backend] = self._cut_anew(backend)
        return self._regions[backend]

    def _cut_anew(self, backend: Backend) -> tuple[list[_RegionStep], Tile | None]:
        first, stop, resting, tables, device = self.first, self.stop, self._resting, self._tables, self._device
        found: list[_RegionStep] = []

        def further(there: Any, here: Any, index: Tensor) -> Table | None:
            return None if there == here else tables(there(index) - here(index))

        for number, region in enumerate(self.position_map.regions):
            parts = tuple(tiles(region, first, stop, backend))
            if not parts:
                continue
            query = slice(min(t.query[0] for t in parts), max(t.query[1] for t in parts))
            key = slice(min(t.key[0] for t in parts), max(t.key[1] for t in parts))
            i = torch.arange(query.start, query.stop, device=device)
            j = torch.arange(key.start, key.stop, device=device)
            tables_of = (further(region.query_map, resting, i), further(region.key_map, resting, j))
            found.append(_RegionStep(number, parts, query, key, *tables_of))
        # One region in one tile: the kernel call of the unpatched model, and of plain RoPE the same bits.
        alone = None
        if len(self.position_map.regions) == 1:
            (only,) = found
            everything = len(only.tiles) == 1 and only.key == slice(0, stop)
            if everything and only.query_table is only.key_table is None:
                alone = only.tiles[0]
        return found, alone

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rotate: Rotate,
        scaling: float,
        softcap: float | None = None,
        near: object = None,
    ) -> tuple[Tensor, RegionLse]:
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
        near : object
            Not used here; see `TokenStep.attend`.

        Returns
        -------
        output : Tensor, shape (batch, heads, stop − first, head_dim)
        region_lse : RegionLse
        """
        backend = backend_for(query, softcap)
        regions, alone = self._cut(backend)
        if alone is not None:
            out, lse = attend_tile(query, key, value, alone.shape, scaling, softcap, fold=False, left=alone.left)
            last = lse.select(2, -1).unsqueeze(0).clone()
            return out.to(query.dtype), lambda: last
        merged = Merge(query, len(self.position_map.regions))
        left = sum(len(step.tiles) for step in regions)
        queries = self._queries(regions, query, rotate, backend)
        for step in regions:
            q = next(queries)
            k, v = key[:, :, step.key], value[:, :, step.key]
            if turn := step.turns(k, rotate)[1]:
                k = turn(k)
            for tile in step.tiles:
                left -= 1
                in_q = slice(tile.query[0] - step.query.start, tile.query[1] - step.query.start)
                in_k = slice(tile.key[0] - step.key.start, tile.key[1] - step.key.start)
                part = (q[:, :, in_q], k[:, :, in_k], v[:, :, in_k])
                out, lse = attend_tile(*part, tile.shape, scaling, softcap, left=tile.left)
                merged.add(step.number, tile.query[0] - self.first, out, lse, left)
                del out, lse  # the next piece is as large
            del q, k
        return merged.output.to(query.dtype), merged.region_lse

    def _queries(self, regions: list[_RegionStep], query: Tensor, rotate: Rotate, backend: Backend) -> Iterator[Tensor]:
        """Each region's queries at its positions.

        For flash attention, where each operation is a launch, those of all regions that see every query are rotated at
        once; so many of them that it would be a matter of memory are not.
        """
        whole = slice(self.first, self.stop)
        alike = [step for step in regions if step.query == whole and step.query_table is not None]
        together: dict[int, Tensor] = {}
        if backend is Backend.FLASH and len(alike) > 1 and query.shape[2] <= _TOGETHER:
            key = (rotate, query.device, query.dtype, query.shape[3])
            if key not in self._turns:
                turns = [turn for step in alike if (turn := step.turns(query, rotate)[0])]
                cosine, sine = (
                    torch.stack(tables) for tables in zip(*((t.cosine, t.sine) for t in turns), strict=True)
                )
                self._turns[key] = Turn(cosine, sine, turns[0].partner)
            turned = self._turns[key](query)
            together = {step.number: turned[place] for place, step in enumerate(alike)}
        for step in regions:
            if step.number in together:
                yield together.pop(step.number)
                continue
            q = query[:, :, step.query.start - self.first : step.query.stop - self.first]
            turn = step.turns(q, rotate)[0]
            yield turn(q) if turn else q

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
        exact = merging_dtype(query)
        scores = torch.full((batch, heads, self.stop), -torch.inf, dtype=exact, device=query.device)
        for step in self._cut(Backend.PLAIN)[0]:
            first, stop = self.position_map.regions[step.number].key_span(self.stop - 1)
            if first == stop:
                continue
            q, k = last, key[:, :, first:stop]
            if step.query_table is not None:
                q = make_turn(_part(step.query_table, slice(-1, None)), rotate, q)(q)
            if step.key_table is not None:
                seen = slice(first - step.key.start, stop - step.key.start)
                k = make_turn(_part(step.key_table, seen), rotate, k)(k)
            found = q.reshape(batch, k.shape[1], -1, dim).to(exact) @ k.to(exact).transpose(2, 3) * scaling
            scores[:, :, first:stop] = capped(found, softcap).reshape(batch, heads, -1)
        return scores.softmax(-1)


def _part(table: Table, tokens: slice) -> Table:
    cos, sin = table
    return cos[:, tokens], sin[:, tokens]
