"""Heat maps side by side, on one colour scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from app.ui.figure import GREY

_COLUMNS = 2  # as many as a phone has room for


class Panel(NamedTuple):
    """One heat map of several: a value for each row and length, None where there is none yet, and what a click there
    tells of."""

    name: str
    values: list[list[float | None]]
    points: list[list[str]] | None = None


def heat_maps(
    panels: Sequence[Panel], lengths: Sequence[int], rows: Sequence[str], title: str, shown: Callable[[float], str],
    hover: str, colours: dict[str, Any], big: bool = False,
) -> go.Figure:  # fmt: skip
    """Heat maps, up to two in a row.

    Parameters
    ----------
    panels : sequence of Panel
    lengths : sequence of int
        Along the text.
    rows : sequence of str
        From above.
    title : str
        What the rows are.
    shown : callable
        A value as it is written into its field.
    hover : str
        The same when pointed at, as plotly's template.
    colours : dict
        plotly's range and colour scale.
    big : bool
        To be read from the back row.
    """
    size = 18 if big else 13
    columns = max(1, min(_COLUMNS, len(panels)))
    down = max(1, -(-len(panels) // columns))
    figure = go.Figure()
    layout: dict[str, Any] = {"annotations": []}
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        axis = "" if not number else str(number + 1)
        text = [["" if value is None else shown(value) for value in line] for line in panel.values]
        figure.add_heatmap(
            x=[short(n) for n in lengths], y=list(rows), z=panel.values, text=text,
            texttemplate="%{text}", hovertext=[[f"{n:,}" for n in lengths]] * len(rows), customdata=panel.points,
            xgap=2, ygap=2, xaxis=f"x{axis}", yaxis=f"y{axis}", name=panel.name, hoverongaps=False,
            showscale=number == len(panels) - 1, **{"colorbar.thickness": 12, **colours},
            hovertemplate=f"%{{hovertext}} tokens, {hover}<extra>{panel.name}</extra>",
        )  # fmt: skip
        left, right = column / columns + 0.03 * bool(column), (column + 1) / columns - 0.03
        low, high = 1 - (row + 1) / down + 0.12 * (row < down - 1), 1 - row / down - 0.06 * bool(row)
        named = {"type": "category", "automargin": True, "showgrid": False}
        last = number + columns >= len(panels)
        layout[f"xaxis{axis}"] = {
            "domain": [left, right], "anchor": f"y{axis}", "title": {"text": "tokens" if last else ""}, **named,
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {
            "domain": [low, high], "anchor": f"x{axis}", "autorange": "reversed", "showticklabels": not column,
            "title": {"text": "" if column else title}, **named,
        }  # fmt: skip
        # They stand side by side on a phone.
        brief = panel.name.removeprefix("Plain ").removeprefix("LaMPE less ") if columns > 1 else panel.name
        brief = f"less {brief}" if brief != panel.name and panel.name.startswith("LaMPE less ") else brief
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": high + 0.01, "xref": "paper", "yref": "paper", "yanchor": "bottom",
             "xanchor": "center", "showarrow": False, "text": f"<b>{brief}</b>", "font": {"size": size}}
        )  # fmt: skip
    figure.update_layout(
        template="none", height=90 + max(250, 34 * len(rows)) * down, margin={"l": 64, "r": 14, "t": 40, "b": 56},
        dragmode=False, **layout, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(128,128,128,0.12)",
        font={"family": "system-ui, sans-serif", "size": size, "color": GREY},
    )  # fmt: skip
    return figure


def short(length: int) -> str:
    """A length for an axis: 4096 is 4k."""
    return f"{length // 1024}k" if length >= 1024 and not length % 1024 else f"{length:,}"
