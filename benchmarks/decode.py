"""Making one token: the default model after 1k, 4k, 8k and 16k tokens of context, plain, under LaMPE, and others.

    python -m benchmarks.decode [--lengths 1024 4096 8192 16384] [--repeats 60] [--quick] [--fresh]

Two tables, in each the runs take turns token by token: ways of running the 16-bit model, with the bytes of their
key-value caches; and LaMPE in 4 bits against LaMPE in 16. Rows go to decode.jsonl beside this file.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import lampe
from benchmarks.measure import Rows, arguments, paired, prefill, random_ids, seconds, variants
from benchmarks.prefill import LENGTHS, SLOW
from lampe.inference.prefill import CHUNK


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--repeats", type=int, default=60)
    given = parser.parse_args()
    lengths, repeats = ([2100], 2) if given.quick else (given.lengths, given.repeats)
    rows = Rows(None if given.quick else "decode", given.fresh)
    models = {bits: lampe.load(bits=bits)[0] for bits in (16, 4)}
    tables: dict[str, dict[str, tuple[int, str]]] = {
        "16 bits": {name: (16, name) for name in variants(models[16])},
        "LaMPE": {f"{bits} bits": (bits, "LaMPE") for bits in (16, 4)},
    }
    for length in lengths:
        for table, runs in tables.items():
            if not rows.has(table=table, tokens=length):
                ways = runs if length <= SLOW else dict(list(runs.items())[:2])
                rows.add(table=table, tokens=length, **_measured(models, ways, length, repeats))


def _measured(models: dict[int, Any], runs: dict[str, tuple[int, str]], length: int, repeats: int) -> dict[str, Any]:
    caches = {}
    for name, (bits, way) in runs.items():
        with variants(models[bits])[way]() as patched:
            if patched is not None:
                patched.plan(length)
            caches[name] = prefill(models[bits], random_ids(models[bits], length), CHUNK)

    def token(name: str) -> float:
        bits, way = runs[name]
        model, cache = models[bits], caches[name]
        with variants(model)[way]():  # putting the patch in isn't timed, nor is the first token after it
            one = random_ids(model, 1)
            step = partial(torch.inference_mode()(model), one, past_key_values=cache, logits_to_keep=1)
            step()
            return seconds(step)

    sizes = {
        name: sum(tensor.nbytes for keys, values, *_ in cache for tensor in (keys, values))
        for name, cache in caches.items()
    }
    return {"cache_bytes": sizes, **paired({name: partial(token, name) for name in runs}, repeats)}


if __name__ == "__main__":
    main()
