"""Pieces of the page as HTML. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from html import escape

import torch

from app.session import Method, RunReport, Update, region_rows
from lampe.positions import LampeConfig, PositionMap

DEVICE = "GPU" if torch.cuda.is_available() else "CPU"
METHOD_NAMES = {"lampe": "LaMPE", "rope": "Plain RoPE"}
PRECISIONS = {4: "4-bit NF4", 16: "16-bit"}
NOT_CALIBRATED = "not calibrated for this model"


def header(model: str, bits: int) -> str:
    """Name, purpose, and which model runs here."""
    return (
        '<header class="lab"><h1>LaMPE Lab</h1><p>A document longer than the model was trained for, read by the same '
        "model: plain RoPE loses its way, LaMPE maps the distances back into its window.</p>"
        f'<p class="model"><b>{escape(model)}</b> <span>{PRECISIONS[bits]}</span> <span>{DEVICE}</span></p></header>'
    )


def status(update: Update) -> str:
    """What is being done, and how much of it is left."""
    if not update.total:
        return note(f"{update.stage}…")
    share = min(1.0, update.done / update.total)
    amount = (
        f"{update.done / 1e6:.0f} of {update.total / 1e6:.0f} MB"
        if update.unit == "bytes"
        else f"{update.done:,} of {update.total:,} {escape(update.unit)}"
    )
    return (
        f'<div class="status" role="status"><span>{escape(update.stage)}</span><span>{amount}</span>'
        f'<div class="bar" role="progressbar" aria-label="{escape(update.stage)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share * 100:.0f}"><i style="width:{share:.1%}"></i></div></div>'
    )


def note(text: str) -> str:
    """A word on how things stand."""
    return f'<div class="status" role="status">{escape(text)}</div>'


def message(text: str) -> str:
    """A sentence about something that went wrong."""
    return f'<div class="status error" role="alert">{escape(text)}</div>'


def no_text(drawn: int) -> str:
    """What stands in the length's place before there is a text."""
    return f'<div class="length"><b>No text yet.</b> The map below is drawn for {drawn:,} tokens.</div>'


def length_readout(tokens: int, exact: bool, window: int, limit: int) -> str:
    """The prompt's length against the window and the limit."""
    if tokens > limit:
        kind, note = "error", f"over the limit of {limit:,}: nothing will be cut, but it can't be asked about"
    elif tokens > window:
        kind, note = "past", f"{tokens / window:.2g} × the window of {window:,}"
    else:
        kind, note = "", f"{tokens / window:.0%} of the window of {window:,}"
    scale = max(tokens, window) * 1.02
    return (
        f'<div class="length {kind}"><b>{"" if exact else "about "}{tokens:,} tokens</b> <span>{note}</span>'
        f'<div class="bar" aria-hidden="true"><i style="width:{tokens / scale:.1%}"></i>'
        f'<u style="left:{window / scale:.1%}"></u></div></div>'
    )


def map_sentence(position_map: PositionMap, config: LampeConfig) -> str:
    """The map in one plain sentence."""
    length = position_map.length
    if not position_map.compresses:
        text = f"At {length:,} tokens nothing is compressed: every distance keeps its exact position."
        if length > config.window:
            text += f" Positions beyond {config.window:,} were never seen in training."
    else:
        counts = dict(zip([r.name for r in position_map.regions], position_map.key_counts(length - 1), strict=True))
        slots = position_map.mapping_length - position_map.head - position_map.tail
        text = (
            f"At {length:,} tokens the last token sees its {counts['Head']:,} nearest keys at exact distances, "
            f"{counts['Middle']:,} keys share {slots:,} positions ({counts['Middle'] / slots:.1f} tokens each), and "
            f"the first {counts['Tail']:,} keep exact distances among themselves: {position_map.mapping_length:,} "
            f"positions in all."
        )
    if not config.calibrated:
        text += f" The mapping length is {NOT_CALIBRATED}."
    return f'<p class="sentence">{text}</p>'


def map_table(position_map: PositionMap) -> str:
    """The regions of the last query token, as numbers."""
    rows = ""
    query = position_map.length - 1
    for region, row in zip(position_map.regions, region_rows(position_map, position_map.length), strict=True):
        first, stop = region.key_span(query)
        if first == stop:
            continue
        near, far = position_map.relative(query, stop - 1), position_map.relative(query, first)
        rows += (
            f'<tr><th scope="row"><span class="chip region-{region.name.lower()}"></span>{region.name}</th>'
            f"<td>{query - stop + 1:,} – {query - first:,}</td><td>{near:,} – {far:,}</td><td>{row['keys']:,}</td></tr>"
        )
    return (
        '<div class="scroll"><table class="figures"><thead><tr><th scope="col">Region</th>'
        '<th scope="col">Distances</th><th scope="col">Positions</th><th scope="col">Keys</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def run_report(reports: list[RunReport]) -> str:
    """The figures of the runs on one prompt, side by side, and where the attention went."""
    if not reports:
        return ""
    columns = "".join(f'<th scope="col">{METHOD_NAMES[r.method]}</th>' for r in reports)
    lines = [
        ("Input length", [f"{r.input_length:,} tokens" for r in reports]),
        ("Window", [f"{r.window:,} tokens" for r in reports]),
        ("Mapping length", [_mapping_length(r) for r in reports]),
        ("Keys of the last prompt token", [_keys(r) for r in reports]),
        ("Its attention, by region", [_shares(r) for r in reports]),
        ("Reading (prefill)", [f"{r.prefill_seconds:.1f} s" for r in reports]),
        ("Answering (decode)", [_decode(r) for r in reports]),
    ]
    body = "".join(
        f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, cells in lines
    )
    first = reports[0]
    caption = f"{escape(first.model)}, {PRECISIONS[first.bits]}, greedy"
    return (
        f'<div class="scroll"><table class="figures"><caption>{caption}</caption><thead><tr><td></td>{columns}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def answer(method: Method, text: str) -> str:
    """One method's answer as it grows."""
    name = METHOD_NAMES[method] + (", the same model unpatched" if method == "rope" else "")
    return (
        f'<section class="answer {method}" aria-label="Answer of {name}" tabindex="0"><h3>{name}</h3>'
        f"<p>{escape(text)}</p></section>"
    )


def _mapping_length(report: RunReport) -> str:
    note = "" if report.method == "rope" or report.calibrated else f", {NOT_CALIBRATED}"
    return f"{report.mapping_length:,} positions{note}"


def _keys(report: RunReport) -> str:
    if not report.new_tokens:
        return "stopped before it was read"
    return ", ".join(f"{row['keys']:,} {row['name']}" for row in report.regions)


def _shares(report: RunReport) -> str:
    if report.method == "rope":
        return "not measured: the model ran unpatched"
    if not report.layer_shares:
        return "stopped before it was measured"
    bar = "".join(
        f'<i class="region-{row["name"].lower()}" style="width:{row["share"]:.1%}"></i>' for row in report.regions
    )
    text = ", ".join(f"{row['share']:.0%} {row['name']}" for row in report.regions)
    return f'<div class="shares" aria-hidden="true">{bar}</div>{text} <small>(mean over layers and heads)</small>'


def _decode(report: RunReport) -> str:
    if not report.new_tokens:
        return "stopped before the first token"
    speed = f", {(report.new_tokens - 1) / report.decode_seconds:.1f} tokens/s" if report.decode_seconds > 0.05 else ""
    return f"{report.new_tokens} tokens in {report.decode_seconds:.1f} s{speed}"
