"""What was recorded of hidden numbers: `python -m benchmarks.needle` writes it, and the page shows it as recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from lampe.methods import METHODS, LampeConfig
from lampe.needle import Result, summary_rows

FILE = files("app") / "assets" / "see" / "proof.json"


def proof_of(results: Sequence[Result], model: str, date: str, command: str) -> dict[str, Any]:
    """Results as the page's script takes them.

    Parameters
    ----------
    results : sequence of Result
        Of one kind of needle, one model and one setting of each method.
    model, date, command : str
        Which model, when, and by what they were recorded.
    """
    lampe = [one for one in results if one.method == LampeConfig.key]
    mapped = sorted({one.mapping_length for one in lampe if one.mapping_length < one.length})
    return {
        "source": {
            "model": model,
            "settings": f"m = {', '.join(f'{m:,}' for m in mapped)}",
            "date": date,
            "command": command,
        },
        "lengths": sorted({one.length for one in results}),
        "depths": sorted({one.depth for one in results}),
        "methods": [{"key": key, "title": METHODS[key].title} for key in dict.fromkeys(one.method for one in results)],
        "totals": {
            f"{length} {method}": [round(share * tests), tests, round(low, 3), round(high, 3)]
            for length, method, share, low, high, tests in summary_rows(results)
        },
        "rows": [[one.length, one.depth, one.method, one.expected[0], one.answer, one.score == 1] for one in results],
    }


def recorded() -> dict[str, Any]:
    """The proof that comes with the app."""
    return json.loads(FILE.read_text(encoding="utf-8"))
