"""The softmax over several pieces of the keys, from each piece's output and log-sum-exp."""

from __future__ import annotations

import torch
from torch import Tensor


def merging_dtype(x: Tensor) -> torch.dtype:
    """What pieces of x's dtype are put together in: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


class Merge:
    """The softmax over pieces of the keys, put together as they come.

    Rows that one piece covers alone keep its bits.
    """

    output: Tensor
    lse: Tensor

    def __init__(self, query: Tensor, regions: int) -> None:
        self._rows, self._dtype = query.shape[2], merging_dtype(query)
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
