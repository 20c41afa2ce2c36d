"""Samples of published tasks, what came of them, and a table of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import msgspec

from lampe.errors import InputError
from lampe.files import Count, checked, method_of, read_lines
from lampe.intervals import bootstrapped, estimated
from lampe.methods import METHODS, Method


class EvaluationError(InputError):
    """An evaluation that can't be run, or rows that can't be read; the message says what to do."""


@dataclass(frozen=True)
class Sample:
    """One sample of a task, under one method.

    Parameters
    ----------
    task : str
        The harness's name of it.
    length : int
        Tokens that its prompts are made with; 0 for a task whose texts are as they are.
    number : int
        Its place among the task's samples.
    method : str
        A key of `lampe.METHODS`.
    """

    task: str
    length: Count
    number: Count
    method: str


@dataclass(frozen=True)
class Run:
    """What is the same for all samples of a run.

    Parameters
    ----------
    model : str
    bits : int
    chat : bool
        Whether the prompt is put in the model's chat template.
    cut : int
        Prompts of more tokens lose their middle, as LongBench's own scripts do it; 0 cuts none.
    harness : str
        The version of lm-evaluation-harness.
    """

    model: str
    bits: Literal[4, 16]
    chat: bool
    cut: Count
    harness: str

    def key_of(self, sample: Sample, method: Method) -> str:
        """Of all that makes a row: rows with one key are of the same thing."""
        made = [asdict(sample), method.settings(), asdict(self)]
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Row(Sample, Run):
    """What came of a sample; the other fields are those of `Sample` and of `Run`.

    Parameters
    ----------
    key : str
        See `Run.key_of`.
    settings : dict
        The method's.
    prompt : str
        The first 16 digits of the SHA-256 of its text.
    tokens : int
        Of the prompt as it was read.
    left_out : int
        Tokens cut from its middle.
    excerpt : str
        The prompt around what is expected, or its end where that doesn't stand in it.
    answer : str
    expected : tuple of str
        What a right answer has in it, or may be.
    metric : str
        The harness's name of the score.
    score : float or None
        None if the sample failed.
    log_likelihood : float or None
        Of the expected answer, the mean over its tokens, in nats; it is smooth where scores are zero.
    seconds : float
    megabytes : int or None
        Of memory that it took at most, beyond the loaded model; None where that can't be told, and in older rows.
    error : str or None
        Why there is no score.
    """

    key: str
    settings: dict[str, Any]
    prompt: str = ""
    tokens: Count = 0
    left_out: Count = 0
    excerpt: str = ""
    answer: str = ""
    expected: tuple[str, ...] = ()
    metric: str = ""
    score: float | None = None
    log_likelihood: Annotated[float, msgspec.Meta(le=0)] | None = None
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    megabytes: Count | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.error is None):
            raise ValueError("a row has a score, or says why it has none")
        if self.run.key_of(self.sample, method_of(asdict(self))) != self.key:
            raise ValueError("its key isn't that of what it says it is")

    @property
    def sample(self) -> Sample:
        """What it came of."""
        return Sample(**{field.name: getattr(self, field.name) for field in fields(Sample)})

    @property
    def run(self) -> Run:
        """What it was run with."""
        return Run(**{field.name: getattr(self, field.name) for field in fields(Run)})


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of JSON lines.

    Raises
    ------
    EvaluationError
        If a line is no row; the message names the line.
    """
    rows = read_lines(path, lambda given: checked(Row, given), "row of an evaluation", EvaluationError)
    return [row for row, _ in rows]


_Rows = dict[tuple[str, int], Row]
"""Rows of a method by task and number."""


def recorded(rows: Iterable[Row]) -> str:
    """The tables of rows that may be of several runs, or of one method with several settings: one for each."""
    runs: dict[Run, list[Row]] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)
    tables = []
    for run, group in runs.items():
        settings: dict[str, list[dict[str, Any]]] = {}
        for row in group:
            if row.settings not in settings.setdefault(row.method, []):
                settings[row.method].append(row.settings)
        for number in range(max(map(len, settings.values()))):
            # Of a method with fewer settings than others its last ones, so that there is something to compare with.
            asked = {method: made[min(number, len(made) - 1)] for method, made in settings.items()}
            said = [f"{method} {json.dumps(asked[method])}" for method, made in settings.items() if len(made) > 1]
            prompt = "chat template" if run.chat else "no chat template"
            cut = f", cut to {run.cut:,} tokens" if run.cut else ""
            title = f"{run.model} in {run.bits} bits, {prompt}{cut}, lm-evaluation-harness {run.harness}"
            some = [row for row in group if row.settings == asked[row.method]]
            tables.append("\n".join([title, *said, "", summary(some)]))
    return "\n\n".join(tables)


def summary(rows: Iterable[Row]) -> str:
    """A table of text: mean score of each task, length and method with a 95 % interval, the mean log-likelihood of the
    expected answers, and each method's paired differences to the first in both. Where there are several tasks of a
    length, all of them together come last."""
    groups: dict[tuple[str, int], dict[str, _Rows]] = {}
    together: dict[int, dict[str, _Rows]] = {}
    tasks: dict[int, set[str]] = {}
    for row in rows:
        for group in (groups.setdefault((row.task, row.length), {}), together.setdefault(row.length, {})):
            group.setdefault(row.method, {})[row.task, row.number] = row
        tasks.setdefault(row.length, set()).add(row.task)
    wide = max([6, *(len(method) for by_method in groups.values() for method in by_method)])
    lines = [
        f"{'method':<{wide}}  {'score':>6}  {'95 % interval':<14}  {'log p':>7}  samples  "
        "less the first's: score; log p"
    ]

    def add(title: str, by_method: dict[str, _Rows]) -> None:
        lines.append(title)
        ordered = sorted(by_method.items(), key=lambda pair: list(METHODS).index(pair[0]))
        lines.extend(_line(method, own, ordered[0][1], wide) for method, own in ordered)

    for (task, length), by_method in sorted(groups.items()):
        add(f"\n{task}" + (f", {length:,} tokens" if length else ""), by_method)
    for length, by_method in sorted(together.items()):
        if length and len(tasks[length]) > 1:
            add(f"\nall {len(tasks[length])} tasks, {length:,} tokens", by_method)
    return "\n".join(lines)


def _line(method: str, own: _Rows, first: _Rows, wide: int) -> str:
    scores = [row.score for row in own.values() if row.score is not None]
    failed = len(own) - len(scores)
    if not scores:
        return f"{method:<{wide}}  failed: {next(iter(own.values())).error}"
    # Other scores are of 0 to 100, or without a limit.
    found = estimated(scores, shares=all(0 <= score <= 1 for score in scores), least=0.0)
    likelihoods = [row.log_likelihood for row in own.values() if row.log_likelihood is not None]
    likely = f"{fmean(likelihoods):7.2f}" if likelihoods else f"{'':7}"
    line = f"{method:<{wide}}  {found.mean:6.2f}  {found.low:5.2f} to {found.high:5.2f}  {likely}  {len(scores):>7}"
    if own is not first:
        line += "  " + "; ".join(filter(None, (_less(own, first, one) for one in ("score", "log_likelihood"))))
    return line + (f"  {failed} failed" if failed else "")


def _less(own: _Rows, first: _Rows, measure: str) -> str:
    """The paired difference in a measure, each task keeping its share; empty without a pair."""
    pairs: dict[str, list[float]] = {}
    for (task, number), row in own.items():
        both = [getattr(one, measure) for one in (row, first.get((task, number))) if one]
        if len(both) == 2 and None not in both:
            pairs.setdefault(task, []).append(both[0] - both[1])
    return str(bootstrapped(pairs.values())) if pairs else ""
