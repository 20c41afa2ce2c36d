"""Rotating queries and keys further, by as few passes over them as can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lampe.attention.merge import merging_dtype

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model's own rotation: (x of shape (batch, heads, tokens, head_dim), cos, sin) → x rotated."""

Table = tuple[Tensor, Tensor]
"""Cosine and sine of a rotation, each of shape (1, tokens, rotary_dim)."""

Tables = Callable[[Tensor], Table]
"""By how many positions to rotate further, shape (tokens,), also negative → cosine and sine, float32 at least."""

_ROWS = 1024  # tokens rotated at once on a CPU: what is in between stays in its cache


@dataclass(frozen=True)
class Turn:
    """A rotation by given positions for heads of one size: ``x·cosine + partner(x)·sine``.

    Every convention (half-split, interleaved, partial) is this, with a sine that has its sign and is 0 where a
    dimension isn't rotated.

    Parameters
    ----------
    cosine, sine : Tensor, shape (1, 1, tokens, head_dim)
        With one dimension more before these, x is rotated by each of several tables.
    partner : Tensor or int
        For each dimension the one it is rotated with; half a head where that is the one half a head away.
    """

    cosine: Tensor
    sine: Tensor
    partner: Tensor | int

    def __call__(self, x: Tensor) -> Tensor:
        """x of shape (batch, heads, tokens, head_dim), rotated, and rounded once, at the end."""
        cosine, sine = self.cosine, self.sine
        if x.device.type != "cpu" or x.shape[2] <= _ROWS or cosine.ndim > x.ndim:
            return self._turned(x, cosine, sine)
        turned = torch.empty_like(x)
        for row in range(0, x.shape[2], _ROWS):
            part = slice(row, row + _ROWS)
            turned[:, :, part] = self._turned(x[:, :, part], cosine[:, :, part], sine[:, :, part])
        return turned

    def _turned(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        if isinstance(self.partner, int):
            partner = torch.cat((x[..., self.partner :], x[..., : self.partner]), -1)
        else:
            partner = x.index_select(-1, self.partner)
        exact = x * cosine  # in the tables' dtype
        if x.device.type == "cpu":
            return torch.addcmul(exact, partner.to(sine.dtype), sine).to(x.dtype)
        # On a GPU each conversion is a kernel launch of its own, and this one converts by itself.
        return torch.addcmul(exact, partner, sine, out=torch.empty_like(exact, dtype=x.dtype))


def make_turn(table: Table, rotate: Rotate, like: Tensor) -> Turn:
    """A table of cosines and sines, made ready for tensors like this one.

    Parameters
    ----------
    table : Table
        As the model's rotation takes it.
    rotate : Rotate
    like : Tensor, shape (batch, heads, tokens, head_dim)
    """
    # A model spread over several GPUs has its layers elsewhere than its rotary embedding.
    cos, sin = (x.to(like.device) for x in table)
    ones = torch.ones(1, 1, cos.shape[1], like.shape[3], dtype=cos.dtype, device=like.device)
    cosine = rotate(ones, cos, torch.zeros_like(sin))
    sine = rotate(ones, cos, sin) - cosine
    dtype = merging_dtype(like)
    return Turn(cosine.to(dtype), sine.to(dtype), _partner(rotate, cos.shape[2], like.shape[3], like.device))


@cache
def _partner(rotate: Rotate, rotary: int, size: int, device: torch.device) -> Tensor | int:
    """The dimension that each is rotated with, found by rotating one dimension at a time by a quarter turn."""
    with torch.inference_mode(False), torch.no_grad():
        basis = torch.eye(size)[None, None]
        cos, sin = torch.zeros(1, size, rotary), torch.ones(1, size, rotary)
        found = rotate(basis, cos, sin)[0, 0].abs().argmax(0)
    half = size // 2
    if torch.equal(found, (torch.arange(size) + half) % size):
        return half
    return found.to(device)
