"""How long something will still take, from what was measured."""

from __future__ import annotations

import time

import pytest

from app.serving.speed import Countdown
from lampe.inference.speed import Speed
from lampe.needle import grid


def test_the_time_left_falls_to_nothing_at_the_pace_of_the_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    cells = grid("single", [1024, 2048], [0, 1], ["lampe"], 1)
    left = Countdown(Speed(0.01, 0, 0), cells)
    assert left.total == pytest.approx(0.01 * 2 * (1024 + 2048)), "of each length one is read whole, one from token 0"
    order = sorted(cells, key=lambda cell: (cell.length, -cell.depth))
    assert left(order[0], 0) == pytest.approx(left.total)
    now[0] = 2 * 0.01 * (1024 + 512)  # twice as slow as was measured
    assert left(order[1], 512) == pytest.approx(2 * (left.total - 0.01 * (1024 + 512)))
    assert left(order[3], 2048) == 0
