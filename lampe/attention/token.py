"""What the pass of a single token computes in every layer: a kernel call for each region whose keys lie ready in the
cache, and one for all others, whose keys are kept once more at the positions that the token wants.

Those others are few: Head's keys and Tail's, where Middle's lie ready. From one token to the next only the newest of
them is rotated; it takes the place of the one that has left Head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lampe.attention.kernels import attend_tile
from lampe.attention.merge import merged, merging_dtype
from lampe.attention.one_query import attend_one
from lampe.attention.step import RegionLse, Step
from lampe.attention.tiles import Shape
from lampe.attention.turning import Rotate, Table, Tables, make_turn
from lampe.positions import PositionMap, Region

_AHEAD = 64  # keys rotated before they are wanted, where a region grows by one with each token


@dataclass(frozen=True)
class _Part:
    """A region, the keys that the token meets there, and by how many positions its query is rotated further."""

    number: int
    region: Region
    span: tuple[int, int]
    turn: int | float


@dataclass(frozen=True)
class _Layout:
    """Which keys are kept for a token: they serve the next one as well where these agree."""

    position_map: PositionMap
    resting: Any
    query: int
    spans: tuple[tuple[int, int], ...]
    shifts: tuple[int | float, ...]  # of each region's query against the first one's

    def follows(self, before: _Layout) -> bool:
        """Whether this is the next token's, and the first region has moved on by one, the others only grown."""
        if self.query != before.query + 1 or self.shifts != before.shifts or self.resting != before.resting:
            return False
        (first, stop), (first_before, stop_before) = self.spans[0], before.spans[0]
        moved = (first, stop) == (first_before + 1, stop_before + 1) and stop == self.query + 1
        fixed = self.spans[1:-1] == before.spans[1:-1]
        grown = len(self.spans) == 1 or self.spans[-1][0] == before.spans[-1][0] == 0
        return moved and fixed and grown and self.position_map == before.position_map


class NearKeys:
    """Keys and values of a layer that are kept for the next token; empty at first."""

    layout: _Layout | None = None
    pairs: Tensor  # (batch, key_value_heads, tokens, 2·head_dim): each key with its value
    keys: Tensor  # views of these
    values: Tensor
    oldest = 0  # place of the first region's oldest key, which the next one replaces


class TokenStep:
    """All that the layers share in a pass of one token; arguments as for `Step`, and `query` is the token's index."""

    def __init__(
        self, position_map: PositionMap, resting: Any, query: int, tables: Tables, device: torch.device
    ) -> None:
        self.position_map, self._resting, self._query = position_map, resting, query
        self._tables, self._device = tables, device
        self._matrices: dict[Any, Tensor] = {}  # rotations as matrices, by layer's rotation, device and dtype
        found = []
        for number, region in enumerate(position_map.regions):
            span = region.key_span(query)
            if span[0] < span[1]:
                found.append(_Part(number, region, span, region.query_map(query) - resting(query)))
        self._ready = [part for part in found if part.region.key_map == resting]
        rest = [part for part in found if part not in self._ready]
        # A cache that has outlived its plan: most of its keys have to be rotated for each token.
        self._fresh = [] if self._ready else [max(rest, key=lambda part: part.span[1] - part.span[0])]
        # Exact distances first: their keys move on by one a token. The last may grow.
        self._kept = sorted((part for part in rest if part not in self._fresh), key=lambda part: part.region.lower)
        self._layout = _Layout(
            position_map,
            resting,
            query,
            tuple(part.span for part in self._kept),
            tuple(self._shift(part, query) for part in self._kept),
        )
        counts = [stop - first for first, stop in self._layout.spans]
        # Of the keys that are kept, how many this token meets; others lie behind them.
        self._wanted, self._moving = sum(counts), sum(counts[:1])
        self._turns = tuple(part.turn for part in (*self._ready, *self._fresh, *self._kept[:1]))
        self._newest = tuple(part.region.key_map(query) - resting(query) for part in self._kept[:1])
        self._before: tuple[_Layout | None, bool] = None, False  # a token's layout, and whether this one follows it
        # One region: the kernel call of the unpatched model, and of plain RoPE the same bits.
        everything = len(found) == len(self._ready) == 1 and found[0].span == (0, query + 1)
        self._alone = everything and len(position_map.regions) == 1 and not found[0].turn
        self._step: Step | None = None

    def _shift(self, part: _Part, query: int) -> int | float:
        """By how much keys of a region that is kept are rotated further, so that the first one's query serves it."""
        return self._kept[0].region.query_map(query) - part.region.query_map(query)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rotate: Rotate,
        scaling: float,
        softcap: float | None = None,
        near: NearKeys | None = None,
    ) -> tuple[Tensor, RegionLse]:
        """Softmax attention of the token over all keys, each pair at its mapped position; see `Step.attend`.

        Parameters
        ----------
        near : NearKeys, optional
            Of this layer and these rows of the batch: what was kept for the token before. Changed in place.
        """
        if self._alone:
            out, lse = attend_tile(query, key, value, Shape.FULL, scaling, softcap, fold=False)
            return out.to(query.dtype), lambda: lse.select(2, -1).unsqueeze(0)
        queries = self._turned(query.reshape(query.shape[0], key.shape[1], -1, query.shape[3]), rotate)
        outputs, lses = [], []
        for part in (*self._ready, *self._fresh):
            first, stop = part.span
            k = key[:, :, first:stop]
            if part in self._fresh:
                k = make_turn(self._key_table(part, first, stop, part), rotate, k)(k)
            out, lse = attend_one(queries.pop(0), k, value[:, :, first:stop], scaling, softcap)
            outputs.append(out)
            lses.append(lse)
        met: tuple[Tensor, Tensor] | None = None
        if self._kept:
            near = NearKeys() if near is None else near
            self._bring_up_to_date(near, key, value, rotate)
            k, v = near.keys, near.values
            if k.shape[2] > self._wanted:
                k, v = k[:, :, : self._wanted], v[:, :, : self._wanted]
            met = queries.pop(0), k
            out, lse = attend_one(*met, v, scaling, softcap)
            outputs.append(out)
            lses.append(lse)
        whole = merged(outputs, lses).to(query.dtype).reshape(query.shape)
        return whole, lambda: self._region_lse(lses, met, scaling, softcap)

    def weights(
        self, query: Tensor, key: Tensor, rotate: Rotate, scaling: float, softcap: float | None = None
    ) -> Tensor:
        """The token's attention to each key; see `Step.weights`."""
        if self._step is None:
            self._step = Step(
                self.position_map, self._resting, self._query, self._query + 1, self._tables, self._device
            )
        return self._step.weights(query, key, rotate, scaling, softcap)

    # The query

    def _turned(self, query: Tensor, rotate: Rotate) -> list[Tensor]:
        """The query as each call wants it: the ready regions' and the fresh one's, then that of all that are kept.

        `query` has a group's heads as rows of one.
        """
        if not any(self._turns):
            return [query] * len(self._turns)
        return list(_times(query, self._matrix(query, rotate, self._turns)).chunk(len(self._turns), -1))

    def _matrix(self, like: Tensor, rotate: Rotate, turns: tuple[int | float, ...]) -> Tensor:
        """Rotations by so many positions as one matrix, (head_dim, turns·head_dim): x @ it has them side by side.

        All layers of the token share it, so a rotation costs each of them one product.
        """
        key = (rotate, like.device, like.dtype, like.shape[3], turns)
        if key not in self._matrices:
            ones = torch.eye(like.shape[3], dtype=merging_dtype(like), device=like.device)[None, None]
            turned = []
            for turn in turns:
                position = torch.full((1,), turn, dtype=torch.float64, device=self._device)
                cos, sin = (x.to(like.device) for x in self._tables(position))
                turned.append(rotate(ones, cos, sin)[0, 0])
            # On a CPU rounded once, at the end; on a GPU a further kernel launch would cost more than it is worth.
            self._matrices[key] = torch.cat(turned, -1).to(ones.dtype if like.device.type == "cpu" else like.dtype)
        return self._matrices[key]

    # The keys that are kept

    def _key_table(self, part: _Part, first: int, stop: int, base: _Part) -> Table:
        """The rotation of a region's keys to where the query of `base` wants them."""
        j = torch.arange(first, stop, device=self._device)
        shift = base.region.query_map(self._query) - part.region.query_map(self._query)
        return self._tables(part.region.key_map(j) - self._resting(j) + shift)

    def _bring_up_to_date(self, near: NearKeys, key: Tensor, value: Tensor, rotate: Rotate) -> None:
        """Rotate the newest key into the place of the oldest; or all anew."""
        if self._follows(near.layout) and self._wanted <= near.pairs.shape[2]:
            newest_key = _times(key[:, :, -1:], self._matrix(key, rotate, self._newest))
            place = near.pairs[:, :, near.oldest : near.oldest + 1]
            torch.cat((newest_key, value[:, :, -1:]), -1, out=place)
            near.oldest = (near.oldest + 1) % self._moving
            near.layout = self._layout
            return
        pieces = []
        for number, part in enumerate(self._kept):
            start, stop = part.span
            if number and number == len(self._kept) - 1 and not start:
                stop = max(stop, min(stop + _AHEAD, key.shape[2]))
            k = make_turn(self._key_table(part, start, stop, self._kept[0]), rotate, key)(key[:, :, start:stop])
            pieces.append(torch.cat((k, value[:, :, start:stop]), -1))
        tokens = sum(piece.shape[2] for piece in pieces)
        with torch.inference_mode(False):  # a later pass may write into it, in whichever mode
            near.pairs = pieces[0].new_empty((*key.shape[:2], tokens, pieces[0].shape[3]))
        torch.cat(pieces, 2, out=near.pairs)
        near.keys, near.values = near.pairs[..., : key.shape[3]], near.pairs[..., key.shape[3] :]
        near.oldest, near.layout = 0, self._layout

    def _follows(self, before: _Layout | None) -> bool:
        """Whether what was kept for a token serves this one: all layers kept it for the same, so it is asked once."""
        if before is not self._before[0]:
            self._before = before, before is not None and self._layout.follows(before)
        return self._before[1]

    # What fell where

    def _region_lse(
        self, lses: list[Tensor], met: tuple[Tensor, Tensor] | None, scaling: float, softcap: float | None
    ) -> Tensor:
        """Log-sum-exp of each region, shape (regions, batch, heads); those that share a call are told apart here.

        `met`: the query of the keys that are kept, and those.
        """
        first = lses[0].flatten(1)
        empty = torch.full_like(first, -torch.inf)
        found = [empty] * len(self.position_map.regions)
        for part, lse in zip((*self._ready, *self._fresh, *self._kept[:1]), lses, strict=True):
            found[part.number] = lse.flatten(1).to(first.dtype)
        if met and len(self._kept) > 1:
            (query, keys), at = met, 0
            for part in self._kept:
                count = part.span[1] - part.span[0]
                k = keys[:, :, at : at + count]
                _, lse = attend_one(query, k, k, scaling, softcap)
                found[part.number] = lse.flatten(1).to(first.dtype)
                at += count
        return torch.stack(found)


def make_step(
    position_map: PositionMap, resting: Any, first: int, stop: int, tables: Tables, device: torch.device
) -> Step | TokenStep:
    """What the layers of a pass share; arguments as for `Step`."""
    if stop - first == 1:
        return TokenStep(position_map, resting, first, tables, device)
    return Step(position_map, resting, first, stop, tables, device)


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    return x @ matrix if x.dtype == matrix.dtype else (x.to(matrix.dtype) @ matrix).to(x.dtype)
