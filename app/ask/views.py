"""Pieces of the tab "Ask a document" as HTML. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from app.ask.examples import Example
from app.documents.document import Document
from app.serving.evidence import Evidence, Passage, by_token
from app.serving.reports import Needs, RunReport
from app.serving.requests import Variant
from app.settings import LENT_SECONDS
from app.ui.html import PRECISIONS, about_in_chinese, caption, chip, row, side_by_side, table
from app.ui.html import about as about_seconds
from app.ui.said import in_both, said
from lampe.inference.prompt import ANSWER_PREFIX
from lampe.methods import Rope
from lampe.models.load import DEFAULT_MODEL_NAME
from lampe.positions import PositionMap

_BINS = 160  # along the strip of a document


def no_text(drawn: int) -> str:
    """What stands in the length's place before there is a text."""
    told = said(f"The map below is drawn for {drawn:,} tokens.")
    return f'<div class="length"><b>{said("No text yet.")}</b> {told}</div>'


def length_readout(tokens: int, exact: bool, window: int, limit: int) -> str:
    """The prompt's length against the window and the limit."""
    kind, told = "", f"{tokens / window:.0%} of the window of {window:,}; the limit is {limit:,}"
    if tokens > limit:
        kind, told = "error", f"over the limit of {limit:,}: choose what to read of it, below the text"
    elif tokens > window:
        kind, told = "past", f"{tokens / window:.2g} × the window of {window:,}; the limit is {limit:,}"
    count = said(f"{tokens:,} tokens" if exact else f"about {tokens:,} tokens")
    scale = max(tokens, window) * 1.02
    return (
        f'<div class="length {kind}"><b>{count}</b> <span>{said(told)}</span>'
        f'<div class="bar" aria-hidden="true"><i style="width:{tokens / scale:.1%}"></i>'
        f'<u style="left:{window / scale:.1%}"></u></div></div>'
    )


def document_strip(position_map: PositionMap) -> str:
    """Which part of the prompt is Head, Middle and Tail for the question at its end."""
    tokens = position_map.end
    parts = names = ""
    for region in reversed(position_map.regions):  # the text's start is the farthest from the question
        first, stop = region.key_span(tokens - 1)
        if first == stop:
            continue
        share = (stop - first) / tokens
        parts += f'<i class="region-{region.role}" style="width:{share:.3%}"></i>'
        names += f"<span>{chip(region)}{region.name} {stop - first:,}</span> "
    told = f"{said('From the text’s start to the question:')} {names}"
    return f'<div class="place"><div class="strip" aria-hidden="true">{parts}</div>{caption(told)}</div>'


def needed(needs: Needs | None) -> str:
    """What a question takes here."""
    if needs is None:
        return ""
    if needs.lent:
        lent, share = round(needs.lent), needs.lent / LENT_SECONDS
        told = (
            f"One answer: up to {lent} s of a GPU that is lent, {share:.0%} of the {LENT_SECONDS} s that a visitor "
            "without an account has in a day."
        )
        return caption(said(told))
    time, there = "", ""
    if needs.seconds is not None:
        time, there = f"{about_seconds(needs.seconds)} here, ", f"这里{about_in_chinese(needs.seconds)}，"
    kept = f" {needs.kept:,} tokens are read already." if needs.kept else ""
    held = f"已读过 {needs.kept:,} 个词元。" if needs.kept else ""
    memory = f"{needs.bytes / 1e6:,.0f} MB"
    told = in_both(
        f"One answer: {time}{memory} of memory for the text.{kept}", f"一次回答：{there}文本占内存 {memory}。{held}"
    )
    return caption(told)


def about(document: Document) -> str:
    """What was opened, and what is to be known about it."""
    count = len(document.parts)
    parts = f", {count:,} parts" if count > 1 else ""
    notes = "".join(f"<br>{escape(note)}" for note in document.notes)
    told = caption(f"<b>{escape(document.name)}</b>{parts}, {len(document.text):,} characters.{notes}")
    if count == 1 or document.kind == "pdf":  # whose pages are called by their numbers
        return told
    names = "".join(f"<li>{escape(part.label)}</li>" for part in document.parts)
    return f'{told}<details class="parts"><summary>Its parts</summary><ol>{names}</ol></details>'


def thread(way: Variant, earlier: Sequence[tuple[str, str]], question: str, answer: str, note: str = "") -> str:
    """One method's answer as it grows, after the turns before it, and what is to be known about it."""
    name = way.title + (", the same model unpatched" if way.method == Rope.key else "")
    turns = "".join(
        f'<p class="turn"><b>{escape(asked)}</b><br>{_said(answered) or "(no answer)"}</p>'
        for asked, answered in earlier
    )
    asked = f'<p class="turn"><b>{escape(question)}</b></p>' if earlier else ""
    told = f"<small>{escape(note)}</small>" if note else ""
    return (
        f'<section class="answer {way.slug}" id="{way.slug}-answer" aria-label="Answer of {name}" tabindex="0">'
        f"<h3>{name}</h3>{turns}{asked}<p>{_said(answer)}</p>{told}</section>"
    )


def _said(answer: str) -> str:
    """An answer after the words that the model's turn begins with."""
    return f"<span>{ANSWER_PREFIX}</span> {escape(answer.lstrip())}" if answer else ""


def recorded(found: Mapping[str, Any], example: Example) -> str:
    """What `recorded_answers` has of an example, as no answer of now."""
    asked = [one for one in found["examples"] if one["example"] == example.label]
    made = f"{DEFAULT_MODEL_NAME}, {PRECISIONS[found['bits']]}"
    by = f"{found['date']}, <code>python -m benchmarks.first_look</code>"
    tokens = f"{asked[0]['input_length']:,}"
    told = in_both(
        f"Not asked now: {made}, read the longer example’s {tokens} tokens and was asked"
        f" “{escape(example.question)}” ({by}).",
        f"并非此刻生成：{made} 读完较长示例的 {tokens} 个词元后被问“{escape(example.question)}”（{by}）。",
    )
    cards = []
    for one in asked:
        way, verdict = Variant(one["method"]), "✓ Right" if one["right"] else f"✗ {example.answer} isn’t in it"
        cards.append(
            f'<section class="answer {way.slug}"><h3>{way.title}</h3><p>{_said(one["answer"])}</p>'
            f'<p class="verdict"><b>{said(verdict)}</b></p></section>'
        )
    return f"<h2>{said('Recorded')}</h2>{caption(told)}{side_by_side(cards)}"


def done(reports: Sequence[RunReport], following: bool = False, behind: Sequence[Variant] = ()) -> str:
    """What was saved and what wasn't, what isn't whole, and which methods weren't asked; `following` up, or not."""
    words = "Done."
    for report in reports:
        name = report.variant.title
        if report.kept:
            words += f" {name}: {report.kept:,} of {report.input_length:,} tokens were read before."
        if report.outgrown:
            words += (
                f" {name}: the conversation no longer fits the {report.outgrown:,} tokens that it was planned for; "
            )
            words += f"it is planned for {report.planned_length:,} now, and all of it was read again."
        elif following and not report.kept:
            words += f" {name}: nothing that it had read before could be used, so all of it was read again."
        if report.left_out:
            words += f" {name}: the text's last {report.left_out:,} tokens were left out."
        if report.cut_short:
            words += f" {name}: the answer stops after {report.new_tokens:,} tokens, the most that were asked for."
    for way in behind:
        words += f" {way.title}: not asked, for it hasn't answered every turn before this one."
    return words


def evidence(evidence: Evidence, layers: Sequence[int], passages: Sequence[Passage]) -> str:
    """The passages that an answer looked at, and a strip of the whole text with how much it looked where."""
    weights = by_token(evidence, layers)
    total, count = weights.sum().item() or 1.0, len(weights)
    bins = min(_BINS, count)
    edges = [number * count // bins for number in range(bins + 1)]
    shares = [weights[a:b].sum().item() / total for a, b in pairwise(edges)]
    most = max(shares, default=1.0) or 1.0
    cells = ""
    for (a, b), share in zip(pairwise(edges), shares, strict=True):
        key = evidence.first + (a + b) // 2
        region = evidence.position_map.regions[evidence.position_map.region(evidence.query, key)]
        cells += f'<i class="look-{region.role}" style="height:{share / most:.0%}"></i>'
    items = "".join(
        f'<li><mark class="look-{p.role}">{escape(p.text)}</mark><br><small>{p.share:.1%} of the attention '
        f'to the text; <span class="chip region-{p.role}"></span>{p.region}, {p.distance:,} tokens back, at '
        f"mapped position {p.position:,}</small></li>"
        for p in passages
    )
    which = f"layers {layers[0]} to {layers[-1]}" if layers else "no layers"
    return (
        f'<section class="answer lampe" role="status"><h3>Where the answer’s tokens looked, mean over heads and '
        f'{which}</h3><div class="looks" aria-hidden="true">{cells}</div>'
        f'<p class="caption">The text from its start to its end; the higher, the more attention.</p><ol>{items}</ol>'
        '<p class="caption">Attention is a hint, not a proof: it tells what a layer read from, not what the answer '
        "rests on. What share of it each layer gave Head, Middle and Tail stands in the position map.</p></section>"
    )


def run_report(reports: Sequence[RunReport]) -> str:
    """The figures of the runs on one prompt, side by side, and where the attention went."""
    if not reports:
        return ""
    figures = [_figures(report) for report in reports]
    rows = "".join(row(name, *(one[name] for one in figures)) for name in figures[0])
    first = reports[0]
    drawn = f"temperature {first.temperature:g}, top-p {first.top_p:g}, seed {first.seed}"
    words = f"{escape(first.model)}, {PRECISIONS[first.bits]}, {drawn if first.temperature else 'greedy'}"
    return table(["", *(report.variant.title for report in reports)], rows, words)


def _figures(report: RunReport) -> dict[str, str]:
    """The figures of one run, by what they are."""
    parts = [f"{report.kept:,} read before"] * bool(report.kept)
    parts += [f"{report.left_out:,} of the text left out"] * bool(report.left_out)
    planned = f", planned for {report.planned_length:,} tokens" if report.method != Rope.key else ""
    keys = ", ".join(f"{region['keys']:,} {region['name']}" for region in report.regions)
    answered, seconds = "stopped before the first token", report.decode_seconds
    if report.new_tokens:
        answered = f"{report.new_tokens} tokens in {seconds:.1f} s"
        answered += f", {(report.new_tokens - 1) / seconds:.1f} tokens/s" if seconds > 0.05 else ""
    return {
        "Input length": f"{report.input_length:,} tokens{' (' + ', '.join(parts) + ')' if parts else ''}",
        "Window": f"{report.window:,} tokens",
        "Mapping length": f"{report.mapping_length:,} positions{planned}{report.doubt and f', {report.doubt}'}",
        "Keys of the last prompt token": keys if report.new_tokens else "stopped before it was read",
        "Its attention, by region": _shares(report),
        "Reading (prefill)": f"{report.prefill_seconds:.1f} s",
        "Answering (decode)": answered,
    }


def _shares(report: RunReport) -> str:
    if report.method == Rope.key:
        return "not measured: the model ran unpatched"
    if not report.layer_shares:
        return "stopped before it was measured"
    bar = "".join(f'<i class="region-{one["role"]}" style="width:{one["share"]:.1%}"></i>' for one in report.regions)
    text = ", ".join(f"{one['share']:.0%} {one['name']}" for one in report.regions)
    return f'<div class="shares" aria-hidden="true">{bar}</div>{text} <small>(mean over layers and heads)</small>'
