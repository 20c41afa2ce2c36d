"""Needle tests as HTML and as a figure. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import mean

import plotly.graph_objects as go

from app.views import METHOD_NAMES
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


def _mark(result: Result) -> str:
    return "✓" if result.score == 1 else "◐" if result.score else "✗"


def card(result: Result) -> str:
    """One method's answer, with its verdict."""
    name = METHOD_NAMES[result.method]
    return (
        f'<section class="answer {result.method}" aria-label="Answer of {name}" tabindex="0"><h3>{name}</h3>'
        f"<p>{escape(result.answer) or '(no answer)'}</p>"
        f'<p class="verdict"><b>{_mark(result)} {escape(verdict(result))}</b></p>'
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


def heat(results: Sequence[Result], cells: Sequence[Cell], big: bool = False) -> go.Figure:
    """The mean score of each length and depth, a map for each method, side by side; blank until it is there."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    found = scores(results)
    size = 18 if big else 13
    figure = go.Figure()
    width = 1 / max(1, len(methods))
    layout: dict = {"annotations": []}
    for number, method in enumerate(methods):
        z = [[mean(s) if (s := found.get((method, n, d))) else None for n in lengths] for d in depths]
        text = [["" if cell is None else f"{cell:.0%}" for cell in row] for row in z]
        axis = "" if not number else str(number + 1)
        figure.add_heatmap(
            x=[f"{n:,}" for n in lengths], y=[f"{d:g}" for d in depths], z=z, text=text, texttemplate="%{text}",
            zmin=0, zmax=1, colorscale="Cividis", xgap=2, ygap=2, xaxis=f"x{axis}", yaxis=f"y{axis}",
            name=METHOD_NAMES[method],
            showscale=number == len(methods) - 1, colorbar={"tickformat": ".0%", "thickness": 12}, hoverongaps=False,
            hovertemplate="%{x} tokens, depth %{y}<br>found %{z:.0%}<extra>" + METHOD_NAMES[method] + "</extra>",
        )  # fmt: skip
        left, right = number * width + 0.03 * bool(number), (number + 1) * width - 0.03
        layout[f"xaxis{axis}"] = {"domain": [left, right], "title": {"text": "tokens"}, "type": "category"}
        layout[f"yaxis{axis}"] = {
            "anchor": f"x{axis}", "autorange": "reversed", "type": "category", "showticklabels": not number,
            "title": {"text": "" if number else "Depth of the needle"},
        }  # fmt: skip
        short = METHOD_NAMES[method].removeprefix("Plain ")  # two stand side by side on a phone
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": 1.02, "xref": "paper", "yref": "paper", "yanchor": "bottom",
             "xanchor": "center", "showarrow": False, "text": f"<b>{short}</b>", "font": {"size": size}}
        )  # fmt: skip
    figure.update_layout(
        template="none", height=340, margin={"l": 64, "r": 14, "t": 40, "b": 56}, dragmode=False, **layout,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(128,128,128,0.12)",
        font={"family": "system-ui, sans-serif", "size": size, "color": "#7a7f87"},
    )  # fmt: skip
    return figure


def scores(results: Sequence[Result]) -> dict[tuple[str, int, float], list[float]]:
    """The scores of each method, length and depth."""
    found: dict[tuple[str, int, float], list[float]] = {}
    for result in results:
        found.setdefault((result.method, result.length, result.depth), []).append(result.score)
    return found


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


def details(results: Sequence[Result]) -> str:
    """Each test, to be opened: its prompt around the needle, the answer, the score."""
    return "".join(
        f'<details class="test"><summary>{_mark(r)} {METHOD_NAMES[r.method]}, '
        f"{r.length:,} tokens, depth {r.depth:g}, trial {r.trial + 1}: {r.score:.0%}</summary>"
        f"<p>…{escape(r.excerpt)}…</p><p><b>{escape(r.question)}</b></p><p>{escape(r.answer) or '(no answer)'}</p>"
        f"<small>{escape(verdict(r))}. Region {escape(r.region)}, {r.distance:,} tokens back, mapped position "
        f"{r.mapped_position:,}. {_read(r)}</small></details>"
        for r in sorted(results, key=lambda r: (r.length, r.depth, r.trial, r.method))
    )
