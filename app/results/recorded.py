"""Rows that come with the app: what was measured, and the command that measures it again."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from lampe.results import Results, open_results

_ROOT = Path(__file__).parents[2]


class Recorded(NamedTuple):
    """Rows that come with the app.

    Parameters
    ----------
    title : str
    file : Path
        Or a folder of them.
    command : str
        That made them, and makes them again.
    """

    title: str
    file: Path
    command: str


RECORDED = {
    "needles": Recorded(
        "Hidden numbers, by method", _ROOT / "benchmarks" / "needle.jsonl", "python -m benchmarks.needle"
    ),
    "sweep": Recorded(
        "The default's calibration", _ROOT / "assets" / "smollm2.jsonl",
        "python -m lampe calibrate --lengths 2048,4096,6144,8192,12288,16384 --windows 4 --steps 4 --refine 0",
    ),
    "methods": Recorded(
        "All methods, and each tuned", _ROOT / "benchmarks" / "methods",
        "python -m benchmarks.methods --windows 8 --tune",
    ),
    "ruler": Recorded(
        "RULER, by method", _ROOT / "benchmarks" / "ruler" / "rows.jsonl",
        "python -m benchmarks.ruler",
    ),
    "held-out": Recorded(
        "Held-out text for the default", _ROOT / "benchmarks" / "presets.jsonl", "python -m benchmarks.presets"
    ),
}  # fmt: skip
"""By the names that addresses have for them."""


@cache
def recorded(name: str) -> Results:
    """The rows that come with the app under a name."""
    return open_results(RECORDED[name].file)


def offered() -> dict[str, Recorded]:
    """Those of `RECORDED` whose file is there."""
    return {name: one for name, one in RECORDED.items() if one.file.exists()}
