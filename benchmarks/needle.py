"""The README's needle table and heat map: the default model in 4 bits, plain and under LaMPE, 2k to 16k tokens.

    python -m benchmarks.needle [--quick] [--fresh]

Runs `python -m lampe needle` with the arguments below, which keeps its rows in needle.jsonl beside this file and goes
on where it stopped; prints the table, writes app/assets/see/proof.json, which the page shows as recorded, and draws
assets/screenshots/needle-grid.png (Chromium draws it). Half an hour on two cores.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from app.needle.figures import heat
from app.see.proof import FILE, proof_of
from benchmarks.measure import arguments, machine
from benchmarks.screenshots import picture
from lampe.__main__ import main as lampe_command
from lampe.models.load import DEFAULT_MODEL_NAME
from lampe.needle import read_results, summary_rows

FULL = [
    "--lengths", "2048,4096,8192,10240,12288,16384", "--depths", "0,0.25,0.5,0.75,1", "--trials", "2",
]  # fmt: skip
QUICK = ["--lengths", "600", "--depths", "0.5"]


def main() -> None:
    given = arguments(__doc__).parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder if given.quick else Path(__file__).parent) / "needle.jsonl"
        if given.fresh:
            file.unlink(missing_ok=True)
        status = lampe_command(["needle", *(QUICK if given.quick else FULL), "--out", str(file)])
        if status:
            sys.exit(status)
        results = read_results(file)
        print(table(results))
        if not given.quick:
            proof = proof_of(results, DEFAULT_MODEL_NAME, str(machine()["date"]), "python -m benchmarks.needle")
            Path(str(FILE)).write_text(json.dumps(proof, ensure_ascii=False), encoding="utf-8")
            figure = heat(results, [result.cell for result in results], big=True)
            picture(figure, Path("assets/screenshots/needle-grid.png"), height=360)


def table(results: list) -> str:
    """The shares found with their intervals, a column for each length, in Markdown."""
    rows = summary_rows(results)
    lengths = sorted({row[0] for row in rows})
    shares = {(length, method): f"{share:.0%} ({low:.0%}–{high:.0%})" for length, method, share, low, high, _ in rows}
    lines = [f"| found, of {rows[0][-1]} | " + " | ".join(f"{length:,}" for length in lengths) + " |"]
    lines.append("|---" * (len(lengths) + 1) + "|")
    for method, name in (("rope", "plain RoPE"), ("lampe", "LaMPE")):
        lines.append(f"| {name} | " + " | ".join(shares.get((length, method), "") for length in lengths) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
