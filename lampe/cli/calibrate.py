"""`python -m lampe calibrate`: from a model to its curve."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from lampe.calibration import (
    OBJECTIVES,
    SWEPT,
    CalibrationError,
    Evaluation,
    Row,
    Sweep,
    check_lengths,
    default_lengths,
    differences,
    evaluate,
    keep_measuring,
    library_docstrings,
    make_preset,
    report,
    source_of,
    spans,
    table,
    write_preset,
)
from lampe.cli.arguments import add_cluster, add_model, cluster_of, device_of, list_of, text_named
from lampe.cluster import Cluster, Failed, Failures, spread
from lampe.methods import LampeConfig
from lampe.models.load import DEFAULT_MODEL_NAME, load
from lampe.needle import Haystack, TokenizedHaystack


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "At each input length, try mapping lengths on text and needles, and fit a curve to the best. Each result is "
        "appended to the sweep file as it comes; the same command goes on where it was stopped."
    )
    add_model(parser)
    parser.add_argument("--lengths", type=list_of(int), help="tokens, as 2048,4096 (default: ¼ to 2 windows)")
    parser.add_argument("--objective", choices=OBJECTIVES, default=Sweep.objective)
    for name, kind, about in (
        ("weight", float, "the needles' weight in both, 0 to 1"),
        ("windows", int, "windows of the text for each point"),
        ("needles", int, "needles hidden together in each window, at as many depths"),
        ("seed", int, "seed of the needles"),
        ("steps", int, "mapping lengths from an eighth of the window to the window"),
        ("refine", int, "how often the best one's neighbourhood is refined"),
    ):
        default = getattr(Sweep, name)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{about} (default: {default})")
    parser.add_argument("--head", type=int, help="tokens (default: the model's preset)")
    parser.add_argument("--tail", type=int, help="tokens (default: the model's preset)")
    parser.add_argument("--attention-scale", type=float, help="(default: the model's preset)")
    parser.add_argument("--sweep-over", choices=SWEPT, help="sweep this under the model's preset, and fit nothing")
    parser.add_argument("--values", type=list_of(float), default=[], help="what it is swept over, as 256,512,1024")
    parser.add_argument("--text", default="docstrings", help="docstrings (of the standard library), or a text file")
    parser.add_argument("--out", type=Path, default=Path("preset.json"), help="the preset's file")
    parser.add_argument("--sweep", type=Path, help="the sweep's file (default: beside the preset, .jsonl)")
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Measure what is missing of a sweep, fit, and print both."""
    if given.lengths is not None and not given.sweep_over:
        check_lengths(given.lengths)  # before a model is loaded
    text = text_named(given.text, {"docstrings": library_docstrings})
    model, tokenizer = load(given.model, bits=given.bits)
    tokenized = TokenizedHaystack(text, tokenizer)
    chosen = {name: getattr(given, name) for name in SWEPT if getattr(given, name, None) is not None}
    base = replace(LampeConfig.for_model(model), **chosen)
    sweep = Sweep(
        base=base,
        lengths=default_lengths(base.window) if given.lengths is None else tuple(given.lengths),
        text_tokens=len(tokenized.ids),
        objective=given.objective,
        weight=given.weight,
        windows=given.windows,
        needles=given.needles,
        seed=given.seed,
        steps=given.steps,
        refine=given.refine,
        over=given.sweep_over,
        values=tuple(given.values),
    )
    source = source_of(model, tokenized, given.model or DEFAULT_MODEL_NAME)
    path = given.sweep or given.out.with_suffix(".jsonl")
    cluster, failures = cluster_of(given), Failures(path)
    measure = partial(_spread, cluster, given.model, given.bits, text, base.window, failures) if cluster else None
    with tqdm(bar_format="{l_bar}{bar}| {elapsed}, {remaining} left{postfix}") as bar:

        def show(row: Row | None, done: float, left: float) -> None:
            bar.total = done + left
            bar.update(done - bar.n)
            if row:
                result = f"loss {row.loss:.3f}" if row.loss is not None else "found" if row.found else "missed"
                bar.set_postfix_str(f"{row.length:,} tokens, m = {row.mapping_length:,}: {result}")

        try:
            rows = keep_measuring(model, tokenized, sweep, source, path, show, measure)
        except KeyboardInterrupt:
            bar.close()
            print(f"Stopped. What was measured is kept in {path}; the same command goes on.", file=sys.stderr)
            return 130
    print(table(sweep.measured(rows), sweep.objective, sweep.weight))
    print("\nLess what isn't mapped, or is swept first, on the same texts (95 % intervals):")
    print(differences(sweep.own(rows)))
    if not given.sweep_over:
        if failures.units:
            raise CalibrationError(
                f"{len(failures.units)} readings failed, and a preset needs them all: {failures.file} says why. The "
                "same command tries them again."
            )
        preset = make_preset(sweep, rows, source)
        write_preset(preset, given.out)
        print("\nLess the mapping length that is used, on the same texts of all lengths together:")
        print(spans(sweep.own(rows), preset.config))
        print(f"\n{report(preset)}\nWritten to {given.out}.")
    return 0


def _spread(
    cluster: Cluster, model_id: str | None, bits: int, text: Haystack, window: int, failures: Failures,
    wanted: list[Evaluation],
) -> Iterator[Row]:  # fmt: skip
    """The rows of some evaluations, by the models of a cluster; those that share a read are one unit.

    What has failed in an earlier round of this run isn't tried again.
    """
    units = [tuple(group) for _, group in itertools.groupby(wanted, key=lambda one: one.reading)]
    units = [unit for unit in units if unit not in failures.units]
    for done in spread(cluster, partial(_worker, model_id, bits, device_of(cluster), text, window), units):
        if isinstance(done, Failed):
            reading = done.unit[0].reading
            failures.add(done, f"{reading.length:,} tokens under m = {reading.mapping_length:,}")
        else:
            yield from done[1]


def _worker(
    model_id: str | None, bits: int, device: str | None, text: Haystack, window: int, threads: int
) -> Callable[[tuple[Evaluation, ...]], Iterator[Row]]:
    """In an actor: a model, and what it does with the evaluations of one read."""
    model, tokenizer = load(model_id, bits, device)
    tokenized = TokenizedHaystack(text, tokenizer)
    return lambda unit: evaluate(model, tokenized, unit, window)
