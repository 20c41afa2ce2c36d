"""Needle tests as HTML and as a figure. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from statistics import mean
from typing import NamedTuple

import plotly.graph_objects as go

from app.sheet import GREY
from app.views import METHOD_NAMES, about, note
from lampe.needle import Cell, Result, summary_rows
from lampe.positions import PositionMap


def verdict(result: Result) -> str:
    """What came of one test, in words."""
    if result.score == 1:
        return "Found"
    wanted = ", ".join(result.expected)
    if not result.score:
        return f"Missed: {wanted} isn't in the answer"
    return f"{round(result.score * len(result.expected))} of {len(result.expected)} found, of {wanted}"


def _mark(score: float) -> str:
    return "✓" if score == 1 else "◐" if score else "✗"


def card(result: Result) -> str:
    """One method's answer, with its verdict."""
    name = METHOD_NAMES[result.method]
    return (
        f'<section class="answer {result.method}" aria-label="Answer of {name}" tabindex="0"><h3>{name}</h3>'
        f"<p>{escape(result.answer) or '(no answer)'}</p>"
        f'<p class="verdict"><b>{_mark(result.score)} {escape(verdict(result))}</b></p>'
        f"<small>{escape(result.question)} {_read(result)}</small></section>"
    )


def _read(result: Result) -> str:
    kept = result.length - result.read_tokens
    shared = f" ({kept:,} kept from the test before)" if kept else ""
    repeated = " The text was too short and was repeated." if result.repeated else ""
    return f"{result.length:,} tokens read in {result.seconds:.1f} s{shared}.{repeated}"


def place(result: Result, position_map: PositionMap) -> str:
    """Where the needle lies in the text, under the map that read it."""
    last = result.length - 1
    reached = "" if result.attention is None else f" {result.attention:.1%} of the last token's attention fell on it."
    parts = ""
    for region in reversed(position_map.regions):  # the text's start is the farthest from the query
        first, stop = region.key_span(last)
        share = (stop - first) / result.length
        parts += f'<i class="region-{region.name.lower()}" style="width:{share:.3%}" title="{region.name}"></i>'
    return (
        f'<div class="place"><div class="strip" aria-hidden="true">{parts}'
        f'<u style="left:{result.place / result.length:.2%}"></u></div>'
        f'<p class="caption">Under {METHOD_NAMES[result.method]} the needle ends at token {result.place:,} of '
        f"{result.length:,}: {result.distance:,} tokens before the question's end, in region "
        f'<span class="chip region-{result.region.lower()}"></span><b>{escape(result.region)}</b>, at mapped position '
        f"{result.mapped_position:,}.{reached}</p></div>"
    )


class Point(NamedTuple):
    """A place in the heat maps."""

    method: str
    length: int
    depth: float

    def __str__(self) -> str:
        return f"{self.method} {self.length} {self.depth!r}"


def by_point(results: Iterable[Result]) -> dict[Point, list[Result]]:
    """The tests of each point."""
    found: dict[Point, list[Result]] = {}
    for result in results:
        found.setdefault(Point(result.method, result.length, result.depth), []).append(result)
    return found


def heat(results: Sequence[Result], cells: Sequence[Cell], big: bool = False) -> go.Figure:
    """The mean score of each length and depth, a map for each method, side by side; blank until it is there."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    found = {point: mean(r.score for r in tests) for point, tests in by_point(results).items()}
    size = 18 if big else 13
    figure = go.Figure()
    width = 1 / max(1, len(methods))
    layout: dict = {"annotations": []}
    for number, method in enumerate(methods):
        points = [[Point(method, n, d) for n in lengths] for d in depths]
        z = [[found.get(point) for point in row] for row in points]
        text = [["" if share is None else f"{share:.0%}" for share in row] for row in z]
        axis = "" if not number else str(number + 1)
        figure.add_heatmap(
            x=[_short(n) for n in lengths], y=[f"{d:g}" for d in depths], z=z, text=text, texttemplate="%{text}",
            hovertext=[[f"{n:,}" for n in lengths]] * len(depths), customdata=[list(map(str, row)) for row in points],
            zmin=0, zmax=1, colorscale="Cividis", xgap=2, ygap=2, xaxis=f"x{axis}", yaxis=f"y{axis}",
            name=METHOD_NAMES[method], hoverongaps=False,
            showscale=number == len(methods) - 1, colorbar={"tickformat": ".0%", "thickness": 12},
            hovertemplate="%{hovertext} tokens, depth %{y}<br>found %{z:.0%}<extra>"
            f"{METHOD_NAMES[method]}</extra>",
        )  # fmt: skip
        left, right = number * width + 0.03 * bool(number), (number + 1) * width - 0.03
        named = {"type": "category", "automargin": True, "showgrid": False}
        layout[f"xaxis{axis}"] = {"domain": [left, right], "title": {"text": "tokens"}, **named}
        layout[f"yaxis{axis}"] = {
            "anchor": f"x{axis}", "autorange": "reversed", "showticklabels": not number,
            "title": {"text": "" if number else "Depth of the needle"}, **named,
        }  # fmt: skip
        short = METHOD_NAMES[method].removeprefix("Plain ")  # two stand side by side on a phone
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": 1.02, "xref": "paper", "yref": "paper", "yanchor": "bottom",
             "xanchor": "center", "showarrow": False, "text": f"<b>{short}</b>", "font": {"size": size}}
        )  # fmt: skip
    figure.update_layout(
        template="none", height=340, margin={"l": 64, "r": 14, "t": 40, "b": 56}, dragmode=False, **layout,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(128,128,128,0.12)",
        font={"family": "system-ui, sans-serif", "size": size, "color": GREY},
    )  # fmt: skip
    return figure


def time(tests: int, seconds: float | None) -> str:
    """How long a grid takes."""
    if not tests:
        return note("Every test of this grid is done.")
    long = "the time isn’t measured yet" if seconds is None else f"{about(seconds)} here"
    return note(f"{tests:,} test{'s' * (tests != 1)}: {long}.")


def _short(length: int) -> str:
    """A length for an axis: 4096 is 4k."""
    return f"{length // 1024}k" if length >= 1024 and not length % 1024 else f"{length:,}"


def table(results: Sequence[Result]) -> str:
    """The share found for each length and method, with its interval."""
    rows = "".join(
        f'<tr><th scope="row">{length:,} tokens</th><td>{METHOD_NAMES[method]}</td><td>{share:.0%}</td>'
        f"<td>{low:.0%} to {high:.0%}</td><td>{trials}</td></tr>"
        for length, method, share, low, high, trials in summary_rows(results)
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Prompt", "Method", "Found", "95 % interval", "Tests"))
    return (
        f'<div class="scroll"><table class="figures"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        if results
        else ""
    )


def point_buttons(results: Sequence[Result]) -> str:
    """A button for each point of the heat maps: what a click there shows, for keyboards and screen readers."""
    buttons = "".join(
        f'<button type="button" data-point="{point}">{_mark(mean(r.score for r in tests))} '
        f"{METHOD_NAMES[point.method]}, {point.length:,} tokens, depth {point.depth:g}: "
        f"{mean(r.score for r in tests):.0%} of {len(tests)}</button>"
        for point, tests in sorted(by_point(results).items(), key=lambda item: (item[0].length, item[0].depth))
    )
    return buttons and f'<p class="caption">Each point, to be looked into:</p><div class="tests">{buttons}</div>'


def details(results: Sequence[Result]) -> str:
    """The tests of one point: the prompt around the needle, the answer, the score."""
    if not results:
        return ""
    first = results[0]
    tests = "".join(
        f'<li><p class="excerpt">…{escape(r.excerpt)}…</p><p><b>{escape(r.question)}</b> '
        f"{escape(r.answer) or '(no answer)'}</p>"
        f'<p class="verdict"><b>{_mark(r.score)} {escape(verdict(r))}</b></p>'
        f"<small>Trial {r.trial + 1}, seed {r.seed}. Region {escape(r.region)}, {r.distance:,} tokens back, mapped "
        f"position {r.mapped_position:,}. {_read(r)}</small></li>"
        for r in sorted(results, key=lambda r: (r.seed, r.trial))
    )
    return (
        f'<section class="answer {first.method}" role="status"><h3>{METHOD_NAMES[first.method]}, {first.length:,} '
        f"tokens, depth {first.depth:g}</h3><ol>{tests}</ol></section>"
    )
