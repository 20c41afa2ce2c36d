"""The words of the first view, by language, and the model that they speak of."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from app.ui.words import translated
from lampe import PRESETS

ASSETS = files("app") / "assets" / "see"
RULER = PRESETS["smollm2"]
"""The settings of the embedded model, which the proof was recorded with."""


def strings() -> dict[str, dict[str, str]]:
    """The view's words, by language."""
    return translated(ASSETS)


def filled(template: str, words: dict[str, str]) -> str:
    """The template with its words in place, so that they are there before any script runs."""
    for key, text in words.items():
        shown = escape(text.replace("{window}", f"{RULER.window:,}"))
        template = template.replace(f'data-text="{key}">', f'data-text="{key}">{shown}')
    return template
