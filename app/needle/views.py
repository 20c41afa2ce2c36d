"""Needle tests as HTML and as a figure. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from statistics import mean
from typing import Any, NamedTuple

import plotly.graph_objects as go

from app.serving.requests import Variant
from app.ui.figure import GREY
from app.ui.html import about, note
from lampe.methods import METHODS
from lampe.needle import Cell, Result, paired_rows, summary_rows
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
    name, slug = METHODS[result.method].title, Variant(result.method).slug
    return (
        f'<section class="answer {slug}" id="needle-answer-{slug}" aria-label="Answer of {name}" tabindex="0">'
        f"<h3>{name}</h3><p>{escape(result.answer) or '(no answer)'}</p>"
        f'<p class="verdict"><b>{_mark(result.score)} {escape(verdict(result))}</b></p>'
        f"<small>{escape(result.question)} {_read(result)} {escape(_beyond(result))}</small></section>"
    )


def _beyond(result: Result) -> str:
    """That the prompt is longer than the method reaches, if it is."""
    if result.settings is None:  # an older row
        return ""
    return METHODS[result.method].from_settings(result.settings).beyond(result.length)


def _read(result: Result) -> str:
    kept = result.length - result.read_tokens
    shared = f" ({kept:,} kept from the test before)" if kept else ""
    repeated = " The text was too short and was repeated." if result.repeated else ""
    return f"{result.length:,} tokens read in {result.seconds:.1f} s{shared}.{repeated}"


def place(result: Result, position_map: PositionMap) -> str:
    """Where the needle lies in the text, under the map that read it."""
    last = result.length - 1
    role = position_map.regions[position_map.region(last, result.place)].role
    reached = "" if result.attention is None else f" {result.attention:.1%} of the last token's attention fell on it."
    parts = ""
    for region in reversed(position_map.regions):  # the text's start is the farthest from the query
        first, stop = region.key_span(last)
        share = (stop - first) / result.length
        parts += f'<i class="region-{region.role}" style="width:{share:.3%}" title="{region.name}"></i>'
    return (
        f'<div class="place"><div class="strip" aria-hidden="true">{parts}'
        f'<u style="left:{result.place / result.length:.2%}"></u></div>'
        f'<p class="caption">Under {METHODS[result.method].title} the needle ends at token {result.place:,} of '
        f"{result.length:,}: {result.distance:,} tokens before the question's end, in region "
        f'<span class="chip region-{role}"></span><b>{escape(result.region)}</b>, at mapped position '
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


class _Panel(NamedTuple):
    """One heat map of several: a value and what it is about for each depth and length, None where there is none yet."""

    name: str
    values: list[list[float | None]]
    points: list[list[str]]


_COLUMNS = 2  # as many as a phone has room for


def heat(results: Sequence[Result], cells: Sequence[Cell], big: bool = False) -> go.Figure:
    """The mean score of each length and depth, a map for each method, side by side; blank until it is there."""
    found = {point: mean(r.score for r in tests) for point, tests in by_point(results).items()}
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    panels = []
    for method in dict.fromkeys(cell.method for cell in cells):
        points = [[Point(method, n, d) for n in lengths] for d in depths]
        values = [[found.get(point) for point in row] for row in points]
        panels.append(_Panel(METHODS[method].title, values, [list(map(str, row)) for row in points]))
    colours = {"zmin": 0, "zmax": 1, "colorscale": "Cividis"}
    return _heat_maps(panels, lengths, depths, ".0f", "found %{z:.0%}", colours, big)


def differences(results: Sequence[Result], base: str = "lampe", big: bool = False) -> go.Figure | None:
    """How much more of the same tests LaMPE has found than each other method; None where nothing can be compared."""
    scores: dict[Point, dict[tuple[int, int], float]] = {}
    for result in results:
        scores.setdefault(Point(result.method, result.length, result.depth), {})[result.trial, result.seed] = (
            result.score
        )
    others = [method for method in dict.fromkeys(point.method for point in scores) if method != base]
    lengths, depths = sorted({point.length for point in scores}), sorted({point.depth for point in scores})
    panels = []
    for method in others:
        rows = []
        for d in depths:
            pairs = [(scores.get(Point(base, n, d), {}), scores.get(Point(method, n, d), {})) for n in lengths]
            rows.append([_less(ours, theirs) for ours, theirs in pairs])
        if any(value is not None for row in rows for value in row):
            points = [[str(Point(method, n, d)) for n in lengths] for d in depths]
            panels.append(_Panel(f"{METHODS[base].title} less {METHODS[method].title}", rows, points))
    if not panels:
        return None
    colours = {"zmin": -1, "zmax": 1, "colorscale": "RdBu"}
    return _heat_maps(panels, lengths, depths, "+.0f", "%{z:+.0%} of the same tests", colours, big)


def _less(ours: dict[tuple[int, int], float], theirs: dict[tuple[int, int], float]) -> float | None:
    """The mean difference over what both have done."""
    both = ours.keys() & theirs.keys()
    return mean(ours[trial] - theirs[trial] for trial in both) if both else None


def _heat_maps(
    panels: Sequence[_Panel], lengths: Sequence[int], depths: Sequence[float], shown: str, hover: str,
    colours: dict[str, Any], big: bool,
) -> go.Figure:  # fmt: skip
    """Heat maps on one colour scale, up to two in a row; the numbers in them are per cent."""
    size = 18 if big else 13
    columns = max(1, min(_COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = go.Figure()
    layout: dict[str, Any] = {"annotations": []}
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        axis = "" if not number else str(number + 1)
        text = [["" if value is None else format(100 * value, shown) for value in line] for line in panel.values]
        figure.add_heatmap(
            x=[_short(n) for n in lengths], y=[f"{d:g}" for d in depths], z=panel.values, text=text,
            texttemplate="%{text}", hovertext=[[f"{n:,}" for n in lengths]] * len(depths), customdata=panel.points,
            xgap=2, ygap=2, xaxis=f"x{axis}", yaxis=f"y{axis}", name=panel.name, hoverongaps=False,
            showscale=number == len(panels) - 1, colorbar={"tickformat": ".0%", "thickness": 12}, **colours,
            hovertemplate=f"%{{hovertext}} tokens, depth %{{y}}<br>{hover}<extra>{panel.name}</extra>",
        )  # fmt: skip
        left, right = column / columns + 0.03 * bool(column), (column + 1) / columns - 0.03
        low, high = 1 - (row + 1) / rows + 0.12 * (row < rows - 1), 1 - row / rows - 0.06 * bool(row)
        named = {"type": "category", "automargin": True, "showgrid": False}
        last = number + columns >= len(panels)
        layout[f"xaxis{axis}"] = {
            "domain": [left, right], "anchor": f"y{axis}", "title": {"text": "tokens" if last else ""}, **named,
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {
            "domain": [low, high], "anchor": f"x{axis}", "autorange": "reversed", "showticklabels": not column,
            "title": {"text": "" if column else "Depth of the needle"}, **named,
        }  # fmt: skip
        # They stand side by side on a phone.
        short = panel.name.removeprefix("Plain ").removeprefix("LaMPE less ") if columns > 1 else panel.name
        short = f"less {short}" if short != panel.name and panel.name.startswith("LaMPE less ") else short
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": high + 0.01, "xref": "paper", "yref": "paper", "yanchor": "bottom",
             "xanchor": "center", "showarrow": False, "text": f"<b>{short}</b>", "font": {"size": size}}
        )  # fmt: skip
    figure.update_layout(
        template="none", height=90 + 250 * rows, margin={"l": 64, "r": 14, "t": 40, "b": 56}, dragmode=False, **layout,
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
    """The share found for each length and method, with its interval; and each method against LaMPE, test by test."""
    if not results:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{length:,} tokens</th><td>{METHODS[method].title}</td><td>{share:.0%}</td>'
        f"<td>{low:.0%} to {high:.0%}</td><td>{trials}</td></tr>"
        for length, method, share, low, high, trials in summary_rows(results)
    )
    found = _table(("Prompt", "Method", "Found", "95 % interval", "Tests"), rows)
    pairs = "".join(
        f'<tr><th scope="row">{length:,} tokens</th><td>{METHODS[method].title}</td><td>{ours}</td><td>{alone}</td>'
        f"<td>{tests}</td><td>{p:.2g}</td></tr>"
        for length, method, alone, ours, tests, p in paired_rows(results)
    )
    if not pairs:
        return found
    columns = ("Prompt", "LaMPE against", "Found by LaMPE alone", "Found by the other alone", "Tests of both", "p")
    return (
        f"{found}{_table(columns, pairs)}"
        '<p class="caption">The same needles for all. p is McNemar’s exact test: how often chance alone would split '
        "the tests that only one has found at least so unevenly.</p>"
    )


def _table(columns: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    return (
        f'<div class="scroll"><table class="figures"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def point_buttons(results: Sequence[Result]) -> str:
    """A button for each point of the heat maps: what a click there shows, for keyboards and screen readers."""
    buttons = "".join(
        f'<button type="button" data-point="{point}">{_mark(mean(r.score for r in tests))} '
        f"{METHODS[point.method].title}, {point.length:,} tokens, depth {point.depth:g}: "
        f"{mean(r.score for r in tests):.0%} of {len(tests)}</button>"
        for point, tests in sorted(by_point(results).items(), key=lambda item: (item[0].length, item[0].depth))
    )
    return buttons and f'<p class="caption">Each point, to be looked into:</p><div class="tests">{buttons}</div>'


def details(results: Sequence[Result]) -> str:
    """The tests of one point: the prompt around the needle, the answer, the score."""
    if not results:
        return ""
    first = results[0]
    slug, title = Variant(first.method).slug, METHODS[first.method].title
    tests = "".join(
        f'<li><p class="excerpt">…{escape(r.excerpt)}…</p><p><b>{escape(r.question)}</b> '
        f"{escape(r.answer) or '(no answer)'}</p>"
        f'<p class="verdict"><b>{_mark(r.score)} {escape(verdict(r))}</b></p>'
        f"<small>Trial {r.trial + 1}, seed {r.seed}. Region {escape(r.region)}, {r.distance:,} tokens back, mapped "
        f"position {r.mapped_position:,}. {_read(r)}</small></li>"
        for r in sorted(results, key=lambda r: (r.seed, r.trial))
    )
    return (
        f'<section class="answer {slug}" role="status"><h3>{title}, {first.length:,} tokens, depth '
        f"{first.depth:g}</h3><ol>{tests}</ol></section>"
    )
