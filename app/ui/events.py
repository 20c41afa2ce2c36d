"""How the page's own events are set up: they show by themselves what they do, and are no endpoints."""

from __future__ import annotations

from typing import Any

INTERNAL: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {**INTERNAL, "queue": False}
"""For what takes no time."""

LATEST: dict[str, Any] = {**AT_ONCE, "trigger_mode": "always_last"}
"""Of quick changes the last one counts. Gradio repeats the event then, with all that listens to it: so it may have no
other listener that waits, or they set each other off for ever, and it may not be the page's load. A State's change is
an event for each listener. `tests/app/test_start.py` looks for it."""

Shown = dict[Any, Any]
"""What a handler gives: new values by component; the others stay as they are."""
