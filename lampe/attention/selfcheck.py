"""Does a device's kernel give the right numbers? Looked at once, at its first use, in a fraction of a second."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lampe.attention.backends import Backend, candidates, choose
from lampe.attention.merge import merging_dtype
from lampe.attention.step import resting_map
from lampe.attention.token import NearKeys, make_step
from lampe.errors import first_line
from lampe.methods import LampeConfig
from lampe.methods.curves import Constant
from lampe.positions import PositionMap

_TOKENS = 160
_BLOCK = 16  # queries
_MAP = LampeConfig(128, 20, 12, Constant(64)).position_map(_TOKENS, _TOKENS - 10)
_PASSES = ((0, 130), (130, 157), (157, 158), (158, 159), (159, 160))
"""A prefill, a chunk across where Tail begins, and tokens: the first gathers its near keys, the others keep them."""

_ALLOWED = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.2}
"""The largest difference that rounding explains: outputs are of the order of 1, a pair at a wrong position is off by
that much."""


@dataclass(frozen=True)
class Check:
    """What a look at a device, dtype and head size has found.

    Parameters
    ----------
    device : torch.device
    backend : Backend
        What computes attention there.
    difference : float
        Its largest difference from attention pair by pair in float64; values are of the order of 1.
    refused : tuple of (Backend, str)
        Quicker ones, and why they aren't taken.
    """

    device: torch.device
    backend: Backend
    difference: float
    refused: tuple[tuple[Backend, str], ...] = ()

    def in_words(self) -> str:
        """For people: "flash attention, checked on this GPU, largest difference 0.004"."""
        here = "CPU" if self.device.type == "cpu" else "GPU"
        found = f"{self.backend}, checked on this {here}, largest difference {_plain(self.difference)}"
        return "; ".join((found, *(f"not {backend}: {why}" for backend, why in self.refused)))


def _plain(number: float) -> str:
    """One digit, and zeros rather than an exponent."""
    return f"{number:.{max(0, -math.floor(math.log10(number)))}f}" if number else "0"


_found: dict[tuple[torch.device, torch.dtype, int], Check] = {}


def checked(like: Tensor) -> Check:
    """The check of a query's device, dtype and head size; from then on its backend is used there.

    Parameters
    ----------
    like : Tensor, shape (batch, heads, tokens, head_dim)

    Raises
    ------
    RuntimeError
        If not even plain operations give the right numbers there.
    """
    key = (like.device, like.dtype, like.shape[-1])
    if key not in _found:
        _found[key] = _check(like)
    return _found[key]


def _check(like: Tensor) -> Check:
    refused: list[tuple[Backend, str]] = []
    for backend in candidates(like):
        choose(like, backend)
        try:
            difference = _difference(like.device, like.dtype, like.shape[-1])
        except (RuntimeError, NotImplementedError) as error:
            refused.append((backend, first_line(error)))
            continue
        if difference <= _ALLOWED[like.dtype]:
            return Check(like.device, backend, difference, tuple(refused))
        refused.append((backend, f"its numbers are off by {difference:.2g}"))
    raise RuntimeError(
        f"Attention doesn't give the right numbers on {like.device} in {like.dtype}: "
        + "; ".join(f"{backend}, {why}" for backend, why in refused)
    )


@torch.no_grad()
def _difference(device: torch.device, dtype: torch.dtype, dim: int) -> float:
    """The largest difference of a prefill, a chunk and a few tokens from attention pair by pair."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, _TOKENS, dim, generator=generator, dtype=torch.float32).to(device, dtype)
        for heads in (4, 2, 2)
    )
    exact, resting, worst, near = merging_dtype(query), resting_map(_MAP), 0.0, NearKeys()
    turned = resting(torch.arange(_TOKENS, device=device))
    lying_query, lying_key = (_rotate(x, *_table(turned, dim, exact)).to(dtype) for x in (query, key))
    for first, stop in _PASSES:
        step = make_step(_MAP, resting, first, stop, lambda p: _table(p, dim, exact), device)
        part = lying_query[:, :, first:stop], lying_key[:, :, :stop], value[:, :, :stop]
        out, _ = step.attend(*part, _rotate, dim**-0.5, None, near)
        wanted = _pair_by_pair(_MAP, query[:, :, first:stop], key[:, :, :stop], value[:, :, :stop], first)
        worst = max(worst, (out.double().cpu() - wanted).abs().nan_to_num(nan=torch.inf).max().item())
    return worst


def _pair_by_pair(position_map: PositionMap, query: Tensor, key: Tensor, value: Tensor, first: int) -> Tensor:
    """Attention from each pair's own relative position, in float64 on the CPU."""
    query, key, value = (x.double().cpu() for x in (query, key, value))
    dim, groups = query.shape[-1], query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    i, j = torch.arange(first, key.shape[2])[:, None], torch.arange(key.shape[2])
    scores = torch.empty(*query.shape[:3], key.shape[2], dtype=torch.float64)
    for row in range(0, len(i), _BLOCK):  # head_dim × tokens² would be large
        part = slice(row, row + _BLOCK)
        relative = position_map.relative(i[part], j)
        cos, sin = _table(relative.flatten(), dim, torch.float64)
        turned = _rotate(query[:, :, part].repeat_interleave(len(j), 2), cos, sin)
        scores[:, :, part] = (turned.unflatten(2, relative.shape) * key[:, :, None]).sum(-1) * dim**-0.5
    return scores.masked_fill(j > i, -torch.inf).softmax(-1) @ value


def _table(positions: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each pair of dimensions; of an odd number the last isn't rotated."""
    frequencies = 1.0 / 100 ** (torch.arange(dim // 2, device=positions.device, dtype=torch.float64) * 2 / dim)
    angle = positions.double()[None, :, None] * frequencies
    return angle.cos().to(dtype), angle.sin().to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest.to(cos.dtype)), -1)
