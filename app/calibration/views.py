"""A preset's sweep as HTML. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from html import escape

from app.calibration.figures import by_length
from app.ui.html import mapping_formula, row, table
from lampe.calibration import CalibratedPreset, Priced
from lampe.methods import LampeConfig


def sentence(preset: CalibratedPreset) -> str:
    """What the preset says, and why."""
    config, meant = preset.config, ""
    if all(config.mapping_length(times * config.window) == config.window for times in (1, 2, 16)):
        meant = " Nothing is mapped inside the window, and a longer input into all of it."
    return f'<p class="sentence"><b>{mapping_formula(config)}.</b>{meant} {escape(preset.why)}</p>'


def in_use(config: LampeConfig | None, name: str) -> str:
    """A line for all tabs while an opened preset is used."""
    if config is None:
        return ""
    return (
        f'<div class="status" role="status"><span>LaMPE runs with the opened preset <b>{escape(name)}</b>: '
        f'{mapping_formula(config)}. The figures behind it are in "Calibration".</span></div>'
    )


def chosen_table(preset: CalibratedPreset) -> str:
    """The best point of each length, and what each way to choose the mapping length costs there."""
    rows = ""
    ways = (preset.curve_costs, preset.constant_costs, preset.llama3_costs)
    for point, left, *priced in zip(preset.points, preset.residuals, *ways, strict=True):
        best = f"≥ {point.mapping_length:,} (no mapping)" if point.at_least else f"{point.mapping_length:,}"
        prices = map(_priced, priced)
        rows += row(f"{point.length:,} tokens", best, f"{point.sharpness:.4f}", f"{left:+,}", *prices)
    columns = ("Input", "Best m", "Sharpness", "Residual", "Fitted curve", "Best constant", "Llama-3's curve, rescaled")
    caption = (
        "The best mapping lengths, and what each way to choose m costs, on the sweep's own figures. Sharpness: how "
        "much more m × √2 or m ÷ √2 costs. Residual: positions by which the curve is off."
    )
    return table(columns, rows, caption)


def _priced(one: Priced) -> str:
    cost = "not tried" if one.cost is None else f"{one.cost:.4f}"
    return f"{cost} <small>(m = {one.mapping_length:,})</small>"


def sweep_table(preset: CalibratedPreset) -> str:
    """Every point that was measured."""
    rows = ""
    for length, points in by_length(preset).items():
        for one in points:
            rows += row(
                f"{length:,}",
                f"{one.mapping_length:,}",
                _number(one.loss, ".3f"),
                "–" if one.found is None else f"{one.found * one.needles:.0f} of {one.needles}",
                _number(one.log_likelihood, ".3f"),
                f"{one.cost(preset.how.objective, preset.how.weight):.4f}",
            )
    columns = ("Input (tokens)", "m", "Loss (nats)", "Needles found", "Log-likelihood (nats)", "Cost")
    return (
        "<details><summary>Every point that was measured</summary>"
        f"{table(columns, rows, 'The least cost of each input length is the best point.')}</details>"
    )


def provenance(preset: CalibratedPreset) -> str:
    """What the sweep was made on, and how."""
    how, source, made = preset.how, preset.source, preset.made
    config = preset.config
    objective = {
        "both": f"loss and needles, the needles' weight {how.weight:g}",
        "needle": "needles found, with the answer's likelihood between equal shares",
        "perplexity": "loss",
    }[how.objective]
    each = []
    if how.objective != "needle":
        each.append(f"windows of text: {how.windows}")
    if how.objective != "perplexity":
        each.append(f"needles in each: {how.needles}, seed {how.seed}")
    facts = [
        ("Model", f"{source.model} in {source.bits} bits, weights {source.weights}"),
        ("Window, Head, Tail", f"{config.window:,}, {config.head:,} and {config.tail:,} tokens"),
        ("Text", source.text),
        ("Cost", objective),
        ("Read for each point", ", ".join(each)),
        ("Mapping lengths", f"{how.steps} from an eighth of the window to all of it, {how.refine} × refined"),
        ("Made", f"{made.date} on {made.machine}"),
        ("With", f"Python {made.python}, torch {made.torch}, transformers {made.transformers}, lampe {made.lampe}"),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<h2>How it was measured</h2><dl class="facts">{items}</dl>'


def no_sweep(model: str) -> str:
    """What stands there for a model that nobody has calibrated."""
    return (
        f'<p class="sentence">No sweep of <b>{escape(model)}</b> is here. Make one with <code>python -m lampe '
        f"calibrate --model {escape(model)} --out preset.json</code>, then open its file.</p>"
    )


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
