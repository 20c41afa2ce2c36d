"""Position maps as data for the browser, which evaluates their regions itself and so needs no request to draw them."""

from __future__ import annotations

from typing import Any

from app.see.proof import recorded
from app.ui.map_data import map_data
from lampe.methods import METHODS, LampeConfig

SHORTEST, LONGEST = 6, 17  # input lengths from 2**6 to 2**17 tokens
STEPS = 8  # stops an octave
LENGTHS = tuple(
    sorted(
        {round(2 ** (SHORTEST + step / STEPS)) for step in range((LONGEST - SHORTEST) * STEPS + 1)}
        | set(recorded()["lengths"])
    )
)
"""Where the slider stops: each is at most 9 % longer than the one before, and all that was recorded is among them."""


def methods_data(own: LampeConfig) -> list[dict[str, Any]]:
    """All methods whose positions say all that they do, with their maps at all stops, in the registry's order.

    LaMPE has these settings, each other method those by its authors' rule for the same window. One that changes the
    rotation's speed has no such picture.
    """
    methods = (own if cls is LampeConfig else cls.for_window(own.window) for cls in METHODS.values())
    return [
        {
            "key": method.key,
            "title": method.title,
            "reach": method.reach,
            "maps": [map_data(method.position_map(length)) for length in LENGTHS],
        }
        for method in methods
        if method.frequencies(2**LONGEST) is None
    ]
