"""Rows of needle tests, of published tasks and of calibration sweeps as one kind of thing, to be put side by side."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from lampe import calibration, evaluation, needle
from lampe.calibration.comparing import every_trial
from lampe.calibration.rows import every_row
from lampe.errors import InputError
from lampe.files import REFUSALS, decoded, reason
from lampe.intervals import Difference, Estimate, bootstrapped, estimated
from lampe.methods import METHODS, Rope


class ResultsError(InputError):
    """A file that holds no results; the message says what it would have to hold."""


@dataclass(frozen=True)
class Measure:
    """What is compared.

    Parameters
    ----------
    title : str
    unit : str
    lower : bool
        Whether less of it is better.
    digits : int
        After the point that are worth a look.
    least, most : float
        Beyond which no value can be.
    cost : bool
        Whether it is what a sample took, not how good its answer is.
    """

    title: str
    unit: str = ""
    lower: bool = False
    digits: int = 3
    least: float = 0.0
    most: float = math.inf
    cost: bool = False


MEASURES = {
    "score": Measure("Score"),
    "log_likelihood": Measure("Log-likelihood of the right answer", "nats a token", least=-math.inf, most=0.0),
    "loss": Measure("Loss on the text", "nats a token", lower=True),
    "seconds": Measure("Time", "s a sample", lower=True, digits=1, cost=True),
    "megabytes": Measure("Memory", "MB beyond the model", lower=True, digits=0, cost=True),
}


@dataclass(frozen=True)
class Outcome:
    """What one way of reading came to on one sample.

    Parameters
    ----------
    task : str
    length : int
        Tokens that its prompts are made with; 0 for texts that are as they are.
    way : str
        The method's title, with what else tells it from the file's other ways.
    sample : str
        The same for all ways that read the same prompt.
    values : dict
        By the keys of `MEASURES`; without a score if it failed.
    depth : float or None
        Of a needle.
    question, excerpt, answer : str
    expected : tuple of str
    error : str or None
        Why it failed.
    """

    task: str
    length: int
    way: str
    sample: str
    values: Mapping[str, float]
    depth: float | None = None
    question: str = ""
    excerpt: str = ""
    answer: str = ""
    expected: tuple[str, ...] = ()
    error: str | None = None


MOST_CELLS = 400
"""Pairs of a way and a length that a table has room for."""
ALL_TASKS = "All tasks together"
"""Stands for every task of a file, where they measure the same on the same scale: for those samples that all ways of
reading have at a length, so that their means are of the same mixture."""

Place = tuple[str, int]
"""A way and a length: a cell of a table."""


@dataclass(frozen=True)
class Results:
    """The outcomes in a file.

    Parameters
    ----------
    source : str
        What they were measured on, in words.
    outcomes : tuple of Outcome

    Attributes
    ----------
    ways : tuple of str
    tasks : tuple of str
        Led by `ALL_TASKS` where it can stand for several.
    together : tuple of Outcome
        What it stands for; empty where it can't.
    """

    source: str
    outcomes: tuple[Outcome, ...]
    ways: tuple[str, ...] = field(init=False)
    tasks: tuple[str, ...] = field(init=False)
    together: tuple[Outcome, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tasks, together = dict.fromkeys(one.task for one in self.outcomes), _together(self.outcomes)
        object.__setattr__(self, "ways", tuple(dict.fromkeys(one.way for one in self.outcomes)))
        object.__setattr__(self, "tasks", (*[ALL_TASKS] * bool(together), *tasks))
        object.__setattr__(self, "together", together)

    def of(self, task: str) -> list[Outcome]:
        """The outcomes of a task."""
        if task == ALL_TASKS and self.together:
            return list(self.together)
        return [one for one in self.outcomes if one.task == task]

    def measures(self, task: str) -> list[str]:
        """The keys of what was measured in a task."""
        there = {key for one in self.of(task) for key in one.values}
        return [key for key in MEASURES if key in there]

    def cells(self, task: str) -> dict[Place, list[Outcome]]:
        """The outcomes of a task, by way and length; ways in the file's order, lengths from the shortest."""
        found: dict[Place, list[Outcome]] = {}
        for one in self.of(task):
            found.setdefault((one.way, one.length), []).append(one)
        order = {way: number for number, way in enumerate(self.ways)}
        return dict(sorted(found.items(), key=lambda pair: (order[pair[0][0]], pair[0][1])))

    def shares(self, task: str, measure: str) -> bool:
        """Whether each value is a share of a whole: scores from 0 to 1, where others are of 100 or without a limit."""
        values = (one.values[measure] for one in self.of(task) if measure in one.values)
        return measure == "score" and all(0 <= value <= 1 for value in values)

    def estimates(self, task: str, measure: str) -> dict[Place, Estimate]:
        """The mean of each cell of a task."""
        values = {
            place: [one.values[measure] for one in cell if measure in one.values]
            for place, cell in self.cells(task).items()
        }
        shares, of = self.shares(task, measure), MEASURES[measure]
        return {place: estimated(cell, shares, of.least, of.most) for place, cell in values.items() if cell}

    def differences(self, task: str, measure: str, base: str) -> dict[Place, Difference]:
        """Each cell less that of another way at the same length, over the samples that both have; of several tasks each
        keeps its share."""
        cells, found = self.cells(task), {}
        for (way, length), cell in cells.items():
            theirs = {(one.task, one.sample): one.values.get(measure) for one in cells.get((base, length), ())}
            apart: dict[str, list[float]] = {}
            for one in cell:
                ours, other = one.values.get(measure), theirs.get((one.task, one.sample))
                if ours is not None and other is not None:
                    apart.setdefault(one.task, []).append(ours - other)
            if way != base and apart:
                found[way, length] = bootstrapped(apart.values())
        return found


def _together(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Those of several tasks that can be put together; none where they measure different things, or on other scales."""
    measured: dict[str, set[str]] = {}
    beyond = set()  # tasks whose scores are no shares
    ways: dict[int, set[str]] = {}
    had: dict[tuple[int, str, str], set[str]] = {}  # the ways that have a sample
    for one in outcomes:
        measured.setdefault(one.task, set()).update(key for key in one.values if not MEASURES[key].cost)
        ways.setdefault(one.length, set()).add(one.way)
        if one.error is None:
            had.setdefault((one.length, one.task, one.sample), set()).add(one.way)
        if not 0 <= one.values.get("score", 0) <= 1:
            beyond.add(one.task)
    kinds = {frozenset(keys) for keys in measured.values() if keys}  # a task that always failed has none
    cells = sum(map(len, ways.values()))
    named = len(measured) < 2 or ALL_TASKS in measured
    if named or len(kinds) != 1 or len(beyond) not in (0, len(measured)) or cells > MOST_CELLS:
        return ()
    whole = {sample for sample, by in had.items() if by == ways[sample[0]]}
    found = tuple(one for one in outcomes if (one.length, one.task, one.sample) in whole)
    return found if len({one.task for one in found}) > 1 else ()


def area(by_length: Mapping[int, float]) -> float | None:
    """The mean over lengths whose logarithms are evenly spread: the area under the curve on a logarithmic axis, by the
    trapezoid rule, divided by its width; None for fewer than two lengths."""
    points = sorted(by_length.items())
    if len(points) < 2 or points[0][0] < 1:
        return None
    logs = [(math.log2(length), value) for length, value in points]
    return sum((b - a) * (y + z) / 2 for (a, y), (b, z) in pairwise(logs)) / (logs[-1][0] - logs[0][0])


def open_results(path: Path) -> Results:
    """The results in a file of JSON lines, of whatever kind its first line is; or of a comparison's folder of them.

    Raises
    ------
    ResultsError
        If it is none of them, or empty.
    InputError
        If a later line is of another kind; the message names it.
    OSError
        If it can't be read.
    """
    with (next(iter(sorted(path.glob("*.jsonl"))), path) if path.is_dir() else path).open("rb") as file:
        line = file.readline()
    if not line.strip():
        raise ResultsError(f"{path.name} is empty: it holds no results.")
    try:
        given = decoded(line)
    except REFUSALS as error:
        raise ResultsError(
            f"{path.name} isn't a file of results ({reason(error)}). It has a row of JSON on each line, as `python -m "
            "lampe needle`, `evaluate` and `calibrate` write them."
        ) from error
    kind = next((make for mark, make in _KINDS.items() if mark in given), None)
    if kind is None:
        raise ResultsError(
            f"The first line of {path.name} is a row of no needle test, no evaluation and no sweep. Name a file that "
            "`python -m lampe needle`, `evaluate` or `calibrate` has written."
        )
    return kind(path)


def _needles(path: Path) -> Results:
    rows = sorted(needle.read_rows(path), key=lambda row: _ORDER[row[0].method])
    texts = {result.haystack for result, _ in rows}
    # Plain RoPE has no setting that it runs by; older rows say none, newer ones the model's window.
    ways = _ways([(r.method, ran | ((r.method != Rope.key and r.settings) or {})) for r, ran in rows])
    outcomes = [
        Outcome(
            result.task if len(texts) == 1 else f"{result.task}, in {result.haystack}", result.length, way,
            f"depth {result.depth:g}, trial {result.trial + 1}, seed {result.seed}",
            {"score": result.score, "seconds": result.seconds} | _memory(result), result.depth, result.question,
            result.excerpt, result.answer, result.expected,
        )
        for (result, _), way in zip(rows, ways, strict=True)
    ]  # fmt: skip
    mapped = {r.mapping_length for r, _ in rows if r.method == "lampe" and r.mapping_length < r.length}
    lengths = f"; LaMPE with m = {', '.join(f'{m:,}' for m in sorted(mapped))}" if mapped else ""
    return Results(f"Hidden in {', '.join(sorted(texts))}; {_models(ran for _, ran in rows)}{lengths}", tuple(outcomes))


def _evaluation(path: Path) -> Results:
    rows = sorted(evaluation.read_rows(path), key=lambda row: _ORDER[row.method])
    ways = _ways(
        [
            (row.method, {"model": row.model, "bits": row.bits, "chat": row.chat, "cut": row.cut}
             | {"harness": row.harness} | row.settings)
            for row in rows
        ]
    )  # fmt: skip
    outcomes = [
        Outcome(
            row.task, row.length, way, f"sample {row.number + 1}",
            {key: value for key in ("score", "log_likelihood") if (value := getattr(row, key)) is not None}
            | {"seconds": row.seconds} | _memory(row), None, "", row.excerpt, row.answer, row.expected, row.error,
        )
        for row, way in zip(rows, ways, strict=True)
    ]  # fmt: skip
    versions = ", ".join(sorted({row.harness for row in rows}))
    models = _models({"model": row.model, "bits": row.bits} for row in rows)
    return Results(f"lm-evaluation-harness {versions}; {models}", tuple(outcomes))


def _memory(row: needle.Result | evaluation.Row) -> dict[str, float]:
    return {} if row.megabytes is None else {"megabytes": float(row.megabytes)}


def _trials(path: Path) -> Results:
    rows = sorted(every_trial(path), key=lambda pair: _ORDER[pair[0].method.key])
    texts = list(dict.fromkeys(_text(given) for _, given in rows))
    ways = _ways([(row.method.key, _ran(given) | row.method.settings()) for row, given in rows])
    outcomes = [
        _measured(row, way, f"{_text(given)}, " if len(texts) > 1 else "")
        for (row, given), way in zip(rows, ways, strict=True)
    ]
    return Results(f"Windows of {', '.join(texts)}; {_models(given for _, given in rows)}", tuple(outcomes))


def _text(given: Mapping[str, Any]) -> str:
    return str(given.get("text", "a text"))[:100]


def _ran(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": given.get("model"), "bits": given.get("bits")}


def _sweep(path: Path) -> Results:
    rows = every_row(path)
    head, tail, scale = ([_ends(row)[number] for row, _ in rows] for number in range(3))
    common = (_most(head), _most(tail), _most(scale))
    mapped = {(row.mapping_length, *_ends(row)) for row, _ in rows if row.mapping_length < row.length}
    if len(mapped) > _MOST_WAYS:
        raise ResultsError(f"{path.name} has {len(mapped):,} ways to map; up to {_MOST_WAYS} are put side by side.")
    ways = sorted(mapped, key=lambda way: (-way[0], way[1:] != common, way[1:]))
    outcomes = []
    for row, _ in rows:
        plain = row.mapping_length >= row.length
        outcomes += [_measured(row, "Nothing mapped")] if plain else []
        outcomes += [
            _measured(row, _named(way, common))
            for way in ways
            # What a greater mapping length comes to at this length is the same: nothing is mapped.
            if (
                way[0] >= row.length and way[3] == row.attention_scale
                if plain
                else way == (row.mapping_length, *_ends(row))
            )
        ]
    named = enumerate(["Nothing mapped", *(_named(way, common) for way in ways)])
    order = {name: number for number, name in named}
    texts = ", ".join(sorted({_text(given) for _, given in rows}))
    usual = ", ".join(name.format(value) for name, value in zip(_ENDS, common, strict=True))
    source = f"A sweep on {texts}; {_models(given for _, given in rows)}; {usual}. Up to m tokens nothing is mapped"
    return Results(source, tuple(sorted(outcomes, key=lambda one: order[one.way])))


def _measured(row: calibration.Row | calibration.TrialRow, way: str, text: str = "") -> Outcome:
    values = {"score": row.found, "log_likelihood": row.log_likelihood, "loss": row.loss, "seconds": row.seconds}
    number = "" if row.asked is None else f", needle {row.asked + 1}"
    return Outcome(
        "A hidden number" if row.loss is None else "Loss of the text", row.length, way,
        f"{text}window {row.text_window + 1}{number}, seed {row.seed}",
        {key: float(value) for key, value in values.items() if value is not None},
    )  # fmt: skip


_ENDS = ("Head {:,}", "Tail {:,}", "logits × {:g}")


def _ends(row: calibration.Row) -> tuple[int, int, float]:
    return row.head, row.tail, row.attention_scale


def _most(values: list[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _named(way: tuple[int, int, int, float], common: tuple[int, int, float]) -> str:
    """A mapping length, and in what else it isn't as most are."""
    own = zip(_ENDS, way[1:], common, strict=True)
    return ", ".join([f"m = {way[0]:,}", *(name.format(value) for name, value, usual in own if value != usual)])


_ORDER = {key: number for number, key in enumerate(METHODS)}
_MOST_WAYS = 200
_KINDS: dict[str, Callable[[Path], Results]] = {
    "haystack": _needles, "harness": _evaluation, "settings": _trials, "text_window": _sweep,
}  # fmt: skip
"""By a field that only rows of this kind, or of one further up, have."""


def _ways(made: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """A name for each method with its settings: its title, and those settings that the file has several of."""
    values: dict[tuple[str, str], set[str]] = {}
    counts = Counter(method for method, _ in made)
    there: Counter[tuple[str, str]] = Counter()
    for method, settings in made:
        for key, value in settings.items():
            values.setdefault((method, key), set()).add(json.dumps(value, sort_keys=True))
            there[method, key] += 1
    names = []
    for method, settings in made:
        # Of several values, or not in all of the method's rows.
        telling = [k for k in settings if len(values[method, k]) > 1 or there[method, k] < counts[method]]
        told = ("by length" if settings[key] is None else f"{settings[key]!s:.60}" for key in telling)
        names.append(", ".join([METHODS[method].title, *map(" ".join, zip(telling, told, strict=True))]))
    return names


def _models(ran: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({f"{str(one.get('model'))[:100]} in {one.get('bits')} bits" for one in ran}))
