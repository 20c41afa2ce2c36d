"""`python -m lampe perplexity`: how well texts are read on, by length, under any of our methods."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from lampe.calibration import (
    CalibrationError,
    Trial,
    TrialRow,
    library_docstrings,
    read_trials,
    run_trials,
    source_of,
    trials,
)
from lampe.calibration.comparing import write_trial
from lampe.calibration.measure import LAST
from lampe.cli.arguments import add_cluster, add_model, cluster_of, device_of, list_of, read_settings, text_named
from lampe.cluster import Failed, Failures, spread
from lampe.intervals import bootstrapped, estimated
from lampe.methods import METHODS, Method, methods_for
from lampe.models.load import DEFAULT_MODEL_NAME, load
from lampe.needle import HAYSTACKS, Haystack, TokenizedHaystack

Named = tuple[str, Trial]
"""What is read, and the name of the text that it is cut from."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"Perplexity by length, as LaMPE's paper measures it: the last {LAST} tokens of a window that grows towards "
        "the text's start, so that each length is asked the same tokens. Each window's row is appended to the file as "
        "it comes; the same command goes on where it was stopped, and ends with a table."
    )
    add_model(parser)
    parser.add_argument(
        "--text", default="docstrings",
        help="a text file, a folder of them (such as PG-19's), docstrings (of the standard library), or "
        f"{', '.join(HAYSTACKS)}",
    )  # fmt: skip
    parser.add_argument("--lengths", type=list_of(int), default=[2048, 4096], help="tokens, as 2048,4096")
    parser.add_argument(
        "--methods", type=list_of(str), default=["rope", "lampe"], help=f"as rope,lampe, of {', '.join(METHODS)}"
    )
    parser.add_argument("--windows", type=int, default=2, help="windows of each text for each length")
    parser.add_argument(
        "--settings", type=Path, action="append", default=[], help="a method's settings, as `lampe tune` writes them"
    )
    parser.add_argument("--out", type=Path, default=Path("perplexity.jsonl"))
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Measure what is missing, and print the table of it."""
    if not given.lengths or min(given.lengths) < 2 or given.windows < 1:
        raise CalibrationError("Name at least one length of 2 tokens or more, and one window.")
    texts = texts_of(given.text)
    cluster = cluster_of(given)
    model, tokenizer = load(given.model, bits=given.bits)
    settings = {method.key: method for method in map(read_settings, given.settings)}
    methods = list(methods_for(given.methods, model, settings).values())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[Named, TrialRow] = {}
    wanted, sources = [], {}
    for name, text in texts.items():
        tokenized = TokenizedHaystack(text, tokenizer)
        lengths = [length for length in sorted(set(given.lengths)) if length < len(tokenized.ids)]
        if len(lengths) < len(set(given.lengths)):
            told = f"{name} has {len(tokenized.ids):,} tokens: it is left out where a window is longer."
            print(told, file=sys.stderr)
        sources[name] = asdict(source_of(model, tokenized, given.model or DEFAULT_MODEL_NAME))
        rows |= {(name, row.trial): row for row in read_trials(given.out, sources[name])}
        wanted += [(name, one) for way in methods for one in trials(way, lengths, given.windows, 0, 0)]
    if not wanted:
        raise CalibrationError("No text is as long as the shortest window: name a longer text, or a shorter length.")
    missing = [one for one in wanted if one not in rows]
    if cluster:
        made = _spread(
            partial(_worker, given.model, given.bits, device_of(cluster), texts), cluster, Failures(given.out), missing
        )
    else:
        made = _read(model, tokenizer, texts, missing)
    try:
        for name, row in made:
            write_trial(given.out, row, sources[name])
            rows[name, row.trial] = row
            print(f"{name}, {row.length:,} tokens, {row.method.title}: loss {row.loss:.3f} ({row.seconds:.0f} s)")
    except KeyboardInterrupt:
        print(f"Stopped. {len(rows)} rows are kept in {given.out}; the same command goes on.", file=sys.stderr)
        return 130
    print(table([(name, rows[name, one]) for name, one in wanted if (name, one) in rows], methods))
    return 0


def texts_of(name: str) -> dict[str, Haystack]:
    """The texts that a name stands for: one that is known, a file, or the .txt files of a folder.

    Raises
    ------
    CalibrationError
        If a folder has none.
    """
    if not Path(name).is_dir():
        text = text_named(name, {"docstrings": library_docstrings, **HAYSTACKS})
        return {text.name: text}
    texts = [text_named(str(file)) for file in sorted(Path(name).glob("*.txt"))]
    if not texts:
        raise CalibrationError(f"The folder {name} has no .txt file. Name one with texts, or a file.")
    return {text.name: text for text in texts}


def _read(model: Any, tokenizer: Any, texts: dict[str, Haystack], wanted: Sequence[Named]) -> Iterator[Any]:
    """The rows of what is wanted, each with its text's name."""
    for name in dict.fromkeys(name for name, _ in wanted):
        tokenized = TokenizedHaystack(texts[name], tokenizer)
        some = [one for other, one in wanted if other == name]
        yield from ((name, row) for row in run_trials(model, tokenized, some))


def _spread(
    make: Callable[[int], Any], cluster: Any, failures: Failures, wanted: Sequence[Named]
) -> Iterator[tuple[str, TrialRow]]:
    for done in spread(cluster, make, wanted):
        if isinstance(done, Failed):
            name, trial = done.unit
            failures.add(done, f"{name}, {trial.length:,} tokens, {trial.method.title}")
        else:
            yield from done[1]


def _worker(
    model_id: str | None, bits: int, device: str | None, texts: dict[str, Haystack], threads: int
) -> Callable[[Named], Iterable[tuple[str, TrialRow]]]:
    """In an actor: a model, and what it does with a window."""
    model, tokenizer = load(model_id, bits, device)

    @cache
    def tokenized(name: str) -> TokenizedHaystack:
        return TokenizedHaystack(texts[name], tokenizer)

    return lambda unit: [(unit[0], row) for row in run_trials(model, tokenized(unit[0]), [unit[1]])]


def table(rows: Sequence[tuple[str, TrialRow]], methods: Sequence[Method]) -> str:
    """For each length and method: the perplexity with its 95 % interval, and the loss less the first method's, on the
    same windows."""
    wide = max([6, *(len(method.title) for method in methods)])
    lines = [
        f"{'tokens':>8}  {'method':<{wide}}  {'perplexity':>10}  {'95 % interval':<18}  windows  loss less the first's"
    ]
    for length in sorted({row.length for _, row in rows}):
        losses = {
            method: {
                (name, row.text_window): row.loss
                for name, row in rows
                if (row.length, row.method) == (length, method) and row.loss is not None
            }
            for method in methods
        }
        first = losses[methods[0]]
        for method, own in losses.items():
            if not own:
                continue
            found = estimated(list(own.values()), shares=False, least=0.0)
            mean, low, high = (math.exp(min(value, 700)) for value in (found.mean, found.low, found.high))
            interval = f"{low:.4g} to {high:.4g}" if len(own) > 1 else "one window"
            line = f"{length:>8,}  {method.title:<{wide}}  {mean:>10.4g}  {interval:<18}  {len(own):>7}"
            both = [loss - first[window] for window, loss in own.items() if window in first]
            lines.append(line + (f"  {bootstrapped([both])}" if both and own is not first else ""))
    return "\n".join(lines)
