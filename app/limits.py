"""What requests are held against, and the sentence for one that fails."""

from __future__ import annotations

from typing import Any

from lampe.errors import InputError

MAX_CHARACTERS = 5_000_000
MAX_MAP_LENGTH = 1_048_576
"""Tokens of the longest input that a position map is drawn for."""


def whole_number(name: str, value: Any) -> int:
    """A number from a slider or from JSON as an int.

    Raises
    ------
    InputError
        If it isn't a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1:
        raise InputError(f"{name} must be a whole number, not {value!r}.")
    return int(value)


def too_long(text: str) -> str:
    """Why a text isn't even counted."""
    return (
        f"The text has {len(text):,} characters; more than {MAX_CHARACTERS:,} are not counted here. Nothing was cut: "
        "take a shorter part of it."
    )
