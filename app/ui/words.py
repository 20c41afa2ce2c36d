"""The words of components on the page's main path, by language: each visitor's browser takes its own."""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.resources.abc import Traversable

import gradio as gr
from gradio.i18n import I18nData

LANGUAGES = ("en", "zh")  # the style sheet shows what is of one alone


def translated(folder: Traversable) -> dict[str, dict[str, str]]:
    """The words of a folder's files, by language."""
    return {one: json.loads((folder / f"{one}.json").read_text(encoding="utf-8")) for one in LANGUAGES}


WORDS = gr.I18n(**translated(files("app") / "assets" / "words"))

AS_LINKED = """<script>
  const asked = new URLSearchParams(location.search).get("lang") || navigator.language || "en";
  const known = asked.startsWith("zh") && asked !== "zh-TW" ? "zh-CN" : asked;
  if (known !== navigator.language) {
    Object.defineProperty(navigator, "language", {value: known});
    Object.defineProperty(navigator, "languages", {value: [known]});
  }
</script>"""
"""To run before gradio's scripts: a link's ?lang=zh goes before what the browser prefers. Gradio knows Chinese by the
names zh-CN and zh-TW alone."""


def word(key: str) -> I18nData:
    """A word by its name in the files, for a component's label, value or placeholder.

    Raises
    ------
    KeyError
        If there is none.
    """
    WORDS.translations["en"][key]
    return WORDS(key)
