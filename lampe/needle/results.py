"""Results put together: shares found with their uncertainty, and rows read back from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from lampe.needle.running import Result
from lampe.needle.tasks import NeedleError


def wilson(found: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share of trials; z = 1.96 gives 95 %."""
    share = found / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


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
        for (length, method), scores in sorted(cells.items())
    ]


def summary(results: Iterable[Result]) -> str:
    """The same as a table of text."""
    lines = [f"{'tokens':>8}  {'method':<6}  {'found':>6}  {'95 % interval':<15}  tests"]
    for length, method, share, low, high, tests in summary_rows(results):
        lines.append(f"{length:>8,}  {method:<6}  {share:>6.0%}  {low:>5.0%} to {high:<6.0%}  {tests}")
    return "\n".join(lines)


def read_results(path: Path) -> list[Result]:
    """The results in a file of JSON lines.

    Raises
    ------
    NeedleError
        If a line is no result; the message names the line.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(_result(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise NeedleError(
                f"Line {number} of {path.name} is no result of a needle test ({error!r:.120})."
            ) from error
    return found


_KINDS: dict[str, Any] = {
    "int": int,
    "float": int | float,
    "str": str,
    "bool": bool,
    "float | None": int | float | None,
}


def _result(row: Any) -> Result:
    """A row of a file, checked: somebody may have written it."""
    given = {field.name: row[field.name] for field in fields(Result)}
    for field in fields(Result):
        value = given[field.name]
        if field.name == "expected":
            if not (isinstance(value, list) and value and all(isinstance(part, str) for part in value)):
                raise TypeError("expected must be a list of texts")
            given["expected"] = tuple(value)
        elif not isinstance(value, _KINDS[str(field.type)]):
            raise TypeError(f"{field.name} must be {field.type}")
    result = Result(**given)
    _ = result.cell  # an impossible one is refused
    if not 0 <= result.score <= 1:
        raise ValueError("a score is from 0 to 1")
    return result
