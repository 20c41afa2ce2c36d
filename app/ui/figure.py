"""What all figures share: colours, and a figure as it is put together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from gradio.components.plot import PlotData

from lampe.positions import Role

# Okabe-Ito: told apart with any colour vision; dash and hatching tell the regions apart without colour.
COLOURS = {Role.NEAR: "#0072B2", Role.COMPRESSED: "#E69F00", Role.FAR: "#CC79A7", Role.END: "#009E73"}
DASHES = {Role.NEAR: "solid", Role.COMPRESSED: "dash", Role.FAR: "longdash", Role.END: "dot"}
UNSEEN = "#D55E00"
GREY = "#7a7f87"
LINES = (
    ("#0072B2", "solid"), ("#D55E00", "dash"), ("#009E73", "dot"), ("#CC79A7", "dashdot"), ("#56B4E9", "longdash"),
    ("#8a6d00", "longdashdot"), ("#868686", "dash"),
)  # fmt: skip
"""Of lines that are told apart by colour and by dash."""


class Sheet:
    """A figure as it is put together: traces and what stands around them, as plotly's plain data."""

    def __init__(self, big: bool) -> None:
        self.big, self.size = big, 20 if big else 13
        self.traces: list[dict[str, Any]] = []
        self.labels: list[dict[str, Any]] = []
        self.shapes: list[dict[str, Any]] = []

    def line(
        self,
        name: str,
        x: Sequence[Any],
        y: Sequence[Any],
        colour: str,
        width: float,
        dash: str,
        hover: str,
        **more: Any,
    ) -> None:
        look = {
            "mode": "lines" if len(x) > 1 else "markers", "marker": {"color": colour},
            "line": {"color": colour, "width": width * (1.5 if self.big else 1), "dash": dash},
        }  # fmt: skip
        self.trace(x=x, y=y, name=name, hovertemplate=f"{hover}<extra>{name}</extra>", **{**look, **more})

    def label(self, x: float, y: float, text: str, **place: Any) -> None:
        self.labels.append({"x": x, "y": y, "text": text, "showarrow": False, "font": {"size": self.size}, **place})

    def trace(self, **given: Any) -> None:
        """One of plotly's traces: points or lines, unless it says otherwise."""
        self.traces.append({"type": "scatter", **given})

    def mark(self, name: str, x: float, y: float, hover: str) -> None:
        """The one point that a figure is about."""
        self.trace(
            mode="markers", x=[x], y=[y], name=name, cliponaxis=False, hovertemplate=f"{hover}<extra>{name}</extra>",
            marker={"size": 20 if self.big else 14, "color": UNSEEN, "symbol": "diamond",
                    "line": {"width": 2, "color": "#fff"}},
        )  # fmt: skip

    def level(self, y: float, text: str, log: bool = False, below: bool = False) -> None:
        """A line across, with its name at the right end."""
        line = {"color": GREY, "width": 1, "dash": "dot"}
        self.shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line})
        anchor = {"xref": "paper", "xanchor": "left" if log else "right", "yanchor": "top" if below else "bottom"}
        self.label(0.01 if log else 1, math.log10(y) if log else y, text, **anchor)

    def band(self, axis: str, first: float, last: float, colour: str) -> None:
        """A faint stripe across the whole figure."""
        along, across = ("x", "y") if axis == "x" else ("y", "x")
        self.shapes.append(
            {
                "type": "rect", f"{along}0": first, f"{along}1": last, f"{across}ref": "paper", f"{across}0": 0,
                f"{across}1": 1, "fillcolor": colour, "opacity": 0.10, "line": {"width": 0}, "layer": "below",
            }
        )  # fmt: skip

    def figure(
        self,
        x_axis: dict[str, Any],
        y_axis: dict[str, Any],
        height: int = 360,
        legend: bool = False,
        dragmode: Any = False,
    ) -> go.Figure:
        axis = {
            "gridcolor": "rgba(128,128,128,0.22)", "zeroline": False, "separatethousands": True, "automargin": True,
        }  # fmt: skip
        layout = {
            "template": "none",
            "height": height * 1.35 if self.big else height,
            "margin": {"l": 64, "r": 14, "t": 38 if self.big else 28, "b": 48},
            "showlegend": legend,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": self.size, "color": GREY},
            "hoverlabel": {"font": {"size": self.size}, "align": "left"},
            "hovermode": "closest",
            "hoverdistance": 40,
            "dragmode": dragmode,
            "xaxis": {**axis, **x_axis, "title": {"text": x_axis["title"]}},
            "yaxis": {**axis, **y_axis, "title": {"text": y_axis["title"]}},
            "annotations": self.labels,
            "shapes": self.shapes,
        }
        return go.Figure({"data": self.traces, "layout": layout})


def faint(colour: str, opacity: float = 0.25) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def plot(label: str, element: str) -> gr.Plot:
    """Room for a figure, with a label for those who don't see it and its element's id."""
    return gr.Plot(show_label=False, label=label, elem_id=element)


def as_plot(figure: go.Figure, filename: str) -> PlotData:
    """The figure for `gr.Plot`, with plotly's own toolbar set up: PNG at projector size, no logo."""
    zoomed = figure.layout.dragmode == "zoom"
    config = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtons": [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"] if zoomed else ["toImage"]],
        "toImageButtonOptions": {"format": "png", "filename": filename, "width": 1600, "height": 900},
    }
    body = figure.to_json()
    assert body is not None
    return PlotData(type="plotly", plot=f'{body[:-1]},"config":{json.dumps(config)}}}')
