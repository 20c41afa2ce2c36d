"""How sure a share or a difference is: intervals of 95 %."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000


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
    """The mean of paired differences, and its 95 % interval by bootstrap; `count` is that of the pairs."""

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

    Pairs are drawn again, with replacement, within each group, so that each keeps its share.

    Parameters
    ----------
    groups : iterable of sequence of float
        Differences, one for each pair; at least one.
    """
    groups = [list(group) for group in groups]
    rng = np.random.default_rng(0)
    count = sum(map(len, groups))
    sums = sum(rng.choice(pairs, (_RESAMPLES, len(pairs))).sum(1) for pairs in groups)
    low, high = np.quantile(sums / count, (0.025, 0.975))
    return Difference(sum(map(sum, groups)) / count, float(low), float(high), count)


def estimated(values: Sequence[float], shares: bool) -> Estimate:
    """A mean: of shares with Wilson's interval, of other values with one by bootstrap.

    Parameters
    ----------
    values : sequence of float
        At least one.
    shares : bool
        Whether each is a share of a whole, from 0 to 1.
    """
    if shares:
        mean = sum(values) / len(values)
        return Estimate(mean, *wilson(sum(values), len(values)), len(values))
    drawn = bootstrapped([values])
    return Estimate(drawn.mean, drawn.low, drawn.high, len(values))
