"""The sweep: which points are measured at each length, in which order, and what is left to do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lampe.calibration.measure import Row
from lampe.calibration.points import (
    OBJECTIVES,
    CalibrationError,
    Evaluation,
    SweepPoint,
    coarse_mappings,
    evaluations,
    refined_mappings,
    work,
)
from lampe.calibration.rows import Measured, put_together
from lampe.methods import LampeConfig

SWEPT = ("mapping_length", "head", "tail", "attention_scale")


@dataclass(frozen=True)
class Sweep:
    """What is to be measured.

    Parameters
    ----------
    base : LampeConfig
        Window, Head, Tail and attention scale. Its mapping counts only where another parameter is swept.
    lengths : tuple of int
        Input lengths, in tokens.
    text_tokens : int
        Tokens of the text.
    objective : str
        One of `OBJECTIVES`.
    weight : float
        The needles' weight in "both"; see `Measured.cost`.
    windows, needles : int
        Windows of the text for each point, and needles that are hidden together in each.
    seed : int
        Of the needles.
    steps, refine : int
        See `coarse_mappings`; and how often the neighbourhood of the best is refined.
    over : str or None
        One of `SWEPT`: sweep this one over `values`, under the mapping of `base`; None sweeps the mapping length over
        a grid of its own.
    values : tuple of int or float
        A mapping length of at least the input's own is "not mapped".

    Raises
    ------
    CalibrationError
        If it can't be done.
    """

    base: LampeConfig
    lengths: tuple[int, ...]
    text_tokens: int
    objective: str = "both"
    weight: float = 0.5
    windows: int = 2
    needles: int = 8
    seed: int = 1000
    steps: int = 7
    refine: int = 1
    over: str | None = None
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise CalibrationError(f"The objective is one of {', '.join(OBJECTIVES)}, not {self.objective!r}.")
        if not 0 <= self.weight <= 1:  # nor NaN
            raise CalibrationError(f"The needles' weight is from 0 to 1, not {self.weight}.")
        for name, least in (("windows", 1), ("needles", 1), ("steps", 2), ("refine", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise CalibrationError(f"{name.capitalize()} must be at least {least}, not {getattr(self, name)}.")
        if self.over is not None and (self.over not in SWEPT or not self.values):
            raise CalibrationError(f"Name one of {', '.join(SWEPT)} to sweep over, and at least one value of it.")
        lengths = tuple(sorted(set(self.lengths)))
        object.__setattr__(self, "lengths", lengths)
        least = max(point.head + point.tail for point in self._first_points(1)) + 2
        if not lengths or lengths[0] < least:
            raise CalibrationError(
                f"Head and Tail leave no room for a mapping in fewer than {least:,} tokens: name at least one length, "
                "and none below that."
            )
        named = lengths if self.over == "mapping_length" else ()
        for point in itertools.chain.from_iterable(map(self._first_points, named)):
            m = point.mapping_length
            if m < point.length and not point.head + point.tail < m <= self.base.window:
                raise CalibrationError(
                    f"{point.length:,} tokens can't be mapped to {m:,}: name mapping lengths above "
                    f"{point.head + point.tail:,} (Head + Tail), up to {self.base.window:,} (the window), or of the "
                    "input itself, which isn't mapped then."
                )
        if self.text_tokens < lengths[-1]:
            raise CalibrationError(
                f"The text has {self.text_tokens:,} tokens, and a window has up to {lengths[-1]:,}: take a longer text "
                "or shorter lengths."
            )

    def _first_points(self, length: int) -> list[SweepPoint]:
        """What a length is tried with before anything is known about it."""
        base = self.base
        point = SweepPoint(length, base.mapping_length(length), base.head, base.tail, base.attention_scale)
        if self.over is not None:
            kind = float if self.over == "attention_scale" else int
            most = length if self.over == "mapping_length" else math.inf
            swept: list[dict[str, Any]] = [{self.over: kind(min(value, most))} for value in self.values]
            return list(dict.fromkeys(replace(point, **change) for change in swept))
        mappings = coarse_mappings(length, base.window, base.head, base.tail, self.steps)
        return [replace(point, mapping_length=m) for m in mappings]

    def _evaluations(self, point: SweepPoint) -> list[Evaluation]:
        return evaluations(point, self.objective, self.windows, self.needles, self.seed)

    def _at(self, length: int, done: dict[Evaluation, Row]) -> tuple[list[SweepPoint], int]:
        """The points of a length as far as the results at hand tell, and how many refinements await results."""
        points = self._first_points(length)
        for told in range(0 if self.over else self.refine):
            if any(evaluation not in done for point in points for evaluation in self._evaluations(point)):
                return points, self.refine - told
            costs = {one.mapping_length: one.cost(self.objective, self.weight) for one in self._measured(points, done)}
            points += [replace(points[0], mapping_length=m) for m in refined_mappings(costs)]
        return points, 0

    def _measured(self, points: list[SweepPoint], done: dict[Evaluation, Row]) -> list[Measured]:
        return put_together(done[e] for point in points for e in self._evaluations(point) if e in done)

    def missing(self, length: int, rows: Iterable[Row]) -> list[Evaluation]:
        """What is to be measured next at a length; more may follow from its results. Empty when the length is done."""
        done = {row.evaluation: row for row in rows}
        return [e for point in self._at(length, done)[0] for e in self._evaluations(point) if e not in done]

    def work_left(self, rows: Iterable[Row]) -> float:
        """About how much is left to do, as `points.work` counts; a refinement is taken for two points."""
        done = {row.evaluation: row for row in rows}
        total = 0.0
        for length in self.lengths:
            points, refinements = self._at(length, done)
            expected = [e for point in points for e in self._evaluations(point) if e not in done]
            expected += self._evaluations(points[0]) * (2 * refinements)
            total += sum(self.work(evaluation) for evaluation in expected)
        return total

    def work(self, evaluation: Evaluation) -> float:
        """See `points.work`."""
        return work(evaluation, self.base.window)

    def own(self, rows: Iterable[Row]) -> list[Row]:
        """Those rows that are of this sweep, point by point."""
        done = {row.evaluation: row for row in rows}
        points = [point for length in self.lengths for point in self._at(length, done)[0]]
        return [done[e] for point in points for e in self._evaluations(point) if e in done]

    def measured(self, rows: Iterable[Row]) -> list[Measured]:
        """What the rows of this sweep come to, for each point of which there is any; other rows don't count."""
        return put_together(self.own(rows))

    def run(self, measure: Callable[[list[Evaluation]], Iterable[Row]], kept: Iterable[Row] = ()) -> Iterator[Row]:
        """Measure what is missing: all points in one window, then in the next, the short lengths first.

        So a sweep that was stopped has measured all points about equally well.

        Parameters
        ----------
        measure : callable
            Gives the rows of some evaluations, in any order; one that gives none ends the sweep.
        kept : iterable of Row
            What was measured before.
        """
        rows = list(kept)
        while missing := [one for length in self.lengths for one in self.missing(length, rows)]:
            before = len(rows)
            for row in measure(sorted(missing, key=lambda one: one.text_window)):
                rows.append(row)
                yield row
            if len(rows) == before:
                return
