"""The yardstick does what the engine does: otherwise there is nothing to compare."""

from __future__ import annotations

import pytest
import torch

from benchmarks.three_pass import ThreePass
from lampe.positions import IndexMap
from tests.lampe.test_engine import CONFIG, dense, inputs, rotate, table_for


@pytest.mark.parametrize(("first", "stop"), [(0, 90), (0, 140), (0, 600), (130, 600), (139, 140), (149, 150)])
def test_it_gives_the_reference(first, stop):
    position_map = CONFIG.position_map(stop)
    query, key, value = inputs(stop, first)
    step = ThreePass(position_map, IndexMap(0), first, stop, table_for(), torch.device("cpu"))
    out, lse = step.attend(query, key, value, rotate, 0.3)
    expected, expected_lse, _ = dense(position_map, query, key, value, first, 0.3)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse().double(), expected_lse, atol=1e-4, rtol=1e-5)
