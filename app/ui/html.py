"""Pieces of the page as HTML. Everything that comes from outside passes through `escape`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

from app.settings import ModelChoice
from app.ui.said import chinese, in_both, said
from app.ui.words import WORDS
from lampe.methods import LampeConfig, ScaledSigmoid
from lampe.models.device import attention_here
from lampe.positions import Region

PRECISIONS = {4: "4-bit NF4", 16: "16-bit"}
TERMS = (
    "token", "window", "rope", "position", "head", "middle", "tail", "mapping_length", "planned", "query", "needle",
)  # fmt: skip


def header(model: ModelChoice, borrowed: bool = False) -> str:
    """Name, purpose, and which model runs here; a GPU that is lent can't be looked at before."""
    attention = "a GPU that is lent for each question" if borrowed else attention_here()
    return (
        f'<header class="lab"><h1>LaMPE Lab</h1><p>{in_each_language("purpose")}</p>'
        f'<p class="model"><b>{escape(model.name)}</b> <span>{PRECISIONS[model.bits]}</span> '
        f"<span>{escape(attention)}</span></p></header>"
    )


def in_each_language(key: str) -> str:
    """A word of `app.ui.words` in all languages, of which the browser shows its own."""
    return "".join(
        f'<span lang="{one}" class="only-{one}">{escape(words[key])}</span>'
        for one, words in WORDS.translations.items()
    )


def glossary() -> str:
    """The page's terms in plain words, folded away."""
    terms = "".join(
        f"<div><dt>{in_each_language(f'term_{term}')}</dt><dd>{in_each_language(f'about_{term}')}</dd></div>"
        for term in TERMS
    )
    summary = in_each_language("glossary")
    return f'<details class="glossary"><summary>{summary}</summary><dl>{terms}</dl></details>'


class Progress(Protocol):
    """How far something is: `done` of `total` in `unit`; a total of 0 can't be counted."""

    @property
    def stage(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def waiting(self) -> int: ...


def status(update: Progress, of: str = "") -> str:
    """What is being done, and how much of it is left; `of` says of what."""
    stage = in_both(_stage(update.stage, of), _stage(chinese(update.stage) or update.stage, of))
    if not update.total:
        seconds = update.seconds_left
        left = "" if seconds is None else in_both(f", {about(seconds)}", f"，{about_in_chinese(seconds)}")
        return f'<div class="status" role="status"><span>{stage}{left}…</span></div>'
    share = min(1.0, update.done / update.total)
    return (
        f'<div class="status" role="status"><span>{stage}</span><span>{in_both(*_amounts(update))}</span>'
        f'<div class="bar" role="progressbar" aria-label="{_stage(update.stage, of)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share * 100:.0f}"><i style="width:{share:.1%}"></i></div></div>'
    )


def _stage(stage: str, of: str) -> str:
    return escape(f"{of}: {stage}" if of else stage)


def _amounts(update: Progress) -> tuple[str, str]:
    """How far it is, in English and in Chinese."""
    if update.unit == "bytes":
        english = f"{update.done / 1e6:.0f} of {update.total / 1e6:.0f} MB"
        there = f"{update.done / 1e6:.0f} / {update.total / 1e6:.0f} MB"
    else:
        english = f"{update.done:,} of {update.total:,} {escape(update.unit)}"
        there = f"{update.done:,} / {update.total:,} {_UNITS.get(update.unit, escape(update.unit))}"
    if update.seconds_left is not None:
        english += f", {about(update.seconds_left)} left"
        there += f"，还需{about_in_chinese(update.seconds_left)}"
    if update.waiting:
        english += f", in turn with {update.waiting} more"
        there += f"，与另外 {update.waiting} 项轮流进行"
    return english, there


_UNITS = {"tokens": "个词元", "tests": "项测试", "tensors": "个张量", "steps": "步"}


def about_in_chinese(seconds: float) -> str:
    """The same in Chinese as `about`."""
    if seconds < 90:
        return f"约 {max(1, round(seconds))} 秒"
    minutes = round(seconds / 60)
    return f"约 {minutes} 分钟" if minutes < 90 else f"约 {seconds / 3600:.1f} 小时"


def about(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} hours"


def note(text: str) -> str:
    """A word on how things stand."""
    return f'<div class="status" role="status"><span>{said(text)}</span></div>'


def message(text: str) -> str:
    """A sentence about something that went wrong."""
    return f'<div class="status error" role="alert">{said(text)}</div>'


def side_by_side(threads: Sequence[str]) -> str:
    """Answers beside each other, as many in a row as there is room for."""
    return f'<div class="answers">{"".join(threads)}</div>' if threads else ""


def chip(region: Region) -> str:
    """A patch in the colour of a region."""
    return f'<span class="chip region-{region.role}"></span>'


def caption(text: str) -> str:
    """A note below a figure."""
    return f'<p class="caption">{text}</p>'


def table(columns: Iterable[str], rows: str, caption: str = "") -> str:
    """A table of figures, its rows as `row` makes them; a column without a name has an empty corner above it."""
    head = "".join(f'<th scope="col">{column}</th>' if column else "<td></td>" for column in columns)
    return (
        f'<div class="scroll"><table class="figures">{caption and f"<caption>{caption}</caption>"}'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def row(about: str, *cells: object) -> str:
    """A row of such a table: what it is about, and its figures. All of it is HTML."""
    return f'<tr><th scope="row">{about}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def mapping_formula(config: LampeConfig) -> str:
    """How a configuration chooses its mapping length."""
    mapping = config.mapping
    if not isinstance(mapping, ScaledSigmoid):
        return f"m = {mapping(config.window):,} at every input length"
    return f"m(l) = {curve_formula(mapping)}"


def curve_formula(curve: ScaledSigmoid) -> str:
    """The curve's right side with its numbers."""
    sign = "−" if curve.intercept < 0 else "+"
    text = f"{curve.maximum:,.5g} / (1 + e^−({curve.slope:.4g}·l {sign} {abs(curve.intercept):.4g}))"
    if curve.short_mapping is not None:
        text += f"; {curve.short_mapping:,} below {curve.short_length:,} tokens"
    return text


def as_published(config: LampeConfig) -> str:
    """A line for all tabs while the published mapping is used."""
    doubt = f" ({config.doubt})" if config.doubt else ""
    return (
        '<div class="status" role="status"><span>LaMPE runs <b>as published</b> in all tabs: '
        f"{mapping_formula(config)}{doubt}.</span></div>"
    )
