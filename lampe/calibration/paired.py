"""Two ways to map the same texts: how much better one is, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lampe.calibration.measure import Row

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and its 95 % interval by bootstrap.

    Parameters
    ----------
    mean, low, high : float
    pairs : int
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def level(self) -> bool:
        """Whether the interval holds 0: neither is better, as far as these pairs tell."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def compare(one: Iterable[Row], other: Iterable[Row], what: str) -> Difference:
    """How much more `one` has than `other`, over what both were measured on: the same windows, or the same needles.

    Pairs are drawn again, with replacement, within each input length, so that each keeps its share.

    Parameters
    ----------
    one, other : iterable of Row
        Each row of one length, window and needle once.
    what : str
        "found", "log_likelihood" or "loss".

    Raises
    ------
    ValueError
        If there are no pairs.
    """
    ours, theirs = _values(one, what), _values(other, what)
    lengths: dict[int, list[float]] = {}
    for key in sorted(ours.keys() & theirs.keys()):
        lengths.setdefault(key[0], []).append(ours[key] - theirs[key])
    if not lengths:
        raise ValueError(f"nothing was measured in both ways for {what}")
    rng = np.random.default_rng(0)
    count = sum(map(len, lengths.values()))
    sums = sum(rng.choice(pairs, (_RESAMPLES, len(pairs))).sum(1) for pairs in lengths.values())
    low, high = np.quantile(sums / count, (0.025, 0.975))
    return Difference(sum(map(sum, lengths.values())) / count, float(low), float(high), count)


def _values(rows: Iterable[Row], what: str) -> dict[tuple[int, int, int, int], float]:
    """What was measured, by length, window, needle and seed."""
    return {
        (row.length, row.text_window, -1 if row.asked is None else row.asked, row.seed): float(value)
        for row in rows
        if (value := getattr(row, what)) is not None
    }
