"""The ruler before gradio's scripts are there: drawn from what the page brings for them, and handed over to them."""

from __future__ import annotations

from app.see.words import ASSETS
from app.web.card import TITLE

START = 12_288
"""Tokens that the ruler begins with."""


def first_picture() -> str:
    """HTML for the beginning of the page's body: what is looked at and touched while the page loads.

    It is shown where the ruler is what opens, and takes itself away when the page's own ruler is drawn.
    """
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("first.css", "first.js"))
    return (
        f'<style>{style}</style><div id="first"><h1>{TITLE}</h1><div id="first-see"></div></div>'
        f"<script>(() => {{ {script} }})();</script>"
    )
