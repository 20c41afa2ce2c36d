"""The sweep file: a row of JSON for each evaluation, appended as it ends, and what the rows of a point come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from lampe.calibration.measure import Row
from lampe.calibration.points import CalibrationError, SweepPoint
from lampe.files import Count, append_line, checked, read_lines


def write_row(path: Path, row: Row, source: dict[str, Any]) -> None:
    """Append a row, and what it was measured on."""
    append_line(path, {**asdict(row), **source})


def read_rows(path: Path, source: dict[str, Any]) -> list[Row]:
    """The rows of a file that were measured on this model, weights and text; none where there is no file.

    Raises
    ------
    CalibrationError
        If a line is no row; the message names the line, and the file stays as it is.
    """
    rows = every_row(path) if path.exists() else []
    return [row for row, given in rows if source.items() <= given.items()]


def every_row(path: Path) -> list[tuple[Row, dict[str, Any]]]:
    """The rows of a file, each with all that stands on its line: what it was measured on too.

    Raises
    ------
    CalibrationError
        If a line is no row; the message names the line.
    """
    return read_lines(path, partial(checked, Row), "row of a sweep", CalibrationError)


@dataclass(frozen=True)
class Measured(SweepPoint):
    """The rows of a point, put together.

    Parameters
    ----------
    loss : float or None
        Mean over `windows` windows, in nats; None if there are none.
    found, log_likelihood : float or None
        Share and mean (nats a token) over `needles` needles; None if there are none.
    windows, needles : int

    Raises
    ------
    ValueError
        If the figures can't be.
    """

    loss: float | None = None
    found: float | None = None
    log_likelihood: float | None = None
    windows: Count = 0
    needles: Count = 0

    def __post_init__(self) -> None:
        measured = (self.loss is not None, self.found is not None, self.log_likelihood is not None)
        if measured != (self.windows > 0, self.needles > 0, self.needles > 0):
            raise ValueError(
                "a point has a loss where it has windows, and found and log-likelihood where it has needles"
            )
        if not 0 <= (self.found or 0) <= 1 or (self.log_likelihood or 0) > 0:
            raise ValueError("found must be a share, and a log-likelihood at most 0")

    @property
    def point(self) -> SweepPoint:
        """Which point it is."""
        return SweepPoint(self.length, self.mapping_length, self.head, self.tail, self.attention_scale)

    def cost(self, objective: str, weight: float) -> float:
        """What calibration minimises.

        With N = −`log_likelihood` and n = `needles`:

        - perplexity: the loss, in nats.
        - needle: (1 − found) + N / (1 + N) / n: the share missed. What follows decides between equal shares, and is
          always less than one needle more.
        - both: weight · needle + (1 − weight) · perplexity.

        Raises
        ------
        ValueError
            If what it takes wasn't measured.
        """
        if objective == "both":
            return weight * self.cost("needle", weight) + (1 - weight) * self.cost("perplexity", weight)
        if objective == "perplexity" and self.loss is not None:
            return self.loss
        if objective == "needle" and self.found is not None and self.log_likelihood is not None:
            surprise = -self.log_likelihood
            return 1 - self.found + surprise / (1 + surprise) / self.needles
        raise ValueError(f"at {self.length} tokens nothing was measured for the objective {objective!r}")


def put_together(rows: Iterable[Row]) -> list[Measured]:
    """The rows of each point as one, sorted by length and mapping length; a row that is there twice counts once."""
    points: dict[SweepPoint, list[Row]] = {}
    for row in {row.evaluation: row for row in rows}.values():
        points.setdefault(row.point, []).append(row)
    found = []
    for point, group in points.items():
        losses = [row.loss for row in group if row.loss is not None]
        needles = [row for row in group if row.log_likelihood is not None]
        found.append(
            Measured(
                **asdict(point),
                loss=fmean(losses) if losses else None,
                found=fmean(bool(row.found) for row in needles) if needles else None,
                log_likelihood=fmean(row.log_likelihood or 0.0 for row in needles) if needles else None,
                windows=len(losses),
                needles=len(needles),
            )
        )
    return sorted(found, key=lambda one: (one.length, one.mapping_length, one.head, one.tail, one.attention_scale))


def table(measured: Iterable[Measured], objective: str, weight: float) -> str:
    """The same as a table of text."""
    lines = [
        f"{'tokens':>8}  {'m':>7}  {'Head':>6}  {'Tail':>6}  {'scale':>6}  "
        f"{'loss':>7}  {'found':>6}  {'log-lik.':>8}  cost"
    ]
    for one in measured:
        lines.append(
            f"{one.length:>8,}  {one.mapping_length:>7,}  {one.head:>6,}  {one.tail:>6,}  {one.attention_scale:>6.3g}  "
            f"{_or_dash(one.loss, '7.3f')}  {_or_dash(one.found, '6.0%')}  {_or_dash(one.log_likelihood, '8.3f')}  "
            f"{one.cost(objective, weight):.3f}"
        )
    return "\n".join(lines)


def _or_dash(value: float | None, form: str) -> str:
    width = int(form.split(".")[0])
    return f"{value:{form}}" if value is not None else f"{'–':>{width}}"
