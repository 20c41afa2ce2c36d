"""Reading a text: whole forward passes of the default model, plain, under LaMPE, and beside others.

    python -m benchmarks.prefill [--lengths 1024 4096 8192 16384] [--repeats 3] [--quick] [--fresh]

Three tables, all of paired runs: the ways of running the 16-bit model; the same in chunks of 512 tokens, as the
page reads; and LaMPE in 4 bits against LaMPE in 16. Rows go to prefill.jsonl beside this file.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import lampe
from benchmarks.measure import Rows, arguments, paired, prefill, random_ids, seconds, turns_at, variants
from lampe.inference.prefill import CHUNK

LENGTHS = [1024, 4096, 8192, 16_384]
SLOW = 4096
"""Tokens up to which all ways are run: beyond, YaRN and the three passes say nothing new and take minutes."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    lengths = [2100] if given.quick else given.lengths
    rows = Rows(None if given.quick else "prefill", given.fresh)
    models = {bits: lampe.load(bits=bits)[0] for bits in (16, 4)}

    def run(bits: int, name: str, length: int, chunk: int | None = None) -> float:
        model = models[bits]
        with variants(model)[name]() as patched:
            if patched is not None:
                patched.plan(length)
            return seconds(partial(prefill, model, random_ids(model, length), chunk))

    tables: list[tuple[str, dict[str, Any]]] = [
        ("16 bits", {name: partial(run, 16, name) for name in variants(models[16])}),
        ("16 bits, chunks", {name: partial(run, 16, name, chunk=CHUNK) for name in ("plain", "LaMPE")}),
        ("LaMPE", {f"{bits} bits": partial(run, bits, "LaMPE") for bits in (16, 4)}),
    ]
    for length in lengths:
        for table, runs in tables if length <= SLOW else (tables[0], tables[2]):
            if not rows.has(table=table, tokens=length):
                ways = list(runs) if length <= SLOW else list(runs)[:2]
                timed = {name: partial(runs[name], length=length) for name in ways}
                rows.add(
                    table=table, tokens=length, **paired(timed, 1 if given.quick else turns_at(length, given.repeats))
                )


if __name__ == "__main__":
    main()
