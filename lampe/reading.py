"""Reading a long prompt in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

CHUNK = 512
"""Tokens read at once: a Stop between two chunks comes soon, and a chunk's activations stay small."""


@torch.inference_mode()
def read(model: Any, cache: Cache, ids: Tensor, start: int = 0, chunk: int = CHUNK) -> Iterator[int]:
    """Fill a cache with the keys and values of a prompt (prefill), a chunk at a time.

    Parameters
    ----------
    model : transformers model
        If it is patched, `Patched.plan` has fixed the final length.
    cache : transformers Cache
        Holds the first `start` tokens.
    ids : Tensor, shape (1, tokens)
    start : int
        The first token to read.
    chunk : int
        Tokens read at once.

    Yields
    ------
    int
        How many tokens the cache holds, after each chunk.
    """
    for part in ids[:, start:].split(chunk, dim=1):
        if part.shape[1]:  # nothing to read is one empty part
            model(part.to(model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
            start += part.shape[1]
            yield start
