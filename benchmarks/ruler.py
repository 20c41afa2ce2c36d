"""The README's table and figure of RULER: six of its tasks, by LaMPE, its ablations and what it is compared with.

    python -m benchmarks.ruler [--samples 20] [--recorded] [--quick] [--fresh]

Runs `python -m lampe evaluate` with the arguments below, which keeps its rows in the folder ruler beside this file and
goes on where it stopped; prints all tasks together as a table, and draws their log-likelihoods into assets/screenshots
(Chromium draws them). With --recorded it asks nothing, and takes the rows that are there.
Days on two cores, an hour on an H200.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from app.results.figures import lines_figure
from benchmarks.measure import arguments, machine
from lampe.__main__ import main as lampe_command
from lampe.results import ALL_TASKS, Results, open_results

TASKS = ["niah_single_1", "niah_multikey_2", "niah_multikey_3", "ruler_vt", "ruler_cwe", "ruler_fwe"]
FULL = [
    "--tasks", ",".join(TASKS), "--lengths", "4096,8192,12288,16384",
    "--methods", "rope,lampe,lampe-fixed,lampe-uniform,lampe-tailless,selfextend,dca",
]  # fmt: skip
QUICK = ["--tasks", ",".join(TASKS[:2]), "--lengths", "1024", "--methods", "rope,lampe", "--no-chat"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=20, help="of each task and length (default: 20)")
    parser.add_argument("--recorded", action="store_true", help="only show the rows that are there")
    given = parser.parse_args()
    if given.recorded and (given.quick or given.fresh):
        parser.error("--recorded takes the rows that are there: neither --quick nor --fresh goes with it")
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) if given.quick else Path(__file__).with_suffix("")
        rows = out / "rows.jsonl"
        if given.fresh:
            rows.unlink(missing_ok=True)
        if not given.recorded:
            samples = 1 if given.quick else given.samples
            status = lampe_command(
                ["evaluate", *(QUICK if given.quick else FULL), "--samples", str(samples), "--out", str(out)]
            )
            if status:
                sys.exit(status)
        results = open_results(rows)
    print(table(results))
    if not given.quick:
        from benchmarks.screenshots import picture

        figure = lines_figure(results, ALL_TASKS, "log_likelihood")
        picture(figure, Path("assets/screenshots/ruler-tasks.png"), height=380)


def table(results: Results) -> str:
    """All tasks together: the mean score with its interval and the answers' mean log-likelihood, in Markdown."""
    scores, likely = (results.estimates(ALL_TASKS, measure) for measure in ("score", "log_likelihood"))
    lengths = sorted({length for _, length in scores})
    counts = {length: next(one.count for (_, of), one in scores.items() if of == length) for length in lengths}
    lines = [
        "| score (95 %), log p | " + " | ".join(f"{length:,} ({counts[length]} samples)" for length in lengths) + " |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for way in results.ways:
        cells = []
        for length in lengths:
            score, log = scores.get((way, length)), likely.get((way, length))
            told = f"{score.mean:.2f} ({score.low:.2f}–{score.high:.2f}), {log.mean:.2f}" if score and log else "–"
            cells.append(told.replace("-", "−"))
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
