"""`python -m lampe evaluate`: published benchmarks through lm-evaluation-harness, under any of our methods."""

from __future__ import annotations

import argparse
import atexit
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from lampe.calibration import load_preset
from lampe.cli.arguments import add_cluster, add_model, cluster_of, device_of, list_of, read_settings
from lampe.cluster import Cluster, Failed, spread
from lampe.evaluation.rows import EvaluationError, Row, Run, Sample, read_rows, recorded, summary
from lampe.files import append_line
from lampe.methods import METHODS, Method, methods_for
from lampe.models.load import DEFAULT_MODEL_NAME, load, load_config, load_tokenizer

_ROWS = "rows.jsonl"
_SAMPLES = "samples"  # a folder beside it: the tasks' own samples, made once


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Published benchmarks: tasks × lengths × methods × samples, asked and scored by lm-evaluation-harness. Each "
        f"sample's row is appended to {_ROWS} in the folder as it comes; the same command goes on where it was "
        "stopped, and ends with a table."
    )
    add_model(parser)
    parser.add_argument(
        "--tasks", type=list_of(str), default=["niah_single_1"], help="the harness's names of tasks or groups, as ruler"
    )
    parser.add_argument(
        "--lengths", type=list_of(int), default=[4096], help="tokens, for tasks whose prompts are made to a length"
    )
    parser.add_argument(
        "--methods", type=list_of(str), default=["rope", "lampe"], help=f"as rope,lampe, of {', '.join(METHODS)}"
    )
    parser.add_argument("--samples", type=int, default=20, help="of each task and length, the same for every method")
    parser.add_argument("--no-chat", dest="chat", action="store_false", help="without the model's chat template")
    parser.add_argument(
        "--cut", type=int, default=0, help="cut the middle of prompts of more tokens (default: none is cut)"
    )
    parser.add_argument("--preset", type=Path, help="a preset file for LaMPE (default: the model's own preset)")
    parser.add_argument(
        "--settings", type=Path, action="append", default=[], help="a method's settings, as `lampe tune` writes them"
    )
    parser.add_argument("--leval", type=Path, help="the folder of L-Eval's closed tasks, for leval")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="a folder")
    parser.add_argument("--recorded", action="store_true", help="only print the tables of all rows that are there")
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run what is missing, and print the table of it."""
    if given.recorded:
        print(recorded(read_rows(given.out / _ROWS)))
        return 0
    try:
        from lampe.evaluation import harness
    except ImportError as error:
        raise EvaluationError(
            f"Published benchmarks run through lm-evaluation-harness, which isn't here ({error}): "
            'pip install "lampe-lab[evaluate]".'
        ) from error
    tasks = harness.leaves(given.tasks)
    if not tasks or not given.lengths or min(given.lengths) < 1 or given.samples < 1 or given.cut < 0:
        raise EvaluationError("Name at least one task, one length of 1 token or more, and one sample.")
    preset: dict[str, Method] = {"lampe": load_preset(given.preset)} if given.preset else {}
    preset |= {method.key: method for method in map(read_settings, given.settings)}
    methods = methods_for(given.methods, load_config(given.model), preset)
    ran = Run(given.model or DEFAULT_MODEL_NAME, given.bits, given.chat, given.cut, harness.VERSION)
    file = given.out / _ROWS
    rows = {row.key: row for row in (read_rows(file) if file.exists() else ())}
    wanted = {
        ran.key_of(sample, methods[sample.method]): sample
        for sample in samples(tasks, given.lengths, list(methods), given.samples, harness.made_to_length)
    }
    for method in methods.values():
        if told := method.beyond(max(given.lengths)):
            print(told, file=sys.stderr)
    missing = {key: sample for key, sample in wanted.items() if key not in rows}
    try:
        for row in measured(given, harness, ran, methods, missing) if missing else ():
            append_line(file, asdict(row))
            rows[row.key] = row
            said = row.error or f"{row.score:.2f}, {row.answer.strip()!r:.60}"
            print(f"{row.task}, {row.tokens:,} tokens, {row.method}, sample {row.number}: {said}", flush=True)
    except KeyboardInterrupt:
        print(f"Stopped. {len(rows)} rows are kept in {file}; the same command goes on.", file=sys.stderr)
        return 130
    shown = [row for key, row in rows.items() if key in wanted]
    print(summary(shown))
    return 0 if shown else 2


def samples(
    tasks: Sequence[str], lengths: Sequence[int], methods: Sequence[str], count: int, made_to_length: Any
) -> Iterator[Sample]:
    """All samples of a run, short ones first, those of one task and length together, method by method."""
    for length in sorted(set(lengths)):
        for task in tasks:
            if made_to_length(task):
                yield from (Sample(task, length, number, method) for method in methods for number in range(count))
    for task in tasks:
        if not made_to_length(task):
            yield from (Sample(task, 0, number, method) for method in methods for number in range(count))


def measured(
    given: argparse.Namespace, harness: Any, ran: Run, methods: dict[str, Method], missing: dict[str, Sample]
) -> Iterator[Row]:
    """The rows that are missing, as they come; a task whose data can't be had is told of and left out."""
    cluster = cluster_of(given)
    given.out.mkdir(parents=True, exist_ok=True)
    if cluster:
        yield from _spread(given, harness, cluster, ran, methods, missing)
        return
    model, tokenizer = load(given.model, bits=given.bits)
    adapter = harness.Adapter(model, tokenizer, given.cut)
    with harness.plain_tokenizer(tokenizer) as folder:
        for task, group in _prepared(given, harness, missing, folder):
            by_method: dict[str, list[Sample]] = {}
            for sample in group:
                by_method.setdefault(sample.method, []).append(sample)
            for method, some in by_method.items():
                with adapter.under(methods[method]):
                    for sample in some:
                        yield row_of(harness, adapter, task, sample, ran, methods)


def _prepared(
    given: argparse.Namespace, harness: Any, missing: dict[str, Sample], folder: str
) -> Iterator[tuple[Any, list[Sample]]]:
    """Each task that can be had, and those of the missing samples that it has."""
    groups: dict[tuple[str, int], list[Sample]] = {}
    for sample in missing.values():
        groups.setdefault((sample.task, sample.length), []).append(sample)
    for (name, length), group in groups.items():
        try:
            task = harness.prepared(name, length, given.samples, folder, given.out / _SAMPLES, given.leval)
        except EvaluationError as error:
            print(error, file=sys.stderr)
            continue
        yield task, [sample for sample in group if sample.number < len(task.eval_docs)]


def row_of(harness: Any, adapter: Any, task: Any, sample: Sample, ran: Run, methods: dict[str, Method]) -> Row:
    """What comes of a sample, under the method that the adapter has."""
    method = methods[sample.method]
    found = harness.timed(adapter, task, sample.number, ran.chat)
    return Row(**asdict(sample), **asdict(ran), key=ran.key_of(sample, method), settings=method.settings(), **found)


def _spread(
    given: argparse.Namespace, harness: Any, cluster: Cluster, ran: Run, methods: dict[str, Method],
    missing: dict[str, Sample],
) -> Iterator[Row]:  # fmt: skip
    """The same by the models of a cluster. The samples are made here, once, and sent to them."""
    with harness.plain_tokenizer(load_tokenizer(given.model)) as folder:
        units = [sample for _, group in _prepared(given, harness, missing, folder) for sample in group]
    made = {file.name: file.read_bytes() for file in sorted((given.out / _SAMPLES).glob("*.json"))}
    make = partial(_worker, given.model, device_of(cluster), given.samples, made, given.leval, ran, methods)
    for done in spread(cluster, make, units):
        if isinstance(done, Failed):
            method = methods[done.unit.method]
            yield Row(
                **asdict(done.unit), **asdict(ran), key=ran.key_of(done.unit, method), settings=method.settings(),
                error=done.why,
            )  # fmt: skip
        else:
            yield from done[1]


def _worker(
    model_id: str | None, device: str | None, count: int, made: dict[str, bytes], leval: Path | None, ran: Run,
    methods: dict[str, Method], threads: int,
) -> Callable[[Sample], list[Row]]:  # fmt: skip
    """In an actor: a model, and what it does with a sample."""
    from lampe.evaluation import harness

    model, tokenizer = load(model_id, ran.bits, device)
    adapter = harness.Adapter(model, tokenizer, ran.cut)
    kept = Path(tempfile.mkdtemp(prefix="lampe-samples-"))
    for name, content in made.items():
        (kept / name).write_bytes(content)
    stack = ExitStack()
    atexit.register(stack.close)  # the folder is there as long as the actor lives
    folder = stack.enter_context(harness.plain_tokenizer(tokenizer))

    @cache
    def task(name: str, length: int) -> Any:
        return harness.prepared(name, length, count, folder, kept, leval)

    def work(sample: Sample) -> list[Row]:
        with adapter.under(methods[sample.method]):
            return [row_of(harness, adapter, task(sample.task, sample.length), sample, ran, methods)]

    return work
