"""What requests are held against, and the sentence for one that fails."""

from __future__ import annotations

from typing import Any

from lampe.errors import InputError

MAX_CHARACTERS = 5_000_000
MAX_MAP_LENGTH = 1_048_576
"""Tokens of the longest input that a position map is drawn for."""

# Reading a file
TEXT_BYTES = MAX_CHARACTERS  # largest file of plain text or HTML
PACKED_BYTES = 30_000_000  # largest PDF, DOCX or EPUB, which may hold pictures
MAX_PAGES = 2_000  # of a PDF, and chapters of an EPUB; other texts have at most as many parts
SECONDS = 30.0  # for one file
MEMORY = 1_000_000_000  # bytes that a parser may take beside the upload and the interpreter
MAX_MEMBERS = 10_000  # files inside a DOCX or EPUB
UNPACKED_BYTES = 60_000_000  # of one, all its files together
UNPACKED_RATIO = 200  # times that a file inside one may grow; only bombs grow faster than text does
XML_DEPTH = 256  # levels of nesting


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
