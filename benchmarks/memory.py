"""Memory of a prefill, and the time to import the library: each in a process of its own.

    python -m benchmarks.memory [--lengths 4096 16384] [--repeats 3] [--quick] [--fresh]

Peak memory is the most that the process (Linux; on CUDA, PyTorch) had while it read a text in one forward pass, less
what it had just before: a figure for each process, and the ratio of the medians. The import time is `lampe`'s beyond
that of torch and transformers. Rows go to memory.jsonl.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import psutil
import torch

import lampe
from benchmarks.measure import Rows, arguments, prefill, random_ids, variants
from benchmarks.prefill import SLOW

LENGTHS = [4096, 16_384]


def peak(way: str, length: int) -> int:
    """Bytes that a prefill adds to this process at its peak."""
    model, _ = lampe.load(bits=16)
    with variants(model)[way]() as patched:
        if patched is not None:
            patched.plan(length)
        prefill(model, random_ids(model, 64))
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            prefill(model, random_ids(model, length))
            return torch.cuda.max_memory_allocated() - before
        before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted anew
        prefill(model, random_ids(model, length))
        peaks = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert peaks
        return int(peaks[1]) * 1024 - before


def import_seconds() -> float:
    """What `import lampe` takes once torch and transformers are there."""
    program = (
        "import time, torch, transformers\n"
        "started = time.perf_counter()\n"
        "import lampe\n"
        "print(time.perf_counter() - started)"
    )
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        way, length = given.one
        print(peak(way, int(length)))
        return
    lengths, repeats = ([2500], 1) if given.quick else (given.lengths, given.repeats)
    rows = Rows(None if given.quick else "memory", given.fresh)
    if not rows.has(what="import"):
        rows.add(what="import", milliseconds=round(median(import_seconds() for _ in range(repeats)) * 1e3))
    for length in lengths:
        if rows.has(what="peak", tokens=length):
            continue
        megabytes: dict[str, list[int]] = {}
        for _ in range(repeats):
            for way in ("plain", "LaMPE", "three passes")[: 3 if length <= SLOW else 2]:
                command = [sys.executable, "-m", "benchmarks.memory", "--one", way, str(length)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                megabytes.setdefault(way, []).append(round(int(done.stdout.splitlines()[-1]) / 1e6))
        ratio = round(median(megabytes["LaMPE"]) / median(megabytes["plain"]), 3)
        rows.add(what="peak", tokens=length, megabytes=megabytes, ratio=ratio)


if __name__ == "__main__":
    main()
