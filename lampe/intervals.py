"""How sure a share or a difference is: intervals of 95 %."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 10_000
_AT_ONCE = 2**20  # numbers drawn: 8 MB
_NORMAL = 1.959964  # that 2.5 % of a normal distribution are beyond


def wilson(found: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share of trials; z = 1.96 gives 95 %."""
    share = found / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True)
class Estimate:
    """The mean of some values, and its 95 % interval.

    Parameters
    ----------
    mean, low, high : float
    count : int
        Of one value alone, other than a share, there is no interval: both ends are the value.
    """

    mean: float
    low: float
    high: float
    count: int


class Difference(Estimate):
    """The mean of paired differences, and its 95 % interval (see `bootstrapped`); `count` is that of the pairs."""

    @property
    def level(self) -> bool:
        """Whether the interval holds 0: neither is better, as far as these pairs tell. One pair tells nothing."""
        return self.count < 2 or self.low <= 0 <= self.high

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.mean:+.3f} (one pair)"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def bootstrapped(groups: Iterable[Sequence[float]]) -> Difference:
    """The mean of paired differences.

    Pairs are drawn again, with replacement, within each group, so that each keeps its share. Nothing can be drawn
    within a group of one pair, so these make one group, or join another where there is but one of them. Draws are
    nearer to each other than pairs are, and of few pairs it is hardly known how far apart they are: the interval is
    made wider by as much as a normal distribution's would have to be (Hesterberg 2015, "What teachers should know about
    the bootstrap").

    Parameters
    ----------
    groups : iterable of sequence of float
        Differences, one for each pair; at least one.
    """
    given = [np.asarray(group, dtype=float) for group in groups]
    alone = [group for group in given if len(group) == 1]
    drawn = [group for group in given if len(group) > 1]
    if len(alone) == 1 and drawn:
        alone.append(drawn.pop())
    drawn += [np.concatenate(alone)] if alone else []
    rng = np.random.default_rng(0)
    count = sum(map(len, drawn))
    sums = sum(_sums(rng, pairs) for pairs in drawn)
    mean = float(sum(pairs.sum() for pairs in drawn) / count)
    low, high = mean + _widened(drawn) * (np.quantile(sums / count, (0.025, 0.975)) - mean)
    return Difference(mean, float(low), float(high), count)


def _sums(rng: np.random.Generator, pairs: Any) -> Any:
    """The sum of each draw, a part of the draws at a time: a visitor's file may have thousands of pairs."""
    at_once = max(1, _AT_ONCE // len(pairs))
    parts = [min(at_once, _RESAMPLES - done) for done in range(0, _RESAMPLES, at_once)]
    return np.concatenate([rng.choice(pairs, (part, len(pairs))).sum(1) for part in parts])


def _widened(groups: Sequence[Any]) -> float:
    """How many times as wide an interval is as one that is drawn."""
    free = sum(len(group) - 1 for group in groups)
    as_drawn = sum(len(group) * group.var() for group in groups)
    if not as_drawn:
        return 1.0
    unbiased = sum(len(group) * group.var(ddof=1) for group in groups if len(group) > 1)
    return math.sqrt(unbiased / as_drawn) * _student(free) / _NORMAL


def _student(free: int) -> float:
    """Student's t that 2.5 % of all are beyond, at some degrees of freedom, by Fisher's expansion: 11 % too small at
    one, less than 1 % from two on."""
    z = _NORMAL
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92_160 * free**4)
    )


def estimated(values: Sequence[float], shares: bool, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """A mean: of shares with Wilson's interval, of other values with one by bootstrap.

    Parameters
    ----------
    values : sequence of float
        At least one.
    shares : bool
        Whether each is a share of a whole, from 0 to 1.
    least, most : float
        Beyond which no value can be; the interval ends there.
    """
    if shares:
        mean = sum(values) / len(values)
        return Estimate(mean, *wilson(sum(values), len(values)), len(values))
    drawn = bootstrapped([values])
    return Estimate(drawn.mean, max(least, drawn.low), min(most, drawn.high), len(values))
