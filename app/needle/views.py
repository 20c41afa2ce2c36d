"""Needle tests as HTML. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import mean

from app.needle.figures import by_point
from app.serving.requests import Variant
from app.ui.html import about, caption, note, row
from app.ui.html import table as table_of
from lampe.methods import METHODS
from lampe.needle import Result, paired_rows, summary_rows
from lampe.positions import PositionMap
from lampe.results import Results


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
    method, slug, beyond = METHODS[result.method], Variant(result.method).slug, ""
    if result.settings is not None:  # older rows have none
        beyond = method.from_settings(result.settings).beyond(result.length)
    return (
        f'<section class="answer {slug}" id="needle-answer-{slug}" aria-label="Answer of {method.title}" tabindex="0">'
        f"<h3>{method.title}</h3><p>{escape(result.answer) or '(no answer)'}</p>"
        f'<p class="verdict"><b>{_mark(result.score)} {escape(verdict(result))}</b></p>'
        f"<small>{escape(result.question)} {_read(result)} {escape(beyond)}</small></section>"
    )


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


def before(results: Results, rows: str, command: str) -> str:
    """What the recorded heat maps are of, and where their samples are."""
    link = f'<a class="link" href="?view=results&amp;rows={rows}">Every answer, in Results</a>'
    each = max(map(len, results.cells(results.tasks[0]).values()))
    return caption(
        f"<b>Recorded</b>, not run now: the share found of {each} numbers at each length by each method. "
        f"{escape(results.source)}. By <code>{escape(command)}</code>. {link}"
    )


def time(tests: int, seconds: float | None) -> str:
    """How long a grid takes."""
    if not tests:
        return note("Every test of this grid is done.")
    long = "the time isn’t measured yet" if seconds is None else f"{about(seconds)} here"
    return note(f"{tests:,} test{'s' * (tests != 1)}: {long}.")


def table(results: Sequence[Result]) -> str:
    """The share found for each length and method, with its interval; and each method against LaMPE, test by test."""
    if not results:
        return ""
    rows = "".join(
        row(f"{length:,} tokens", METHODS[method].title, f"{share:.0%}", f"{low:.0%} to {high:.0%}", trials)
        for length, method, share, low, high, trials in summary_rows(results)
    )
    found = table_of(("Prompt", "Method", "Found", "95 % interval", "Tests"), rows)
    pairs = "".join(
        row(f"{length:,} tokens", METHODS[method].title, ours, alone, tests, f"{p:.2g}")
        for length, method, alone, ours, tests, p in paired_rows(results)
    )
    if not pairs:
        return found
    columns = ("Prompt", "LaMPE against", "Found by LaMPE alone", "Found by the other alone", "Tests of both", "p")
    return f"{found}{table_of(columns, pairs)}" + caption(
        "The same needles for all. p is McNemar’s exact test: how often chance alone would split the tests that only "
        "one has found at least so unevenly."
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
