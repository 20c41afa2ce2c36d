"""Figures 1 and 2 of a position map: every value is read from the `PositionMap` that the engine runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.ui.figure import COLOURS, DASHES, GREY, UNSEEN, Sheet, faint
from lampe.positions import ChunkMap, IndexMap, PositionMap, RealMap, Region, Role

_HATCHES = {Role.COMPRESSED: "/", Role.FAR: "\\", Role.END: "."}
_UNDER = "rgba(255,255,255,0.85)"  # behind a name on a hatched region; the page's style sheet darkens it
BINS = 144
"""Bins of the matrix along each side: with what hovering tells of each, all figures together stay under a megabyte."""

_POINTS = 160  # a region; more can't be told apart at projector width


@dataclass(frozen=True)
class Curve:
    """One region as one query token sees it.

    Parameters
    ----------
    region : str
    role : Role
    distances : list of int
        Relative distances in tokens, rising; the region's first and last are among them.
    positions : list of int
        What the map makes of them.
    """

    region: str
    role: Role
    distances: list[int]
    positions: list[int]


def curves(position_map: PositionMap, query: int | None = None, points: int = _POINTS) -> list[Curve]:
    """Mapped position against relative distance as a query token sees it, by default the last one of the input: at
    most `points` for each region."""
    query = position_map.end - 1 if query is None else query
    found = []
    for region, first, stop in met(position_map, query):
        keys = np.unique(np.linspace(first, stop - 1, min(points, stop - first)).round().astype(np.int64))[::-1]
        positions = position_map.relative(query, keys)
        found.append(Curve(region.name, region.role, (query - keys).tolist(), positions.tolist()))
    return found


def met(position_map: PositionMap, query: int) -> Iterator[tuple[Region, int, int]]:
    """The regions that a query meets keys in, each with the first of them and one past the last."""
    for region in position_map.regions:
        first, stop = region.key_span(query)
        if first < stop:
            yield region, first, stop


def formula(region: Region) -> str:
    """The mapped position of query i and key j in a region, as the numbers stand in its maps."""
    key = _rotation(region.key_map, "j")
    return f"{_rotation(region.query_map, 'i')} − {f'({key})' if ' ' in key.split('⌋')[-1] else key}"


def _rotation(index_map: Any, index: str) -> str:
    if isinstance(index_map, ChunkMap):
        shifted = f"{index} mod {index_map.chunk:,}" + (f" + {index_map.offset:,}" if index_map.offset else "")
        return f"min({shifted}, {index_map.greatest:,})" if index_map.offset else shifted
    if isinstance(index_map, RealMap):
        text = f"({index} − {index_map.origin:,})" if index_map.origin else index
        return f"{text}/{index_map.divisor:.4g}" + (f" + {index_map.offset:,.4g}" if index_map.offset else "")
    if not isinstance(index_map, IndexMap):
        return f"p({index})"
    if not index_map.numerator:
        return f"{index_map.offset:,}"
    text = f"({index} − {index_map.origin:,})" if index_map.origin else index
    if index_map.numerator != index_map.denominator:
        text = f"⌊{text}·{index_map.numerator:,}/{index_map.denominator:,}⌋"
    sign = "+" if index_map.offset > 0 else "−"
    return f"{text} {sign} {abs(index_map.offset):,}" if index_map.offset else text


# 1. Relative distance → mapped position


def distance_figure(position_map: PositionMap, window: int, big: bool = False, needle: int | None = None) -> go.Figure:
    """Relative distance → mapped position, by region, beside plain RoPE.

    Parameters
    ----------
    position_map : PositionMap
    window : int
        The model's pretraining window in tokens; plain RoPE beyond it is marked as never seen in training.
    big : bool
        To be read from the back row.
    needle : int, optional
        A token to mark, as the last one sees it.
    """
    farthest = position_map.end - 1
    seen = min(farthest, window - 1)
    # Up to twice the window: beyond, plain RoPE's line would press all others to the ground.
    top: float = max(farthest, position_map.mapping_length)
    if window <= 2.5 * top:
        top = max(top, window)
    top = min(top, 2 * window) * 1.04 + 1
    sheet = Sheet(big)
    plain_line(sheet, "Plain RoPE", farthest, (0, seen), GREY, "solid")
    if farthest > seen:
        plain_line(sheet, "Plain RoPE, never seen in training", farthest, (seen, farthest), UNSEEN, "dashdot")
        sheet.band("y", window, top, UNSEEN)
        sheet.label(farthest * 0.5, (window + top) / 2, "never seen in training")
        if farthest > top:
            sheet.label(top, top, f" plain RoPE goes on to {farthest:,}", xanchor="left", yanchor="top")
    mapped = position_map.mapping_length if position_map.compresses else None
    if window <= top:
        sheet.level(window, f"window{' and mapping length' * (mapped == window)} {window:,}")
    else:
        # In the lower corner: the curve ends in the upper one.
        sheet.label(1, 0, f"the window ends above, at {window:,} ", xref="paper", xanchor="right", yanchor="bottom")
    draw_row(sheet, position_map, farthest)
    if mapped:
        sheet.label(seen * 0.62, seen * 0.62, "plain RoPE ", xanchor="right", yanchor="bottom")
        y = position_map.relative(farthest, farthest * 7 // 10)
        sheet.label(farthest * 0.3, y, "LaMPE", yanchor="bottom", yshift=6)
        if mapped != window:  # under its line where the window's is just above
            sheet.level(mapped, f"mapping length {mapped:,}", below=0.93 * window < mapped < window)
    else:
        sheet.label(seen * 0.62, seen * 0.62, "every distance exact ", xanchor="right", yanchor="bottom")
    if needle is not None:
        y = position_map.relative(farthest, needle)
        sheet.mark("needle", farthest - needle, y, f"{farthest - needle:,} tokens back<br>mapped position {y:,}")
    x_axis = {"title": "Relative distance (tokens)", "range": [0, farthest * 1.01 + 1], "rangemode": "tozero"}
    return sheet.figure(x_axis, {"title": "Mapped position", "range": [0, top], "rangemode": "tozero"})


def plain_line(
    sheet: Sheet, name: str, query: int, span: tuple[int, int], colour: str, dash: str, along_text: bool = False
) -> None:
    """A stretch of plain RoPE's line, where every distance is its own position."""
    first, last = span
    distances = np.unique(np.linspace(first, last, min(60, last - first + 1)).round().astype(np.int64)).tolist()
    keys = [query - distance for distance in distances]
    hover = f"query i = {query:,}, key j = %{{customdata:,}}<br>%{{y:,}} tokens back<br>position %{{y:,}}<br>i − j"
    sheet.line(name, keys if along_text else distances, distances, colour, 2, dash, hover, customdata=keys)


def draw_row(sheet: Sheet, position_map: PositionMap, query: int, along_text: bool = False) -> list[Curve]:
    """One query's mapped positions, each region over a band with its name: against the distance, or against the key."""
    drawn = curves(position_map, query)
    for number, curve in enumerate(drawn):
        region = next(region for region in position_map.regions if region.name == curve.region)
        keys = [query - distance for distance in curve.distances]
        hover = (
            f"query i = {query:,}, key j = %{{customdata[0]:,}}<br>{curve.region}: %{{customdata[1]:,}} tokens back<br>"
            f"mapped position %{{y:,}}<br>{formula(region)}"
        )
        custom = [list(pair) for pair in zip(keys, curve.distances, strict=True)]
        x, colour, margin = keys if along_text else curve.distances, COLOURS[curve.role], 0.5 * along_text
        sheet.line(curve.region, x, curve.positions, colour, 5, DASHES[curve.role], hover, customdata=custom)
        near, far = x[0], x[-1]
        sheet.band("x", min(near, far) - margin, max(near, far) + margin, colour)
        # The outer regions are often too narrow for their names, which then run towards the middle.
        at, anchor = (near + far) / 2, "center"
        if len(drawn) > 1 and number == 0:
            at, anchor = near, "right" if along_text else "left"
        elif len(drawn) > 1 and number == len(drawn) - 1:
            at, anchor = far, "left" if along_text else "right"
        name = f"<b>{curve.region}</b> {abs(far - near) + 1:,}"
        sheet.label(at, 1, name, yref="paper", xanchor=anchor, yanchor="bottom")
    return drawn


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
        return cls((0, position_map.end), (0, position_map.end))

    @property
    def across(self) -> int:
        """Tokens along the longer side."""
        return max(self.queries[1] - self.queries[0], self.keys[1] - self.keys[0])


FRAMES = ("Whole text, to scale", "Head, enlarged", "Tail, enlarged")


def frames(position_map: PositionMap) -> dict[str, Frame]:
    """What is worth a look, by its name in `FRAMES`: the whole plane, and the last queries' borders, enlarged."""
    length, last = position_map.end, position_map.end - 1
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


def regions_figure(position_map: PositionMap, frame: Frame, big: bool = False, needle: int | None = None) -> go.Figure:
    """The attention regions over query × key, as exact polygons to the frame's scale; a needle's token is marked."""
    sheet = Sheet(big)
    whole = (frame.queries[1] - frame.queries[0]) * (frame.keys[1] - frame.keys[0])
    for region in position_map.regions:
        corners = polygon(region, frame)
        if not corners:
            continue
        colour = COLOURS[region.role]
        fill: dict[str, Any] = {"fillcolor": faint(colour, 0.75)}
        if shape := _HATCHES.get(region.role):
            pattern = {"shape": shape, "fgcolor": colour, "bgcolor": faint(colour), "size": 7, "solidity": 0.35}
            fill = {"fillpattern": pattern}
        x, y = zip(*corners, corners[0], strict=True)
        sheet.trace(
            mode="lines", x=x, y=y, name=region.name, fill="toself", line={"color": colour, "width": 2},
            hoverinfo="skip", **fill,
        )  # fmt: skip
        middle = sum(x[:-1]) / len(corners), sum(y[:-1]) / len(corners)
        arrow: dict[str, Any] = {}
        if area(corners) <= whole / 12:  # too narrow for its name, which then stands beside it with an arrow
            aside = {"ax": 46, "ay": -30} if region.name == "Head" else {"ax": 70, "ay": -14}
            arrow = {"showarrow": True, "arrowwidth": 1.5, "arrowcolor": GREY, **aside}
        sheet.label(*middle, f"<b>{region.name}</b>", bgcolor=_UNDER, **arrow)
    _hover_points(sheet, position_map, frame)
    if needle is not None:
        last = position_map.end - 1
        sheet.mark("needle", needle, last, f"query i = {last:,}, key j = {needle:,}")
    return sheet.figure(*plane_axes(frame), height=330)


def plane_axes(frame: Frame) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _hover_points(sheet: Sheet, position_map: PositionMap, frame: Frame, side: int = 20) -> None:
    """Pairs on a grid, unseen, that tell what they are when the pointer is near."""
    queries, keys = (binned(span, side) for span in (frame.queries, frame.keys))
    i, j = (axis.ravel() for axis in np.meshgrid(queries, keys, indexing="ij"))
    attended = j <= i
    i, j = i[attended], j[attended]
    regions, positions = position_map.region(i, j), position_map.relative(i, j)
    names = [
        f"{region.name}: %s tokens back<br>mapped position %s<br>{formula(region)}" for region in position_map.regions
    ]
    text = [names[r] % (f"{q - k:,}", f"{p:,}") for r, q, k, p in zip(regions, i, j, positions, strict=True)]
    sheet.trace(
        mode="markers", x=j, y=i, text=text, name="pairs", marker={"opacity": 0, "size": 12}, showlegend=False,
        hovertemplate="query i = %{y:,}, key j = %{x:,}<br>%{text}<extra></extra>",
    )  # fmt: skip


def binned(span: tuple[int, int], bins: int) -> np.ndarray:
    """The token in the middle of each of at most `bins` bins of a range."""
    count = span[1] - span[0]
    bins = min(bins, count)
    return span[0] + (2 * np.arange(bins, dtype=np.int64) + 1) * count // (2 * bins)
