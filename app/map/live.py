"""The map as it follows the slider: the browser draws it from the maps of all stops, and asks nothing of the server."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import gradio as gr

from app.map.settings import MapSettings
from app.ui.map_data import POSITIONS, map_data
from lampe.errors import LampeError

SHORTEST, LONGEST = 6, 20  # input lengths from 2**6 to 2**20 tokens, as the slider has them
STOPS = tuple(dict.fromkeys(round(2 ** (step / 16)) for step in range(SHORTEST * 16, LONGEST * 16 + 1)))
"""Lengths that are drawn: each is at most 5 % longer than the one before."""

_ASSETS = files("app") / "assets" / "map"


def live_panel() -> gr.HTML:
    """The component, empty until it has data."""
    return gr.HTML(
        (_ASSETS / "live.html").read_text(encoding="utf-8"),
        js_on_load=POSITIONS + (_ASSETS / "live.js").read_text(encoding="utf-8"),
        data="",
        elem_id="map-live",
        apply_default_css=False,
    )


def live_data(settings: MapSettings) -> str:
    """What the script takes: the maps at all stops under these settings, the window, and the length that is shown.

    As JSON in a string; a length that the settings allow no map of has none.
    """
    maps: list[list[Any] | None] = []
    for length in STOPS:
        try:
            planned = settings.planned if settings.planned and settings.planned >= length else None
            at = replace(settings, length=length, planned=planned)
            maps.append(map_data(at.position_map))
        except LampeError:
            maps.append(None)
    own = map_data(settings.position_map)
    shown = {"window": settings.config.window, "length": settings.length, "own": own, "stops": STOPS, "maps": maps}
    return json.dumps(shown)
