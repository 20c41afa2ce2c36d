"""How long something will still take, for telling people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lampe.inference.speed import Speed
from lampe.needle import Cell, to_read

_SETTLED = 3.0  # seconds after which a run's own pace says more than what was measured before


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
        for cell, start in reversed(to_read(cells, speed.chunk).items()):
            self._after[cell] = self.total
            self.total += speed.reading(start, cell.length) + self._ANSWER * speed.answer
        self._pace = Pace(self.total)

    def __call__(self, cell: Cell, tokens: int) -> float:
        """Seconds left when so many tokens of a cell are read."""
        speed = self._speed
        return self._pace(speed.reading(tokens, cell.length) + self._ANSWER * speed.answer + self._after[cell])
