"""`python -m lampe needle`: a grid of needle tests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lampe import needle
from lampe.calibration import load_preset
from lampe.cli.arguments import add_cluster, add_model, cluster_of, device_of, list_of, read_settings, text_named
from lampe.cluster import Failed, Failures, spread
from lampe.methods import METHODS, Method, methods_for
from lampe.models.load import DEFAULT_MODEL_NAME, load, load_config
from lampe.models.memory import Taken
from lampe.needle import HAYSTACKS, TASKS, Cell, Haystack, Result, TokenizedHaystack, grid, read_rows, row_of, summary


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Needle tests: lengths × depths × trials × methods. Each result is appended to the file as it comes; the same "
        "command goes on where it was stopped, and ends with a table."
    )
    add_model(parser)
    parser.add_argument("--task", choices=list(TASKS), default="single")
    parser.add_argument("--haystack", default="reference", help=f"{', '.join(HAYSTACKS)}, or a text file")
    parser.add_argument("--lengths", type=list_of(int), default=[2048, 4096], help="tokens, as 2048,4096")
    parser.add_argument("--depths", type=list_of(float), default=[0.0, 0.25, 0.5, 0.75, 1.0], help="0 to 1, as 0,0.5,1")
    parser.add_argument(
        "--methods", type=list_of(str), default=["rope", "lampe"], help=f"as rope,lampe, of {', '.join(METHODS)}"
    )
    parser.add_argument("--trials", type=int, default=1, help="needles for each length and depth")
    parser.add_argument("--preset", type=Path, help="a preset file for LaMPE (default: the model's own preset)")
    parser.add_argument(
        "--settings", type=Path, action="append", default=[], help="a method's settings, as `lampe tune` writes them"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("needle.jsonl"))
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run what is missing of a grid, and print the table of it."""
    cells = grid(given.task, given.lengths, given.depths, given.methods, given.trials, given.seed)
    haystack = text_named(given.haystack)
    ran_with = {"model": given.model or DEFAULT_MODEL_NAME, "bits": given.bits}
    preset: dict[str, Method] = {"lampe": load_preset(given.preset)} if given.preset else {}
    preset |= {method.key: method for method in map(read_settings, given.settings)}
    methods = methods_for(given.methods, load_config(given.model), preset)
    kept = [
        result
        for result, with_ in (read_rows(given.out) if given.out.exists() else ())
        if result.haystack == haystack.name and with_ == ran_with and result.ran_by(methods)
    ]
    for method in methods.values():
        if told := method.beyond(max(given.lengths)):
            print(told, file=sys.stderr)
    done = {result.cell for result in kept}
    missing = [cell for cell in cells if cell not in done]
    if missing:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with (
            given.out.open("a", encoding="utf-8") as file,
            tqdm(
                total=sum(cell.length for cell in cells),
                initial=sum(c.length for c in cells if c in done),
                unit="token",
            ) as bar,
        ):
            try:
                for result in results(given, haystack, missing, preset):
                    file.write(row_of(result, ran_with))
                    file.flush()
                    kept.append(result)
                    bar.update(result.length)
                    bar.set_postfix_str(f"{result.method} {result.length:,} at {result.depth:g}: {result.score:g}")
            except KeyboardInterrupt:
                bar.close()
                print(
                    f"Stopped. {len(kept)} results are kept in {given.out}; the same command goes on.", file=sys.stderr
                )
                return 130
    wanted = set(cells)
    if failed := wanted - {result.cell for result in kept}:
        print(f"{len(failed)} tests failed; the same command tries them again.", file=sys.stderr)
    print(summary(result for result in kept if result.cell in wanted))
    return 0


def results(
    given: argparse.Namespace, haystack: Haystack, cells: Sequence[Cell], preset: dict[str, Method]
) -> Iterator[Result]:
    """The results as they come, of a model in this process or of several; what failed is told of."""
    cluster, failures = cluster_of(given), Failures(given.out)
    if not cluster:
        model, tokenizer = load(given.model, bits=given.bits)
        yield from _measured(model, TokenizedHaystack(haystack, tokenizer), cells, preset)
        return
    make = partial(_worker, given.model, given.bits, device_of(cluster), haystack, preset)
    for done in spread(cluster, make, cells):
        if isinstance(done, Failed):
            cell = done.unit
            failures.add(done, f"{cell.method} at {cell.length:,} tokens, depth {cell.depth:g}")
        else:
            yield from done[1]


def _worker(
    model_id: str | None, bits: int, device: str | None, haystack: Haystack, preset: dict[str, Method], threads: int
) -> Callable[[Cell], Iterator[Result]]:
    """In an actor: a model, and what it does with a cell."""
    model, tokenizer = load(model_id, bits, device)
    tokenized = TokenizedHaystack(haystack, tokenizer)
    return lambda cell: _measured(model, tokenized, [cell], preset)


def _measured(
    model: Any, tokenized: TokenizedHaystack, cells: Sequence[Cell], preset: dict[str, Method]
) -> Iterator[Result]:
    """The results, each with the memory that it took."""
    taken = Taken(model.device)
    for result in needle.run(model, tokenized, cells, preset):
        yield replace(result, megabytes=taken.most())
