"""The softmax over several pieces of the keys, from each piece's output and log-sum-exp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

_KEPT_WHOLE = 4096  # of more rows, the last one's sums are copied out rather than all kept


def merging_dtype(x: Tensor) -> torch.dtype:
    """What pieces of x's dtype are put together in: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def merged(outputs: Sequence[Tensor], lses: Sequence[Tensor]) -> Tensor:
    """The softmax over all pieces of the keys, each of which all rows see; few operations, for a single token.

    Parameters
    ----------
    outputs : sequence of Tensor, shape (batch, heads, rows, head_dim)
    lses : sequence of Tensor, shape (batch, heads, rows)
        The log-sum-exp of each piece's scores.
    """
    if len(outputs) == 1:
        return outputs[0]
    if len(outputs) == 2:
        weight = torch.empty_like(lses[0], dtype=outputs[0].dtype)
        torch.sigmoid(lses[1] - lses[0], out=weight)
        return torch.lerp(outputs[0], outputs[1], weight.unsqueeze(-1))
    weights = torch.stack(tuple(lses), -1).softmax(-1).to(outputs[0].dtype)
    return (weights.unsqueeze(-2) @ torch.stack(tuple(outputs), -2)).squeeze(-2)


class Merge:
    """The softmax over pieces of the keys, put together as they come.

    Rows that one piece covers alone keep its bits. On a GPU the pieces stay in their own dtype, for each conversion is
    a kernel launch; elsewhere they are put together in float32 at least.
    """

    output: Tensor
    lse: Tensor

    def __init__(self, query: Tensor, regions: int) -> None:
        self._rows = query.shape[2]
        self._dtype = merging_dtype(query) if query.device.type == "cpu" else query.dtype
        self._reached = 0  # rows from here on have nothing yet
        self._last: list[list[Tensor]] = [[] for _ in range(regions)]  # each piece's log-sum-exp of the last row

    def add(self, region: int, first: int, output: Tensor, lse: Tensor, left: int = 2) -> None:
        """A piece for the rows from `first` on; `left` is how many follow, by default so many that sums are kept."""
        rows = lse.shape[2]
        stop = first + rows
        whole = not self._reached and rows == self._rows
        if stop == self._rows:
            last = lse.select(2, -1)  # of the first piece, the sums are added to
            self._last[region].append(last.clone() if (whole and left > 1) or rows > _KEPT_WHOLE else last)
        if whole:
            self.output, self.lse = output, lse
        elif first >= self._reached:
            self._make_room(output, lse, first)
            self.output.narrow(2, first, rows).copy_(output)
            self.lse.narrow(2, first, rows).copy_(lse)
        else:
            self._make_room(output, lse, stop)
            mine, part = self.lse.narrow(2, first, rows), self.output.narrow(2, first, rows)
            weight = torch.empty_like(mine, dtype=part.dtype)
            torch.sigmoid(lse - mine, out=weight)  # this piece's share of both
            part.lerp_(output.to(part.dtype), weight.unsqueeze(-1))
            if left:
                torch.logaddexp(mine, lse, out=mine)
        self._reached = max(self._reached, stop)

    @property
    def region_lse(self) -> Callable[[], Tensor]:
        """Gives the log-sum-exp of the last row in each region, (regions, batch, heads); −∞ where it has no key."""
        return partial(_summed, self._last)

    def _make_room(self, piece: Tensor, lse: Tensor, reached: int) -> None:
        """A buffer of its own, with neutral rows up to where the next piece needs them."""
        if not self._reached or self.output.dtype != self._dtype:
            batch, heads, _, dim = piece.shape
            # The layout that the model wants next: a token's heads side by side.
            wide = torch.empty((batch, self._rows, heads, dim), dtype=self._dtype, device=piece.device).transpose(1, 2)
            if self._reached:
                wide.copy_(self.output)
            else:
                self.lse = torch.empty((batch, heads, self._rows), dtype=lse.dtype, device=piece.device)
            self.output = wide
        if self._reached < reached:
            self.output.narrow(2, self._reached, reached - self._reached).zero_()
            self.lse.narrow(2, self._reached, reached - self._reached).fill_(-torch.inf)


def _summed(lses: list[list[Tensor]]) -> Tensor:
    empty = torch.full_like(next(found[0] for found in lses if found), -torch.inf)
    return torch.stack([torch.stack([empty, *found]).logsumexp(0) for found in lses])
