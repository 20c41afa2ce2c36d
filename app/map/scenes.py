"""Views of the position map that make one point each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from app.map.settings import CUSTOM, MapSettings


@dataclass(frozen=True)
class Scene:
    """A view that makes one point."""

    label: str
    changes: dict[str, Any]
    look: str

    @property
    def settings(self) -> MapSettings:
        """All settings: those that the page begins with, or its model's own, with these changes."""
        preset = self.changes.get("model", CUSTOM)
        base = MapSettings() if preset == CUSTOM else MapSettings.of(preset)
        return replace(base, **self.changes)


SENTENCE = (
    "The lamp in the lighthouse was lit by the keeper's daughter, who had learned from her father to read the "
    "weather, the tide, the gulls and the silence that comes before a storm."
)
"""A text so short that each token can be seen."""

SCENES = (
    Scene(
        "Inside the window",
        {"length": 4000},
        "Half of the window, and shorter than this model's mapping length: nothing is compressed, every distance is "
        "its own position, as in plain RoPE.",
    ),
    Scene(
        "Just past it",
        {"length": 10_000},
        "Plain RoPE's line leaves the window: its last part was never seen in training. LaMPE's stays below.",
    ),
    Scene("4 × the window", {"length": 32_768}, "Head and Tail keep their exact steps; only Middle gets coarser."),
    Scene(
        "16 × the window",
        {"length": 131_072},
        "A Middle token shares its position with a hundred others. Zoom the matrix to its stair steps.",
    ),
    Scene(
        "The paper's Llama-3 at 128K",
        {"model": "llama3", "length": 131_072},
        "Here the mapping length follows the paper's curve (figure 4): it grows with the input up to about three "
        "quarters of the window.",
    ),
    Scene(
        "Without LaMPE",
        {"length": 32_768, "kind": "plain"},
        "Every distance is its own position, three quarters of them beyond anything the model was trained on.",
    ),
    Scene(
        "One sentence",
        {"model": CUSTOM, "window": 24, "head": 6, "tail": 4, "mapping": 18},
        "The whole method on one short text, token by token: hover over a word, or choose another query.",
    ),
)
