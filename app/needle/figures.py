"""Heat maps of needle tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean
from typing import NamedTuple

import plotly.graph_objects as go

from app.ui.heat_maps import Panel, heat_maps
from lampe.methods import METHODS
from lampe.needle import Cell, Result

SHARES = {"zmin": 0, "zmax": 1, "colorscale": "Cividis", "colorbar.tickformat": ".0%"}
DEPTH = "Depth of the needle"


class GridPoint(NamedTuple):
    """A place in the heat maps."""

    method: str
    length: int
    depth: float

    def __str__(self) -> str:
        return f"{self.method} {self.length} {self.depth!r}"


def by_point(results: Iterable[Result]) -> dict[GridPoint, list[Result]]:
    """The tests of each point."""
    found: dict[GridPoint, list[Result]] = {}
    for result in results:
        found.setdefault(GridPoint(result.method, result.length, result.depth), []).append(result)
    return found


def heat(results: Sequence[Result], cells: Sequence[Cell], big: bool = False) -> go.Figure:
    """The mean score of each length and depth, a map for each method, side by side; blank until it is there."""
    found = {point: mean(r.score for r in tests) for point, tests in by_point(results).items()}
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    panels = [
        _panel(METHODS[method].title, method, lengths, depths, found.get)
        for method in dict.fromkeys(cell.method for cell in cells)
    ]
    hover = "depth %{y}<br>found %{z:.0%}"
    return heat_maps(panels, lengths, _named(depths), DEPTH, lambda value: f"{100 * value:.0f}", hover, SHARES, big)


def differences(results: Sequence[Result], base: str = "lampe") -> go.Figure | None:
    """How much more of the same tests LaMPE has found than each other method; None where nothing can be compared."""
    scores = {point: {(r.trial, r.seed): r.score for r in tests} for point, tests in by_point(results).items()}
    lengths, depths = sorted({point.length for point in scores}), sorted({point.depth for point in scores})

    def less(point: GridPoint) -> float | None:
        """The mean difference over what both have done."""
        ours, theirs = scores.get(point._replace(method=base), {}), scores.get(point, {})
        both = ours.keys() & theirs.keys()
        return mean(ours[trial] - theirs[trial] for trial in both) if both else None

    panels = [
        _panel(f"{METHODS[base].title} less {METHODS[method].title}", method, lengths, depths, less)
        for method in dict.fromkeys(point.method for point in scores)
        if method != base
    ]
    panels = [panel for panel in panels if any(value is not None for row in panel.values for value in row)]
    if not panels:
        return None
    colours = {**SHARES, "zmin": -1, "colorscale": "RdBu"}
    hover = "depth %{y}<br>%{z:+.0%} of the same tests"
    return heat_maps(panels, lengths, _named(depths), DEPTH, lambda value: f"{100 * value:+.0f}", hover, colours)


def _panel(
    name: str, method: str, lengths: Sequence[int], depths: Sequence[float], value: Callable[[GridPoint], float | None]
) -> Panel:
    points = [[GridPoint(method, n, d) for n in lengths] for d in depths]
    return Panel(name, [[value(point) for point in row] for row in points], [list(map(str, row)) for row in points])


def _named(depths: Sequence[float]) -> list[str]:
    return [f"{depth:g}" for depth in depths]
