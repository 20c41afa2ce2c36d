"""Every method on the same text and the same needles, by its authors' rule and tuned.

    python -m benchmarks.methods [--windows 2] [--methods rope,lampe,…] [--lengths 4096,…] [--tune] [--recorded]
                                 [--quick] [--fresh]

The default model in 4 bits. In each window of Python's language reference eight numbers are hidden and asked for as the
page asks; the loss is that of its last 512 tokens. The methods see the same windows and needles, so differences are
paired. First comes each method as its authors' rule has it (LaMPE as it is shipped). With --tune, each method's
candidates are measured on the docstrings of Python's library at 8k and 12k tokens, as many windows and needles as
LaMPE's own sweep takes, and the best one is then read like the others. A row for each loss and needle is kept in a file
for each method, in the folder methods beside this file (tuning's in methods-tuning), and the command goes on where it
stopped, window by window. Then it prints the tables and draws the figure into assets/screenshots (Chromium draws it).
With --recorded it measures nothing, and takes the rows that are there, of the weights that have the most. Weights that
a GPU has packed to 4 bits aren't quite those that a CPU has packed, and are measured apart.
Many hours on two cores: a window of 4k, 8k, 12k and 16k tokens takes about ten minutes for each method. On an H100 all
of it took four, with a process for each method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import lampe
from benchmarks.measure import arguments, machine
from lampe.calibration import TrialRow, compare, library_docstrings, read_trials, run_trials, source_of, trials, tuned
from lampe.calibration.comparing import Trial, every_trial, write_trial
from lampe.cli.arguments import list_of
from lampe.families import family_config
from lampe.methods import METHODS, Method, methods_for
from lampe.models.load import DEFAULT_MODEL_NAME
from lampe.needle import HAYSTACKS, TokenizedHaystack, mcnemar, wilson

LENGTHS = [4096, 8192, 12_288, 16_384]
NEEDLES, SEED = 8, 11
TUNED_AT, TUNING_WINDOWS, TUNING_SEED = [8192, 12_288], 1, 1000
BASE = "lampe"
FARTHEST = -1.25  # nats: what is less likely by more than this is written, not drawn

Ways = Mapping[str, Method]
"""What is compared, by its name."""

Measure = Callable[[Sequence[Trial]], list[TrialRow]]
"""Gives the rows of some trials."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--windows", type=int, default=2, help="windows of text for each length (default: 2)")
    parser.add_argument("--lengths", type=list_of(int), default=LENGTHS, help="tokens, as 4096,8192")
    parser.add_argument("--methods", type=list_of(str), default=list(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--tune", action="store_true", help="tune each method, and read with the tuned settings too")
    parser.add_argument("--recorded", action="store_true", help="only show the rows that are there")
    given = parser.parse_args()
    print(machine(), flush=True)
    lengths, windows, needles = ([900], 1, 2) if given.quick else (given.lengths, given.windows, NEEDLES)
    keys = ["rope", "lampe", "yarn", "dca"] if given.quick else given.methods
    # Known without the model, which whoever only shows rows needn't have.
    settled = methods_for([BASE, *keys], family_config("smollm2"))
    ways = {METHODS[key].title: method for key, method in settled.items()}
    tuning, reading = _kept() if given.recorded else _measures(None if given.quick else keys if given.fresh else ())
    if given.tune:
        ways |= tuned_ways(ways, tuning)
    rows = reading([one for way in ways.values() for one in trials(way, lengths, windows, needles, SEED)])
    print(table(ways, lengths, rows))
    print(differences(ways, lengths, rows))
    if not given.quick:
        draw(ways, lengths, rows, Path("assets/screenshots/methods.png"))


def _measures(forgotten: Sequence[str] | None) -> tuple[Measure, Measure]:
    """What tunes and what reads. Rows of some methods are forgotten first; with None none are kept."""
    model, tokenizer = lampe.load(bits=4)
    texts = {"methods-tuning": library_docstrings, "methods": HAYSTACKS["reference"]}
    tuning, reading = (
        partial(
            measured,
            None if forgotten is None else _folder(name, forgotten),
            model,
            TokenizedHaystack(text(), tokenizer),
        )
        for name, text in texts.items()
    )
    return tuning, reading


def _kept() -> tuple[Measure, Measure]:
    """The same from rows that are there."""
    return partial(recorded, _folder("methods-tuning")), partial(recorded, _folder("methods"))


def recorded(folder: Path, wanted: Sequence[Trial]) -> list[TrialRow]:
    """The rows of some trials that a folder has, all of the same weights."""
    kept = every_trial(folder)
    weights = Counter(given.get("weights") for _, given in kept).most_common(1)[0][0]
    rows = {row.trial: row for row, given in kept if given.get("weights") == weights}
    return [rows[one] for one in dict.fromkeys(wanted) if one in rows]


def _folder(name: str, forgotten: Sequence[str] = ()) -> Path:
    """Where rows are kept; those of some methods are forgotten first."""
    folder = Path(__file__).with_name(name)
    folder.mkdir(exist_ok=True)
    for key in forgotten:
        (folder / f"{key}.jsonl").unlink(missing_ok=True)
    return folder


def measured(folder: Path | None, model: Any, tokenized: TokenizedHaystack, wanted: Sequence[Trial]) -> list[TrialRow]:
    """The rows of some trials: those that are kept in the folder, and the others, measured now and kept there."""
    source = asdict(source_of(model, tokenized, DEFAULT_MODEL_NAME))
    rows = {row.trial: row for row in (read_trials(folder, source) if folder else ())}
    for row in run_trials(model, tokenized, wanted, rows.values()):
        rows[row.trial] = row
        came = f"loss {row.loss:.3f}" if row.loss is not None else "found" if row.found else "missed"
        print(f"{row.method.title}, {row.length:,} tokens: {came} ({row.seconds:.0f} s)", flush=True)
        if folder:
            write_trial(folder / f"{row.method.key}.jsonl", row, source)
    return [rows[one] for one in dict.fromkeys(wanted)]


def tuned_ways(ways: Ways, tuning: Measure) -> Ways:
    """The methods whose best candidate isn't what the authors' rule says; LaMPE's calibration is its tuning."""
    found = {}
    for title, method in ways.items():
        if isinstance(method, lampe.LampeConfig) or len(candidates := method.candidates()) < 2:
            continue
        wanted = [one for way in candidates for one in trials(way, TUNED_AT, TUNING_WINDOWS, NEEDLES, TUNING_SEED)]
        best = tuned(method, tuning(wanted))
        if best != method:
            found[f"{title}, tuned"] = best
    return found


def of(rows: Sequence[TrialRow], way: Method, length: int) -> list[TrialRow]:
    """A method's rows at a length."""
    return [row for row in rows if (row.method, row.length) == (way, length)]


def table(ways: Ways, lengths: Sequence[int], rows: Sequence[TrialRow]) -> str:
    """For each way and length: needles found with their interval, the likelihood of the answers, the loss; Markdown."""
    lines = [
        "| found (95 %), log-likelihood, loss | " + " | ".join(f"{length:,} tokens" for length in lengths) + " |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for name, way in ways.items():
        cells = []
        for length in lengths:
            some = of(rows, way, length)
            if not some:
                cells.append("–")
                continue
            needles = [row for row in some if row.log_likelihood is not None]
            hits = sum(bool(row.found) for row in needles)
            low, high = wilson(hits, len(needles))
            likelihood = fmean(row.log_likelihood or 0.0 for row in needles)
            loss = fmean(row.loss for row in some if row.loss is not None)
            cells.append(f"{hits} of {len(needles)} ({low:.0%}–{high:.0%}), {likelihood:.3f}, {loss:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(ways: Ways, lengths: Sequence[int], rows: Sequence[TrialRow]) -> str:
    """Each way less LaMPE on the same texts, with 95 % intervals, and how many needles only one of both has found: at
    each length, and at those beyond the window together."""
    base = METHODS[BASE].title
    lines = [
        f"| less {base} | tokens | found by it alone, by {base} alone (McNemar's p) | log-likelihood | loss |",
        "|---|---|---|---|---|",
    ]
    beyond = [length for length in lengths if length > ways[base].window]
    for name, way in ways.items():
        for some in [[length] for length in lengths] + ([beyond] if len(beyond) > 1 else []):
            ours, theirs = ([row for length in some for row in of(rows, one, length)] for one in (way, ways[base]))
            if way == ways[base] or not ours:
                continue
            found = {(row.length, row.text_window, row.asked): row.found for row in theirs if row.asked is not None}
            pairs = [(r.found, found[r.length, r.text_window, r.asked]) for r in ours if r.asked is not None]
            alone, base_alone = pairs.count((True, False)), pairs.count((False, True))
            lines.append(
                f"| {name} | {' and '.join(f'{length:,}' for length in some)} | "
                f"{alone}, {base_alone} ({mcnemar(alone, base_alone):.2g}) | "
                f"{compare(ours, theirs, 'log_likelihood')} | {compare(ours, theirs, 'loss')} |"
            )
    return "\n".join(lines)


def draw(ways: Ways, lengths: Sequence[int], rows: Sequence[TrialRow], path: Path) -> None:
    """The answers' log-likelihood less LaMPE's, with its interval: a row for each way, a panel for each length."""
    # Measuring needs neither plotly nor Chromium: a machine with a GPU may have none.
    import plotly.graph_objects as go

    from app.ui.figure import GREY
    from benchmarks.screenshots import picture

    base = ways[METHODS[BASE].title]
    drawn = go.Figure()
    names = [name for name, way in ways.items() if way != base]
    width = 1 / len(lengths)
    for number, length in enumerate(lengths):
        less = {name: compare(of(rows, ways[name], length), of(rows, base, length), "log_likelihood") for name in names}
        axis = "" if not number else str(number + 1)
        shown = {name: one for name, one in less.items() if one.mean > FARTHEST}
        drawn.add_scatter(
            x=[one.mean for one in shown.values()], y=list(shown), mode="markers", xaxis=f"x{axis}", showlegend=False,
            error_x={
                "array": [one.high - one.mean for one in shown.values()],
                "arrayminus": [one.mean - one.low for one in shown.values()],
            },
            marker={"size": 8, "color": "#0072B2"},
        )  # fmt: skip
        beyond = {name: f"◀ {one.mean:.2f}".replace("-", "−") for name, one in less.items() if name not in shown}
        drawn.add_scatter(
            x=[FARTHEST] * len(beyond), y=list(beyond), text=list(beyond.values()), mode="text", xaxis=f"x{axis}",
            textposition="middle right", textfont={"color": "#D55E00", "size": 12}, showlegend=False,
        )  # fmt: skip
        drawn.layout[f"xaxis{axis}"] = {
            "domain": [number * width, (number + 1) * width - 0.02], "range": [FARTHEST - 0.05, 0.55],
            "title": {"text": f"{length:,} tokens"}, "zeroline": True, "zerolinewidth": 2, "dtick": 0.5,
        }  # fmt: skip
    drawn.update_layout(
        template="none", margin={"l": 190, "r": 20, "t": 50, "b": 60},
        yaxis={"autorange": "reversed", "dtick": 1, "categoryorder": "array", "categoryarray": names},
        title={"text": "Log-likelihood of the answers, less LaMPE's (right of 0: likelier than under LaMPE)"},
        font={"family": "system-ui, sans-serif", "size": 13, "color": GREY},
    )  # fmt: skip
    picture(drawn, path, height=120 + 22 * len(names))


if __name__ == "__main__":
    main()
