"""A table of results as files to take home: CSV, JSON and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from app.results.views import title
from app.ui.spreadsheet import as_table
from lampe.results import MEASURES, Results


class Asked(NamedTuple):
    """What a table shows.

    Parameters
    ----------
    task, measure : str
    base : str or None
        Differences to this way.
    """

    task: str
    measure: str
    base: str | None = None


def rows_of(results: Results, asked: Asked) -> list[dict[str, Any]]:
    """A row for each way and length: the estimate, and the difference where one is asked for."""
    apart = results.differences(asked.task, asked.measure, asked.base) if asked.base else {}
    found = []
    for (way, length), one in results.estimates(asked.task, asked.measure).items():
        row: dict[str, Any] = {
            "task": asked.task, "measure": asked.measure, "way": way, "length": length, "mean": one.mean,
            "low": one.low, "high": one.high, "samples": one.count,
        }  # fmt: skip
        if asked.base:
            less = apart.get((way, length))
            row |= {"less": asked.base, "difference": less and less.mean}
            row |= {"difference_low": less and less.low, "difference_high": less and less.high}
            row |= {"pairs": less.count if less else 0}
        found.append(row)
    return found


def as_csv(results: Results, asked: Asked) -> str:
    return as_table(rows_of(results, asked))


def as_json(results: Results, asked: Asked) -> str:
    return json.dumps({"source": results.source, "rows": rows_of(results, asked)}, indent=1)


_LATEX = str.maketrans(
    {one: f"\\{one}" for one in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$"}
    | {"\n": " ", "\r": " ", "−": "$-$"}
)


def as_latex(results: Results, asked: Asked) -> str:
    """A table for booktabs: ways down, lengths across, intervals as sub- and superscripts."""
    task, measure, base = asked
    cells = results.differences(task, measure, base) if base else results.estimates(task, measure)
    lengths = sorted({length for _, length in cells})
    form = f"{'+' if base else ''}.{MEASURES[measure].digits}f"
    lines = [
        f"% {_line(results.source)}",
        f"% {_line(title(results, *asked))}",
        r"\begin{tabular}{l" + "r" * len(lengths) + "}",
        r"\toprule",
        " & ".join(["Way of reading", *(f"{length:,}" if length else "as is" for length in lengths)]) + r" \\",
        r"\midrule",
    ]
    for way in dict.fromkeys(way for way, _ in cells):
        found = [cells.get((way, length)) for length in lengths]
        fields = [f"${one.mean:{form}}_{{{one.low:{form}}}}^{{{one.high:{form}}}}$" if one else "--" for one in found]
        lines.append(" & ".join([way.translate(_LATEX), *fields]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _line(text: str) -> str:
    """For a comment, which ends with its line."""
    return " ".join(text.split())


FILES: dict[str, tuple[str, Callable[[Results, Asked], str]]] = {
    "CSV": ("csv", as_csv),
    "JSON": ("json", as_json),
    "LaTeX": ("tex", as_latex),
}
"""What can be saved, by its name for people: the file's ending, and what makes its text."""
