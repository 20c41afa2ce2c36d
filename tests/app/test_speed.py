"""How long something will take, from what was measured."""

from __future__ import annotations

import time

import pytest

from app.serving.speed import Countdown, Speed, measure
from lampe.inference.prefill import CHUNK
from lampe.needle import grid
from tests.lampe.tiny import FAMILIES, build


def test_parts_add_up_and_far_tokens_cost_more():
    speed = Speed(0.001, 1e-6, 0.05)
    assert speed.reading(0, 500) + speed.reading(500, 2000) == pytest.approx(speed.reading(0, 2000))
    assert speed.reading(0, 3) == pytest.approx(3 * 0.001 + 1e-6 * 4.5)
    assert speed.reading(9000, 10_000) > speed.reading(0, 1000)


def test_what_is_measured_explains_the_chunks_it_was_measured_on(monkeypatch):
    """A clock that ticks once for each pair of tokens, and ten times for each token."""
    model, now = build(FAMILIES["llama"]), [0.0]
    own = model.forward

    def forward(ids, past_key_values, **rest):
        before = past_key_values.get_seq_length()
        count = ids.shape[1]
        now[0] += 10 * count + count * before + count**2 / 2
        return own(ids, past_key_values=past_key_values, **rest)

    monkeypatch.setattr(model, "forward", forward)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = measure(model, far=4 * CHUNK)
    assert found.pair == pytest.approx(1)
    assert found.token == pytest.approx(10)
    assert found.answer == pytest.approx(10 + 5 * CHUNK, rel=0.01)


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
