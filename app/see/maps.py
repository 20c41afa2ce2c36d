"""Position maps as data for the browser, which evaluates their regions itself and so needs no request to draw them."""

from __future__ import annotations

from typing import Any

from app.see.proof import recorded
from app.ui.map_data import map_data
from lampe.methods import METHODS, Method

SHORTEST, LONGEST = 6, 17  # input lengths from 2**6 to 2**17 tokens
STEPS = 8  # stops an octave
LENGTHS = tuple(
    sorted(
        {round(2 ** (SHORTEST + step / STEPS)) for step in range((LONGEST - SHORTEST) * STEPS + 1)}
        | set(recorded()["lengths"])
    )
)
"""Where the slider stops: each is at most 9 % longer than the one before, and all that was recorded is among them."""


def drawable(method: Method) -> bool:
    """Whether positions say all that a method does; one that changes the rotation's speed has no such picture."""
    return method.frequencies(2**LONGEST) is None


def method_data(method: Method) -> dict[str, Any]:
    """A method with its maps at all stops."""
    return {
        "key": method.key,
        "title": method.title,
        "reach": method.reach,
        "maps": [map_data(method.position_map(length)) for length in LENGTHS],
    }


def methods_data(window: int) -> list[dict[str, Any]]:
    """All that can be drawn, each by its authors' rule for a window, in the registry's order."""
    methods = (method.for_window(window) for method in METHODS.values())
    return [method_data(method) for method in methods if drawable(method)]
