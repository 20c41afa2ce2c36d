"""The small figures under the ruler, as SVG that follows the page's colours and needs no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from app.map.figures import curves
from app.ui.heat_maps import short
from lampe import PRESETS
from lampe.methods import LampeConfig, Rope, ScaledSigmoid

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 16, 46
Point = tuple[float, float]


class Chart:
    """Axes, and what is drawn between them; x and y in the data's own units.

    Parameters
    ----------
    title : str
        For those who don't see it.
    x_axis, y_axis : str
        Keys of the page's strings.
    x, y : (float, float)
        What the axes go from and to.
    log : bool
        Whether x goes by octaves.
    """

    def __init__(self, title: str, x_axis: str, y_axis: str, x: Point, y: Point, log: bool = False) -> None:
        self.title, self.x_axis, self.y_axis, self.y, self.log = title, x_axis, y_axis, y, log
        self.x = (math.log2(x[0]), math.log2(x[1])) if log else x
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> Point:
        """A point of the data on the sheet."""
        x = math.log2(x) if self.log else x
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    def line(self, points: Sequence[Point], name: str) -> None:
        path = "L".join("{} {}".format(*self.at(*point)) for point in points)
        self.parts.append(f'<path class="{name}" d="M{path}"/>')

    def interval(self, x: float, y: float, low: float, high: float, name: str) -> None:
        """A dot, and a line from the least to the most that it may be."""
        self.line([(x, low), (x, high)], f"{name} whisker")
        left, top = self.at(x, y)
        self.parts.append(f'<circle class="{name}" cx="{left}" cy="{top}" r="5"/>')

    def ticks(self, across: Sequence[int], up: Sequence[float], words: Callable[[Any], str] = short) -> None:
        """Figures along both axes, those of y as `words` say them."""
        for value in across:
            left, _ = self.at(value, self.y[0])
            place = f'x="{left}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle"'
            self.parts.append(f"<text {place}>{short(value)}</text>")
        for level in up:
            _, top = self.at(2 ** self.x[0] if self.log else self.x[0], level)
            self.parts.insert(0, f'<path class="grid" d="M{_LEFT} {top}H{_WIDTH - _RIGHT}"/>')
            self.parts.append(f'<text x="{_LEFT - 7}" y="{top + 5}" text-anchor="end">{words(level)}</text>')

    def word(self, x: float, y: float, key: str, anchor: str = "start", name: str = "") -> None:
        """One of the page's strings, at a point."""
        left, top = self.at(x, y)
        self.parts.append(f'<text x="{left}" y="{top}" text-anchor="{anchor}" class="{name}" data-text="{key}"></text>')

    def svg(self) -> str:
        middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
        across = f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle" data-text="{self.x_axis}"></text>'
        up = f'<text transform="translate(14 {(_HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)" text-anchor="middle" '
        up += f'data-text="{self.y_axis}"></text>'
        return (
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            f"{''.join(self.parts)}{across}{up}</svg>"
        )


def found_chart(proof: dict[str, Any], window: int) -> str:
    """Plain RoPE's share of found numbers by length, with intervals, and where the window ends."""
    lengths = proof["lengths"]
    chart = Chart(
        "Share of hidden numbers that plain RoPE finds, by length: it falls past the window.",
        "axis_length", "share_found", (lengths[0] * 0.85, lengths[-1] * 1.15), (0, 1), log=True,
    )  # fmt: skip
    chart.ticks(lengths, (0, 0.5, 1), "{:.0%}".format)
    chart.line([(window, 0), (window, 1)], "window")
    chart.word(window * 1.03, 0.94, "window_line", name="soft")
    for length in lengths:
        found, tests, low, high = proof["totals"][f"{length} {Rope.key}"]
        chart.interval(length, found / tests, low, high, "unseen" if length > window else "near")
    return chart.svg()


def squeeze_chart(config: LampeConfig, length: int) -> str:
    """Distances and the positions they are given, by plain RoPE and by LaMPE."""
    chart = Chart(
        f"Distance given against distance in a text of {length:,} tokens: plain RoPE's line leaves the window, "
        "LaMPE's bends under it.",
        "axis_distance", "axis_position", (0, length), (0, length),
    )  # fmt: skip
    ticks = (0, config.window // 2, config.window, length)
    chart.ticks(ticks, ticks)
    chart.line([(0, config.window), (length, config.window)], "window")
    chart.word(length * 0.02, config.window * 1.03, "window_line", name="soft")
    chart.line([(0, 0), (length - 1, length - 1)], "plain")
    for curve in curves(config.position_map(length), points=41):
        chart.line(list(zip(curve.distances, curve.positions, strict=True)), curve.role)
    return chart.svg()


def curve_chart() -> str:
    """Llama-3's published mapping length against the input length, as the paper has it."""
    config = PRESETS["llama3"]
    assert isinstance(config.mapping, ScaledSigmoid)
    config = replace(config, mapping=replace(config.mapping, short_length=0, short_mapping=None))
    lengths = [round(2 ** (9 + step / 6)) for step in range(49)]
    chart = Chart(
        "Positions used against input length, as published for Llama-3: an S up to three quarters of the window.",
        "axis_length", "axis_mapping", (lengths[0], lengths[-1]), (0, config.window * 1.1), log=True,
    )  # fmt: skip
    chart.ticks((512, 2048, 8192, 32_768, 131_072), (0, 2048, 4096, 6144, 8192))
    chart.line([(lengths[0], config.window), (lengths[-1], config.window)], "window")
    chart.word(lengths[0] * 1.1, config.window * 1.02, "window_line", name="soft")
    chart.line([(length, config.position_map(length).mapping_length) for length in lengths], "compressed")
    return chart.svg()
