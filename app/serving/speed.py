"""How fast this machine reads and answers, for telling people how long something will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from lampe.inference.prefill import CHUNK, read
from lampe.needle import Cell, to_read

_SETTLED = 3.0  # seconds after which a run's own pace says more than what was measured before

MEASURED = 9 * CHUNK
"""Tokens that the measurement takes memory for."""


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
    """

    token: float
    pair: float
    answer: float

    def reading(self, start: int, stop: int) -> float:
        """Seconds for reading the tokens from `start` up to `stop`: as a square where attention is most of it."""
        return self.token * (stop - start) + self.pair * (stop**2 - start**2) / 2


class Pace:
    """The time left of a run: what was estimated before, at the pace of this run so far.

    Parameters
    ----------
    total : float
        Estimated seconds of all of it.
    """

    def __init__(self, total: float) -> None:
        self.total = total
        self._started = time.perf_counter()

    def __call__(self, left: float) -> float:
        """Seconds left where the estimate says so many."""
        done, took = self.total - left, time.perf_counter() - self._started
        return left * (took / done if took > _SETTLED and done > 0 else 1)


class Countdown:
    """The time left of a run of needle tests: what was measured before, at the pace of this run so far."""

    _ANSWER = 24  # tokens, about: a number and a few words

    def __init__(self, speed: Speed, cells: Sequence[Cell]) -> None:
        self._speed = speed
        self._after: dict[Cell, float] = {}
        self.total = 0.0
        for cell, start in reversed(to_read(cells).items()):
            self._after[cell] = self.total
            self.total += speed.reading(start, cell.length) + self._ANSWER * speed.answer
        self._pace = Pace(self.total)

    def __call__(self, cell: Cell, tokens: int) -> float:
        """Seconds left when so many tokens of a cell are read."""
        speed = self._speed
        return self._pace(speed.reading(tokens, cell.length) + self._ANSWER * speed.answer + self._after[cell])


@torch.inference_mode()
def measure(model: Any, far: int = MEASURED - CHUNK, stop: Callable[[], bool] = lambda: False) -> Speed | None:
    """Time one chunk at the text's start, one after `far` tokens, and single tokens after them: a few seconds.

    The keys of the tokens before the far chunk are copies of the first one's: what they hold doesn't change the time.
    None if `stop`, as in `read`, ended it.
    """
    ids = torch.arange(CHUNK, device=model.device)[None] % model.config.get_text_config().vocab_size
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
        keys, values = (_copies(x, far // CHUNK - 2) for x in (layer.keys, layer.values))  # type: ignore[union-attr]
        cache.update(keys, values, number)
    distant = seconds(ids)
    answer = min(seconds(ids[:, :1]) for _ in range(3))
    if stop():
        return None
    pair = max(0.0, distant - near) / (CHUNK * (far - CHUNK))  # from CHUNK to far: so many more pairs for each token
    return Speed(max(0.0, near / CHUNK - pair * 1.5 * CHUNK), pair, answer)


def _copies(x: Any, number: int) -> torch.Tensor:
    return x[:, :, :CHUNK].repeat(1, 1, number, 1)
