"""Results as figures: lines along the length, and heat maps."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from app.ui.figure import LINES, Sheet
from app.ui.heat_maps import Panel, heat_maps, short
from lampe.results import MEASURES, Results

MOST_LINES = len(LINES)
_SPREAD = 0.012  # of the axis: error bars beside each other can be told apart
MOST_PANELS = 8


def lines_figure(results: Results, task: str, measure: str, base: str | None = None) -> go.Figure:
    """A measure against the length, a line for each way, with 95 % intervals.

    Parameters
    ----------
    results : Results
    task, measure : str
    base : str, optional
        Each way less this one, over the same samples.
    """
    sheet = Sheet(big=False)
    cells = results.differences(task, measure, base) if base else results.estimates(task, measure)
    lengths = sorted({length for _, length in cells})
    ways = [way for way in results.ways if any(way == other for other, _ in cells)]
    for number, way in enumerate(ways[:MOST_LINES]):
        own = {length: cell for (name, length), cell in cells.items() if name == way}
        places = [lengths.index(length) + _SPREAD * len(lengths) * (number - len(ways) / 2) for length in own]
        means = [cell.mean for cell in own.values()]
        colour, dash = LINES[results.ways.index(way) % len(LINES)]
        bars = {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 3,
            "array": [cell.high - cell.mean for cell in own.values()],
            "arrayminus": [cell.mean - cell.low for cell in own.values()],
        }  # fmt: skip
        sheet.line(
            way, places, means, colour, 2.5, dash, f"%{{customdata}} tokens<br>%{{y:,.{MEASURES[measure].digits}f}}",
            mode="lines+markers", error_y=bars, customdata=[f"{length:,}" for length in own],
        )  # fmt: skip
    if base:
        sheet.level(0, f"{base}: 0")
    tokens = {
        "title": "tokens", "range": [-0.5, len(lengths) - 0.5], "tickvals": list(range(len(lengths))),
        "ticktext": [short(length) if length else "as is" for length in lengths],
    }  # fmt: skip
    shares = {"range": [-0.03, 1.03]} if results.shares(task, measure) and not base else {}
    return sheet.figure(tokens, {"title": _named(measure, base, ",<br>"), **shares}, legend=True)


def heat_figure(results: Results, task: str, measure: str, base: str | None = None) -> go.Figure:
    """A measure at each length: a map for each way along a needle's depth, where there are depths; otherwise, and for
    differences to a way, one map of all ways."""
    cells, apart = results.cells(task), results.differences(task, measure, base) if base else {}
    lengths = sorted({length for _, length in cells})
    depths = sorted({one.depth for cell in cells.values() for one in cell if one.depth is not None})
    ways = list(dict.fromkeys(way for way, _ in cells))

    def mean(way: str, length: int, depth: float | None = None) -> float | None:
        if base:
            return apart[way, length].mean if (way, length) in apart else None
        cell = [one for one in cells.get((way, length), ()) if measure in one.values and depth in (None, one.depth)]
        return sum(one.values[measure] for one in cell) / len(cell) if cell else None

    rows, title = ways, ""
    panels = [Panel(_named(measure, base), [[mean(way, n) for n in lengths] for way in ways])]
    if depths and not base:
        rows, title = [f"{depth:g}" for depth in depths], "Depth of the needle"
        panels = [
            Panel(way, [[mean(way, n, depth) for n in lengths] for depth in depths]) for way in ways[:MOST_PANELS]
        ]
    found = [value for panel in panels for line in panel.values for value in line if value is not None]
    shares = results.shares(task, measure)
    low, high = min(found, default=0), max(found, default=1)
    widest = max(abs(low), abs(high)) or 1
    scale = "RdBu" if base else "Cividis"
    colours: dict[str, Any] = {
        "colorscale": scale, "reversescale": MEASURES[measure].lower,
        "zmin": -widest if base else 0 if shares else low, "zmax": widest if base else 1 if shares else high,
        **({"colorbar.tickformat": ".0%"} if shares else {}),
    }  # fmt: skip
    sign, digits = "+" if base else "", f",.{MEASURES[measure].digits}f"

    def shown(value: float) -> str:
        return f"{100 * value:{sign}.0f}" if shares else f"{value:{sign}{digits}}" if value else "0"

    return heat_maps(panels, lengths, rows, title, shown, f"%{{y}}<br>%{{z:{digits}}}", colours)


def _named(measure: str, base: str | None, between: str = ", ") -> str:
    return MEASURES[measure].title + (f"{between}less {base}" if base else "")
