"""Intervals hold what they say: the true value, 95 times of 100, also where they are of few values."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.stats import t

from lampe.intervals import _student, bootstrapped, estimated

_TIMES = 400


@pytest.mark.parametrize("sizes", [[2], [4], [16], [2] * 6, [1] * 6, [1, 1, 1, 5], [1, 5]], ids=str)
def test_an_interval_holds_the_true_mean_95_times_of_100(sizes):
    """With groups of one, which others join, it is held more often: what lies between groups counts too."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(_TIMES):
        groups = [rng.normal(number, 1, size) for number, size in enumerate(sizes)]
        mean = sum(number * size for number, size in enumerate(sizes)) / sum(sizes)
        found = bootstrapped(groups)
        held += found.low <= mean <= found.high
    alone = 1 in sizes
    assert 0.91 <= held / _TIMES <= (1.0 if alone else 0.98)


def test_equal_differences_leave_nothing_open_and_one_alone_says_nothing():
    same = bootstrapped([[0.25, 0.25], [0.25]])
    assert (same.mean, same.low, same.high, same.count) == (0.25, 0.25, 0.25, 3)
    assert bootstrapped([[1.0], [0.0] * 19]).level, "one pair proves nothing beside others either"
    one = bootstrapped([[0.5]])
    assert one.level
    assert str(one) == "+0.500 (one pair)"


def test_students_t_is_scipys():
    assert _student(1) == pytest.approx(t.ppf(0.975, 1), rel=0.12)
    for free in (2, 3, 5, 30, 1000):
        assert _student(free) == pytest.approx(t.ppf(0.975, free), rel=0.01)


def test_an_interval_ends_where_values_do():
    found = estimated([1.0, 100.0], shares=False, least=0.0)
    assert (found.mean, found.low) == (50.5, 0.0)
    assert found.high > 100
    assert estimated([-3.0, -0.1], shares=False, most=0.0).high == 0.0


def test_thousands_of_pairs_take_little_memory():
    pairs = np.random.default_rng(0).normal(1, 1, 5000)
    tracemalloc.start()
    found = bootstrapped([pairs])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.low < pairs.mean() < found.high
    assert most < 50_000_000, "all draws at once would be 400 MB"
