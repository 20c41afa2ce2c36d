"""Heat maps of needle tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    panels = []
    for method in dict.fromkeys(cell.method for cell in cells):
        points = [[GridPoint(method, n, d) for n in lengths] for d in depths]
        values = [[found.get(point) for point in row] for row in points]
        panels.append(Panel(METHODS[method].title, values, [list(map(str, row)) for row in points]))
    return heat_maps(panels, lengths, _named(depths), DEPTH, _percent, "depth %{y}<br>found %{z:.0%}", SHARES, big)


def differences(results: Sequence[Result], base: str = "lampe", big: bool = False) -> go.Figure | None:
    """How much more of the same tests LaMPE has found than each other method; None where nothing can be compared."""
    scores: dict[GridPoint, dict[tuple[int, int], float]] = {}
    for result in results:
        scores.setdefault(GridPoint(result.method, result.length, result.depth), {})[result.trial, result.seed] = (
            result.score
        )
    others = [method for method in dict.fromkeys(point.method for point in scores) if method != base]
    lengths, depths = sorted({point.length for point in scores}), sorted({point.depth for point in scores})
    panels = []
    for method in others:
        rows = []
        for d in depths:
            pairs = [(scores.get(GridPoint(base, n, d), {}), scores.get(GridPoint(method, n, d), {})) for n in lengths]
            rows.append([_less(ours, theirs) for ours, theirs in pairs])
        if any(value is not None for row in rows for value in row):
            points = [[str(GridPoint(method, n, d)) for n in lengths] for d in depths]
            panels.append(Panel(f"{METHODS[base].title} less {METHODS[method].title}", rows, points))
    if not panels:
        return None
    colours = {"zmin": -1, "zmax": 1, "colorscale": "RdBu", "colorbar.tickformat": ".0%"}
    hover = "depth %{y}<br>%{z:+.0%} of the same tests"
    return heat_maps(panels, lengths, _named(depths), DEPTH, lambda value: f"{100 * value:+.0f}", hover, colours, big)


def _named(depths: Sequence[float]) -> list[str]:
    return [f"{depth:g}" for depth in depths]


def _percent(value: float) -> str:
    return f"{100 * value:.0f}"


def _less(ours: dict[tuple[int, int], float], theirs: dict[tuple[int, int], float]) -> float | None:
    """The mean difference over what both have done."""
    both = ours.keys() & theirs.keys()
    return mean(ours[trial] - theirs[trial] for trial in both) if both else None
