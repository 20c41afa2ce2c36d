"""Several methods at one input length: their curves in one figure, their regions side by side, their formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.map.figures import Frame, met, polygon
from app.ui.figure import COLOURS, GREY, LINES, UNSEEN, Sheet, faint
from lampe.methods import Method
from lampe.positions import Region

_POINTS = 400
_CHUNKS = 64  # that are drawn apart; of more, the last ones
_COLUMNS = 2  # as many as a phone has room for


def stretch(method: Method, length: int) -> float:
    """How many times as slowly a method's slowest frequencies turn, at a planned length."""
    changed = method.frequencies(length)
    return changed.stretch if changed else 1.0


def curves_figure(methods: Sequence[Method], length: int, big: bool = False) -> go.Figure:
    """Relative distance → position, as the last query of an input of some tokens sees it under methods of one window.

    Where a method slows the frequencies, its positions are divided by as much as the slowest is slowed: that is how far
    it turns, in the model's own positions.
    """
    sheet = Sheet(big)
    window, last = methods[0].window, length - 1
    distances = np.unique(np.linspace(0, last, min(_POINTS, length)).round().astype(np.int64))
    highest = 1.0
    for number, method in enumerate(methods):
        position_map = method.position_map(length)
        # The borders of regions, so that a step is drawn as one.
        borders = [last - key for _, first, stop in met(position_map, last) for key in (first, stop - 1)]
        drawn = np.unique(np.concatenate([distances, np.array(borders, dtype=np.int64)]))
        positions = position_map.relative(last, last - drawn) / stretch(method, length)
        highest = max(highest, float(positions.max()))
        colour, dash = LINES[number % len(LINES)]
        hover = "%{x:,} tokens back<br>position %{y:,.1f}"
        sheet.line(method.title, drawn.tolist(), positions.tolist(), colour, 4 if not number else 2.5, dash, hover)
    top = max(highest, window if window <= 2.5 * highest else 0) * 1.05 + 1
    if window <= top:
        sheet.level(window, f"window {window:,}")
        if top > window * 1.06:
            sheet.band("y", window, top, UNSEEN)
            sheet.label(last * 0.5, (window + top) / 2, "never seen in training")
    return sheet.figure(
        {"title": "Relative distance (tokens)", "range": [0, last * 1.02 + 1]},
        {"title": "Position, in the model's own", "range": [0, top]},
        height=440,
        legend=True,
    )


def planes_figure(methods: Sequence[Method], length: int, big: bool = False) -> go.Figure:
    """The attention regions of each method over query × key, side by side and to scale."""
    size = 18 if big else 12
    columns = min(_COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    figure = go.Figure()
    layout: dict[str, Any] = {"annotations": []}
    for number, method in enumerate(methods):
        row, column = divmod(number, columns)
        axis = "" if not number else str(number + 1)
        for region in method.position_map(length).regions:
            x, y = outline(region, length)
            if x:
                figure.add_scatter(
                    x=x, y=y, mode="lines", fill="toself", name=region.name, xaxis=f"x{axis}", yaxis=f"y{axis}",
                    line={"color": COLOURS[region.role], "width": 1}, fillcolor=faint(COLOURS[region.role], 0.6),
                    hoveron="fills", hoverinfo="text", text=f"{method.title}: {region.name}", showlegend=False,
                )  # fmt: skip
        left, right = column / columns + 0.02 * bool(column), (column + 1) / columns - 0.02
        low, high = 1 - (row + 1) / rows + 0.03, 1 - row / rows - 0.1 / rows
        sides: dict[str, Any] = {"showgrid": False, "zeroline": False, "ticks": "", "showticklabels": False}
        layout[f"xaxis{axis}"] = {
            "domain": [left, right], "anchor": f"y{axis}", "range": [-0.5, length - 0.5], "constrain": "domain",
            **sides,
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {
            "domain": [low, high], "anchor": f"x{axis}", "range": [length - 0.5, -0.5], "scaleanchor": f"x{axis}",
            "constrain": "domain", "constraintoward": "top",
            **sides,
        }  # fmt: skip
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": high + 0.01, "xref": "paper", "yref": "paper", "yanchor": "bottom",
             "xanchor": "center", "showarrow": False, "text": f"<b>{method.title}</b>", "font": {"size": size}}
        )  # fmt: skip
    figure.update_layout(
        template="none", height=(260 if not big else 350) * rows + 20, margin={"l": 8, "r": 8, "t": 10, "b": 8},
        dragmode=False, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": size, "color": GREY}, **layout,
    )  # fmt: skip
    return figure


def outline(region: Region, length: int) -> tuple[list[float | None], list[float | None]]:
    """The border of a region's pairs in an input of some tokens, as x and y of closed lines with None between them;
    borders lie between tokens."""
    lines: list[list[tuple[float, float]]] = []
    if region.block == 1:
        lines = [polygon(region, Frame((0, length), (0, length)))] if region.lower < length else []
    else:
        chunks = -(-length // region.block)
        for chunk in range(max(0, chunks - _CHUNKS), chunks):
            top, bottom = chunk * region.block, min(length, (chunk + 1) * region.block)
            first, stop = region.key_span(bottom - 1)
            corners = [(first, top), (stop, top), (stop, bottom), (first, bottom)]
            if stop > top:  # the query's own chunk: keys end at the query
                del corners[1]
            if first < stop:
                lines.append([(key - 0.5, query - 0.5) for key, query in corners])
    points: list[tuple[float | None, float | None]] = []
    for line in lines:
        points += [*([(None, None)] if points else []), *line, line[0]]
    return [key for key, _ in points], [query for _, query in points]
