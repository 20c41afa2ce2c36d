"""The view that opens first: the squeezed ruler, three claims, the recorded proof, and the limits."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from typing import Any

import gradio as gr

from app.see.figures import curve_chart, found_chart, squeeze_chart
from app.see.maps import LENGTHS, methods_data
from app.see.proof import recorded
from app.see.words import ASSETS, RULER, filled, strings
from app.ui.events import INTERNAL, Shown
from app.ui.html import row
from app.ui.map_data import POSITIONS
from app.web.card import TITLE
from lampe.methods import Rope

START = 12_288
"""Tokens that the ruler begins with."""
_FIRST = ("rope", "lampe", "lampe-paper", "selfextend", "string")
"""The methods that have a button of their own; the others are in a list."""
_CLAIMS = ("why", "squeeze", "curve")
_QUESTIONS = ("why_order", "why_skip", "why_tail")
_LIMITS = ("limit_small", "limit_inside", "limit_far", "limit_other")


class SeeTab:
    """The view's components and events, within the page's `Blocks`.

    Parameters
    ----------
    tabs : gr.Tabs
        The page's.
    """

    def __init__(self, tabs: gr.Tabs) -> None:
        self.tabs = tabs
        data = hero_data()
        english = data["strings"]["en"]
        template = filled((ASSETS / "hero.html").read_text(encoding="utf-8"), english)
        self.hero = gr.HTML(
            html_template=template + filled(sections(data["proof"]), english),
            js_on_load=POSITIONS + (ASSETS / "hero.js").read_text(encoding="utf-8"),
            data=json.dumps(data),  # as one string: gradio clones what a page holds, number by number, at each event
            elem_id="see",
            apply_default_css=False,  # gradio's is for prose
        )

    def leads_to(self, kinds: gr.Tabs, length: gr.Number, depth: gr.Slider, methods: gr.Dropdown) -> None:
        """Let "Run it live" open the needle test, these parts of it, with the ruler's length, place and method."""

        def run(event: gr.EventData) -> Shown:
            tokens, place, method = event.length, event.depth, event.method
            if not (isinstance(tokens, int) and isinstance(place, int | float) and isinstance(method, str)):
                return {self.tabs: gr.skip()}
            offered = {key for _, key in methods.choices}
            return {
                self.tabs: gr.Tabs(selected="needle"),
                kinds: gr.Tabs(selected="one"),
                length: tokens,
                depth: round(min(1.0, max(0.0, place)) * 20) / 20,
                methods: [key for key in dict.fromkeys((Rope.key, method)) if key in offered],
            }

        self.hero.click(run, None, [self.tabs, kinds, length, depth, methods], **INTERNAL)


def first_picture() -> str:
    """The ruler before gradio's scripts are there, drawn from what the page brings for them: HTML for the beginning of
    the page's body.

    It is shown where the ruler is what opens, and takes itself away when the page's own ruler is drawn.
    """
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("first.css", "first.js"))
    return (
        f'<style>{style}</style><div id="first"><h1>{TITLE}</h1><div id="first-see"></div></div>'
        f"<script>(() => {{ {script} }})();</script>"
    )


@cache
def hero_data() -> dict[str, Any]:
    """All that the script takes: maps at each stop, what was recorded, and the words."""
    return {
        "window": RULER.window,
        "lengths": LENGTHS,
        "start": START,
        "first": _FIRST,
        "methods": methods_data(RULER),
        "proof": recorded(),
        "strings": strings(),
    }


def sections(proof: dict[str, Any]) -> str:
    """The claims with a figure each, the proof, the limits and the questions; the words come later."""
    figures = (found_chart(proof, RULER.window), squeeze_chart(RULER, START), curve_chart())
    claims = "".join(
        f'<article><h3 data-text="{key}_title"></h3>{figure}<p data-text="{key}"></p></article>'
        for key, figure in zip(_CLAIMS, figures, strict=True)
    )
    limits = "".join(f'<li data-text="{key}"></li>' for key in _LIMITS)
    questions = "".join(
        f'<details><summary data-text="{key}"></summary><p data-text="{key}_answer"></p></details>'
        for key in _QUESTIONS
    )
    return (
        f'<section class="claims">{claims}</section>'
        '<section class="proof"><h3 data-text="proof_title"></h3><p data-text="proof"></p>'
        f"{proof_table(proof)}</section>"
        f'<section class="limits"><div><h3 data-text="limits_title"></h3><ul>{limits}</ul></div>'
        f"<div>{questions}</div></section>"
    )


def proof_table(proof: dict[str, Any]) -> str:
    """Found of all at each length, with intervals."""
    head = "".join(f'<th scope="col">{length:,}</th>' for length in proof["lengths"])
    rows = ""
    for method in proof["methods"]:
        totals = (proof["totals"][f"{length} {method['key']}"] for length in proof["lengths"])
        cells = (f"<b>{found}</b> / {n} <small>{low:.0%}–{high:.0%}</small>" for found, n, low, high in totals)
        rows += row(escape(method["title"]), *cells)
    return (
        f'<div class="scroll"><table class="figures"><thead><tr><td data-text="axis_length"></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
