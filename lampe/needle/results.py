"""Results put together: shares found with their uncertainty, and rows read back from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from lampe.needle.running import Result
from lampe.needle.tasks import NeedleError


def wilson(found: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share of trials; z = 1.96 gives 95 %."""
    share = found / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def summary(results: Iterable[Result]) -> str:
    """A table of the mean score for each length and method, with its Wilson interval."""
    cells: dict[tuple[int, str], list[float]] = {}
    for result in results:
        cells.setdefault((result.length, result.method), []).append(result.score)
    lines = [f"{'tokens':>8}  {'method':<6}  {'found':>6}  {'95 % interval':<15}  trials"]
    for (length, method), scores in sorted(cells.items()):
        low, high = wilson(sum(scores), len(scores))
        share = sum(scores) / len(scores)
        lines.append(f"{length:>8,}  {method:<6}  {share:>6.0%}  {low:>5.0%} to {high:<6.0%}  {len(scores)}")
    return "\n".join(lines)


def read_results(path: Path) -> list[Result]:
    """The results in a file of JSON lines.

    Raises
    ------
    NeedleError
        If a line is no result; the message names the line.
    """
    names = {field.name for field in fields(Result)}
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            given = {name: row[name] for name in names}
            found.append(Result(**given | {"expected": tuple(given["expected"])}))
        except (ValueError, KeyError, TypeError) as error:
            raise NeedleError(f"Line {number} of {path.name} is no result of a needle test ({error!r}).") from error
    return found
