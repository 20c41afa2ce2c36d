"""How the page's own events are set up: they show by themselves what they do, and are no endpoints."""

from __future__ import annotations

from typing import Any

INTERNAL: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {**INTERNAL, "queue": False}
"""For what takes no time."""

LATEST: dict[str, Any] = {**AT_ONCE, "trigger_mode": "always_last"}
"""Of quick changes the last one counts."""

Shown = dict[Any, Any]
"""What a handler gives: new values by component; the others stay as they are."""
