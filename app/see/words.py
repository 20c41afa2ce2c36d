"""The words of the first view, by language, and the model that they speak of."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files

from lampe import PRESETS
from lampe.methods import LampeConfig

ASSETS = files("app") / "assets" / "see"
LANGUAGES = ("en", "zh")


def ruler_config() -> LampeConfig:
    """The settings of the embedded model, which the proof was recorded with."""
    return PRESETS["smollm2"]


def strings() -> dict[str, dict[str, str]]:
    """The view's words, by language."""
    return {one: json.loads((ASSETS / f"{one}.json").read_text(encoding="utf-8")) for one in LANGUAGES}


def filled(template: str, words: dict[str, str]) -> str:
    """The template with its words in place, so that they are there before any script runs."""
    for key, text in words.items():
        shown = escape(text.replace("{window}", f"{ruler_config().window:,}"))
        template = template.replace(f'data-text="{key}">', f'data-text="{key}">{shown}')
    return template
