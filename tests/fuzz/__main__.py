"""Coverage-guided fuzzing of what reads strangers' bytes, with atheris.

    python -m tests.fuzz [TARGET ...] [--seconds 600] [--keep]

Each target starts from its corpus in tests/fuzz/corpus, and ends at the first input that fails: an error that is no
sentence for a visitor, text that isn't clean, or ten seconds for one input, of at most 20,000 bytes. The input is then
written here as crash-… or timeout-…. With `--keep`, inputs that reach new code are kept in the corpus, the smallest
ones that do. As many targets run at once as there are processors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
LIBFUZZER = ("-max_len=20000", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (default: 600)")
    parser.add_argument("--keep", action="store_true", help="keep what reaches new code")
    given = parser.parse_args()
    if unknown := set(given.targets) - TARGETS.keys():
        parser.error(f"there is no target {sorted(unknown)[0]!r}")
    names = given.targets or list(TARGETS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(lambda name: fuzzed(name, given.seconds, given.keep), names))
    failed = [name for name, well in zip(names, passed, strict=True) if not well]
    print("failed: " + ", ".join(failed) if failed else "nothing failed")
    return bool(failed)


def fuzzed(name: str, seconds: int, keep: bool) -> bool:
    """Whether nothing failed. Each target has a process of its own: libFuzzer ends it."""
    corpus = CORPUS / name
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "tests.fuzz.targets", name, *LIBFUZZER]
        print(f"{name}: {seconds} seconds", flush=True)
        if subprocess.run([*run, f"-max_total_time={seconds}", folder, str(corpus)]).returncode:
            return False
        return not keep or not subprocess.run([*run, "-merge=1", str(corpus), folder]).returncode


if __name__ == "__main__":
    sys.exit(main())
