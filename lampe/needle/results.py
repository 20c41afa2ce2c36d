"""Results put together: shares found with their uncertainty, and rows read back from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lampe.files import checked, method_of, read_lines
from lampe.intervals import wilson
from lampe.methods import METHODS
from lampe.needle.cells import Cell
from lampe.needle.running import Result
from lampe.needle.tasks import NeedleError


def summary_rows(results: Iterable[Result]) -> list[tuple[int, str, float, float, float, int]]:
    """For each length and method: the mean score, its Wilson interval, and the number of tests.

    Returns
    -------
    list of (length, method, share, low, high, tests)
    """
    cells: dict[tuple[int, str], list[float]] = {}
    for result in results:
        cells.setdefault((result.length, result.method), []).append(result.score)
    return [
        (length, method, sum(scores) / len(scores), *wilson(sum(scores), len(scores)), len(scores))
        for (length, method), scores in sorted(cells.items(), key=_in_order)
    ]


def _in_order(cell: tuple[tuple[int, str], Any]) -> tuple[int, int]:
    """By length, and as the methods are listed."""
    (length, method), _ = cell
    return length, list(METHODS).index(method)


def summary(results: Iterable[Result]) -> str:
    """The same as a table of text."""
    results = list(results)
    wide = max([6, *(len(result.method) for result in results)])
    lines = [f"{'tokens':>8}  {'method':<{wide}}  {'found':>6}  {'95 % interval':<15}  tests"]
    for length, method, share, low, high, tests in summary_rows(results):
        lines.append(f"{length:>8,}  {method:<{wide}}  {share:>6.0%}  {low:>5.0%} to {high:<6.0%}  {tests}")
    for length, method, alone, lampe_alone, tests, p in paired_rows(results):
        lines.append(
            f"{length:>8,}  {method:<{wide}}  found alone {alone}, LaMPE alone {lampe_alone}, of {tests} tests of both "
            f"(McNemar's exact p = {p:.2g})"
        )
    return "\n".join(lines)


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact two-sided p of McNemar's test, from how many tests only one and only the other of two has found."""
    trials, fewer = only_one + only_other, min(only_one, only_other)
    return min(1.0, 2 * sum(math.comb(trials, k) for k in range(fewer + 1)) / 2**trials)


def paired_rows(results: Iterable[Result], base: str = "lampe") -> list[tuple[int, str, int, int, int, float]]:
    """Each method against another one, by length, on the tests that both have done.

    Returns
    -------
    list of (length, method, found by it alone, found by the base alone, tests, p of McNemar's test)
    """
    scores: dict[tuple[int, str], dict[Cell, float]] = {}
    for result in results:
        scores.setdefault((result.length, result.method), {})[replace(result.cell, method=base)] = result.score
    rows = []
    for (length, method), theirs in sorted(scores.items(), key=_in_order):
        ours = scores.get((length, base), {})
        both = [(theirs[cell] == 1, ours[cell] == 1) for cell in theirs if cell in ours]
        if method != base and both:
            alone, base_alone = both.count((True, False)), both.count((False, True))
            rows.append((length, method, alone, base_alone, len(both), mcnemar(alone, base_alone)))
    return rows


def row_of(result: Result, ran_with: Mapping[str, Any]) -> str:
    """A result as a line of JSON, with the model and the bits that it ran with."""
    return json.dumps({**asdict(result), **ran_with}) + "\n"


@dataclass(frozen=True)
class _RanWith:
    model: str
    bits: Literal[4, 16]


def read_rows(path: Path) -> list[tuple[Result, dict[str, Any]]]:
    """The results in a file of JSON lines, each with the model and the bits that it ran with.

    Raises
    ------
    NeedleError
        If a line is no result; the message names the line.
    """

    def made(given: dict[str, Any]) -> tuple[Result, dict[str, Any]]:
        result = checked(Result, given)
        _ = result.cell  # an impossible one is refused
        if result.settings is not None:
            method_of(given)  # so are impossible settings
        return result, asdict(checked(_RanWith, given))

    return [row for row, _ in read_lines(path, made, "result of a needle test", NeedleError, whole=False)]


def read_results(path: Path) -> list[Result]:
    """The results alone; see `read_rows`."""
    return [result for result, _ in read_rows(path)]
