"""The figures that compare methods, held to the maps that the engine runs on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from app.map.method_figures import curves_figure, outline, planes_figure, stretch
from app.map.settings import MapSettings
from app.map.views import formulas_table
from lampe.errors import LampeError
from lampe.methods import METHODS

WINDOW, LENGTH = 512, 1000


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param].for_window(WINDOW)


def test_a_line_is_the_last_querys_row_of_the_map(method):
    (line,) = curves_figure([method], LENGTH).data
    position_map = method.position_map(LENGTH)
    distances = np.array(line.x)
    expected = position_map.relative(LENGTH - 1, LENGTH - 1 - distances) / stretch(method, LENGTH)
    assert np.array(line.y) == pytest.approx(expected)
    for region in position_map.regions:
        first, stop = region.key_span(LENGTH - 1)
        if first < stop:
            assert {LENGTH - 1 - first, LENGTH - stop} <= set(distances.tolist()), "a region's border is drawn"
    assert line.name == method.title


@pytest.mark.parametrize("key", [key for key in METHODS if not METHODS[key].for_window(WINDOW).frequencies(LENGTH)])
def test_what_a_model_was_trained_for_is_where_positions_are_not_stretched(key):
    assert stretch(METHODS[key].for_window(WINDOW), LENGTH) == 1


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130, 1000])
def test_outlines_hold_the_regions_pairs(method, length):
    """Oracle: the area within the lines against the pairs that the map counts in the region, but for half tokens."""
    position_map = method.position_map(length)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    found = position_map.region(i, j)
    for number, region in enumerate(position_map.regions):
        x, y = outline(region, length)
        pairs = int((found == number).sum())
        assert bool(x) == (pairs > 0)
        area, corners = 0.0, []
        for key, query in [*zip(x, y, strict=True), (None, None)]:
            if key is None:
                area += abs(_area(corners))
                corners = []
            else:
                corners.append((key, query))
        assert area == pytest.approx(pairs, abs=2 * length + 2)


def _area(corners):
    return sum(a * d - c * b for (a, b), (c, d) in pairwise(corners)) / 2


def test_planes_have_a_panel_for_each_method():
    methods = [METHODS[key].for_window(WINDOW) for key in ("lampe", "dca", "string", "rope")]
    figure = planes_figure(methods, LENGTH)
    assert [note.text for note in figure.layout.annotations] == [f"<b>{method.title}</b>" for method in methods]
    assert {trace.name for trace in figure.data} == {
        region.name for method in methods for region in method.position_map(LENGTH).regions
    }


def test_the_table_has_each_regions_formula_and_reach():
    methods = [METHODS[key].for_window(8192) for key in ("selfextend", "dca", "leaky-rerope", "rope", "yarn")]
    table = formulas_table(methods, 16_384)
    for part in (
        "⌊i·1/4⌋ + 768 − ⌊j·1/4⌋", "min(i mod 5,120 + 5,120, 6,144) − (j mod 5,120)", "6,144 − (j mod 5,120)",
        "(i − 512)/2.067 + 512 − j/2.067", "Plain RoPE reaches 8,192 tokens", "yarn, slowest ÷ 2",
    ):  # fmt: skip
        assert part in table
    assert "<script" not in table


def test_a_window_too_small_for_a_method_is_a_sentence():
    with pytest.raises(LampeError, match=r"near must be from 1 to .* for SelfExtend"):
        MapSettings.checked(model="custom", window=2, head=0, tail=0, mapping=1, length=9, beside=["selfextend"])


def test_a_link_carries_the_methods_and_refuses_unknown_ones():
    view = MapSettings.checked(**{"beside": ["yarn", "dca"]})
    assert view.beside == ("yarn", "dca")
    assert "beside=yarn%2Cdca" in view.link
    again, problems = MapSettings.from_link({"model": "smollm2", "beside": "yarn,dca"})
    assert (again.beside, problems) == (("yarn", "dca"), [])
    _, problems = MapSettings.from_link({"model": "smollm2", "beside": "yarn,alibi"})
    assert "There is no method 'alibi'" in problems[0]
    _, problems = MapSettings.from_link({"model": "smollm2", "beside": "yarn,yarn"})
    assert "At most 5 different methods" in problems[0]
    assert [method.key for method in again.methods] == ["lampe", "yarn", "dca"]
