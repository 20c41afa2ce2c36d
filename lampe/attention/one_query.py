"""Attention of a single query to many keys: how its heads and keys are laid out for the kernel on this machine."""

from __future__ import annotations

import math
import time
from enum import Enum

import torch
from torch import Tensor

from lampe.attention.backends import Backend, backend_for
from lampe.attention.kernels import kernel
from lampe.attention.merge import merging_dtype

_SIZES = (1024, 8192)  # keys at which the layouts are timed
_BORDER = 3072  # calls with fewer keys are laid out as the first of them
_FEW = 256  # fewer keys are read in a moment, however they lie
_TURNS = 9

_chosen: dict[tuple[object, ...], tuple[Layout, ...]] = {}


class Layout(Enum):
    """How one query of several heads meets the keys of fewer heads."""

    HEADS = "as the model has them: keys are read again for each query head of a group"
    ROWS = "a group's query heads as rows of one head"
    PIECES = "the same, and the keys in so many pieces that every thread has as many"


def attend_one(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of a token that sees all keys.

    Parameters
    ----------
    query : Tensor, shape (batch, key_value_heads, group, head_dim)
        The query heads that share a key-value head, as rows of one.
    key, value : Tensor, shape (batch, key_value_heads, tokens, head_dim)
    scaling : float
    softcap : float, optional

    Returns
    -------
    output : Tensor, shape of the query
    lse : Tensor, shape (batch, key_value_heads, group)
        The log-sum-exp (natural) of the scaled scores.
    """
    if backend_for(query, softcap) is not Backend.CPU or len(query) > 1:
        return kernel(query, key, value, False, scaling, softcap)
    return _laid_out(layout_for(query, key), query, key, value, scaling)


def layout_for(query: Tensor, key: Tensor) -> Layout:
    """The quickest layout on this machine for such a call: timed once for each shape, in a fraction of a second."""
    if key.shape[2] < _FEW:
        return Layout.HEADS
    shape = (query.dtype, query.shape[1:], torch.get_num_threads())
    if shape not in _chosen:
        _chosen[shape] = tuple(_quickest(query, keys) for keys in _SIZES)
    return _chosen[shape][key.shape[2] >= _BORDER]


def _quickest(query: Tensor, keys: int) -> Layout:
    """The layout with the least median time over keys that lie as in a cache, and in no processor's."""
    _, groups, _, dim = query.shape
    layers = max(4, 2**25 // (groups * keys * dim * query.element_size()))
    # Not zeros: those would be one page of memory, read again and again.
    room = torch.ones(2, layers, 1, groups, keys + 8, dim, dtype=query.dtype)
    cut = pieces_for(groups, torch.get_num_threads()) > 1
    times: dict[Layout, list[float]] = {layout: [] for layout in Layout if cut or layout is not Layout.PIECES}
    for turn in range(_TURNS):
        for number, (layout, found) in enumerate(times.items()):
            k, v = room[:, (turn * len(times) + number) % layers, :, :, :keys]
            started = time.perf_counter()
            _laid_out(layout, query, k, v, 0.1)
            found.append(time.perf_counter() - started)
    return min(times, key=lambda layout: sorted(times[layout])[_TURNS // 2])


def _laid_out(layout: Layout, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    if layout is Layout.HEADS:
        out, lse = kernel(query.reshape(1, -1, 1, query.shape[3]), key, value, False, scaling)
        return out.reshape(query.shape), lse.reshape(query.shape[:3])
    pieces = pieces_for(key.shape[1], torch.get_num_threads()) if layout is Layout.PIECES else 1
    if pieces == 1 or key.shape[2] < 2 * pieces:
        return kernel(query, key, value, False, scaling)
    tokens = key.shape[2]
    step, over = divmod(tokens, pieces)
    # Pieces of one length, so that they are a batch without a copy: each begins with the keys that the one before it
    # ends with, which a mask leaves out.
    keys, values = (x[0].unfold(1, step + over, step).permute(1, 0, 3, 2) for x in (key, value))
    rows = query.expand(pieces, -1, -1, -1)
    mask = None
    if over:
        mask = torch.zeros(pieces, 1, 1, step + over, dtype=merging_dtype(query))
        mask[1:, ..., :over] = -torch.inf
    out, lse = kernel(rows, keys, values, False, scaling, mask=mask)
    total = lse.logsumexp(0, keepdim=True)
    weights = (lse - total).exp_().unsqueeze(-1)
    return (out * weights).sum(0, keepdim=True), total


def pieces_for(groups: int, threads: int) -> int:
    """Into how many pieces keys are cut so that their groups' pieces are a multiple of the threads."""
    return threads // math.gcd(groups, threads)
