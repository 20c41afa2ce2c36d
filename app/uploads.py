"""Uploaded files as text."""

from __future__ import annotations

import codecs
from pathlib import Path

from app.checks import MAX_CHARACTERS, AskError

MAX_BYTES = MAX_CHARACTERS
EXTENSIONS = (".txt", ".md")


def read_text(path: str) -> str:
    """The text of an uploaded .txt or .md file.

    Parameters
    ----------
    path : str
        Where the upload lies. UTF-8, or UTF-16 with a byte-order mark.

    Raises
    ------
    AskError
        If the file has another ending, is too large, is no text, or is empty.
    """
    file = Path(path)
    if file.suffix.lower() not in EXTENSIONS:
        raise AskError(f"{file.name} isn't a {' or '.join(EXTENSIONS)} file; save its text as one and upload that.")
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise AskError(f"{file.name} has {size:,} bytes; the limit is {MAX_BYTES:,}. Upload a part of it.")
    data = file.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise AskError(f"{file.name} isn't plain text in UTF-8; save it as UTF-8 text and upload it again.")
    if not text.strip():
        raise AskError(f"{file.name} is empty.")
    return text.replace("\r\n", "\n")
