"""What the default model's calibration is worth: its curve, the best constant and Llama-3's curve, on other text.

    python -m benchmarks.presets [--quick] [--fresh]

The preset was fitted to docstrings and needles of one seed; here are Python's language reference and another seed. A
row for each window of text and each needle is kept in presets.jsonl beside this file, and the command goes on where it
stopped; then it prints the table and draws the sweep's figures into assets/screenshots (Chromium draws them). About
twenty minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import lampe
from app.calibration_figures import chosen_figure, loss_figure
from app.calibration_page import SHIPPED
from benchmarks.measure import arguments, machine
from benchmarks.screenshots import picture
from lampe.calibration import Measured, Point, Preset, Row, evaluate, evaluations, read_preset, source_of
from lampe.calibration.rows import put_together, read_rows, write_row
from lampe.load import DEFAULT_MODEL_NAME
from lampe.needle import HAYSTACKS, Straw

LENGTHS = (2048, 4096, 8192, 12288, 16384)
WINDOWS, NEEDLES, SEED = 1, 8, 7


def main() -> None:
    given = arguments(__doc__).parse_args()
    print(machine(), flush=True)
    preset = read_preset(SHIPPED["smollm2"])
    lengths, windows, needles = ((900,), 1, 1) if given.quick else (LENGTHS, WINDOWS, NEEDLES)
    model, tokenizer = lampe.load(bits=4)
    straw = Straw(HAYSTACKS["reference"](), tokenizer)
    source = asdict(source_of(model, straw, DEFAULT_MODEL_NAME))
    file = None if given.quick else Path(__file__).with_suffix(".jsonl")
    if file and given.fresh:
        file.unlink(missing_ok=True)
    wanted = [
        evaluation
        for point in points(preset, lengths)
        for evaluation in evaluations(point, "both", windows, needles, SEED, len(straw.ids))
    ]
    rows = {row.evaluation: row for row in (read_rows(file, source) if file else ())}
    for row in evaluate(model, straw, [one for one in wanted if one not in rows], preset.config.window):
        rows[row.evaluation] = row
        print(told(row), flush=True)
        if file:
            write_row(file, row, source)
    print(table(preset, put_together(rows[one] for one in wanted)))
    if not given.quick:
        for name, figure in (("chosen", chosen_figure(preset, big=True)), ("loss", loss_figure(preset, big=True))):
            assert figure is not None
            picture(figure, Path(f"assets/screenshots/calibration-{name}.png"), height=600)


def points(preset: Preset, lengths: Sequence[int]) -> list[Point]:
    """What the ways to choose the mapping length come to at these lengths, each once."""
    config = preset.config
    mapped = [(n, way.position_map(n).mapping_length) for n in lengths for way in preset.ways.values()]
    return [Point(n, m, config.head, config.tail, config.attention_scale) for n, m in dict.fromkeys(mapped)]


def told(row: Row) -> str:
    """A row in a few words."""
    came = f"loss {row.loss:.3f}" if row.loss is not None else "found" if row.found else "missed"
    return f"{row.length:,} tokens, m = {row.mapping_length:,}: {came} ({row.seconds:.0f} s)"


def table(preset: Preset, measured: Sequence[Measured]) -> str:
    """For each way and length: the mapping length, the loss, and the needles found; in Markdown."""
    found = {(one.length, one.mapping_length): one for one in measured}
    lengths = sorted({length for length, _ in found})
    lines = [
        "| m, loss (nats), needles found | " + " | ".join(f"{length:,} tokens" for length in lengths) + " |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for name, way in preset.ways.items():
        cells = []
        for length in lengths:
            one = found[length, way.position_map(length).mapping_length]
            assert one.loss is not None
            assert one.found is not None
            hits = round(one.found * one.needles)
            m = f"{one.mapping_length:,}" if one.mapping_length < length else "not mapped"
            cells.append(f"{m}: {one.loss:.3f}, {hits} of {one.needles}")
        lines.append(f"| {name}{' (used)' * (way == preset.config)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
