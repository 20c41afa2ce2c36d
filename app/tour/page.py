"""A tour of the page in ten steps, and the page as it is shown to a room: the browser does both."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import gradio as gr

from app.ui.words import translated

ASSETS = files("app") / "assets" / "tour"


def tour() -> gr.HTML:
    """The buttons that start it, within the page's `Blocks`."""
    return gr.HTML(
        '<div data-part="row"></div>',
        js_on_load=(ASSETS / "tour.js").read_text(encoding="utf-8"),
        data=json.dumps(tour_data()),
        elem_id="tour",
        apply_default_css=False,
    )


def tour_data() -> dict[str, Any]:
    """All that the script takes: what each step opens and points at, and the words."""
    steps = json.loads((ASSETS / "steps.json").read_text(encoding="utf-8"))
    return {"steps": steps, "words": translated(ASSETS)}
