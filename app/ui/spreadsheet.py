"""Tables for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV, with the first one's names above them; at least one.

    No spreadsheet takes a cell for a formula: those that begin as one get an apostrophe before them.
    """
    text = io.StringIO()
    lines = csv.DictWriter(text, list(rows[0]))
    lines.writeheader()
    lines.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
