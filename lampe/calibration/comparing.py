"""Any methods on the same windows of text and the same needles: rows to compare, and the best settings of one.

A sweep fits LaMPE's curve; here each method is taken with settings as they are. What is read, hidden and asked is the
same as in a sweep, so that a method costs as many reads here as LaMPE does there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lampe.calibration.measure import Outcome, read_window, text_of
from lampe.calibration.points import CalibrationError
from lampe.files import Count, Size, append_line, checked, method_of, read_lines
from lampe.methods import Method
from lampe.needle import TokenizedHaystack


@dataclass(frozen=True)
class Asked:
    """What is read and asked, whichever method reads it: a window's loss, or one of the needles hidden in it.

    Parameters
    ----------
    length : int
        In tokens.
    text_window : int
        The number of the window, from 0: see `lampe.calibration.points.window_end`.
    hidden : int
        Needles hidden together in it; 0 for the text alone.
    asked : int or None
        The number of the needle that is asked for, from 0; None for the loss.
    seed : int
        Of the needles.
    """

    length: Size
    text_window: Count
    hidden: Count
    asked: Count | None
    seed: Count


@dataclass(frozen=True)
class Trial(Asked):
    """One thing to be measured: what `Asked` says, read by a method; its fields are those of `Asked`, and `method`."""

    method: Method


@dataclass(frozen=True)
class TrialRow(Outcome, Trial):
    """What came of a trial; its fields are those of `Trial` and of `Outcome`.

    Raises
    ------
    ValueError
        If it isn't what was tried.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.asked is None) != (self.loss is not None):
            raise ValueError("a row holds a loss, or the needle that was asked for")

    @property
    def trial(self) -> Trial:
        """What it came of."""
        return Trial(self.length, self.text_window, self.hidden, self.asked, self.seed, self.method)


def trials(method: Method, lengths: Iterable[int], windows: int, needles: int, seed: int) -> list[Trial]:
    """All that is measured of a method: each window at each length for its loss and its needles, and read once.

    Parameters
    ----------
    method : Method
    lengths : iterable of int
        In tokens.
    windows, needles : int
        Windows of the text at each length, and needles in each.
    seed : int
    """
    return [
        Trial(length, window, needles, asked, seed, method)
        for window in range(windows)
        for length in lengths
        for asked in (None, *range(needles))
    ]


def run_trials(
    model: Any, tokenized: TokenizedHaystack, wanted: Sequence[Trial], kept: Iterable[TrialRow] = ()
) -> Iterator[TrialRow]:
    """Measure what isn't kept; the first windows of all methods come before their second ones.

    Methods that map a length alike, as many do within the window, share what was measured of one of them.

    Parameters
    ----------
    model : transformers model
        Not patched.
    tokenized : TokenizedHaystack
        The text.
    wanted : sequence of Trial
    kept : iterable of TrialRow
    """
    kept = list(kept)
    done, known = {row.trial for row in kept}, {_runs_as(row): row for row in kept}
    missing = sorted((one for one in wanted if one not in done), key=lambda one: (one.text_window, one.length))
    for (method, length, window, hidden, seed), group in itertools.groupby(
        missing, key=lambda one: (one.method, one.length, one.text_window, one.hidden, one.seed)
    ):
        some = list(dict.fromkeys(group))
        yield from [replace(known[_runs_as(one)], method=method) for one in some if _runs_as(one) in known]
        some = [one for one in some if _runs_as(one) not in known]
        if not some:
            continue
        text = text_of(tokenized, length, window, hidden, seed)
        outcomes = read_window(model, tokenized.tokenizer, method, text, [one.asked for one in some])
        for trial, outcome in zip(some, outcomes, strict=True):
            row = TrialRow(**vars(trial), **vars(outcome))
            known[_runs_as(trial)] = row
            yield row


def _runs_as(trial: Trial) -> tuple[Any, ...]:
    """Equal for trials that compute the same."""
    method, length = trial.method, trial.length
    how = method.position_map(length).regions, method.frequencies(length), method.attention_scale
    return (*how, length, trial.text_window, trial.hidden, trial.asked, trial.seed)


def cost(rows: Iterable[TrialRow]) -> float:
    """What tuning minimises: as `Measured.cost` for "both" with equal weights, the mean over lengths.

    Raises
    ------
    CalibrationError
        If a length has no loss or no needles.
    """
    lengths: dict[int, list[TrialRow]] = {}
    for row in rows:
        lengths.setdefault(row.length, []).append(row)
    costs = []
    for length, some in lengths.items():
        losses = [row.loss for row in some if row.loss is not None]
        needles = [row for row in some if row.log_likelihood is not None]
        if not losses or not needles:
            raise CalibrationError(f"At {length:,} tokens there is no loss, or no needle, to tune a method by.")
        surprise = -fmean(row.log_likelihood or 0.0 for row in needles)
        missed = 1 - fmean(bool(row.found) for row in needles)
        costs.append((fmean(losses) + missed + surprise / (1 + surprise) / len(needles)) / 2)
    if not costs:
        raise CalibrationError("There are no rows to tune a method by.")
    return fmean(costs)


def tuned(method: Method, rows: Iterable[TrialRow]) -> Method:
    """Those of a method's `candidates` that cost least.

    Raises
    ------
    CalibrationError
        If nothing was measured of one of them.
    """
    of: dict[Method, list[TrialRow]] = {one: [] for one in method.candidates()}
    for row in rows:
        if row.method in of:
            of[row.method].append(row)
    return min(of, key=lambda one: cost(of[one]))


def write_trial(path: Path, row: TrialRow, source: dict[str, Any]) -> None:
    """Append a row to a file of JSON lines, and what it was measured on."""
    values = {name: getattr(row, name) for kind in (Asked, Outcome) for name in kind.__dataclass_fields__}
    append_line(path, {"method": row.method.key, **values, "settings": row.method.settings(), **source})


def read_trials(path: Path, source: dict[str, Any]) -> list[TrialRow]:
    """The rows of such a file or folder that were measured on this model, weights and text; none where there is none.

    Raises
    ------
    CalibrationError
        If a line is no row, or of a method that isn't known; the message names the line, and the file stays as it is.
    """
    rows = every_trial(path) if path.exists() else []
    return [row for row, given in rows if source.items() <= given.items()]


def every_trial(path: Path) -> list[tuple[TrialRow, dict[str, Any]]]:
    """The rows of a file, or of all files of a folder, each with all that stands on its line: what it was measured on
    too.

    Raises
    ------
    CalibrationError
        If a line is no row, or of a method that isn't known; the message names the line.
    """

    def made(given: dict[str, Any]) -> TrialRow:
        return TrialRow(**vars(checked(Asked, given)), **vars(checked(Outcome, given)), method=method_of(given))

    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    return [row for file in files for row in read_lines(file, made, "row of a comparison", CalibrationError)]
