"""How fast a model reads and answers on this machine, measured in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from lampe.inference.prefill import CHUNK, chunk_for, read
from lampe.models.device import input_device

_FAR = 4096  # tokens, about, after which a chunk is timed


def measured_tokens(model: Any) -> int:
    """Tokens that the measurement takes memory for."""
    return (_far(model) + 1) * chunk_for(model)


def _far(model: Any) -> int:
    """In chunks: three are needed to tell a near one from a far one."""
    return max(3, _FAR // chunk_for(model))


@dataclass(frozen=True)
class Speed:
    """Seconds that the loaded model takes, as measured.

    Parameters
    ----------
    token : float
        For each token that is read.
    pair : float
        For each earlier token that it attends to.
    answer : float
        For each token of an answer.
    chunk : int
        Tokens that it reads at once.
    """

    token: float
    pair: float
    answer: float
    chunk: int = CHUNK

    def reading(self, start: int, stop: int) -> float:
        """Seconds for reading the tokens from `start` up to `stop`: as a square where attention is most of it."""
        return self.token * (stop - start) + self.pair * (stop**2 - start**2) / 2


@torch.inference_mode()
def measure(model: Any, far: int | None = None, stop: Callable[[], bool] = lambda: False) -> Speed | None:
    """Time one chunk at the text's start, one after `far` chunks, and single tokens after them: a few seconds.

    The keys of the tokens before the far chunk are copies of the first one's: what they hold doesn't change the time.
    None if `stop`, as in `read`, ended it.
    """
    chunk, far = chunk_for(model), far or _far(model)
    ids = torch.arange(chunk, device=input_device(model))[None] % model.config.get_text_config().vocab_size
    cache = DynamicCache(config=model.config)

    def seconds(tokens: torch.Tensor) -> float:
        started = time.perf_counter()
        for _ in read(model, cache, tokens, stop=stop):
            pass
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(ids)  # warms up
    near = seconds(ids)
    if stop():
        return None
    for number, layer in enumerate(list(cache.layers)):
        keys, values = (
            x[:, :, :chunk].repeat(1, 1, far - 2, 1)  # type: ignore[index]
            for x in (layer.keys, layer.values)  # type: ignore[union-attr]
        )
        cache.update(keys, values, number)
    distant = seconds(ids)
    answer = min(seconds(ids[:, :1]) for _ in range(3))
    if stop():
        return None
    pair = max(0.0, distant - near) / (chunk**2 * (far - 1))  # so many more pairs for each token of the far one
    return Speed(max(0.0, near / chunk - pair * 1.5 * chunk), pair, answer, chunk)
