"""Figures 3 to 6 of a position map: matrix, mapping-length curve, one query's row, and measured attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from app.map.figures import BINS, Frame, binned, draw_row, formula, plain_line, plane_axes
from app.ui.figure import COLOURS, DASHES, GREY, Sheet, faint
from lampe.positions import PositionMap, Region, Role

# 3. The matrix of mapped positions


@dataclass(frozen=True)
class Matrix:
    """Mapped positions over a frame, binned.

    Parameters
    ----------
    queries, keys : numpy array of int64
        The token in the middle of each bin; where a bin is one token, all of them.
    positions : numpy array of int64, shape (queries, keys)
        Mapped position of that pair.
    regions : numpy array of int64, shape (queries, keys)
        Its region's number, −1 where the key comes after the query.
    """

    queries: np.ndarray
    keys: np.ndarray
    positions: np.ndarray
    regions: np.ndarray


def matrix(position_map: PositionMap, frame: Frame, bins: int = BINS) -> Matrix:
    """The mapped positions of a frame, each bin's from the pair in its middle: never more than bins × bins."""
    queries, keys = binned(frame.queries, bins), binned(frame.keys, bins)
    i, j = queries[:, None], keys[None]
    return Matrix(queries, keys, position_map.relative(i, j), position_map.region(i, j))


def matrix_figure(position_map: PositionMap, frame: Frame, big: bool = False) -> go.Figure:
    """The matrix of mapped positions as a heat map; keys after their query stay blank."""
    found = matrix(position_map, frame)
    sheet = Sheet(big)
    names = [*(region.name for region in position_map.regions), ""]
    distances = found.queries[:, None] - found.keys
    text = [
        [f"{names[region]}, {d:,} back" if region >= 0 else "" for region, d in zip(*row, strict=True)]
        for row in zip(found.regions.tolist(), distances.tolist(), strict=True)
    ]
    formulas = "<br>".join(f"{region.name}: {formula(region)}" for region in position_map.regions)
    sheet.trace(
        type="heatmap", x=found.keys, y=found.queries, text=text, colorscale="Viridis", name="positions",
        z=np.where(found.regions < 0, np.nan, found.positions).astype(np.float32), hoverongaps=False,
        colorbar={"title": {"text": "mapped position", "side": "top"}, "thickness": 12, "tickformat": ",d",
                  "orientation": "h", "y": 1.02, "yanchor": "bottom", "len": 0.7},
        hovertemplate="query i = %{y:,}, key j = %{x:,}<br>%{text}<br>mapped position %{z:,}"
        f"<br><br>{formulas}<extra></extra>",
    )  # fmt: skip
    return sheet.figure(*plane_axes(frame), height=560, dragmode="zoom")


# 4. The mapping-length curve


def lengths_along(shortest: int, longest: int, points: int = 120) -> list[int]:
    """Input lengths for a curve over a logarithmic axis."""
    return np.unique(np.geomspace(shortest, longest, points).round().astype(np.int64)).tolist()


def curve_figure(
    position_map: PositionMap,
    window: int,
    curves: Mapping[str, Callable[[int], int]],
    longest: int,
    big: bool = False,
) -> go.Figure:
    """Mapping length against input length: these settings, the published fits, and where nothing is compressed.

    Parameters
    ----------
    position_map : PositionMap
        The map of the current length: the point is where it was planned for.
    window : int
        In tokens.
    curves : mapping of name to a function of the input length
        The mapping length that the maps have. The first is that of the present settings, the others are drawn faintly.
    longest : int
        Where the axis ends, in tokens.
    """
    sheet = Sheet(big)
    shortest = min(64, max(1, position_map.mapping_length // 2))
    lengths = lengths_along(shortest, longest)
    hover = "l = %{x:,} tokens<br>m = %{y:,} positions"
    sheet.line("m = l: nothing compressed", [shortest, longest], [shortest, longest], GREY, 1.5, "dot", hover)
    own, *others = curves
    dashes = ("longdash", "dashdot", "longdashdot", "dash", "dot")
    for number, name in enumerate(others):
        mapped = [curves[name](length) for length in lengths]
        sheet.line(name, lengths, mapped, GREY, 2, dashes[number % len(dashes)], hover)
        at = -1 - 10 * (number % 2)  # two may end at the same height
        place = {"xanchor": "right", "yanchor": "bottom"}
        sheet.label(math.log10(lengths[at]), math.log10(mapped[at]), name, **place)
    sheet.line(own, lengths, [curves[own](length) for length in lengths], COLOURS[Role.NEAR], 4, "solid", hover)
    sheet.level(window, f"window {window:,}", log=True)
    cap = max(1, round(0.75 * window))
    sheet.level(cap, f"¾ of the window {cap:,}", log=True, below=True)
    sheet.mark("this input", position_map.length, position_map.mapping_length, hover)
    ticks = [10**power for power in range(7)]
    log = {"type": "log", "tickvals": ticks, "ticktext": ["1", "10", "100", "1k", "10k", "100k", "1M"]}
    low, high = math.log10(shortest), math.log10(longest)
    return sheet.figure(
        {"title": "Input length l (tokens)", "range": [low, high * 1.01], **log},
        {"title": "Mapping length m", "range": [low, high * 1.01], **log},
        height=400,
    )


# 5. One query token's row


def row_figure(position_map: PositionMap, query: int, big: bool = False) -> go.Figure:
    """Every key's region and mapped position along the text, as one query token sees them."""
    sheet = Sheet(big)
    plain_line(sheet, "Plain RoPE", query, (0, query), GREY, "solid", along_text=True)
    drawn = draw_row(sheet, position_map, query, along_text=True)
    top = max(max(curve.positions) for curve in drawn) * 1.3 + 1
    if position_map.compresses and query > top:
        sheet.label(query - top * 0.9, top * 0.9, "plain RoPE ", xanchor="right")
    x_axis = {"title": f"Key token j, for query i = {query:,}", "range": [-0.5, query * 1.01 + 0.5]}
    return sheet.figure(x_axis, {"title": "Mapped position", "range": [0, top], "rangemode": "tozero"}, height=400)


# 6. Measured attention


def shares_figure(regions: Sequence[Region], layers: Sequence[int], shares: np.ndarray, big: bool = False) -> go.Figure:
    """Where a query's attention went in each layer: the mean over heads, and the heads' range.

    The layers are given by their numbers; `shares` has the shape (layers, heads, regions), and each row of regions
    sums to 1.
    """
    sheet = Sheet(big)
    mean, least, most = shares.mean(1), shares.min(1), shares.max(1)
    for number, region in enumerate(regions):
        band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "x": layers}
        low, high, fill = least[:, number].tolist(), most[:, number].tolist(), faint(COLOURS[region.role], 0.18)
        sheet.trace(**band, y=low, name=f"{region.name}, lowest head")
        sheet.trace(**band, y=high, name=f"{region.name}, highest head", fill="tonexty", fillcolor=fill)
    for number, region in enumerate(regions):  # over all bands
        custom = np.stack([least[:, number], most[:, number]], 1).tolist()
        hover = (
            f"layer %{{x}}<br>{region.name}: %{{y:.1%}} of the attention, mean of {shares.shape[1]} heads<br>"
            "heads from %{customdata[0]:.1%} to %{customdata[1]:.1%}"
        )
        colour, dash = COLOURS[region.role], DASHES[region.role]
        sheet.line(region.name, layers, mean[:, number].tolist(), colour, 4, dash, hover, customdata=custom)
    return sheet.figure(
        {"title": "Layer", "range": [layers[0] - 0.3, layers[-1] + 0.3]},
        {"title": "Share of attention", "range": [0, 1.02], "tickformat": ".0%"},
        height=400,
        legend=True,
    )
