"""Figures of a preset's sweep: what each mapping length costs, and the mapping lengths that were chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from app.map.more_figures import lengths_along
from app.ui.figure import COLOURS, GREY, Sheet
from app.ui.heat_maps import short
from lampe.calibration import CalibratedPreset, Measured
from lampe.positions import Role

_SYMBOLS = ("x", "circle-open", "circle")  # none found, some, all
_COLOURS = ["#4f7fe0", "#c04fa8", "#e07b1a"]  # from short to long inputs; each is seen on white and on dark
_TICKS = [2**power for power in range(6, 21)]
_LOG = {"type": "log", "tickvals": _TICKS, "ticktext": [short(tick) for tick in _TICKS]}


def by_length(preset: CalibratedPreset) -> dict[int, list[Measured]]:
    """The points of each length, those that were measured with the preset's Head, Tail and attention scale."""
    found: dict[int, list[Measured]] = {}
    config = preset.config
    for one in preset.measured:
        if (one.head, one.tail, one.attention_scale) == (config.head, config.tail, config.attention_scale):
            found.setdefault(one.length, []).append(one)
    return {length: sorted(points, key=lambda one: one.mapping_length) for length, points in sorted(found.items())}


def loss_figure(preset: CalibratedPreset, big: bool = False) -> go.Figure | None:
    """Loss against the mapping length, a line for each input length: how much more than with that length's best; None
    where no loss was measured."""
    sheet = Sheet(big)
    drawn: list[tuple[int, float]] = []
    hover = "m = %{x:,} positions<br>loss %{customdata:.3f}, %{y:.3f} above the best"
    for length, points, colour in _lines(preset):
        tried = [(one.mapping_length, one.loss) for one in points if one.loss is not None]
        if tried:
            best = min(loss for _, loss in tried)
            x, losses = zip(*tried, strict=True)
            above = [loss - best for loss in losses]
            _line(sheet, length, x, above, colour, hover, customdata=losses)
            drawn += zip(x, above, strict=True)
    # A long input unmapped would press all others to the ground: its line leaves the figure, which says how far.
    window = preset.config.window
    top = max(1.2 * max((y for m, y in drawn if m <= window), default=0.0), 0.1)
    if left := [f"{y:+.1f}" for m, y in drawn if m > window and y > top]:
        place = {"xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "top"}
        sheet.label(1, 1, f"not mapped ↑<br>{', '.join(left)}", align="right", **place)
    return _against_mapping(sheet, preset, {"title": "Loss above the best (nats)", "range": [0, top]})


def needle_figure(preset: CalibratedPreset, big: bool = False) -> go.Figure | None:
    """How likely the answers were against the mapping length, a line for each input length.

    The height is the mean probability of an answer's token, e to the log-likelihood; the symbol says how many of the
    needles were found. None where no needles were measured.
    """
    sheet = Sheet(big)
    hover = "m = %{x:,} positions<br>%{customdata}<br>%{y:.0%} a token of the answer"
    for length, points, colour in _lines(preset):
        tried = [one for one in points if one.found is not None and one.log_likelihood is not None]
        if tried:
            shares = [one.found or 0.0 for one in tried]
            symbols = [_SYMBOLS[0 if not share else 2 if share == 1 else 1] for share in shares]
            _line(
                sheet, length, [one.mapping_length for one in tried],
                [math.exp(one.log_likelihood or 0.0) for one in tried], colour, hover,
                customdata=[f"{share:.0%} of {one.needles} found" for share, one in zip(shares, tried, strict=True)],
                marker={"color": colour, "symbol": symbols, "size": 9, "line": {"width": 2, "color": colour}},
            )  # fmt: skip
    return _against_mapping(sheet, preset, {"title": "Probability of a token", "tickformat": ".0%", "range": [0, 1]})


def chosen_figure(preset: CalibratedPreset, big: bool = False) -> go.Figure:
    """The best mapping length of each input length, and what is made of them."""
    sheet = Sheet(big)
    config, points = preset.config, preset.points
    lengths = [point.length for point in points]
    ends = min(lengths) / 1.3, max(max(lengths), config.window) * 2
    along = lengths_along(math.ceil(ends[0]), math.floor(ends[1]))
    hover = "l = %{x:,} tokens<br>m = %{y:,} positions"
    sheet.line("m = l: nothing compressed", ends, ends, GREY, 1.5, "dot", hover)
    for (name, way), dash in zip(preset.ways.items(), ("dash", "longdash", "dashdot"), strict=True):
        mapped = [way.position_map(length).mapping_length for length in along]
        look = (COLOURS[Role.NEAR], 4, "solid") if way == config else (GREY, 2, dash)
        sheet.line(name, along, mapped, *look, hover)
    sheet.level(config.window, f"window {config.window:,}", log=True)
    for at_least, symbol, name in ((False, "diamond", "best"), (True, "triangle-up", "best: no mapping, m ≥ l")):
        these = [point for point in points if point.at_least == at_least]
        if these:
            sheet.trace(
                mode="markers", name=name, x=[point.length for point in these],
                y=[point.mapping_length for point in these], cliponaxis=False,
                customdata=[[point.cost, point.sharpness] for point in these],
                marker={"symbol": symbol, "size": 18 if big else 13, "color": COLOURS[Role.COMPRESSED],
                        "line": {"width": 1.5, "color": "#fff"}},
                hovertemplate=f"{hover}<br>cost %{{customdata[0]:.4f}}<br>√2 aside it is %{{customdata[1]:.4f}} more"
                f"<extra>{name}</extra>",
            )  # fmt: skip
    low = min(config.head + config.tail + 1, *(one.mapping_length for one in preset.measured))
    return sheet.figure(
        {"title": "Input length l (tokens)", "range": [math.log10(end) for end in ends], **_LOG},
        {"title": "Mapping length m", "range": [math.log10(low / 1.15), math.log10(ends[1])], **_LOG},
        height=420,
        legend=True,
    )


def _lines(preset: CalibratedPreset) -> list[tuple[int, list[Measured], str]]:
    """Each length's points, and its colour: the longer, the warmer."""
    found = by_length(preset)
    places = [number / max(1, len(found) - 1) for number in range(len(found))]
    return [(*item, colour) for item, colour in zip(found.items(), sample_colorscale(_COLOURS, places), strict=True)]


def _line(
    sheet: Sheet, length: int, x: Sequence[int], y: Sequence[float], colour: str, hover: str, **more: Any
) -> None:
    more = {"mode": "lines+markers", "marker": {"color": colour, "size": 8}, **more}
    sheet.line(f"{length:,} tokens", list(x), list(y), colour, 2.5, "solid", hover, **more)


def _against_mapping(sheet: Sheet, preset: CalibratedPreset, y_axis: dict[str, Any]) -> go.Figure | None:
    """The lines over the mapping lengths that were tried; None where there are none."""
    if not sheet.traces:
        return None
    tried = [one.mapping_length for one in preset.measured]
    x_axis = {"title": "Mapping length m", "range": [math.log10(min(tried) / 1.1), math.log10(max(tried) * 1.1)]}
    return sheet.figure({**x_axis, **_LOG}, {"rangemode": "tozero", **y_axis}, height=380, legend=True)
