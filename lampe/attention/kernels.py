"""A tile's attention by a stock kernel that also gives the log-sum-exp of its scores."""

from __future__ import annotations

import torch
from torch import Tensor

from lampe.attention.backends import Backend, backend_for
from lampe.attention.merge import Merge, merging_dtype
from lampe.attention.tiles import Shape, band_rows

_SCORES = 2**22  # scores of attention in plain operations held at once
_BLOCKS = 65_535  # the greatest batch that a CUDA grid takes


def attend_tile(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    shape: Shape,
    scaling: float,
    softcap: float | None = None,
    fold: bool = True,
    left: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (natural, scores scaled) of one tile.

    `fold`: where all pairs attend, make a group's queries rows of one head. Its keys are then read once, not once for
    each query head. `left`: as a tile's.
    """
    if shape is Shape.WINDOW:
        return _attend_window(query, key, value, scaling, left)
    if shape is Shape.BAND:
        return _attend_band(query, key, value, scaling, softcap)
    if shape is Shape.ANTICAUSAL:
        # Read backwards, the upper triangle is the lower one: u ≥ t ⇔ n−1−u ≤ n−1−t.
        out, lse = kernel(query.flip(2), key.flip(2), value.flip(2), True, scaling, softcap)
        return out.flip(2), lse.flip(2)
    if shape is Shape.FULL and fold:
        folded = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
        out, lse = kernel(folded, key, value, False, scaling, softcap)
        return out.reshape(query.shape), lse.reshape(query.shape[:3])
    return kernel(query, key, value, shape is Shape.CAUSAL, scaling, softcap)


def _attend_window(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, left: int | None
) -> tuple[Tensor, Tensor]:
    """A region in one launch: flash attention slides a window along the diagonal that ends in the last corner."""
    dim = query.shape[3]
    q, k, v = (_padded(x).transpose(1, 2) for x in (query, key, value))
    out, lse = torch.ops.aten._flash_attention_forward.default(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, True, False,
        scale=scaling, window_size_left=-1 if left is None else left, window_size_right=0,
    )[:2]  # fmt: skip
    return out.transpose(1, 2).narrow(3, 0, dim), lse


def _attend_band(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """A band as a batch of its blocks, each with the keys that it sees."""
    if len(query) > 1:  # the blocks of one row of a batch are overlapping views, those of several would be copies
        rows_apart = [
            _attend_band(q, k, v, scaling, softcap)
            for q, k, v in zip(query.split(1), key.split(1), value.split(1), strict=True)
        ]
        out, lse = (torch.cat(parts) for parts in zip(*rows_apart, strict=True))
        return out, lse
    width = key.shape[2] - query.shape[2] + 1
    masked = backend_for(query, softcap) in (Backend.CPU, Backend.PLAIN)
    rows = band_rows(width, masked)
    blocks = query.unflatten(2, (-1, rows)).transpose(1, 2).flatten(0, 1)
    keys, values = (x.unfold(2, rows + width - 1, rows).permute(0, 2, 1, 4, 3).flatten(0, 1) for x in (key, value))
    if masked:
        band = torch.ones(rows, rows + width - 1, dtype=torch.bool, device=query.device).triu().tril(width - 1)
        mask = torch.zeros(band.shape, dtype=merging_dtype(query), device=query.device).masked_fill_(~band, -torch.inf)
        out, lse = kernel(blocks, keys, values, False, scaling, softcap, mask)
    else:
        merged = Merge(blocks, 1)
        for shape, start in ((Shape.ANTICAUSAL, 0), (Shape.CAUSAL, rows)):
            k, v = keys.narrow(2, start, rows), values.narrow(2, start, rows)
            merged.add(0, 0, *attend_tile(blocks, k, v, shape, scaling, softcap))
        out, lse = merged.output, merged.lse
    return tuple(x.unflatten(0, (1, -1)).transpose(1, 2).flatten(2, 3) for x in (out, lse))


def kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool,
    scaling: float,
    softcap: float | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention by this device's backend, with the log-sum-exp; key-value heads may be fewer than query heads.

    Parameters
    ----------
    query, key, value : Tensor, shape (batch, heads, tokens, head_dim)
    causal : bool
        Whether row t sees columns up to t; there are as many of both then.
    scaling : float
    softcap : float, optional
    mask : Tensor, optional
        Added to the scores; only where the backend is the CPU's, or plain.
    """
    backend = backend_for(query, softcap)
    if backend is Backend.PLAIN:
        return _plain_kernel(query, key, value, causal, scaling, softcap, mask)
    if backend is Backend.CPU:
        cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        return cpu(query, key, value, 0.0, causal, attn_mask=mask, scale=scaling)
    if len(query) > _BLOCKS:
        apart = zip(query.split(_BLOCKS), key.split(_BLOCKS), value.split(_BLOCKS), strict=True)
        parts = [kernel(q, k, v, causal, scaling) for q, k, v in apart]
        out, lse = (torch.cat(part) for part in zip(*parts, strict=True))
        return out, lse
    heads, rows, dim = query.shape[1:]
    query, key, value = _padded(query), _padded(key), _padded(value)
    if backend is Backend.FLASH:
        flash = torch.ops.aten._scaled_dot_product_flash_attention.default
        out, lse = flash(query, key, value, 0.0, causal, False, scale=scaling)[:2]
    else:
        if key.shape[1] != heads:  # this one knows no groups
            key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention.default
        out, lse = efficient(query, key, value, None, True, 0.0, causal, scale=scaling)[:2]
    if out.shape[3] != dim:
        out = out.narrow(3, 0, dim)
    return out, lse if lse.shape[2] == rows else lse.narrow(2, 0, rows)  # the memory-efficient one pads its rows


def _padded(x: Tensor) -> Tensor:
    """With zeros up to a multiple of eight dimensions, which the CUDA kernels want: scores and outputs are the same."""
    over = -x.shape[-1] % 8
    return torch.nn.functional.pad(x, (0, over)) if over else x


def _plain_kernel(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float, softcap: float | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same in plain operations, in float32 at least: some rows at a time."""
    (heads, rows), (groups, keys) = query.shape[1:3], key.shape[1:3]
    exact = merging_dtype(query)
    out = torch.empty(query.shape[:3] + value.shape[3:], dtype=exact, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=exact, device=query.device)
    step = max(1, _SCORES // (heads * keys))
    j = torch.arange(keys, device=query.device)
    for number in range(len(query)):  # a band's blocks are overlapping views: exact copies of all would be large
        q = query[number].unflatten(0, (groups, -1))
        k, v = key[number].unsqueeze(1).to(exact), value[number].unsqueeze(1).to(exact)
        for row in range(0, rows, step):
            part = slice(row, min(row + step, rows))
            scores = capped(q[:, :, part].to(exact) @ k.transpose(2, 3) * scaling, softcap)
            if causal:
                scores.masked_fill_(j > j[part, None], -torch.inf)
            if mask is not None:
                scores += mask[part]
            lse[number, :, part] = scores.logsumexp(-1).flatten(0, 1)
            out[number, :, part] = (scores.softmax(-1) @ v).flatten(0, 1)
    return out, lse


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    """The scores bent to stay within ± the cap, where there is one."""
    return scores if softcap is None else (scores / softcap).tanh() * softcap
