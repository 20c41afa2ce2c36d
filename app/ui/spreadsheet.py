"""Tables for other programs."""

from __future__ import annotations

from typing import Any


def plain_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: those that begin as one get an apostrophe before them."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
