"""Results as HTML: a table of ways and lengths, the samples behind a cell, and what others have published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from app.ui.html import caption, table
from lampe.evaluation.published import PUBLISHED
from lampe.intervals import Difference, Estimate
from lampe.methods import METHODS
from lampe.results import MEASURES, Outcome, Results, area

MOST_SAMPLES = 12
"""That are shown of a cell."""

_COSTS = {"seconds": "s", "megabytes": "MB"}


def title(results: Results, task: str, measure: str, base: str | None) -> str:
    """What a table shows, in a line."""
    one = MEASURES[measure]
    unit = f" ({one.unit})" if one.unit else ""
    less = f", less that of {base}" if base else ""
    return f"{task}: {one.title.lower()}{unit}{less}, by tokens of the prompt"


def value(number: float, measure: str, shares: bool, signed: bool = False) -> str:
    """A figure as it is read."""
    digits = ".0%" if shares else f",.{MEASURES[measure].digits}f"
    return f"{number:{'+' if signed else ''}{digits}}".replace("-", "−")


def comparison(results: Results, task: str, measure: str, base: str | None) -> str:
    """Ways × lengths: each cell with its 95 % interval, and a button that opens its samples."""
    estimates = results.estimates(task, measure)
    apart = results.differences(task, measure, base) if base else {}
    lengths = sorted({length for _, length in estimates})
    shares = results.shares(task, measure)
    cells = results.cells(task)
    costs = [key for key in results.measures(task) if key in _COSTS]
    rows = ""
    for way in dict.fromkeys(way for way, _ in estimates):
        fields = ""
        for length in lengths:
            place = way, length
            less = bool(base) and way != base
            shown = apart.get(place) if less else estimates.get(place)
            if shown is None:
                fields += "<td>–</td>"
                continue
            failed = sum(one.error is not None for one in cells[place])
            # Its number, not its name: a name comes from a file.
            fields += (
                f'<td><button type="button" class="cell{_mark(shown, measure)}" '
                f'data-point="{results.ways.index(way)} {length}" title="Open the samples of {escape(way)}"'
                f">{_figure(shown, measure, shares, failed)}</button></td>"
            )
        own = {length: estimates[way, length].mean for length in lengths if (way, length) in estimates}
        under = area(own) if len(own) == len(lengths) else None
        own_cells = [one for place, cell in cells.items() if place[0] == way for one in cell]
        rows += (
            f'<tr><th scope="row">{escape(way)}</th>{fields}'
            f"<td>{'–' if under is None else value(under, measure, shares)}</td>"
            f"{''.join(f'<td>{_cost(own_cells, key)}</td>' for key in costs)}</tr>"
        )
    named = [f"{length:,}" if length else "As it is" for length in lengths]
    columns = ["Way of reading", *named, "Area", *(MEASURES[key].title for key in costs)]
    return table(columns, rows, escape(title(results, task, measure, base)))


def _cost(outcomes: Sequence[Outcome], measure: str) -> str:
    """The mean of what samples took, where it was measured of each: of short texts alone it would be less."""
    taken = [one.values[measure] for one in outcomes if measure in one.values]
    if len(taken) < len(outcomes):
        return "–"
    return f"{value(sum(taken) / len(taken), measure, shares=False)}&nbsp;{_COSTS[measure]}"


def _figure(one: Estimate, measure: str, shares: bool, failed: int) -> str:
    """A mean with its interval and its samples."""
    signed = isinstance(one, Difference)
    if signed and one.low == one.high == 0 and one.count > 1:
        return f"<b>0</b> <small>the same · {one.count}</small>"
    low, high = (value(end, measure, shares, signed) for end in (one.low, one.high))
    interval = f"{low} to {high}" if one.count > 1 else "one sample"
    told = f" · {failed} failed" if failed else ""
    return f"<b>{value(one.mean, measure, shares, signed)}</b> <small>{interval} · {one.count}{told}</small>"


def _mark(one: Estimate, measure: str) -> str:
    """Whether a difference is one, and to which side."""
    if not isinstance(one, Difference) or one.level:
        return ""
    return " better" if (one.mean < 0) == MEASURES[measure].lower else " worse"


EXPLAINED = caption(
    "Below each figure its 95 % interval (shares: Wilson; others, and paired differences: bootstrap, widened for few "
    "values) and the number of samples. A difference whose interval holds 0 is level; colour marks the others. Area: "
    "the mean over the lengths, evenly on a logarithmic axis, where all were measured. A cell opens its samples."
)


def samples(way: str, length: int, outcomes: Sequence[Outcome]) -> str:
    """What a cell is made of: prompt around the place asked for, answer, score."""
    seen: Counter[str] = Counter()

    def turn(one: Outcome) -> int:
        seen[one.task] += 1
        return seen[one.task]

    # The first of each task, then the second of each.
    shown = "".join(_sample(one) for one in sorted(outcomes, key=turn)[:MOST_SAMPLES])
    more = len(outcomes) - MOST_SAMPLES
    rest = caption(f"{more:,} more are in the file.") if more > 0 else ""
    where = f", {length:,} tokens" if length else ""
    return (
        f'<section class="answer" role="status"><h3>{escape(way)}{where}</h3><ol>{shown}</ol>{rest}</section>'
        if outcomes
        else ""
    )


def _sample(one: Outcome) -> str:
    measured = ", ".join(
        f"{MEASURES[key].title.lower()} {number:.3g}" for key, number in one.values.items() if key not in _COSTS
    )
    excerpt = f'<p class="excerpt">…{escape(one.excerpt)}…</p>' if one.excerpt else ""
    asked = f"<b>{escape(one.question)}</b> " if one.question else ""
    answered = f"<p>{asked}{escape(one.answer) or '(no answer kept)'}</p>" if one.answer or one.expected else ""
    expected = f" Expected: {escape(', '.join(one.expected))}." if one.expected else ""
    failed = f" {escape(one.error)}" if one.error else ""
    return (
        f'<li>{excerpt}{answered}<p class="verdict"><b>{escape(measured)}</b>{failed}</p>'
        f"<small>{escape(one.task)}, {escape(one.sample)}; {one.values['seconds']:.1f} s.{expected}</small></li>"
    )


def published() -> str:
    """The published figures, with their source: other models, never in one table with what was measured here."""
    rows = ""
    for benchmark, model in dict.fromkeys((one.benchmark, one.model) for one in PUBLISHED):
        own = [one for one in PUBLISHED if (one.benchmark, one.model) == (benchmark, model)]
        methods = list(dict.fromkeys(one.method for one in own))
        for method in methods:
            figures = " · ".join(f"{one.value:.2f} <small>{one.setting}</small>" for one in own if one.method == method)
            source = " ".join(dict.fromkeys(one.source for one in own if one.method == method))
            of = f'<th scope="rowgroup" rowspan="{len(methods)}">{benchmark}<br><small>{model}</small></th>'
            rows += f"<tr>{of if method == methods[0] else ''}<td>{METHODS[method].title}</td><td>{figures}</td>"
            rows += f"<td>{source}</td></tr>"
    return table(("Benchmark", "Method", "Published", "Source"), rows, "Published, on models that don't run here")


def source(results: Results, command: str | None) -> str:
    """What the rows were measured on, and whether they come with the page."""
    made = f" Recorded, by <code>{escape(command)}</code>." if command else " From the file that was opened."
    return caption(f"{escape(results.source)}.{made}")


def link(query: str) -> str:
    """A link to what is shown."""
    return caption(f'<a class="link" href="?{escape(query)}">Link to this table</a>')
