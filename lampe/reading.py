"""Reading a long prompt in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

CHUNK = 512
"""Tokens read at once: it is known often how far the reading is, and a chunk's activations stay small."""


class _Stopped(Exception):
    pass


@torch.inference_mode()
def read(
    model: Any,
    cache: Cache,
    ids: Tensor,
    start: int = 0,
    chunk: int = CHUNK,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
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
    stop : callable
        Asked before each layer, for a chunk of a long text takes seconds. True ends the reading; the cache is then
        filled in part and of no more use.

    Yields
    ------
    int
        How many tokens the cache holds, after each chunk.
    """

    def look(*_: Any) -> None:
        if stop():
            raise _Stopped

    hooks = [m.register_forward_pre_hook(look) for m in model.modules() if hasattr(m, "layer_idx")]
    try:
        for part in ids[:, start:].split(chunk, dim=1):
            if part.shape[1]:  # nothing to read is one empty part
                model(part.to(model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
                start += part.shape[1]
                yield start
    except _Stopped:
        pass
    finally:
        for hook in hooks:
            hook.remove()
