"""Figures of a position map: every value is read from the `PositionMap` that the engine runs on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from gradio.components.plot import PlotData

from lampe.positions import IndexMap, PositionMap, Region

# Okabe-Ito: told apart with any colour vision; dash and hatching tell the regions apart without colour.
COLOURS = {"Head": "#0072B2", "Middle": "#E69F00", "Tail": "#009E73", "All": "#0072B2"}
DASHES = {"Head": "solid", "Middle": "dash", "Tail": "dot", "All": "solid"}
_HATCHES = {"Middle": "/", "Tail": "."}
UNSEEN = "#D55E00"
_GREY = "#7a7f87"
_UNDER = "rgba(255,255,255,0.85)"  # behind a name on a hatched region; the page's style sheet darkens it
_POINTS = 160  # a region; more can't be told apart at projector width
BINS = 144
"""Bins of the matrix along each side: with what hovering tells of each, all figures together stay under a megabyte."""


@dataclass(frozen=True)
class Curve:
    """One region as one query token sees it.

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


def curves(position_map: PositionMap, query: int | None = None, points: int = _POINTS) -> list[Curve]:
    """Mapped position against relative distance, at most `points` for each region.

    Parameters
    ----------
    position_map : PositionMap
    query : int, optional
        Index of the query token; the last one of the input by default.
    points : int
    """
    query = position_map.length - 1 if query is None else query
    found = []
    for region in position_map.regions:
        first, stop = region.key_span(query)
        if first == stop:
            continue
        keys = np.unique(np.linspace(first, stop - 1, min(points, stop - first)).round().astype(np.int64))[::-1]
        positions = position_map.relative(query, keys)
        found.append(Curve(region.name, (query - keys).tolist(), positions.tolist()))
    return found


def formula(region: Region) -> str:
    """The mapped position of query i and key j in a region, as the numbers stand in its maps."""
    key = _rotation(region.key_map, "j")
    return f"{_rotation(region.query_map, 'i')} − {f'({key})' if ' ' in key.split('⌋')[-1] else key}"


def _rotation(index_map: Any, index: str) -> str:
    if not isinstance(index_map, IndexMap):
        return f"p({index})"
    text = f"({index} − {index_map.origin:,})" if index_map.origin else index
    if index_map.numerator != index_map.denominator:
        text = f"⌊{text}·{index_map.numerator:,}/{index_map.denominator:,}⌋"
    sign = "+" if index_map.offset > 0 else "−"
    return f"{text} {sign} {abs(index_map.offset):,}" if index_map.offset else text


# 1. Relative distance → mapped position


def distance_figure(position_map: PositionMap, window: int, big: bool = False) -> go.Figure:
    """Relative distance → mapped position, by region, beside plain RoPE.

    Parameters
    ----------
    position_map : PositionMap
    window : int
        The model's pretraining window in tokens; plain RoPE beyond it is marked as never seen in training.
    big : bool
        To be read from the back row.
    """
    farthest = position_map.length - 1
    seen = min(farthest, window - 1)
    # Up to twice the window: beyond, plain RoPE's line would press all others to the ground.
    top: float = max(farthest, position_map.mapping_length)
    if window <= 2.5 * top:
        top = max(top, window)
    top = min(top, 2 * window) * 1.04 + 1
    sheet = _Sheet(big)
    _plain_line(sheet, "Plain RoPE", farthest, (0, seen), _GREY, "solid")
    if farthest > seen:
        _plain_line(sheet, "Plain RoPE, never seen in training", farthest, (seen, farthest), UNSEEN, "dashdot")
        sheet.band("y", window, top, UNSEEN)
        sheet.label(farthest * 0.5, (window + top) / 2, "never seen in training")
        if farthest > top:
            sheet.label(top, top, f" plain RoPE goes on to {farthest:,}", xanchor="left", yanchor="top")
    if window <= top:
        sheet.level(window, f"window {window:,}")
    else:
        sheet.label(1, top, f"the window ends at {window:,}", xref="paper", xanchor="right", yanchor="top")
    drawn = curves(position_map)
    for number, curve in enumerate(drawn):
        _region_line(sheet, position_map, position_map.length - 1, curve, by="distance")
        near, far = curve.distances[0], curve.distances[-1]
        sheet.band("x", near, far, COLOURS.get(curve.region, _GREY))
        # The outer regions are often too narrow for their names, which then run towards the middle.
        place = "center" if len(drawn) == 1 or 0 < number < len(drawn) - 1 else "left" if number == 0 else "right"
        x = {"left": near, "center": (near + far) / 2, "right": far}[place]
        sheet.label(x, 1, f"<b>{curve.region}</b> {far - near + 1:,}", yref="paper", xanchor=place, yanchor="bottom")
    if position_map.compresses:
        sheet.label(seen * 0.62, seen * 0.62, "plain RoPE ", xanchor="right", yanchor="bottom")
        y = position_map.relative(farthest, farthest * 7 // 10)
        sheet.label(farthest * 0.3, y, "LaMPE", yanchor="bottom", yshift=6)
        sheet.level(position_map.mapping_length, f"mapping length {position_map.mapping_length:,}")
    else:
        sheet.label(seen * 0.62, seen * 0.62, "every distance exact ", xanchor="right", yanchor="bottom")
    x_axis = {"title": "Relative distance (tokens)", "range": [0, farthest * 1.01 + 1], "rangemode": "tozero"}
    return sheet.figure(x_axis, {"title": "Mapped position", "range": [0, top], "rangemode": "tozero"})


def _plain_line(
    sheet: _Sheet, name: str, query: int, span: tuple[int, int], colour: str, dash: str, by: str = "distance"
) -> None:
    """A stretch of plain RoPE's line, where every distance is its own position."""
    first, last = span
    distances = np.unique(np.linspace(first, last, min(60, last - first + 1)).round().astype(np.int64)).tolist()
    keys = [query - distance for distance in distances]
    hover = f"query i = {query:,}, key j = %{{customdata:,}}<br>%{{y:,}} tokens back<br>position %{{y:,}}<br>i − j"
    sheet.line(name, distances if by == "distance" else keys, distances, colour, 2, dash, hover, customdata=keys)


def _region_line(sheet: _Sheet, position_map: PositionMap, query: int, curve: Curve, by: str) -> None:
    """One region's mapped positions for one query, against the distance or against the key."""
    region = next(region for region in position_map.regions if region.name == curve.region)
    keys = [query - distance for distance in curve.distances]
    hover = (
        f"query i = {query:,}, key j = %{{customdata[0]:,}}<br>{curve.region}: %{{customdata[1]:,}} tokens back<br>"
        f"mapped position %{{y:,}}<br>{formula(region)}"
    )
    custom = [list(pair) for pair in zip(keys, curve.distances, strict=True)]
    x = curve.distances if by == "distance" else keys
    colour, dash = COLOURS.get(curve.region, _GREY), DASHES.get(curve.region, "solid")
    sheet.line(curve.region, x, curve.positions, colour, 5, dash, hover, customdata=custom)


# 2. The attention regions


@dataclass(frozen=True)
class Frame:
    """A part of the query × key plane: token indices as half-open ranges."""

    queries: tuple[int, int]
    keys: tuple[int, int]

    @classmethod
    def around(cls, query: int, key: int, across: int, length: int) -> Frame:
        """A square of `across` tokens around a pair, moved so that it lies within the text."""

        def side(centre: int) -> tuple[int, int]:
            size = min(across, length)
            first = min(max(0, centre - size // 2), length - size)
            return first, first + size

        return cls(side(query), side(key))

    @classmethod
    def whole(cls, position_map: PositionMap) -> Frame:
        """All queries and keys of the input."""
        return cls((0, position_map.length), (0, position_map.length))

    @property
    def across(self) -> int:
        """Tokens along the longer side."""
        return max(self.queries[1] - self.queries[0], self.keys[1] - self.keys[0])


FRAMES = ("Whole text, to scale", "Head, enlarged", "Tail, enlarged")


def frames(position_map: PositionMap) -> dict[str, Frame]:
    """What is worth a look, by its name in `FRAMES`: the whole plane, and the last queries' borders, enlarged."""
    length, last = position_map.length, position_map.length - 1
    head, tail = position_map.head, position_map.tail
    shown = {FRAMES[0]: Frame.whole(position_map)}
    if position_map.compresses and head:
        shown[FRAMES[1]] = Frame.around(last, last, 3 * (head + 1), length)
    if position_map.compresses and tail:
        shown[FRAMES[2]] = Frame.around(last, 0, 3 * tail, length)
    return shown


def polygon(region: Region, frame: Frame) -> list[tuple[float, float]]:
    """The region's part of a frame as a convex polygon of (key, query) corners; borders lie between tokens.

    Only for regions measured in tokens (`block` 1), whose borders are straight.
    """
    top, bottom, left, right = (edge - 0.5 for edge in (*frame.queries, *frame.keys))
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    corners = _clipped(corners, lambda key, query: query - key - (region.lower - 0.5))
    if region.upper is not None:
        upper = region.upper - 0.5
        corners = _clipped(corners, lambda key, query: upper - (query - key))
    return corners


def _clipped(corners: list[tuple[float, float]], inside: Callable[[float, float], float]) -> list[tuple[float, float]]:
    """A convex polygon without what lies where `inside`, a linear function, is negative."""
    kept: list[tuple[float, float]] = []
    for here, there in zip(corners, corners[1:] + corners[:1], strict=True):
        a, b = inside(*here), inside(*there)
        if a >= 0:
            kept.append(here)
        if a * b < 0:
            share = a / (a - b)
            kept.append((here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1])))
    return kept if len(kept) > 2 else []


def area(corners: Sequence[tuple[float, float]]) -> float:
    """Area of a polygon, in pairs of tokens."""
    following = [*corners[1:], *corners[:1]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(corners, following, strict=True))) / 2


def regions_figure(position_map: PositionMap, frame: Frame, big: bool = False) -> go.Figure:
    """The attention regions over query × key, as exact polygons to the frame's scale."""
    sheet = _Sheet(big)
    whole = (frame.queries[1] - frame.queries[0]) * (frame.keys[1] - frame.keys[0])
    for region in position_map.regions:
        corners = polygon(region, frame)
        if not corners:
            continue
        colour = COLOURS.get(region.name, _GREY)
        x, y = zip(*corners, corners[0], strict=True)
        sheet.traces.append(
            {
                "type": "scatter", "mode": "lines", "x": x, "y": y, "name": region.name, "fill": "toself",
                "line": {"color": colour, "width": 2}, "hoverinfo": "skip",
                "fillpattern": {
                    "shape": _HATCHES.get(region.name, ""), "fgcolor": colour, "bgcolor": _faint(colour), "size": 7,
                    "solidity": 0.35,
                } if region.name in _HATCHES else {},
                "fillcolor": _faint(colour, 0.75) if region.name not in _HATCHES else None,
            }
        )  # fmt: skip
        middle = sum(x[:-1]) / len(corners), sum(y[:-1]) / len(corners)
        if area(corners) > whole / 12:
            sheet.label(*middle, f"<b>{region.name}</b>", bgcolor=_UNDER)
        else:  # too narrow for its name, which then stands beside it with an arrow
            aside = {"ax": 46, "ay": -30} if region.name == "Head" else {"ax": 70, "ay": -14}
            sheet.label(
                *middle, f"<b>{region.name}</b>", showarrow=True, arrowwidth=1.5, arrowcolor=_GREY, **aside,
                bgcolor=_UNDER,
            )  # fmt: skip
    _hover_points(sheet, position_map, frame)
    return sheet.figure(*_plane_axes(frame), height=330)


def _plane_axes(frame: Frame) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys to the right and queries down, to one scale; single tokens by their whole numbers."""
    common: dict[str, Any] = {"constrain": "domain"}
    if frame.across < 5000:
        common["tickformat"] = ",d"
    if frame.across < 8:  # no ticks between tokens
        common["dtick"] = 1
    return (
        {"title": "Key token j", "range": [frame.keys[0] - 0.5, frame.keys[1] - 0.5], **common},
        {
            "title": "Query token i", "range": [frame.queries[1] - 0.5, frame.queries[0] - 0.5],
            "scaleanchor": "x", **common,
        },
    )  # fmt: skip


def _hover_points(sheet: _Sheet, position_map: PositionMap, frame: Frame, side: int = 20) -> None:
    """Pairs on a grid, unseen, that tell what they are when the pointer is near."""
    queries, keys = (_binned(span, side) for span in (frame.queries, frame.keys))
    i, j = (axis.ravel() for axis in np.meshgrid(queries, keys, indexing="ij"))
    attended = j <= i
    i, j = i[attended], j[attended]
    regions, positions = position_map.region(i, j), position_map.relative(i, j)
    names = [
        f"{region.name}: %s tokens back<br>mapped position %s<br>{formula(region)}" for region in position_map.regions
    ]
    text = [names[r] % (f"{q - k:,}", f"{p:,}") for r, q, k, p in zip(regions, i, j, positions, strict=True)]
    sheet.traces.append(
        {
            "type": "scatter", "mode": "markers", "x": j, "y": i, "text": text, "name": "pairs",
            "marker": {"opacity": 0, "size": 12}, "showlegend": False,
            "hovertemplate": "query i = %{y:,}, key j = %{x:,}<br>%{text}<extra></extra>",
        }
    )  # fmt: skip


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
    queries, keys = _binned(frame.queries, bins), _binned(frame.keys, bins)
    i, j = queries[:, None], keys[None]
    return Matrix(queries, keys, position_map.relative(i, j), position_map.region(i, j))


def _binned(span: tuple[int, int], bins: int) -> np.ndarray:
    count = span[1] - span[0]
    bins = min(bins, count)
    return span[0] + (2 * np.arange(bins, dtype=np.int64) + 1) * count // (2 * bins)


def matrix_figure(position_map: PositionMap, frame: Frame, big: bool = False) -> go.Figure:
    """The matrix of mapped positions as a heat map; keys after their query stay blank."""
    found = matrix(position_map, frame)
    sheet = _Sheet(big)
    names = [*(region.name for region in position_map.regions), ""]
    distances = found.queries[:, None] - found.keys
    text = [
        [f"{names[region]}, {d:,} back" if region >= 0 else "" for region, d in zip(*row, strict=True)]
        for row in zip(found.regions.tolist(), distances.tolist(), strict=True)
    ]
    formulas = "<br>".join(f"{region.name}: {formula(region)}" for region in position_map.regions)
    sheet.traces.append(
        {
            "type": "heatmap", "x": found.keys, "y": found.queries,
            "z": np.where(found.regions < 0, np.nan, found.positions).astype(np.float32),
            "text": text, "colorscale": "Viridis", "name": "positions",
            "colorbar": {"title": {"text": "mapped position", "side": "top"}, "thickness": 12, "tickformat": ",d",
                         "orientation": "h", "y": 1.02, "yanchor": "bottom", "len": 0.7},
            "hoverongaps": False,
            "hovertemplate": "query i = %{y:,}, key j = %{x:,}<br>%{text}<br>mapped position %{z:,}"
            f"<br><br>{formulas}<extra></extra>",
        }
    )  # fmt: skip
    return sheet.figure(*_plane_axes(frame), height=560, dragmode="zoom")


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
        The map of the current length: the point.
    window : int
        In tokens.
    curves : mapping of name to a function of the input length
        The mapping length that the maps have. The first is that of the present settings, the others are drawn faintly.
    longest : int
        Where the axis ends, in tokens.
    big : bool
    """
    sheet = _Sheet(big)
    shortest = min(64, max(1, position_map.mapping_length // 2))
    lengths = lengths_along(shortest, longest)
    hover = "l = %{x:,} tokens<br>m = %{y:,} positions"
    sheet.line("m = l: nothing compressed", [shortest, longest], [shortest, longest], _GREY, 1.5, "dot", hover)
    own, *others = curves
    dashes = ("longdash", "dashdot", "longdashdot", "dash", "dot")
    for number, name in enumerate(others):
        mapped = [curves[name](length) for length in lengths]
        sheet.line(name, lengths, mapped, _GREY, 2, dashes[number % len(dashes)], hover)
        at = -1 - 10 * (number % 2)  # two may end at the same height
        place = {"xanchor": "right", "yanchor": "bottom"}
        sheet.label(math.log10(lengths[at]), math.log10(mapped[at]), name, **place)
    sheet.line(own, lengths, [curves[own](length) for length in lengths], COLOURS["Head"], 4, "solid", hover)
    sheet.level(window, f"window {window:,}", log=True)
    cap = max(1, round(0.75 * window))
    sheet.level(cap, f"¾ of the window {cap:,}", log=True, below=True)
    x, y = [position_map.length], [position_map.mapping_length]
    sheet.traces.append(
        {
            "type": "scatter", "mode": "markers", "x": x, "y": y, "name": "this input",
            "marker": {"size": 20 if big else 14, "color": UNSEEN, "symbol": "diamond",
                       "line": {"width": 2, "color": "#fff"}},
            "hovertemplate": f"{hover}<extra>this input</extra>",
        }
    )  # fmt: skip
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
    sheet = _Sheet(big)
    drawn = curves(position_map, query)
    _plain_line(sheet, "Plain RoPE", query, (0, query), _GREY, "solid", by="key")
    for number, curve in enumerate(drawn):
        _region_line(sheet, position_map, query, curve, by="key")
        near, far = query - curve.distances[0], query - curve.distances[-1]
        sheet.band("x", far - 0.5, near + 0.5, COLOURS.get(curve.region, _GREY))
        place = "center" if len(drawn) == 1 or 0 < number < len(drawn) - 1 else "right" if number == 0 else "left"
        x = {"right": near, "center": (near + far) / 2, "left": far}[place]
        sheet.label(x, 1, f"<b>{curve.region}</b> {near - far + 1:,}", yref="paper", xanchor=place, yanchor="bottom")
    top = max(max(curve.positions) for curve in drawn) * 1.3 + 1
    if position_map.compresses and query > top:
        sheet.label(query - top * 0.9, top * 0.9, "plain RoPE ", xanchor="right")
    x_axis = {"title": f"Key token j, for query i = {query:,}", "range": [-0.5, query * 1.01 + 0.5]}
    return sheet.figure(x_axis, {"title": "Mapped position", "range": [0, top], "rangemode": "tozero"}, height=400)


# 6. Measured attention


def shares_figure(regions: Sequence[str], shares: np.ndarray, big: bool = False) -> go.Figure:
    """Where a query's attention went in each layer: the mean over heads, and the heads' range.

    Parameters
    ----------
    regions : names
    shares : numpy array, shape (layers, heads, regions)
        Each row of regions sums to 1.
    big : bool
    """
    sheet = _Sheet(big)
    layers = list(range(len(shares)))
    mean, least, most = shares.mean(1), shares.min(1), shares.max(1)
    for number, name in enumerate(regions):
        colour = COLOURS.get(name, _GREY)
        band = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        low, high = least[:, number].tolist(), most[:, number].tolist()
        sheet.traces.append({**band, "x": layers, "y": low, "name": f"{name}, lowest head"})
        sheet.traces.append(
            {
                **band,
                "x": layers,
                "y": high,
                "fill": "tonexty",
                "fillcolor": _faint(colour, 0.18),
                "name": f"{name}, highest head",
            }
        )
    for number, name in enumerate(regions):
        custom = np.stack([least[:, number], most[:, number]], 1).tolist()
        hover = (
            f"layer %{{x}}<br>{name}: %{{y:.1%}} of the attention, mean of {shares.shape[1]} heads<br>"
            "heads from %{customdata[0]:.1%} to %{customdata[1]:.1%}"
        )
        colour, dash = COLOURS.get(name, _GREY), DASHES.get(name, "solid")
        sheet.line(name, layers, mean[:, number].tolist(), colour, 4, dash, hover, customdata=custom)
    return sheet.figure(
        {"title": "Layer", "range": [-0.3, len(shares) - 0.7]},
        {"title": "Share of attention", "range": [0, 1.02], "tickformat": ".0%"},
        height=400,
        legend=True,
    )


# What all figures share


class _Sheet:
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
        self.traces.append(
            {
                "type": "scatter", "mode": "lines" if len(x) > 1 else "markers", "x": x, "y": y, "name": name,
                "line": {"color": colour, "width": width * (1.5 if self.big else 1), "dash": dash},
                "marker": {"color": colour}, "hovertemplate": f"{hover}<extra>{name}</extra>", **more,
            }
        )  # fmt: skip

    def label(self, x: float, y: float, text: str, **place: Any) -> None:
        self.labels.append({"x": x, "y": y, "text": text, "showarrow": False, "font": {"size": self.size}, **place})

    def level(self, y: float, text: str, log: bool = False, below: bool = False) -> None:
        """A line across, with its name at the right end."""
        line = {"color": _GREY, "width": 1, "dash": "dot"}
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
            "font": {"family": "system-ui, sans-serif", "size": self.size, "color": _GREY},
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


def _faint(colour: str, opacity: float = 0.25) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


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
