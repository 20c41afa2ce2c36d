"""A position map in words and numbers, as HTML. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch

from app.limits import MAX_MAP_LENGTH
from app.map.figures import BINS, Frame, formula, met
from app.map.settings import MapSettings
from app.serving.reports import Attention
from app.ui.html import caption, chip, row, table
from lampe.methods import LampeConfig, Method, ScaledSigmoid
from lampe.positions import PositionMap


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
                text += (
                    f" The input has no more tokens than the mapping length of {asked:,} has positions, so LaMPE reads "
                    "it just as plain RoPE does."
                )
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
    for region, first, stop in met(position_map, query):
        near, far = position_map.relative(query, stop - 1), position_map.relative(query, first)
        rows += row(
            f"{chip(region)}{region.name}", f"{first:,} – {stop - 1:,}", f"{query - stop + 1:,} – {query - first:,}",
            f"{near:,} – {far:,}", f"{stop - first:,}", formula(region),
        )  # fmt: skip
    columns = ("Region", "Keys j", "Distances", "Positions", "Keys", "Formula")
    return table(columns, rows, f"What query token {query:,} sees")


def numbers_table(view: MapSettings, position_map: PositionMap) -> str:
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
    against = "inside the window" if farthest < window else f"{farthest - window + 1:,} beyond the window"
    lines += [
        ("Farthest position", "PE(e − 1, 0)", f"{farthest:,}, {against}"),
        ("Attention scale", "factor on the logits; moves no position", f"{config.attention_scale:g}"),
    ]
    rows = "".join(row(*line) for line in lines)
    return table(("Number", "Formula", "With the present values"), rows, "Every number of this map")


def _mapping_formula(config: LampeConfig, length: int, plain: bool) -> tuple[str, str]:
    if plain:
        return "m = l", f"{length:,} positions: plain RoPE"
    curve, m = config.mapping, config.mapping_length(length)
    asked = curve(length)
    if not isinstance(curve, ScaledSigmoid):
        symbol, text = "m fixed", f"{asked:,}"
    elif curve.short_mapping is not None and length < curve.short_length:
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


def distance_caption(view: MapSettings, position_map: PositionMap) -> str:
    """The first figure's numbers as text."""
    last = position_map.end - 1
    lines = []
    for region, first, stop in met(position_map, last):
        near, far = position_map.relative(last, stop - 1), position_map.relative(last, first)
        lines.append(
            f"{chip(region)}<b>{region.name}</b> maps distances {last - stop + 1:,} to {last - first:,} to "
            f"positions {near:,} to {far:,}"
        )
    window = view.config.window
    unseen = f"; plain RoPE's last {last + 1 - window:,} distances lie beyond the window" if last >= window else ""
    return caption(f"{'; '.join(lines)}{unseen}.")


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
        parts.append(f"{chip(region)}<b>{region.name}</b> {count:,} ({count / pairs:.2%})")
    return caption(f"Of {pairs:,} (query, key) pairs: {', '.join(parts)}. Each pair is in one region.")


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
        return caption(f"All of these keys come after all of these queries, so nothing is attended: {sides}.")
    farthest = position_map.relative(last, first)
    return caption(f"Shown are {sides}: {bins}. The last query sees key {first:,} at position {farthest:,}.")


def curve_caption(view: MapSettings, position_map: PositionMap) -> str:
    """The fourth figure's numbers."""
    config, length = view.config, position_map.length
    if view.kind == "plain":
        return caption(f"Without LaMPE every input keeps all its positions: m = l = {length:,}.")
    meets = _meets(config)
    where = f" m = l up to {meets:,} tokens." if meets else ""
    cap = ""
    if isinstance(config.mapping, ScaledSigmoid):
        cap = f" Its greatest value is {math.floor(min(config.mapping.maximum, config.window)):,}."
    return caption(
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


def map_link(view: MapSettings) -> str:
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
        rows += row(
            f"{chip(region)}{region.name}", f"{means[index]:.1%}", f"{low.values:.1%} (layer {least})",
            f"{high.values:.1%} (layer {most})", f"{shares[:, :, index].std():.1%}",
        )  # fmt: skip
    place = "the last of the prompt" if not number else f"answer token {number}"
    token = escape(run.queries[number]).replace("\n", "↵")
    length = f"{run.position_map.end:,} tokens, mapping length {run.position_map.mapping_length:,}"
    length += f" ({run.method.doubt})" if run.method.doubt else ""
    columns = ("Region", "Mean of layers and heads", "Least layer", "Greatest layer", "Spread (standard deviation)")
    return table(columns, rows, f"Attention of query token “{token}” ({place}); {length}")


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


def formulas_table(methods: Sequence[Method], length: int) -> str:
    """What each method does with a query i and a key j, with the values of an input put in."""
    rows = "".join(_rows(method, length) for method in methods)
    columns = ("Method", "Region", "Keys of the last query", "Position of i and j", "Frequencies", "Reach")
    return table(columns, rows, f"{length:,} tokens; each method by its authors’ rule for the window")


def _rows(method: Method, length: int) -> str:
    changed = method.frequencies(length)
    slowed = f"{changed.rope_type}, slowest ÷ {changed.stretch:.3g}" if changed else "the model's own"
    reach = "any length" if method.reach is None else f"{method.reach:,} tokens"
    if beyond := method.beyond(length):
        reach = f"<b>{escape(beyond)}</b>"
    shown = list(met(method.position_map(length), length - 1))
    down = f'rowspan="{len(shown)}"'
    named = f'<th scope="rowgroup" {down}>{escape(method.title)}</th>'
    rest = f"<td {down}>{escape(slowed)}</td><td {down}>{reach}</td>"
    rows = ""
    for region, first, stop in shown:
        own = f"<td>{chip(region)}{region.name}</td><td>{stop - first:,}</td><td>{formula(region)}</td>"
        rows += f"<tr>{named}{own}{rest}</tr>"
        named = rest = ""  # the first row's go down beside the others
    return rows
