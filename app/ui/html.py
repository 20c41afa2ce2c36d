"""Pieces of the page as HTML. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import torch

from app.map.figures import Frame, formula
from app.map.more_figures import BINS
from app.map.settings import MAX_MAP_LENGTH, MapView
from app.serving.reports import Attention, RunReport, Update
from app.settings import ModelChoice
from lampe.methods import LampeConfig, Rope, ScaledSigmoid
from lampe.positions import PositionMap, Region

DEVICE = "GPU" if torch.cuda.is_available() else "CPU"
PRECISIONS = {4: "4-bit NF4", 16: "16-bit"}


def header(model: ModelChoice) -> str:
    """Name, purpose, and which model runs here."""
    return (
        '<header class="lab"><h1>LaMPE Lab</h1><p>A document longer than the model was trained for, read by the same '
        "model: plain RoPE loses its way, LaMPE maps the distances back into its window.</p>"
        f'<p class="model"><b>{escape(model.name)}</b> <span>{PRECISIONS[model.bits]}</span> <span>{DEVICE}</span></p>'
        "</header>"
    )


def status(update: Update) -> str:
    """What is being done, and how much of it is left."""
    if not update.total:
        left = "" if update.seconds_left is None else f", {about(update.seconds_left)}"
        return note(f"{update.stage}{left}…")
    share = min(1.0, update.done / update.total)
    amount = (
        f"{update.done / 1e6:.0f} of {update.total / 1e6:.0f} MB"
        if update.unit == "bytes"
        else f"{update.done:,} of {update.total:,} {escape(update.unit)}"
    )
    if update.seconds_left is not None:
        amount += f", {about(update.seconds_left)} left"
    return (
        f'<div class="status" role="status"><span>{escape(update.stage)}</span><span>{amount}</span>'
        f'<div class="bar" role="progressbar" aria-label="{escape(update.stage)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share * 100:.0f}"><i style="width:{share:.1%}"></i></div></div>'
    )


def about(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} hours"


def note(text: str) -> str:
    """A word on how things stand."""
    return f'<div class="status" role="status">{escape(text)}</div>'


def message(text: str) -> str:
    """A sentence about something that went wrong."""
    return f'<div class="status error" role="alert">{escape(text)}</div>'


def side_by_side(threads: Sequence[str]) -> str:
    """Answers beside each other, as many in a row as there is room for."""
    return f'<div class="answers">{"".join(threads)}</div>' if threads else ""


def no_text(drawn: int) -> str:
    """What stands in the length's place before there is a text."""
    return f'<div class="length"><b>No text yet.</b> The map below is drawn for {drawn:,} tokens.</div>'


def length_readout(tokens: int, exact: bool, window: int, limit: int) -> str:
    """The prompt's length against the window and the limit."""
    if tokens > limit:
        kind, note = "error", f"over the limit of {limit:,}: choose what to read of it, below the text"
    elif tokens > window:
        kind, note = "past", f"{tokens / window:.2g} × the window of {window:,}; the limit is {limit:,}"
    else:
        kind, note = "", f"{tokens / window:.0%} of the window of {window:,}; the limit is {limit:,}"
    scale = max(tokens, window) * 1.02
    return (
        f'<div class="length {kind}"><b>{"" if exact else "about "}{tokens:,} tokens</b> <span>{note}</span>'
        f'<div class="bar" aria-hidden="true"><i style="width:{tokens / scale:.1%}"></i>'
        f'<u style="left:{window / scale:.1%}"></u></div></div>'
    )


def map_sentence(position_map: PositionMap, config: LampeConfig, plain: bool = False) -> str:
    """The map in one plain sentence."""
    length, planned = position_map.end, position_map.length
    at = f"At {length:,} tokens" if length > 1 else "At 1 token"
    at += f", planned for {planned:,}," if planned > length else ""
    if not position_map.compresses:
        text = f"{at} nothing is compressed: every distance keeps its exact position."
        if length > config.window:
            text += f" Positions beyond {config.window:,} were never seen in training."
        elif not plain:
            asked = config.mapping(planned)
            if asked >= planned:
                text += f" The mapping length of {asked:,} is clamped to the input length."
            else:
                text += f" The mapping length, {asked:,}, isn't more than Head + Tail ({config.head + config.tail:,})."
    else:
        counts = dict(zip([r.name for r in position_map.regions], position_map.key_counts(length - 1), strict=True))
        # All of Middle's positions, where the prompt is as long as its plan; else as many as come to it.
        head, tail = position_map.head, position_map.tail
        slots = -(-(position_map.mapping_length - head - tail) * (length - head - tail) // (planned - head - tail))
        share = f"{_count(counts['Middle'], 'key')} share {_count(slots, 'position')} "
        share += f"({counts['Middle'] / slots:,.1f} tokens each)"
        if "Head" in counts:
            share = f" the last token sees its {counts['Head']:,} nearest keys at exact distances, {share}"
        else:
            share = f", {share}"
        if "Tail" in counts:
            share += f", and the first {counts['Tail']:,} keep{'s' * (counts['Tail'] == 1)} exact distances"
            share += " among themselves" if counts["Tail"] > 1 else ""
        whole = f": {head + slots + tail:,} positions in all." if len(counts) > 1 else ", all alike."
        text = f"{at}{share}{whole}"
    if config.doubt and not plain:
        text += f" The mapping length is {config.doubt}."
    return f'<p class="sentence">{text}</p>'


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def map_table(position_map: PositionMap, query: int) -> str:
    """The regions of one query token, as numbers."""
    rows = ""
    for region in position_map.regions:
        first, stop = region.key_span(query)
        if first == stop:
            continue
        near, far = position_map.relative(query, stop - 1), position_map.relative(query, first)
        rows += (
            f'<tr><th scope="row">{_chip(region)}{region.name}</th><td>{first:,} – {stop - 1:,}</td>'
            f"<td>{query - stop + 1:,} – {query - first:,}</td><td>{near:,} – {far:,}</td><td>{stop - first:,}</td>"
            f"<td>{formula(region)}</td></tr>"
        )
    return table(
        f"What query token {query:,} sees", ("Region", "Keys j", "Distances", "Positions", "Keys", "Formula"), rows
    )


def numbers_table(view: MapView, position_map: PositionMap) -> str:
    """Every number of a map, with its formula and the present values in it."""
    config, length, m = view.config, position_map.length, position_map.mapping_length
    window, head, tail, end = config.window, position_map.head, position_map.tail, position_map.end
    lines = [
        ("Input length", "e", f"{end:,} tokens"),
        ("Planned for", "l", f"{length:,} tokens{', with an answer and further questions' * (length > end)}"),
        ("Window", "W₀", f"{window:,} tokens"),
        ("Head, Tail", "s₁, s₂", f"{head:,} and {tail:,} tokens"),
        ("Mapping length", *_mapping_formula(config, length, view.kind == "plain")),
    ]
    if position_map.compresses:
        slots, tokens = m - head - tail, length - head - tail
        lines += [
            ("Middle's positions", "m − s₁ − s₂", f"{m:,} − {head:,} − {tail:,} = {slots:,}"),
            ("Middle's tokens", "l − s₁ − s₂", f"{length:,} − {head:,} − {tail:,} = {tokens:,}"),
            ("Compression", "c = (m − s₁ − s₂)/(l − s₁ − s₂)", f"{slots:,}/{tokens:,} = {slots / tokens:.5g}"),
            ("Tokens for each Middle position", "1/c", f"{tokens / slots:.2f}"),
        ]
        if tail:
            border = position_map.regions[-1].lower
            start = position_map.regions[-1].query_map(border)
            lines.append(("Tail begins", "at distance e − s₂", f"{end:,} − {tail:,} = {border:,}"))
            lines.append(("Its first position", "s₁ + ⌈c·(e − s₂ − s₁)⌉", f"{start:,}"))
    farthest = position_map.relative(end - 1, 0)
    lines += [
        ("Farthest position", "PE(e − 1, 0)", f"{farthest:,}, {_against(farthest, window)}"),
        ("Attention scale", "factor on the logits; moves no position", f"{config.attention_scale:g}"),
    ]
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{symbol}</td><td>{value}</td></tr>' for name, symbol, value in lines
    )
    return table("Every number of this map", ("Number", "Formula", "With the present values"), rows)


def _mapping_formula(config: LampeConfig, length: int, plain: bool) -> tuple[str, str]:
    if plain:
        return "m = l", f"{length:,} positions: plain RoPE"
    curve, m = config.mapping, config.mapping_length(length)
    asked = curve(length)
    if not isinstance(curve, ScaledSigmoid):
        symbol, text = "m fixed", f"{asked:,}"
    else:
        if curve.short_mapping is not None and length < curve.short_length:
            symbol, text = f"m fixed below {curve.short_length:,} tokens", f"{asked:,}"
        else:
            symbol, sign = "m = ⌊L / (1 + e^−(a·l + b))⌋", "−" if curve.intercept < 0 else "+"
            exponent = f"{curve.slope:.10g}·{length:,} {sign} {abs(curve.intercept):.10g}"
            text = f"⌊{curve.maximum:,.10g} / (1 + e^−({exponent}))⌋ = {asked:,}"
    if m < asked:
        limit = "the input length" if m == length else "the window"
        symbol, text = f"{symbol}, at most l and W₀", f"{text}, clamped to {limit}: {m:,}"
    if not config.head + config.tail < m < length:
        text += "; LaMPE needs s₁ + s₂ < m < l, so nothing is compressed"
    text = f"{text} positions" if text[-1].isdigit() else text
    return symbol, f"{text}; {config.doubt}" if config.doubt else text


def _against(position: int, window: int) -> str:
    return "inside the window" if position < window else f"{position - window + 1:,} beyond the window"


def distance_caption(view: MapView, position_map: PositionMap) -> str:
    """The first figure's numbers as text."""
    last = position_map.end - 1
    lines = []
    for region in position_map.regions:
        first, stop = region.key_span(last)
        if first == stop:
            continue
        near, far = position_map.relative(last, stop - 1), position_map.relative(last, first)
        lines.append(
            f"{_chip(region)}<b>{region.name}</b> maps distances {last - stop + 1:,} to {last - first:,} to "
            f"positions {near:,} to {far:,}"
        )
    window = view.config.window
    unseen = f"; plain RoPE's last {last + 1 - window:,} distances lie beyond the window" if last >= window else ""
    return _caption(f"{'; '.join(lines)}{unseen}.")


def regions_caption(position_map: PositionMap) -> str:
    """The second figure's numbers: how much of all attended pairs each region has."""
    length = position_map.end
    pairs = length * (length + 1) // 2
    parts = []
    for region in position_map.regions:
        upper = length if region.upper is None else min(region.upper, length)
        lower = min(region.lower, length)
        # Pairs at distance d: length − d of them.
        count = (upper - lower) * length - (upper * (upper - 1) - lower * (lower - 1)) // 2
        parts.append(f"{_chip(region)}<b>{region.name}</b> {count:,} ({count / pairs:.2%})")
    return _caption(f"Of {pairs:,} (query, key) pairs: {', '.join(parts)}. Each pair is in one region.")


def matrix_caption(position_map: PositionMap, frame: Frame) -> str:
    """The third figure's numbers."""
    size = frame.across / min(frame.across, BINS)
    bins = (
        "every token is shown"
        if size == 1
        else f"each cell is {size:,.2f} tokens wide and shows the pair in its middle"
    )
    last, first = frame.queries[1] - 1, frame.keys[0]
    sides = f"queries {frame.queries[0]:,} to {last:,}, keys {first:,} to {frame.keys[1] - 1:,}"
    if first > last:
        return _caption(f"All of these keys come after all of these queries, so nothing is attended: {sides}.")
    farthest = position_map.relative(last, first)
    return _caption(f"Shown are {sides}: {bins}. The last query sees key {first:,} at position {farthest:,}.")


def curve_caption(view: MapView, position_map: PositionMap) -> str:
    """The fourth figure's numbers."""
    config, length = view.config, position_map.length
    if view.kind == "plain":
        return _caption(f"Without LaMPE every input keeps all its positions: m = l = {length:,}.")
    meets = _meets(config)
    where = f" m = l up to {meets:,} tokens." if meets else ""
    cap = ""
    if isinstance(config.mapping, ScaledSigmoid):
        cap = f" Its greatest value is {math.floor(min(config.mapping.maximum, config.window)):,}."
    return _caption(
        f"At l = {length:,} the mapping length is {position_map.mapping_length:,} "
        f"({position_map.mapping_length / config.window:.0%} of the window)"
        f"{', ' + config.doubt if config.doubt else ''}.{cap}{where}"
    )


def _meets(config: LampeConfig) -> int:
    """The input length up to which nothing is compressed, by doubling and halving."""
    low, high = 0, 1
    while high <= MAX_MAP_LENGTH and not config.position_map(high).compresses:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if config.position_map(middle).compresses else (middle, high)
    return min(low, MAX_MAP_LENGTH)


def map_link(view: MapView) -> str:
    """A link to this view; it carries settings, never text."""
    return f'<a class="link" href="{escape(view.link)}" target="_blank" rel="noopener">Link to this view</a>'


def shares_table(run: Attention, number: int) -> str:
    """Where one query's attention went, as numbers."""
    shares = run.shares[number].float()
    means, layers = shares.mean((0, 1)), shares.mean(1)
    rows = ""
    for index, region in enumerate(run.position_map.regions):
        low, high = layers[:, index].min(0), layers[:, index].max(0)
        least, most = run.layers[low.indices], run.layers[high.indices]
        rows += (
            f'<tr><th scope="row">{_chip(region)}{region.name}</th><td>{means[index]:.1%}</td>'
            f"<td>{low.values:.1%} (layer {least})</td><td>{high.values:.1%} (layer {most})</td>"
            f"<td>{shares[:, :, index].std():.1%}</td></tr>"
        )
    place = "the last of the prompt" if not number else f"answer token {number}"
    token = escape(run.queries[number]).replace("\n", "↵")
    length = f"{run.position_map.end:,} tokens, mapping length {run.position_map.mapping_length:,}"
    length += f" ({run.method.doubt})" if run.method.doubt else ""
    return table(
        f"Attention of query token “{token}” ({place}); {length}",
        ("Region", "Mean of layers and heads", "Least layer", "Greatest layer", "Spread (standard deviation)"),
        rows,
    )


def token_strip(position_map: PositionMap, query: int, tokens: list[str]) -> str:
    """A short text's tokens in their regions' colours, as one query sees them."""
    cells = ""
    keys = torch.arange(len(tokens))
    regions, positions = position_map.region(query, keys).tolist(), position_map.relative(query, keys).tolist()
    for key, (token, region, position) in enumerate(zip(tokens, regions, positions, strict=True)):
        seen = region >= 0
        kind = position_map.regions[region].role if seen else "later"
        what = f"token {key}: after the query"
        if seen:
            what = f"key {key}: {position_map.regions[region].name}, {query - key} back, position {position}"
        shown = escape(token).replace("\n", "↵")
        number = f"<sub>{position}</sub>" if seen else ""
        mark = " token-query" if key == query else ""
        cells += f'<span class="token token-{kind}{mark}" title="{what}">{shown}{number}</span>'
    said = f"{len(tokens):,} tokens, mapping length {position_map.mapping_length:,}; under each its mapped position"
    return (
        f'<p class="caption">{said}</p>'
        f'<div class="tokens" role="group" aria-label="Tokens of the short text by region">{cells}</div>'
    )


def _chip(region: Region) -> str:
    return f'<span class="chip region-{region.role}"></span>'


def _caption(text: str) -> str:
    return f'<p class="caption">{text}</p>'


def table(caption: str, columns: Iterable[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        f'<div class="scroll"><table class="figures"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def run_report(reports: list[RunReport]) -> str:
    """The figures of the runs on one prompt, side by side, and where the attention went."""
    if not reports:
        return ""
    columns = "".join(f'<th scope="col">{r.way.title}</th>' for r in reports)
    lines = [
        ("Input length", [_input(r) for r in reports]),
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
    drawn = f"temperature {first.temperature:g}, top-p {first.top_p:g}, seed {first.seed}"
    caption = f"{escape(first.model)}, {PRECISIONS[first.bits]}, {drawn if first.temperature else 'greedy'}"
    return (
        f'<div class="scroll"><table class="figures"><caption>{caption}</caption><thead><tr><td></td>{columns}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _input(report: RunReport) -> str:
    parts = [f"{report.kept:,} read before"] * bool(report.kept)
    parts += [f"{report.left_out:,} of the text left out"] * bool(report.left_out)
    return f"{report.input_length:,} tokens{' (' + ', '.join(parts) + ')' if parts else ''}"


def _mapping_length(report: RunReport) -> str:
    note = f", {report.doubt}" if report.doubt else ""
    planned = f", planned for {report.planned_length:,} tokens" if report.method != Rope.key else ""
    return f"{report.mapping_length:,} positions{planned}{note}"


def _keys(report: RunReport) -> str:
    if not report.new_tokens:
        return "stopped before it was read"
    return ", ".join(f"{row['keys']:,} {row['name']}" for row in report.regions)


def _shares(report: RunReport) -> str:
    if report.method == Rope.key:
        return "not measured: the model ran unpatched"
    if not report.layer_shares:
        return "stopped before it was measured"
    bar = "".join(f'<i class="region-{row["role"]}" style="width:{row["share"]:.1%}"></i>' for row in report.regions)
    text = ", ".join(f"{row['share']:.0%} {row['name']}" for row in report.regions)
    return f'<div class="shares" aria-hidden="true">{bar}</div>{text} <small>(mean over layers and heads)</small>'


def _decode(report: RunReport) -> str:
    if not report.new_tokens:
        return "stopped before the first token"
    speed = f", {(report.new_tokens - 1) / report.decode_seconds:.1f} tokens/s" if report.decode_seconds > 0.05 else ""
    return f"{report.new_tokens} tokens in {report.decode_seconds:.1f} s{speed}"
