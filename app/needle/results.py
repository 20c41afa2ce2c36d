"""The results of a grid of needle tests, and the files that they are taken home in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app.needle.forms import MOST_TESTS
from app.ui.spreadsheet import as_table
from lampe.errors import InputError
from lampe.methods import METHODS, Method
from lampe.needle import Cell, Result, read_rows, row_of

MOST_ROWS_BYTES = 5_000_000


@dataclass(frozen=True)
class GridResults:
    """Results of one task, text, model and setting of each method: what heat maps can put side by side.

    Parameters
    ----------
    rows : tuple of Result
    ran_with : dict
        Model and bits.
    """

    rows: tuple[Result, ...] = ()
    ran_with: Mapping[str, Any] = field(default_factory=dict)

    def going_on(
        self, task: str, haystack: str, ran_with: Mapping[str, Any], methods: Mapping[str, Method]
    ) -> GridResults:
        """The same, to be added to with these settings of the methods.

        Raises
        ------
        InputError
            If these results are of something else, or of other settings of a method.
        """
        if self.rows:
            first, ran = self.rows[0], self.ran_with
            if (first.task, first.haystack, ran) != (task, haystack, ran_with):
                raise InputError(
                    f"The results below are of the task {first.task!r} in {first.haystack!r}, read by {ran['model']} "
                    f"in {ran['bits']} bits. Save them and forget them first: a heat map shows one task, text and "
                    "model."
                )
        if others := {row.method for row in self.rows if not row.ran_by(methods)}:
            raise InputError(
                f"The results of {' and '.join(METHODS[key].title for key in others)} below were read with other "
                "settings than those that would run now. Save them and forget them first: a heat map shows one setting "
                "of a method."
            )
        return replace(self, ran_with=ran_with)

    def missing(self, wanted: Sequence[Cell]) -> list[Cell]:
        """Those of some cells that have no result yet."""
        done = {row.cell for row in self.rows}
        return [cell for cell in wanted if cell not in done]


def as_jsonl(results: GridResults) -> str:
    return "".join(row_of(result, results.ran_with) for result in results.rows)


def as_csv(results: GridResults) -> str:
    return as_table(
        [asdict(row) | {"expected": " | ".join(row.expected)} | dict(results.ran_with) for row in results.rows]
    )


FILES = {"CSV": ("csv", as_csv), "JSONL": ("jsonl", as_jsonl)}
"""What can be saved, by its name for people: the file's ending, and what makes its text."""


def opened(path: Path) -> GridResults:
    """The results in a file that a visitor brings.

    Raises
    ------
    InputError, NeedleError
        If it is too large, empty, or not such a file.
    """
    if path.stat().st_size > MOST_ROWS_BYTES:
        raise InputError(f"This file is larger than {MOST_ROWS_BYTES / 1e6:.0f} MB; no grid here makes such a one.")
    try:
        rows = read_rows(path)
    except UnicodeDecodeError:
        raise InputError("This file isn't text, so it holds no results.") from None
    if not rows:
        raise InputError("This file is empty: it holds no results.")
    results, (first, *others) = [result for result, _ in rows], [ran_with for _, ran_with in rows]
    if any(other != first for other in others) or len({(r.task, r.haystack) for r in results}) > 1:
        raise InputError(
            "This file mixes results of several models, tasks or texts; a file of one of each can be shown."
        )
    settings = {(r.method, r.length, r.mapping_length, r.head, r.tail, r.attention_scale) for r in results}
    if len(settings) > len({(method, length) for method, length, *_ in settings}):
        raise InputError("This file mixes results of several settings of a method; a file of one of each can be shown.")
    points = len({r.length for r in results}) * len({r.depth for r in results})
    if points > MOST_TESTS:
        raise InputError(f"This file has {points:,} points of length and depth; at most {MOST_TESTS} can be drawn.")
    return GridResults(tuple(results), first)
