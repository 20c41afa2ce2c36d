"""PDF: the text of its pages, as pypdf finds it."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pypdf
from pypdf.errors import DependencyError
from pypdf.generic import IndirectObject

from app.documents.document import Found, Part, check_characters, text_of
from app.limits import MAX_PAGES, SECONDS
from lampe.errors import InputError

_LONGEST = 0.8 * SECONDS  # before the process is ended, so that it can still say how far it came
_DRAWN = ("/Contents", "/Resources")
_STRANGE_SHARE = 0.05

logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def read_pdf(data: bytes) -> Found:
    """A part for each page, without text or with."""
    try:
        return _read(data)
    except DependencyError:
        raise InputError(
            "This PDF is encrypted or packed in a way that isn't read here. Print it to a new PDF and upload that."
        ) from None


def _read(data: bytes) -> Found:
    started = time.monotonic()
    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):  # files that only forbid changes have no password
        raise InputError("This PDF needs a password. Save a copy without one and upload that.")
    count = len(reader.pages)
    if count > MAX_PAGES:
        raise InputError(f"This PDF has {count:,} pages; at most {MAX_PAGES:,} are read. Upload a part of it.")
    parts: list[Part] = []
    empty: list[int] = []
    broken: list[int] = []
    characters = 0
    known: dict[Any, str] = {}  # pages that share what is drawn on them have one text
    for number, page in enumerate(reader.pages, 1):
        if time.monotonic() - started > _LONGEST:  # a small file's pages may share what takes long to read
            raise InputError(
                f"Reading this PDF takes too long: {number - 1:,} of its {count:,} pages in {_LONGEST:.0f} seconds. "
                "Upload a part of it."
            )
        text = ""
        try:
            drawn = _drawn(page)
            text = known[drawn] if drawn in known else page.extract_text().strip()
            if drawn:
                known[drawn] = text
        except (MemoryError, DependencyError):
            raise
        except Exception:  # whatever pypdf stumbles over: the other pages may be read
            broken.append(number)
        else:
            empty += [] if text else [number]
        characters += len(text)
        check_characters(characters)
        parts.append(Part(f"Page {number}", text + "\n\n" if text else ""))
    if len(broken) == count:
        raise InputError("This PDF is damaged: none of its pages can be read. Save or download it anew.")
    if not characters:
        raise InputError(
            "This PDF has no text: it is a scan, or its pages are pictures. Run OCR (text recognition) on it first and "
            "upload the result."
        )
    notes = []
    if empty:
        notes.append(f"There is no text on {pages(empty)}: a scan, a picture, or nothing.")
    if broken:
        notes.append(f"What is on {pages(broken)} is damaged and couldn't be read.")
    strange = sum(character == "\ufffd" or "\ue000" <= character <= "\uf8ff" for character in text_of(parts))
    if strange > _STRANGE_SHARE * characters:
        notes.append("Many of this PDF's letters have a meaning only in its own fonts, so its text may be wrong.")
    return Found(parts, notes)


def _drawn(page: Any) -> tuple[Any, ...] | None:
    """Equal for pages that draw the same objects; None if that can't be told without reading them."""
    parts = [page.raw_get(name) for name in _DRAWN if name in page]
    if len(parts) < len(_DRAWN) or not all(isinstance(part, IndirectObject) for part in parts):
        own = page.indirect_reference  # one page may stand in the list many times
        return (own.idnum, own.generation) if own else None
    return *((part.idnum, part.generation) for part in parts), page.get("/Rotate")


def pages(numbers: Sequence[int]) -> str:
    """Pages in words, from their numbers in order: "pages 3, 5–9"."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after != before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after != before + 1), numbers[-1]]
    runs = [f"{start}–{end}" if start != end else f"{start}" for start, end in zip(starts, ends, strict=True)]
    return f"page{'s' if len(numbers) > 1 else ''} {', '.join(runs)}"
