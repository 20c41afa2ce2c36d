"""PyTorch's CUDA attention on a CPU: what its kernels compute, and what they refuse.

A build without CUDA knows these operators and has no kernel for them. Here they get one in plain operations that
asserts what CUDA's assert (read in PyTorch's source), and gives what they give where there is nothing to see.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch

HALVES = (torch.float16, torch.bfloat16)


def aligned(*tensors):
    for x in tensors:
        assert x.stride(-1) == 1, "the last dimension must be contiguous"
        step = 16 // x.element_size()
        assert x.data_ptr() % 16 == 0
        assert all(s % step == 0 for s, n in zip(x.stride()[:-1], x.shape, strict=False) if n > 1)


def attention(query, key, value, hidden, scale):
    """Of (batch, heads, tokens, head_dim), in float32; rows that see nothing give 0 and +∞."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.float().repeat_interleave(groups, 1) for x in (key, value))
    scores = (query.float() @ key.mT * scale).masked_fill(hidden, -torch.inf)
    lse = scores.logsumexp(-1)
    out = torch.where(lse[..., None] > -torch.inf, scores.softmax(-1) @ value, 0)
    return out.to(query.dtype), torch.where(lse > -torch.inf, lse, torch.inf)


def flash_checks(query, key, value):
    """(batch, tokens, heads, head_dim)"""
    assert {query.dtype, key.dtype, value.dtype} in ({half} for half in HALVES), "flash attention takes halves"
    assert query.shape[-1] <= 256
    assert query.shape[-1] % 8 == 0
    assert query.shape[2] % key.shape[2] == 0
    assert 0 < query.shape[0] <= 65_535
    aligned(query, key, value)


def flash_forward(
    query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask, *, scale=None,
    window_size_left=None, window_size_right=None, seqused_k=None, alibi_slopes=None, block_table=None, num_splits=None,
):  # fmt: skip
    calls["flash window"] += 1
    assert (cum_seq_q, cum_seq_k, dropout_p, return_debug_mask) == (None, None, 0.0, False)
    assert (max_q, max_k) == (query.shape[1], key.shape[1])
    flash_checks(query, key, value)
    rows, columns = max_q, max_k
    diagonal = torch.arange(rows)[:, None] + columns - rows
    right = 0 if is_causal else window_size_right
    hidden = torch.arange(columns) > diagonal + right if right >= 0 else torch.zeros(rows, columns, dtype=torch.bool)
    if window_size_left is not None and window_size_left >= 0:
        hidden = hidden | (torch.arange(columns) < diagonal - window_size_left)
    out, lse = attention(*(x.transpose(1, 2) for x in (query, key, value)), hidden, scale)
    nothing = torch.empty(0)
    return out.transpose(1, 2), lse, nothing, nothing, nothing


def flash(query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
    calls["flash"] += 1
    flash_checks(*(x.transpose(1, 2) for x in (query, key, value)))
    rows, columns = query.shape[2], key.shape[2]
    hidden = (
        torch.ones(rows, columns, dtype=torch.bool).triu(1 + columns - rows)
        if is_causal
        else torch.zeros(1, dtype=torch.bool)
    )
    out, lse = attention(query, key, value, hidden, scale)
    nothing = torch.empty(0)
    return out, lse, nothing, nothing, rows, columns, nothing, nothing, nothing


def efficient(query, key, value, attn_bias, compute_log_sumexp, dropout_p=0.0, is_causal=False, *, scale=None):
    calls["efficient"] += 1
    assert attn_bias is None
    assert compute_log_sumexp
    assert not dropout_p
    assert query.dtype in (*HALVES, torch.float32)
    assert query.dtype == key.dtype == value.dtype
    assert query.shape[1] == key.shape[1] == value.shape[1], "memory-efficient attention knows no groups"
    assert query.shape[-1] % 8 == 0
    assert 0 < query.shape[0] <= 65_535
    aligned(query, key, value)
    rows, columns = query.shape[2], key.shape[2]
    hidden = torch.ones(rows, columns, dtype=torch.bool).triu(1) if is_causal else torch.zeros(1, dtype=torch.bool)
    out, lse = attention(query, key, value, hidden, scale)
    padded = torch.full((*lse.shape[:2], -(-rows // 32) * 32), torch.nan)
    padded[:, :, :rows] = lse
    return out, padded, torch.empty(0), torch.empty(0)


OPS = {
    "_flash_attention_forward": flash_forward,
    "_scaled_dot_product_flash_attention": flash,
    "_scaled_dot_product_efficient_attention": efficient,
}
calls = Counter()


@contextmanager
def on_the_cpu(ops=OPS):
    """The operators run on CPU tensors, and `calls` counts them."""
    calls.clear()
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name, function in ops.items():
            library.impl(name, function, "CPU")
        yield
