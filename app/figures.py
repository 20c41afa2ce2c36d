"""Figures, drawn from the `PositionMap` that the engine runs on."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from gradio.components.plot import PlotData

from lampe.positions import PositionMap

# Okabe-Ito: told apart with any colour vision; the dash tells the regions apart without colour.
COLOURS = {"Head": "#0072B2", "Middle": "#E69F00", "Tail": "#009E73", "All": "#0072B2"}
DASHES = {"Head": "solid", "Middle": "dash", "Tail": "dot", "All": "solid"}
UNSEEN = "#D55E00"
_GREY = "#7a7f87"
_POINTS = 160  # a region; more can not be told apart at projector width


@dataclass(frozen=True)
class Curve:
    """One region as the last query token sees it.

    Parameters
    ----------
    region : str
    distances : list of int
        Relative distances in tokens, rising; the region's first and last are among them.
    positions : list of int
        What the map makes of them.
    """

    region: str
    distances: list[int]
    positions: list[int]


def curves(position_map: PositionMap, points: int = _POINTS) -> list[Curve]:
    """Mapped position against relative distance for the last query, at most `points` for each region."""
    query = position_map.length - 1
    found = []
    for region in position_map.regions:
        first, stop = region.key_span(query)
        if first == stop:
            continue
        keys = np.unique(np.linspace(first, stop - 1, min(points, stop - first)).round().astype(np.int64))[::-1]
        positions = position_map.relative(query, keys)
        found.append(Curve(region.name, (query - keys).tolist(), positions.tolist()))
    return found


def distance_figure(position_map: PositionMap, window: int) -> PlotData:
    """Relative distance → mapped position, by region, beside plain RoPE.

    Parameters
    ----------
    position_map : PositionMap
    window : int
        The model's pretraining window in tokens; plain RoPE beyond it is marked as never seen in training.
    """
    figure = go.Figure()
    farthest = position_map.length - 1
    seen = min(farthest, window - 1)
    top = max(farthest, position_map.mapping_length) * 1.04 + 1
    hover = "%{x:,} tokens back<br>position %{y:,}"
    figure.add_scatter(
        x=[0, seen], y=[0, seen], mode="lines", name="Plain RoPE",
        line={"color": _GREY, "width": 2}, hovertemplate=hover + "<extra>Plain RoPE</extra>",
    )  # fmt: skip
    if farthest > seen:
        figure.add_scatter(
            x=[seen, farthest], y=[seen, farthest], mode="lines", name="Plain RoPE, never seen in training",
            line={"color": UNSEEN, "width": 2, "dash": "dashdot"},
            hovertemplate=hover + "<extra>Plain RoPE: never seen in training</extra>",
        )  # fmt: skip
        figure.add_hrect(y0=window, y1=top, fillcolor=UNSEEN, opacity=0.10, line_width=0, layer="below")
        _label(figure, farthest * 0.06, (window + top) / 2, "never seen in training", xanchor="left")
        _level(figure, window, f"window {window:,}")
    drawn = curves(position_map)
    for number, curve in enumerate(drawn):
        figure.add_scatter(
            x=curve.distances, y=curve.positions, mode="lines" if len(curve.distances) > 1 else "markers",
            name=curve.region,
            line={"color": COLOURS.get(curve.region, _GREY), "width": 5, "dash": DASHES.get(curve.region, "solid")},
            hovertemplate=hover + f"<extra>{curve.region}</extra>",
        )  # fmt: skip
        near, far = curve.distances[0], curve.distances[-1]
        figure.add_vrect(
            x0=near, x1=far, line_width=0, layer="below", fillcolor=COLOURS.get(curve.region, _GREY), opacity=0.10
        )
        # The outer regions are often too narrow for their names, which then run towards the middle.
        place = "center" if len(drawn) == 1 or 0 < number < len(drawn) - 1 else "left" if number == 0 else "right"
        x = {"left": near, "center": (near + far) / 2, "right": far}[place]
        _label(figure, x, 1, f"<b>{curve.region}</b> {far - near + 1:,}", yref="paper", xanchor=place, yanchor="bottom")
    line = "plain RoPE " if position_map.compresses else "LaMPE and plain RoPE alike "
    _label(figure, seen * 0.62, seen * 0.62, line, xanchor="right", yanchor="bottom")
    if position_map.compresses:
        _label(
            figure,
            farthest * 0.3,
            position_map.relative(farthest, farthest * 7 // 10),
            "LaMPE",
            yanchor="bottom",
            yshift=6,
        )
        _level(figure, position_map.mapping_length, f"mapping length {position_map.mapping_length:,}")
    figure.update_layout(
        height=360,
        margin={"l": 64, "r": 12, "t": 28, "b": 48},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": _GREY},
        hoverlabel={"font": {"size": 13}},
        dragmode=False,
    )
    axis = {"rangemode": "tozero", "gridcolor": "rgba(128,128,128,0.22)", "zeroline": False, "separatethousands": True}
    figure.update_xaxes(title="Relative distance (tokens)", range=[0, farthest * 1.01 + 1], **axis)
    figure.update_yaxes(title="Mapped position", range=[0, top], **axis)
    return as_plot(figure, "lampe-position-map")


def _label(figure: go.Figure, x: float, y: float, text: str, **place: str | int) -> None:
    figure.add_annotation(x=x, y=y, text=text, showarrow=False, font={"size": 13}, **place)


def _level(figure: go.Figure, y: int, text: str) -> None:
    figure.add_hline(y=y, line={"color": _GREY, "width": 1, "dash": "dot"})
    _label(figure, 1, y, text, xref="paper", xanchor="right", yanchor="bottom")


def as_plot(figure: go.Figure, filename: str) -> PlotData:
    """The figure for `gr.Plot`, with plotly's own toolbar set up: PNG at projector size, no logo."""
    config = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": "png", "filename": filename, "width": 1600, "height": 900},
    }
    body = figure.to_json()
    assert body is not None
    return PlotData(type="plotly", plot=f'{body[:-1]},"config":{json.dumps(config)}}}')
