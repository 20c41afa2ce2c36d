"""What the default model's calibration is worth on text and needles that it wasn't fitted to.

    python -m benchmarks.presets [--quick] [--fresh] [--windows 4]

Ways to map positions, on Python's language reference and with needles of another seed: not at all (plain RoPE), by the
sweep's best constant, the same with a greater Head, by its fitted curve, by Llama-3's published curve rescaled to the
window, and by the default that there was before. In each window of the text sixteen numbers are hidden and asked for
as the page asks; the loss is that of its last 512 tokens. All ways see the same needles, so their differences are
paired. A row for each is kept in presets.jsonl beside this file, and the command goes on where it stopped, window by
window; then it prints the tables and draws the sweep's figures into assets/screenshots (Chromium draws them).
Hours on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import lampe
from app.calibration.figures import chosen_figure, loss_figure
from app.calibration.page import SHIPPED
from benchmarks.measure import arguments, machine
from benchmarks.screenshots import picture
from lampe.calibration import CalibratedPreset, Row, SweepPoint, compare, evaluate, evaluations, read_preset, source_of
from lampe.calibration.rows import put_together, read_rows, write_row
from lampe.methods import Constant
from lampe.models.load import DEFAULT_MODEL_NAME
from lampe.needle import HAYSTACKS, TokenizedHaystack, wilson

LENGTHS = (2048, 4096, 6144, 8192, 12288, 16384)
NEEDLES, SEED = 16, 7
BEFORE = 6654
"""The constant mapping length that was the default until the sweep of November 2026."""
HEAD = 1024
"""Ahead of the default's 512 in the sweep at 12,288 tokens, by less than its needles can tell."""

Ways = Mapping[str, lampe.LampeConfig | None]
"""By their names; None maps nothing."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--windows", type=int, default=4, help="windows of text for each length (default: 4)")
    given = parser.parse_args()
    print(machine(), flush=True)
    preset = read_preset(SHIPPED["smollm2"])
    lengths, windows, needles = ((900,), 1, 1) if given.quick else (LENGTHS, given.windows, NEEDLES)
    model, tokenizer = lampe.load(bits=4)
    tokenized = TokenizedHaystack(HAYSTACKS["reference"](), tokenizer)
    source = asdict(source_of(model, tokenized, DEFAULT_MODEL_NAME))
    file = None if given.quick else Path(__file__).with_suffix(".jsonl")
    if file and given.fresh:
        file.unlink(missing_ok=True)
    ways = ways_of(preset)
    points = dict.fromkeys(point(preset, way, length) for length in lengths for way in ways.values())
    wanted = [one for each in points for one in evaluations(each, "both", windows, needles, SEED)]
    rows = {row.evaluation: row for row in (read_rows(file, source) if file else ())}
    missing = sorted((one for one in wanted if one not in rows), key=lambda one: one.text_window)
    for row in evaluate(model, tokenized, missing, preset.config.window):
        rows[row.evaluation] = row
        print(told(row), flush=True)
        if file:
            write_row(file, row, source)
    measured = [rows[one] for one in wanted]
    print(table(preset, ways, lengths, measured))
    print(differences(preset, ways, lengths, measured))
    if not given.quick:
        for name, figure in (("chosen", chosen_figure(preset, big=True)), ("loss", loss_figure(preset, big=True))):
            assert figure is not None
            picture(figure, Path(f"assets/screenshots/calibration-{name}.png"), height=600)


def ways_of(preset: CalibratedPreset) -> Ways:
    """The ways that are compared; a curve that is nowhere more than one position off the constant is that constant."""
    curve, constant, *others = preset.ways.items()
    level = all(abs(curve[1].mapping_length(n) - constant[1].mapping_length(n)) <= 1 for n in LENGTHS)
    own = {f"{constant[0]}, and {curve[0]}": constant[1]} if level else dict((curve, constant))
    before = {f"m = {BEFORE:,}": replace(preset.config, mapping=Constant(BEFORE))}
    heads = {f"Head {HEAD:,}": replace(preset.config, head=HEAD)}
    return {"plain RoPE": None, **own, **heads, **dict(others), **before}


def point(preset: CalibratedPreset, way: lampe.LampeConfig | None, length: int) -> SweepPoint:
    """What a way comes to at a length."""
    m = way.position_map(length).mapping_length if way else length
    config = way if way and m < length else preset.config  # what maps nothing is the same for all
    return SweepPoint(length, m, config.head, config.tail, config.attention_scale)


def told(row: Row) -> str:
    """A row in a few words."""
    came = f"loss {row.loss:.3f}" if row.loss is not None else "found" if row.found else "missed"
    return f"{row.length:,} tokens, m = {row.mapping_length:,}: {came} ({row.seconds:.0f} s)"


def table(preset: CalibratedPreset, ways: Ways, lengths: Sequence[int], rows: Sequence[Row]) -> str:
    """For each way and length: the mapping length, the loss, and the needles found; in Markdown."""
    measured = {one.point: one for one in put_together(rows)}
    lines = [
        "| m, loss (nats), needles found | " + " | ".join(f"{length:,} tokens" for length in lengths) + " |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for name, way in ways.items():
        cells = []
        for length in lengths:
            one = measured[point(preset, way, length)]
            assert one.loss is not None
            assert one.found is not None
            low, high = wilson(one.found * one.needles, one.needles)
            m = f"{one.mapping_length:,}" if one.mapping_length < length else "not mapped"
            cells.append(f"{m}: {one.loss:.3f}, {one.found:.0%} ({low:.0%}–{high:.0%})")
        lines.append(f"| {name}{' (used)' * (way == preset.config)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(preset: CalibratedPreset, ways: Ways, lengths: Sequence[int], rows: Sequence[Row]) -> str:
    """Each way against the one that is used, over all lengths within the window and beyond it; in Markdown."""
    window = preset.config.window
    spans = {"within the window": [n for n in lengths if n <= window], "beyond": [n for n in lengths if n > window]}
    lines = ["| less the one used | found | log-likelihood | loss |", "|---|---|---|---|"]
    for span, some in spans.items():
        for name, way in ways.items():
            if way == preset.config or not some:
                continue
            ours, theirs = (
                [row for row in rows if row.point in {point(preset, one, length) for length in some}]
                for one in (way, preset.config)
            )
            cells = [str(compare(ours, theirs, what)) for what in ("found", "log_likelihood", "loss")]
            lines.append(f"| {name}, {span} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
