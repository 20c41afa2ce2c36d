"""Intervals hold what they say: the true value, 95 times of 100, also where they are of few values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from lampe.intervals import _student, bootstrapped

_TIMES = 400


@pytest.mark.parametrize("sizes", [[2], [4], [16], [2] * 6, [1] * 6, [1, 1, 1, 5]], ids=str)
def test_an_interval_holds_the_true_mean_95_times_of_100(sizes):
    """Groups of one, which are drawn from together, hold it more often: what lies between groups counts too."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(_TIMES):
        groups = [rng.normal(number, 1, size) for number, size in enumerate(sizes)]
        mean = sum(number * size for number, size in enumerate(sizes)) / sum(sizes)
        found = bootstrapped(groups)
        held += found.low <= mean <= found.high
    alone = sum(size == 1 for size in sizes) > 1
    assert 0.91 <= held / _TIMES <= (1.0 if alone else 0.98)


def test_equal_differences_leave_nothing_open_and_one_alone_says_nothing():
    same = bootstrapped([[0.25, 0.25], [0.25]])
    assert (same.mean, same.low, same.high, same.count) == (0.25, 0.25, 0.25, 3)
    one = bootstrapped([[0.5]])
    assert one.level
    assert str(one) == "+0.500 (one pair)"


def test_students_t_is_scipys():
    assert _student(1) == pytest.approx(t.ppf(0.975, 1), rel=0.12)
    for free in (2, 3, 5, 30, 1000):
        assert _student(free) == pytest.approx(t.ppf(0.975, free), rel=0.01)
