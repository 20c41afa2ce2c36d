"""Heat maps of needle tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any, NamedTuple

import plotly.graph_objects as go

from app.ui.figure import GREY
from lampe.methods import METHODS
from lampe.needle import Cell, Result


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


class _Panel(NamedTuple):
    """One heat map of several: a value and what it is about for each depth and length, None where there is none yet."""

    name: str
    values: list[list[float | None]]
    points: list[list[str]]


_COLUMNS = 2  # as many as a phone has room for


def heat(results: Sequence[Result], cells: Sequence[Cell], big: bool = False) -> go.Figure:
    """The mean score of each length and depth, a map for each method, side by side; blank until it is there."""
    found = {point: mean(r.score for r in tests) for point, tests in by_point(results).items()}
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    panels = []
    for method in dict.fromkeys(cell.method for cell in cells):
        points = [[GridPoint(method, n, d) for n in lengths] for d in depths]
        values = [[found.get(point) for point in row] for row in points]
        panels.append(_Panel(METHODS[method].title, values, [list(map(str, row)) for row in points]))
    colours = {"zmin": 0, "zmax": 1, "colorscale": "Cividis"}
    return _heat_maps(panels, lengths, depths, ".0f", "found %{z:.0%}", colours, big)


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
            panels.append(_Panel(f"{METHODS[base].title} less {METHODS[method].title}", rows, points))
    if not panels:
        return None
    colours = {"zmin": -1, "zmax": 1, "colorscale": "RdBu"}
    return _heat_maps(panels, lengths, depths, "+.0f", "%{z:+.0%} of the same tests", colours, big)


def _less(ours: dict[tuple[int, int], float], theirs: dict[tuple[int, int], float]) -> float | None:
    """The mean difference over what both have done."""
    both = ours.keys() & theirs.keys()
    return mean(ours[trial] - theirs[trial] for trial in both) if both else None


def _heat_maps(
    panels: Sequence[_Panel], lengths: Sequence[int], depths: Sequence[float], shown: str, hover: str,
    colours: dict[str, Any], big: bool,
) -> go.Figure:  # fmt: skip
    """Heat maps on one colour scale, up to two in a row; the numbers in them are per cent."""
    size = 18 if big else 13
    columns = max(1, min(_COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = go.Figure()
    layout: dict[str, Any] = {"annotations": []}
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        axis = "" if not number else str(number + 1)
        text = [["" if value is None else format(100 * value, shown) for value in line] for line in panel.values]
        figure.add_heatmap(
            x=[_short(n) for n in lengths], y=[f"{d:g}" for d in depths], z=panel.values, text=text,
            texttemplate="%{text}", hovertext=[[f"{n:,}" for n in lengths]] * len(depths), customdata=panel.points,
            xgap=2, ygap=2, xaxis=f"x{axis}", yaxis=f"y{axis}", name=panel.name, hoverongaps=False,
            showscale=number == len(panels) - 1, colorbar={"tickformat": ".0%", "thickness": 12}, **colours,
            hovertemplate=f"%{{hovertext}} tokens, depth %{{y}}<br>{hover}<extra>{panel.name}</extra>",
        )  # fmt: skip
        left, right = column / columns + 0.03 * bool(column), (column + 1) / columns - 0.03
        low, high = 1 - (row + 1) / rows + 0.12 * (row < rows - 1), 1 - row / rows - 0.06 * bool(row)
        named = {"type": "category", "automargin": True, "showgrid": False}
        last = number + columns >= len(panels)
        layout[f"xaxis{axis}"] = {
            "domain": [left, right], "anchor": f"y{axis}", "title": {"text": "tokens" if last else ""}, **named,
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {
            "domain": [low, high], "anchor": f"x{axis}", "autorange": "reversed", "showticklabels": not column,
            "title": {"text": "" if column else "Depth of the needle"}, **named,
        }  # fmt: skip
        # They stand side by side on a phone.
        short = panel.name.removeprefix("Plain ").removeprefix("LaMPE less ") if columns > 1 else panel.name
        short = f"less {short}" if short != panel.name and panel.name.startswith("LaMPE less ") else short
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": high + 0.01, "xref": "paper", "yref": "paper", "yanchor": "bottom",
             "xanchor": "center", "showarrow": False, "text": f"<b>{short}</b>", "font": {"size": size}}
        )  # fmt: skip
    figure.update_layout(
        template="none", height=90 + 250 * rows, margin={"l": 64, "r": 14, "t": 40, "b": 56}, dragmode=False, **layout,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(128,128,128,0.12)",
        font={"family": "system-ui, sans-serif", "size": size, "color": GREY},
    )  # fmt: skip
    return figure


def _short(length: int) -> str:
    """A length for an axis: 4096 is 4k."""
    return f"{length // 1024}k" if length >= 1024 and not length % 1024 else f"{length:,}"
